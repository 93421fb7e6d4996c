"""Computes every table of the analysis."""

from pathlib import Path

from sft_atlas.analysis import tables
from sft_atlas.analysis.findings import analyse
from sft_atlas.stages.analyse.spec import Spec


def run(spec: Spec, root: Path) -> None:
    """Analyse a study's tables in place, and write which tables there are now, each with its SHA-256."""
    output = root / spec.output
    folder = output.with_name("tables")
    analyse(folder, folder, spec.identity.options, spec.identity.labels)
    tables.write_manifest(output, spec.hash, sorted(set(tables.OUTPUTS) - set(tables.AUDIT)))
