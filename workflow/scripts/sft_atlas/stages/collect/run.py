"""Gathers the results of every cell into the study's tables.

Which tables a stage's results fill, and how, is said in its own folder (`tables.py`). A result that is not there is a
row of the table `missing`.
"""

from pathlib import Path
from typing import Any

from sft_atlas.analysis import tables
from sft_atlas.analysis.collected import Found
from sft_atlas.stage import stages
from sft_atlas.stages.collect.spec import Spec


def run(spec: Spec, root: Path) -> None:
    """Write `tables/NAME.parquet` and `.csv` for every input table of the analysis, and a manifest."""
    output = root / spec.output
    found = Found(spec.identity, root)
    gathered: dict[str, Any] = {name: [] for name in tables.INPUTS}
    # this stage comes last: what the others say is missing belongs to its tables
    for stage in sorted(stages().values(), key=lambda stage: stage.name == "collect"):
        if stage.has("tables") and stage.name != "import":
            gathered |= stage.module("tables").gather(found)
    counts = {}
    for name, rows in gathered.items():
        table = tables.build(name, rows) if isinstance(rows, list) else tables.arrange(tables.check(rows, name), name)
        tables.write(table, output.with_name("tables"), name)
        counts[name] = table.height
    failed = sorted({row["reason"] for row in gathered["missing"] if row["reason"].startswith("failed: ")})
    tables.write_manifest(output, spec.hash, sorted(gathered), rows=counts, failed=failed)
