"""Schemas of the tables that the analysis reads, written by the collecting or the importing stage.

Each stands in the folder of the stage whose results fill it.
"""

from sft_atlas.analysis.columns import COUNT, REAL, TEXT, Column, Table
from sft_atlas.stage import stages


def declared() -> dict[str, Table]:
    """The tables of all stages, by name."""
    found: dict[str, Table] = {}
    for stage in stages().values():
        if stage.has("tables"):
            found |= stage.module("tables").TABLES
    return found


ORDER = (
    *("scores", "gains", "samples", "predictors", "layers", "likelihoods", "dimensions", "training", "curves"),
    *("missing", "imported", "contamination"),
)
"""How the documentation lists them; any other follows."""
_DECLARED = declared()
INPUTS: dict[str, Table] = {
    name: _DECLARED[name] for name in (*(n for n in ORDER if n in _DECLARED), *sorted(_DECLARED.keys() - set(ORDER)))
}

RECORDS: dict[str, Table] = {
    "cost": Table(
        "what one job took",
        (
            Column("stage", TEXT, "", "stage of the workflow"),
            Column("output", TEXT, "", "file that the job made, below the results folder"),
            Column("base", TEXT, "", "base model, where the job has one", True),
            Column("sample", TEXT, "", "training sample, where the job has one", True),
            Column("recipe", TEXT, "", "training recipe, where the job has one", True),
            Column("seed", COUNT, "", "training seed, where the job has one", True),
            Column("wall_seconds", REAL, "s", "time from start to end"),
            Column("cpu_seconds", REAL, "s", "CPU time, without importing libraries"),
            Column("gpu_seconds", REAL, "s", "GPUs x time; 0 where the job used none"),
            Column("peak_memory_mb", REAL, "MB", "greatest resident memory of the process"),
        ),
        ("stage", "output"),
    ),
}
"""Tables of time and machine, written by the report's stage; no analysis reads them, and they differ between runs."""
