"""Looks for cells without a result."""

from pathlib import Path

from sft_atlas.analysis import tables
from sft_atlas.errors import DataError
from sft_atlas.files import write_json
from sft_atlas.stages.complete.spec import Spec

SHOWN = 10


def run(spec: Spec, root: Path) -> None:
    """Write that nothing is missing.

    Raises:
        DataError: something is; names the first cells with their reasons.
    """
    output = root / spec.output
    missing = tables.read(output.with_name("tables"), "missing")
    if missing.height:
        shown = [
            " ".join(
                str(value) for value in (row["base"], row["sample"], row["recipe"], row["epoch"]) if value is not None
            )
            + f": {row['reason']}"
            for row in missing.head(SHOWN).iter_rows(named=True)
        ]
        raise DataError(
            f"{missing.height} cells or benchmarks have no result: {'; '.join(shown)}; `sft-atlas retry CELL` clears a "
            "failure, `snakemake report` does with what there is"
        )
    write_json(output, {"spec": spec.hash, "missing": 0})
