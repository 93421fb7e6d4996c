"""What only an imported table fills."""

from sft_atlas.analysis.columns import COUNT, MEASURE, REAL, TEXT, Column, Table

TABLES: dict[str, Table] = {
    "imported": Table(
        "one column of an imported table; no rows where scores are our own",
        (
            Column("column", TEXT, "", "name in the imported file"),
            *MEASURE,
            Column("unit", TEXT, "", "percent, fraction or points 1..10, read off the values"),
            Column("factor", REAL, "", "what values were multiplied by"),
            Column("values", COUNT, "cells", "values that are not empty"),
            Column("least", REAL, "as in the file", "least value", True),
            Column("greatest", REAL, "as in the file", "greatest value", True),
        ),
        ("column",),
    ),
}
