"""Question 4: epochs, what each dataset adds to a mixture, and languages."""

from itertools import combinations
from typing import Any

import numpy as np
import polars as pl

from sft_atlas.analysis import tables
from sft_atlas.analysis.cells import (
    MEASURE,
    METRIC_RANGE,
    RUN,
    final_gains,
    known,
    nominal_sizes,
    over_seeds,
    row_codes,
)
from sft_atlas.analysis.columns import TEXT
from sft_atlas.analysis.intervals import Jackknife
from sft_atlas.analysis.statistics import spearman

Row = dict[str, Any]
WIDTH = pl.col("metric").replace_strict(METRIC_RANGE, default=1.0, return_dtype=pl.Float64)


def epochs(gains: pl.DataFrame, intervals: Jackknife) -> pl.DataFrame:
    """Table `epochs`: mean gain after each kept epoch, and how much of the last epoch's gains an epoch already has.

    Only runs that keep all epochs of their setting (method, schedule, size) count, so every point of a curve is the
    same runs. `step` is the mean absolute change of gain since the epoch before. Clusters are bases and datasets; a
    single base has no interval.
    """
    key = ["method", "schedule", "size"]
    sizes = nominal_sizes(gains["size"])
    rows: list[Row] = []
    curves = gains.filter(pl.col("held_out").is_null()).with_columns(
        pl.col("gain") / WIDTH, pl.col("size").replace_strict(sizes, default=None, return_dtype=pl.Int64)
    )
    curves = curves.filter(pl.col("epoch").n_unique().over(RUN) > 1)
    for setting, part in curves.sort(*RUN, *MEASURE, "epoch").group_by(key, maintain_order=True):
        kept = sorted(part["epoch"].unique())
        whole = part.filter(pl.col("epoch").n_unique().over(*RUN, *MEASURE) == len(kept))
        if whole.is_empty():
            continue
        about = dict(zip(key, setting, strict=True))
        views = [
            (None, whole),
            *((base, whole.filter(pl.col("base") == base)) for base in whole["base"].unique().sort()),
        ]
        for base, view in views:
            rows += _curve(view, about | {"base": base}, intervals)
        for measure, view in whole.group_by(MEASURE, maintain_order=True):
            rows += _curve(view, about | dict(zip(MEASURE, measure, strict=True)), intervals)
    return tables.build("epochs", rows)


def _curve(view: pl.DataFrame, about: Row, intervals: Jackknife) -> list[Row]:
    """One row per epoch of a set of complete runs."""
    kept = sorted(view["epoch"].unique())
    values = view["gain"].to_numpy().reshape(-1, len(kept))
    run, *factors = (row_codes(view, names)[:: len(kept)] for names in (RUN, ["base"], ["dataset"]))
    if about.get("base") is not None:
        factors = []
    rows = []
    for k, epoch in enumerate(kept):
        mean = intervals.mean(values[:, k], *factors)
        rows.append(
            {
                **about,
                "epoch": epoch,
                "gain": float(mean.estimate),
                "ci_low": known(mean.low),
                "ci_high": known(mean.high),
                "step": float(np.abs(values[:, k] - values[:, k - 1]).mean()) if k else None,
                "to_last": known(spearman(values[:, k], values[:, -1])),
                "n_cells": len(values),
                "n_runs": int(run.max()) + 1,
            }
        )
    return rows


