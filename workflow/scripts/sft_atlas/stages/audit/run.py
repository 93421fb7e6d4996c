"""Looks for scores that are mistakes."""

from pathlib import Path
from typing import Any

from sft_atlas.analysis import tables
from sft_atlas.analysis.audit import audit as inspect
from sft_atlas.stages.audit.spec import Spec


def run(spec: Spec, root: Path) -> None:
    """Audit a study's tables in place, and write which tables it made, each with its SHA-256."""
    output = root / spec.output
    folder = output.with_name("tables")
    audit(folder, folder, spec.identity.labels)
    tables.write_manifest(output, spec.hash, sorted(tables.AUDIT))


def audit(folder: Path, out: Path, labels: dict[str, Any]) -> None:
    """Inspect the scores in `folder` and write tables `audit` and `suspects` to `out`."""
    scores, missing, imported = (tables.read(folder, name) for name in ("scores", "missing", "imported"))
    own = tables.read(folder, "training").height > 0
    found = inspect(scores, missing, imported, labels.get("benchmarks", {}), own)
    for name, frame in zip(tables.AUDIT, found, strict=True):
        tables.write(frame, out, name)
