"""Question 2, put to use: how well do cheap facts predict the gains of a base that was never tuned?"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from sft_atlas.analysis import tables
from sft_atlas.analysis.cells import MEASURE, final_gains, known, over_seeds
from sft_atlas.analysis.correlations import PREDICTORS, row_codes
from sft_atlas.analysis.statistics import Array, Bootstrap, pearson, residuals
from sft_atlas.study.analyses import AnalysisOptions

Row = dict[str, Any]
PENALTY = 1.0
"""Ridge penalty on standardised features (Hoerl and Kennard 1970); the intercept is free."""
MIN_BASES = 3
FEATURES = ("log_perplexity", "mean_tokens", "similarity")
EMBEDDED = "embedding_similarity"
"""A feature of studies that have an embedding model; where no cell has a value, it is no feature."""
MODELS = {
    "dataset elsewhere": ("expected",),
    "features": ("features",),
    "dataset elsewhere and features": ("expected", "features"),
}
"""What predicts: `expected`, the mean gain of other bases with this dataset on this benchmark, and all `features`."""


@dataclass(frozen=True)
class Fit:
    """A ridge regression of gain minus the benchmark's mean on standardised features."""

    centre: Array
    spread: Array
    slope: Array
    intercept: float

    def __call__(self, features: Array) -> Array:
        """Predicted gain minus the benchmark's mean."""
        return self.intercept + (features - self.centre) / self.spread @ self.slope


def ridge(features: Array, y: Array, penalty: float = PENALTY) -> Fit:
    """Least squares with a penalty on standardised features: (Z'Z + penalty I) b = Z'(y - mean)."""
    centre, spread = features.mean(axis=0), features.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    z = (features - centre) / spread
    slope = np.linalg.solve(z.T @ z + penalty * np.eye(z.shape[1]), z.T @ (y - y.mean()))
    return Fit(centre, spread, slope, float(y.mean()))


def cells(gains: pl.DataFrame, predictors: pl.DataFrame) -> pl.DataFrame:
    """Gain and features of base x dataset x measure, means over recipes and sizes; features null where unknown."""
    runs = over_seeds(final_gains(gains))
    names = (*FEATURES, EMBEDDED) if predictors[EMBEDDED].count() else FEATURES
    values = predictors.select("base", "sample", "benchmark", *[PREDICTORS[name].alias(name) for name in names])
    joined = runs.join(values, on=["base", "sample", "benchmark"], how="left")
    return (
        joined.group_by("base", "dataset", *MEASURE)
        .agg(pl.col("gain", *names).mean())
        .sort("base", "dataset", *MEASURE)
    )


def features_of(frame: pl.DataFrame) -> list[str]:
    """The features that a frame of `cells` has."""
    return [name for name in (*FEATURES, EMBEDDED) if name in frame.columns]


def leave_one_base_out(frame: pl.DataFrame) -> pl.DataFrame:
    """Predictions for each base from all other bases: a column per model, and `mean`, the benchmark's mean gain."""
    parts = []
    for base in frame["base"].unique().sort():
        train, test = frame.filter(pl.col("base") != base), frame.filter(pl.col("base") == base)
        if train["base"].n_unique() >= MIN_BASES - 1:
            parts.append(predict(train, test))
    return pl.concat(parts) if parts else frame.head(0)


def predict(train: pl.DataFrame, test: pl.DataFrame) -> pl.DataFrame:
    """Columns `mean` and one per model of MODELS for the rows of `test`, learnt from `train` alone."""
    mean = train.group_by(MEASURE).agg(pl.col("gain").mean().alias("mean"))
    total = pl.col("gain").sum().over("dataset", *MEASURE)
    count = pl.len().over("dataset", *MEASURE)
    # in training a base's own gain must not stand in what is expected of it
    learnt = train.with_columns(expected=pl.when(count > 1).then((total - pl.col("gain")) / (count - 1))).join(
        mean, on=MEASURE
    )
    expected = train.group_by("dataset", *MEASURE).agg(pl.col("gain").mean().alias("expected"))
    asked = test.join(mean, on=MEASURE, how="left").join(expected, on=["dataset", *MEASURE], how="left")
    learnt, asked = (part.with_columns(expected=pl.col("expected") - pl.col("mean")) for part in (learnt, asked))
    for name, parts in MODELS.items():
        columns = [column for part in parts for column in (features_of(train) if part == "features" else [part])]
        usable = [c for c in columns if learnt[c].null_count() < learnt.height and asked[c].null_count() < asked.height]
        complete = learnt.drop_nulls(usable) if len(usable) == len(columns) else learnt.head(0)
        if complete.height <= len(columns) + 1:
            asked = asked.with_columns(pl.lit(None, pl.Float64).alias(name))
            continue
        fit = ridge(complete.select(usable).to_numpy(), (complete["gain"] - complete["mean"]).to_numpy())
        found = asked["mean"].to_numpy() + fit(asked.select(usable).fill_null(float("nan")).to_numpy())
        asked = asked.with_columns(pl.Series(name, found).fill_nan(None))
    return asked


