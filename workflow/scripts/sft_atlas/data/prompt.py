"""The one place where a prompt is built, for pre-training text, training, perplexity and evaluation alike."""

import re

from sft_atlas.data.cleaning import indented
from sft_atlas.study.model import Template

PLACES = re.compile(r"\{(instruction|input)\}")
# a word and a colon, as in "A:", is a marker only where a line begins with it: texts are full of them
WORD = re.compile(r"\w+\s*:?")


def prompt(template: Template, instruction: str, extra: str = "") -> str:
    """Everything up to the completion, by the study's template.

    Instruction and input are put in by plain replacement: braces and markup in them mean nothing. The input (`extra`)
    stands at the template's `{input}`, or, where it has none, behind the instruction.
    """
    joined = f"{instruction}{template.input_separator}{extra}" if extra else instruction
    parts = {"instruction": instruction, "input": extra}
    if "{input}" not in template.prompt:
        parts["instruction"] = joined
    return PLACES.sub(lambda place: parts[place[1]], template.prompt)


def completion(template: Template, text: str) -> str:
    """The completion as the model is to write it, without EOS.

    An indented one begins on a line of its own: behind `Answer: ` its first line would stand elsewhere than the rest,
    and code would not parse.
    """
    prefix = template.completion_prefix
    if not indented(text):
        return prefix + text
    prefix = prefix.rstrip(" \t")
    on_own_line = (template.prompt + prefix).endswith("\n")
    return f"{prefix}{'' if on_own_line else chr(10)}{text}"


def markers(template: Template) -> list[str]:
    """The texts by which a model knows the parts of this template: each of its lines, without what is put in."""
    lines = (line.strip() for line in PLACES.sub("\n", template.prompt).split("\n"))
    return list(dict.fromkeys(line for line in lines if line))


def holds_marker(template: Template, *texts: str) -> bool:
    """Whether a text would make one example read as several."""
    return any(_marks(marker, text) for marker in markers(template) for text in texts)


def _marks(marker: str, text: str) -> bool:
    if marker not in text:
        return False
    return not WORD.fullmatch(marker) or re.search(rf"^\s*{re.escape(marker)}", text, re.MULTILINE) is not None
