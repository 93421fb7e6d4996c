"""What the study's tables gain from tokens."""

from typing import Any

from sft_atlas.analysis.collected import Found, Rows
from sft_atlas.analysis.columns import COUNT, REAL, TEXT, Column, Table
from sft_atlas.files import read_json

TABLES: dict[str, Table] = {
    "samples": Table(
        "one training sample as one base model's tokenizer reads it",
        (
            Column("base", TEXT, "", "base model"),
            Column("sample", TEXT, "", "training sample"),
            Column("rows", COUNT, "rows", "rows in the sample"),
            Column("tokens", COUNT, "tokens", "tokens in one epoch, prompt and completion"),
            Column("trained_tokens", COUNT, "tokens", "tokens in one epoch that carry loss"),
            Column("mean_tokens", REAL, "tokens per row", "mean length, prompt and completion"),
            Column("mean_completion_tokens", REAL, "tokens per row", "mean length of the completion"),
            Column("truncated", COUNT, "rows", "rows cut at the maximum length"),
            Column("left_out", COUNT, "rows", "rows of the sources that were dropped; not drawn is not dropped", True),
            Column("left_out_by_reason", TEXT, "", "reasons with their numbers of rows; null for none", True),
            Column("shortened", COUNT, "parts", "parts of kept source rows that are not trained on", True),
            Column("shortened_by_reason", TEXT, "", "which parts, with their numbers of rows; null for none", True),
        ),
        ("base", "sample"),
    ),
}


def gather(found: Found) -> dict[str, Rows]:
    """Table `samples`."""
    counts = ("rows", "tokens", "trained_tokens", "truncated")
    rows = [
        {"base": base, "sample": sample, **{name: facts[name] for name in counts}, **lengths(facts), **left_out(facts)}
        for base, samples in found.identity.tokens.items()
        for sample, path in samples.items()
        if path and (facts := read_json(found.root / path))
    ]
    return {"samples": rows}


def left_out(facts: dict[str, Any]) -> dict[str, Any]:
    """How many rows were left out and why, and what rows were used without; earlier versions did not say."""
    found = {}
    for name in ("left_out", "shortened"):
        reasons = facts.get(name)
        found[name] = None if reasons is None else sum(reasons.values())
        said = "" if reasons is None else ", ".join(f"{reason} {count}" for reason, count in reasons.items())
        found[f"{name}_by_reason"] = said or None
    return found


def lengths(facts: dict[str, Any]) -> dict[str, float]:
    """Mean lengths of a sample's rows in tokens."""
    return {
        "mean_tokens": facts["tokens"] / facts["rows"],
        "mean_completion_tokens": facts["trained_tokens"] / facts["rows"],
    }
