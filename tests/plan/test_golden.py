"""Identities do not move: every ID and frozen specification of the shipped studies, to the byte, as first recorded.

A file in tests/golden/ lists, for a study, each output with the first 16 hex digits of the SHA-256 of its frozen
specification. A line that differs means that finished results of other people would be made again. If that is what you
want, say so in the changelog and record it: python tests/plan/test_golden.py --accept STUDY...
"""

import hashlib
import json
import sys
from pathlib import Path

import pytest

from sft_atlas.study.table import plan_study

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests/golden"
SHIPPED = sorted((ROOT / "studies").glob("*.yaml"))
STUDIES = {path.stem: path for path in [*SHIPPED, *sorted((ROOT / "tests/studies").glob("*.yaml"))]}
# they read files that are not part of the project
ABROAD = ("published-table", "real-rows")


def frozen(path: Path) -> list[str]:
    """A line for each job of a study: its output and the hash of the bytes of its frozen specification."""
    plan = plan_study(path, ROOT)
    specs = plan.by_output | {spec.output: spec for spec in plan.study_specs().values()}
    return [f"{output}\t{_hash(spec.content())}" for output, spec in sorted(specs.items())]


def _hash(content: object) -> str:
    # as files.write_json writes it
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.mark.parametrize("name", [name for name in STUDIES if name not in ABROAD])
def test_no_identity_has_moved(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    recorded = (GOLDEN / f"{name}.tsv").read_text().splitlines()
    now = frozen(STUDIES[name])
    gone, come = (
        [line for line in recorded if line not in set(now)],
        [line for line in now if line not in set(recorded)],
    )
    if gone or come:
        shown = "\n".join([*(f"- {line}" for line in gone[:8]), *(f"+ {line}" for line in come[:8])])
        pytest.fail(f"{name}: {len(gone)} lines are gone, {len(come)} are new.\n{shown}\n{__doc__}", pytrace=False)


if __name__ == "__main__":
    if sys.argv[1:2] != ["--accept"]:
        sys.exit(__doc__)
    for study in sys.argv[2:] or [name for name in STUDIES if name not in ABROAD]:
        (GOLDEN / f"{study}.tsv").write_text("\n".join(frozen(STUDIES[study])) + "\n")
        print(f"recorded {study}")
