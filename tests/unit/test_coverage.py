"""The simulation of the whole path: its tables are those of collect, and a few draws cover as they should."""

import numpy as np
import polars as pl
import pytest

from benchmarks import coverage
from sft_atlas.analysis import tables
from sft_atlas.report.page import coverage as shown
from sft_atlas.stages.evaluate.tables import paired_gain


def test_simulated_gains_are_those_that_collect_would_write() -> None:
    """The same answers, cell by cell, through the function that collect pairs items with."""
    rng = np.random.default_rng(0)
    trained = rng.normal(0, 0.05, (4, 6, len(coverage.BENCHMARKS), len(coverage.RUNS)))
    kept: list[np.ndarray] = []

    class Recorded:
        """A generator that keeps what it drew."""

        def __init__(self) -> None:
            self.rng = np.random.default_rng(1)

        def uniform(self, *args: object) -> np.ndarray:
            return self.rng.uniform(*args)  # type: ignore[arg-type]

        def standard_normal(self, *args: object, **kwargs: object) -> np.ndarray:
            kept.append(self.rng.standard_normal(*args, **kwargs))  # type: ignore[call-overload]
            return kept[-1]

    frames, _ = coverage.scored(Recorded(), "micro", trained)  # type: ignore[arg-type]
    again = np.random.default_rng(1)
    start = again.uniform(0.35, 0.5, (4, len(coverage.BENCHMARKS)))
    difficulty, before, after = kept
    items = np.arange(coverage.ITEMS)
    share = list(coverage.EPOCHS.values())[-1]
    for base, dataset, benchmark, run in ((0, 0, 0, 0), (3, 5, 2, 3), (1, 4, 3, 1)):
        p = np.clip(start[base, benchmark] + share * trained[base, dataset, benchmark, run], 0.02, 0.98)
        half = coverage.ALIKE**0.5, (1 - coverage.ALIKE) ** 0.5
        answers = [
            pl.DataFrame({"item": items, "score": half[0] * difficulty[benchmark] + half[1] * noise < q})
            for noise, q in (
                (before[base, benchmark], coverage.ndtri(start[base, benchmark])),
                (after[base, dataset, run, -1, benchmark], coverage.ndtri(p)),
            )
        ]
        theirs = paired_gain(*(frame.with_columns(pl.col("score").cast(pl.Float64)) for frame in answers))
        method, rows, seed = coverage.RUNS[run]
        row = frames["gains"].filter(
            base=f"base{base:02d}", dataset=f"data{dataset:02d}", benchmark=coverage.BENCHMARKS[benchmark], epoch=2,
            method=method, size=rows, seed=seed,
        )  # fmt: skip
        assert theirs is not None
        for name in ("gain", "stderr", "score", "base_score"):
            assert row[name].item() == pytest.approx(theirs[name], abs=1e-6), name


def test_every_table_with_intervals_is_simulated() -> None:
    with_intervals = {
        name for name, table in tables.OUTPUTS.items() if "ci_low" in [column.name for column in table.columns]
    }
    # sensitivity repeats the intervals of effects
    assert set(coverage.ESTIMATES) == with_intervals - {"sensitivity"}


def test_a_few_draws_cover() -> None:
    """Twelve studies of the micro size: an interval twice too narrow would hold the truth in about 70 %."""
    found = coverage.simulate(["micro"], ["datasets"], 12, 1)
    assert set(found["table"]) == set(coverage.ESTIMATES)
    many = found.filter(pl.col("rows") >= 40)
    assert many.height > 15
    low = many.filter(pl.col("share") < 0.8)
    assert low.is_empty(), low
    assert many["share"].mean() > 0.93  # type: ignore[operator]


def test_the_page_shows_what_was_measured() -> None:
    given = shown()
    written = pl.read_csv(coverage.WRITTEN)
    assert set(given["draws"]) == set(coverage.SIZES) == set(written["size"])
    assert set(written["mix"]) == set(coverage.MIXES)
    assert set(written["table"]) == set(coverage.ESTIMATES)
    assert len(given["columns"]) == 8 and len(given["rows"]) == written.select("table", "scope").n_unique()
