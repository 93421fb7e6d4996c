"""Cells that will never have a result as they are declared: what stands in its place, and how it is cleared.

A job that fails for good (its loss became NaN, a row does not fit into memory, evaluation refused the model) ends well,
with an output that says so: a manifest `{"status": "failed", …}`, or a table without rows that carries the same in its
metadata. Jobs that read it fail with the same reason, and the report lists both. Passing faults are no such thing: they
fail the job, which is tried again.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sft_atlas.files import read_json, whole, write_json

FAILED = "failed"
KEY = "sft_atlas"


def record(output: Path, stage: str, reason: str) -> dict[str, Any]:
    """Write a failed result in place of an output; returns it, as facts for the job's record."""
    content = {"status": FAILED, "stage": stage, "reason": reason}
    if output.suffix == ".parquet":
        import polars as pl

        with whole(output) as temporary:
            pl.DataFrame().write_parquet(temporary, metadata={KEY: json.dumps(content, sort_keys=True)})
    else:
        write_json(output, content)
    return content


def reason_of(output: Path) -> str | None:
    """Why an output is a failed one; None if it is not, or is not there."""
    if not output.is_file():
        return None
    if output.suffix == ".parquet":
        import polars as pl

        held = pl.read_parquet_metadata(output).get(KEY)
        content = json.loads(held) if held else {}
    elif output.suffix == ".json":
        content = read_json(output)
    else:
        return None
    return str(content["reason"]) if isinstance(content, dict) and content.get("status") == FAILED else None


def inherited(root: Path, inputs: Iterable[str]) -> str | None:
    """Why a job cannot do its work because one of its inputs has failed; None if none has."""
    for path in inputs:
        reason = reason_of(root / path)
        if reason:
            return reason
    return None


def clear(root: Path, outputs: Iterable[str]) -> list[str]:
    """Delete those of some outputs that are failed ones, so that their jobs run again; returns them."""
    found = [path for path in outputs if reason_of(root / path)]
    for path in found:
        (root / path).unlink()
    return found