def prediction(frame: pl.DataFrame, bootstrap: Bootstrap) -> pl.DataFrame:
    """Table `prediction`: error of each model on bases it has not seen, against predicting the benchmark's mean.

    skill = 1 - squared error / squared error of the mean; above 0 is better than the mean. Clusters are bases.
    """
    rows: list[Row] = []
    found = leave_one_base_out(frame)
    for model in MODELS if found.height else ():
        part = found.drop_nulls([model, "mean", "gain"])
        if part.is_empty():
            continue
        for base in [None, *part["base"].unique().sort()]:
            view = part if base is None else part.filter(pl.col("base") == base)
            error = ((view["gain"] - view[model]) ** 2).to_numpy()
            naive = ((view["gain"] - view["mean"]) ** 2).to_numpy()
            skill = bootstrap.interval(np.stack([error, naive], axis=-1), _skill, view["base"].to_numpy())
            rows.append(
                {
                    "model": model,
                    "base": base,
                    "error": float(np.sqrt(error.mean())),
                    "error_of_mean": float(np.sqrt(naive.mean())),
                    "skill": known(skill.estimate),
                    "ci_low": known(skill.low),
                    "ci_high": known(skill.high),
                    "n_cells": view.height,
                    "n_bases": view["base"].n_unique(),
                }
            )
    return tables.build("prediction", rows)


def _skill(totals: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return 1 - totals[..., 0] / totals[..., 1]


def recommend(frame: pl.DataFrame, predictors: pl.DataFrame, options: AnalysisOptions) -> pl.DataFrame:
    """Table `recommend`: datasets for each base and benchmark, best first, as if the base had never been tuned.

    The model is what the dataset does elsewhere, with features where perplexities are known; bases that have
    predictors but no runs are predicted from all others. The interval adds to a prediction the errors that the model
    made on the other bases; `best` is how often a dataset comes first when such errors are drawn.
    """
    if frame.is_empty():
        return tables.empty("recommend")
    asked = _untuned(frame, predictors)
    found = leave_one_base_out(frame)
    if found.is_empty():
        return tables.empty("recommend")
    if asked.height:
        found = pl.concat([found, predict(frame, asked).select(found.columns)])
    plain, _, full = MODELS
    model = full if found[full].null_count() < found.height else plain
    found = found.drop_nulls([model]).sort("base", *MEASURE, "dataset")
    errors = {base: _errors(found, model, base) for base in found["base"].unique()}
    tails = (1 - options.confidence) / 2
    rows: list[Row] = []
    for (base, *measure), part in found.group_by("base", *MEASURE, maintain_order=True):
        missed = errors[base].get(tuple(measure), np.zeros(0))
        if len(missed) < 3 or part.height < 2:
            continue
        value = part[model].to_numpy()
        drawn = value + np.random.default_rng(options.seed).choice(missed, (1000, len(value)))
        best = np.bincount(drawn.argmax(axis=1), minlength=len(value)) / len(drawn)
        low, high = value + np.quantile(missed, [tails, 1 - tails])[:, None]
        order = np.argsort(-value, kind="stable")
        for rank, k in enumerate(order, 1):
            row = part.row(int(k), named=True)
            rows.append(
                {
                    **{"base": base, "dataset": row["dataset"], "rank": rank, "model": model},
                    **dict(zip(MEASURE, measure, strict=True)),
                    **{"predicted": float(value[k]), "ci_low": float(low[k]), "ci_high": float(high[k])},
                    **{"best": float(best[k]), "observed": row["gain"]},
                }
            )
    return tables.build("recommend", rows)


def _errors(found: pl.DataFrame, model: str, base: str) -> dict[tuple[Any, ...], Array]:
    """By measure, what other bases gained beyond their prediction."""
    others = found.filter((pl.col("base") != base) & pl.col("gain").is_not_null())
    parts = others.with_columns(missed=pl.col("gain") - pl.col(model)).group_by(MEASURE, maintain_order=True)
    return {key: part["missed"].to_numpy() for key, part in parts}


def _untuned(frame: pl.DataFrame, predictors: pl.DataFrame) -> pl.DataFrame:
    """Rows without gain, for bases that have perplexities but no run, on the measures of all others."""
    new = predictors.filter(~pl.col("base").is_in(frame["base"].unique().to_list()))
    values = new.select("base", "dataset", "benchmark", *[PREDICTORS[name].alias(name) for name in features_of(frame)])
    values = values.group_by("base", "dataset", "benchmark").agg(pl.col(features_of(frame)).mean())
    measures = frame.select(MEASURE).unique()
    return values.join(measures, on="benchmark").with_columns(gain=pl.lit(None, pl.Float64)).select(frame.columns)


def partials(frame: pl.DataFrame, bootstrap: Bootstrap) -> pl.DataFrame:
    """Table `partials`: the rank correlation of each feature with gain, given the others, within base and benchmark.

    Clusters are datasets, as for table correlations.
    """
    rows: list[Row] = []
    features = features_of(frame)
    known_cells = frame.drop_nulls(features)
    for feature in features if known_cells.height else ():
        others = [name for name in features if name != feature]
        # what differs between benchmarks only says nothing about datasets
        strata = row_codes(known_cells, ["base", *MEASURE])
        rest = residuals(known_cells[feature], known_cells["gain"], known_cells.select(others).to_numpy(), strata)
        if rest is None:
            continue
        x, y = rest
        interval = bootstrap.correlation(x, y, known_cells["dataset"].to_numpy(), rank=False)
        rows.append(
            {
                "predictor": feature,
                "given": ", ".join(others),
                "coefficient": known(pearson(x, y)),
                "ci_low": known(interval.low),
                "ci_high": known(interval.high),
                "n_cells": known_cells.height,
                "n_clusters": known_cells["dataset"].n_unique(),
            }
        )
    return tables.build("partials", rows)