def leave_one_out(scores: pl.DataFrame, left_out_of: dict[str, str | None] | None = None) -> pl.DataFrame:
    """Table `leave_one_out`: the score of the whole mixture minus that of the mixture without one dataset.

    At equal base, recipe, seed and epoch; positive where the dataset helps. A null benchmark is the mean over
    benchmarks. `left_out_of` names the whole of each mixture without a dataset; a table from elsewhere does not know
    it, so there the only mixture is the whole of all, and with several mixtures the table has no rows.
    """
    tuned = scores.filter(pl.col("sample").is_not_null() & pl.col("score").is_not_null())
    tuned = tuned.with_columns(pl.col("score", "stderr") / WIDTH)
    without = tuned.filter(pl.col("held_out").is_not_null())
    if left_out_of is None:
        left_out_of = _of_the_only_mixture(tuned, without)
    without = without.with_columns(
        mixture=pl.col("sample").replace_strict(left_out_of, default=None, return_dtype=TEXT)
    )
    key = ["base", "recipe", "seed", "epoch", *MEASURE]
    wholes = tuned.select(*key, pl.col("sample").alias("mixture"), "score", "stderr")
    pairs = without.join(wholes, on=[*key, "mixture"], suffix="_whole")
    pairs = pairs.with_columns(
        contribution=pl.col("score_whole") - pl.col("score"),
        error=(pl.col("stderr") ** 2 + pl.col("stderr_whole") ** 2).sqrt(),
    )
    columns = ["base", "mixture", "held_out", "recipe", "method", "schedule", "seed", "epoch"]
    rows = pairs.select(
        *columns, *MEASURE, "contribution", pl.col("error").alias("stderr"), pl.lit(1, pl.Int64).alias("n_benchmarks")
    )
    mean = pairs.group_by(columns).agg(
        pl.col("contribution").mean(),
        (pl.col("contribution").std() / pl.len().sqrt()).alias("stderr"),
        pl.len().cast(pl.Int64).alias("n_benchmarks"),
    )
    return tables.build("leave_one_out", rows.to_dicts() + mean.to_dicts())


def _of_the_only_mixture(tuned: pl.DataFrame, without: pl.DataFrame) -> dict[str, str | None]:
    """The whole of each mixture without a dataset, where only one mixture can be meant."""
    mixtures = tuned.filter(pl.col("held_out").is_null() & (pl.col("dataset") == pl.col("sample")))["sample"].unique()
    samples = without.select("sample", "held_out").unique()
    if len(mixtures) != 1 or samples["held_out"].is_duplicated().any():
        return {}
    return dict.fromkeys(samples["sample"], mixtures[0])


def crosslingual(
    gains: pl.DataFrame, scores: pl.DataFrame, labels: dict[str, Any], intervals: Jackknife
) -> pl.DataFrame:
    """Table `crosslingual`: do gains on a benchmark and on its counterparts in other languages go together?

    Over runs at their last epoch: all together, what differs within a base (where scores do for gains, so that nothing
    hangs on the base's own score), and the runs of bases of one language. Clusters are bases and datasets.
    """
    original = {
        name: label["translation_of"]
        for name, label in labels.get("benchmarks", {}).items()
        if label.get("translation_of")
    }
    spoken: dict[str, list[str]] = {}
    for base, label in labels.get("bases", {}).items():
        if (label or {}).get("language"):
            spoken.setdefault(label["language"], []).append(base)
    tuned = scores.filter(pl.col("sample").is_not_null() & pl.col("score").is_not_null())
    tuned = tuned.with_columns(gain=pl.col("score"), matched=pl.lit(False))
    views: list[tuple[str, str | None, dict[Any, pl.DataFrame]]] = [
        ("pooled", None, _by_measure(gains)),
        ("within base", None, _by_measure(tuned)),
    ]
    for spoken_by, bases in sorted(spoken.items()):
        views.append(("language", spoken_by, _by_measure(gains.filter(pl.col("base").is_in(bases)))))
    key = ["base", "sample", "recipe"]
    rows: list[Row] = []
    for scope, language, parts in views:
        for first, second in combinations(sorted(parts), 2):
            alike = original.get(first[0], first[0]) == original.get(second[0], second[0])
            if not alike or first[0] == second[0] or first[1:] != second[1:]:
                continue
            both = parts[first].join(parts[second], on=key, suffix="_other").sort(key)
            if both.height < 3:
                continue
            x, y = both["gain"].to_numpy(), both["gain_other"].to_numpy()
            factors = row_codes(both, ["base"]), row_codes(both, ["dataset"])
            interval = intervals.correlation(x, y, *factors, strata=factors[0] if scope == "within base" else None)
            rows.append(
                {
                    **{"benchmark": first[0], "other": second[0], "shots": first[1], "metric": first[2]},
                    **{"scope": scope, "language": language, "coefficient": known(interval.estimate)},
                    **{"ci_low": known(interval.low), "ci_high": known(interval.high)},
                    **{"n_runs": both.height, "n_bases": both["base"].n_unique()},
                }
            )
    return tables.build("crosslingual", rows)


def _by_measure(gains: pl.DataFrame) -> dict[Any, pl.DataFrame]:
    """Last gains of runs by measure."""
    runs = over_seeds(final_gains(gains)).sort("base", "sample", "recipe", *MEASURE)
    return dict(runs.group_by(MEASURE, maintain_order=True))
