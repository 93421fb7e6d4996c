"""The one place where a prompt is built, for pre-training text, training, perplexity and evaluation alike."""

from sft_atlas.study.model import Template

# Markers that would make one example read as several.
MARKERS = ("###Question:", "###Answer:")


def prompt(template: Template, instruction: str, extra: str = "") -> str:
    """Everything up to the completion, by the study's template.

    The instruction is put in by plain replacement: braces and markup in it mean nothing.
    """
    text = f"{instruction}{template.input_separator}{extra}" if extra else instruction
    before, after = template.prompt.split("{instruction}")
    return before + text + after


def completion(template: Template, text: str) -> str:
    """The completion as the model is to write it, without EOS."""
    return template.completion_prefix + text
