"""Question 2, put to use: how well do cheap facts predict the gains of a base that was never tuned?"""

from collections.abc import Collection
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl
from scipy.special import stdtrit

from sft_atlas.analysis import tables
from sft_atlas.analysis.cells import MEASURE, final_gains, known, over_seeds, row_codes
from sft_atlas.analysis.correlations import PREDICTORS
from sft_atlas.analysis.intervals import SKILL, Jackknife
from sft_atlas.analysis.statistics import ALIKE, Array, Interval, pearson, residuals
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


def predict(train: pl.DataFrame, test: pl.DataFrame, models: Collection[str] = tuple(MODELS)) -> pl.DataFrame:
    """Columns `mean` and one per model for the rows of `test`, learnt from `train` alone."""
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
    for name, parts in ((model, MODELS[model]) for model in models):
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


def prediction(frame: pl.DataFrame, intervals: Jackknife) -> pl.DataFrame:
    """Table `prediction`: error of each model on bases it has not seen, against predicting the benchmark's mean.

    skill = 1 - squared error / squared error of the mean; above 0 is better than the mean. For the interval, on the
    scale of log(1 - skill), each base is left out of learning and of predicting, each dataset of what is predicted. A
    single base has no interval.
    """
    rows: list[Row] = []
    found = leave_one_base_out(frame)
    fewer = {base: leave_one_base_out(frame.filter(pl.col("base") != base)) for base in frame["base"].unique().sort()}
    for model in MODELS if found.height else ():
        part = found.drop_nulls([model, "mean", "gain"])
        if part.is_empty():
            continue
        for base in [None, *part["base"].unique().sort()]:
            view = part if base is None else part.filter(pl.col("base") == base)
            error, naive = squares(view, model)
            estimate = float(1 - error.sum() / naive.sum()) if naive.sum() > 0 else float("nan")
            skill = Interval(estimate, float("nan"), float("nan"))
            if base is None:
                left_out = [_without_bases(fewer, model), _without_datasets(view, error, naive)]
                skill = intervals.ends(estimate, left_out, SKILL)
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


def squares(view: pl.DataFrame, model: str) -> tuple[Array, Array]:
    """Squared errors of a model, and of the benchmark's mean."""
    gain = view["gain"].to_numpy()
    return (gain - view[model].to_numpy()) ** 2, (gain - view["mean"].to_numpy()) ** 2


def _without_bases(fewer: dict[str, pl.DataFrame], model: str) -> Array:
    """log(1 - skill) when a base is known neither to learn from nor to predict, shape (bases,)."""
    sums = np.zeros((len(fewer), 2))
    for place, frame in enumerate(fewer.values()):
        if model in frame.columns:
            sums[place] = [part.sum() for part in squares(frame.drop_nulls([model, "mean", "gain"]), model)]
    return _log_ratio(sums)


def _without_datasets(view: pl.DataFrame, error: Array, naive: Array) -> Array:
    """log(1 - skill) without each dataset among what is predicted, shape (datasets,)."""
    totals = np.stack([error, naive], axis=-1)
    label = row_codes(view, ["dataset"])
    sums = np.stack([np.bincount(label, weights=column) for column in totals.T], axis=-1)
    return _log_ratio(totals.sum(axis=0) - sums)


def _log_ratio(sums: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.log(sums[..., 0] / sums[..., 1]))


def recommend(frame: pl.DataFrame, predictors: pl.DataFrame, options: AnalysisOptions) -> pl.DataFrame:
    """Table `recommend`: datasets for each base and benchmark, best first, as if the base had never been tuned.

    The model is what the dataset does elsewhere, with features where perplexities are known; bases that have
    predictors but no runs are predicted from all others. Errors are those of models that saw neither the base asked
    about nor the one they predict (`_errors`). The interval is t around the prediction with their mean square; `best`
    is how often a dataset comes first when such errors are drawn.
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
    errors = _errors(frame, model, sorted(set(found["base"])))
    rows: list[Row] = []
    for (base, *measure), part in found.group_by("base", *MEASURE, maintain_order=True):
        missed = errors[base].get(tuple(measure), {})
        if len(missed) < 2 or part.height < 2:
            continue
        pooled, half = np.concatenate(list(missed.values())), half_width(list(missed.values()), options.confidence)
        value = part[model].to_numpy()
        drawn = value + np.random.default_rng(options.seed).choice(pooled, (1000, len(value)))
        best = np.bincount(drawn.argmax(axis=1), minlength=len(value)) / len(drawn)
        order = np.argsort(-value, kind="stable")
        for rank, k in enumerate(order, 1):
            row = part.row(int(k), named=True)
            rows.append(
                {
                    **{"base": base, "dataset": row["dataset"], "rank": rank, "model": model},
                    **dict(zip(MEASURE, measure, strict=True)),
                    **{
                        "predicted": float(value[k]),
                        "ci_low": known(value[k] - half),
                        "ci_high": known(value[k] + half),
                    },
                    **{"best": float(best[k]), "observed": row["gain"]},
                }
            )
    return tables.build("recommend", rows)


def _errors(frame: pl.DataFrame, model: str, bases: list[str]) -> dict[str, dict[tuple[Any, ...], dict[str, Array]]]:
    """By base asked about, measure and other base: what the other one gained beyond its prediction.

    The model that predicts a base has seen neither it nor the base asked about, so that it knows as little of the one
    as the recommendation does of the other.
    """
    tuned = frame["base"].unique().sort().to_list()
    found: dict[str, dict[tuple[Any, ...], dict[str, Array]]] = {base: {} for base in bases}
    alone = [(base,) for base in tuned] if set(bases) - set(tuned) else []
    for left_out in [*combinations(tuned, 2), *alone]:
        train = frame.filter(~pl.col("base").is_in(left_out))
        if train["base"].n_unique() < MIN_BASES - 1:
            continue
        test = frame.filter(pl.col("base").is_in(left_out) & pl.col("gain").is_not_null())
        missed = predict(train, test, [model]).with_columns(missed=pl.col("gain") - pl.col(model)).drop_nulls("missed")
        for (other, *measure), part in missed.group_by("base", *MEASURE, maintain_order=True):
            asked = [base for base in left_out if base != other] or [base for base in bases if base not in tuned]
            for base in asked:
                found[base].setdefault(tuple(measure), {})[other] = part["missed"].to_numpy()
    return found


def half_width(errors: list[Array], confidence: float) -> float:
    """Half of a prediction's interval: t times the root mean square of the errors made on each of some bases.

    Errors on one base share what is particular to it. The degrees of freedom are those of a chi-square with the mean
    and variance of the bases' mean squares (Satterthwaite 1946), fewer by (C - 1) / (C + 1) since C bases tell that
    variance poorly, between the number of bases and that of errors, less one. NaN with fewer than two bases.
    """
    squares = np.array([float((part**2).mean()) for part in errors if len(part)])
    if len(squares) < 2:
        return float("nan")
    mean, spread = float(squares.mean()), float(squares.var(ddof=1)) / len(squares)
    most = sum(map(len, errors)) - 1
    poorly = (len(squares) - 1) / (len(squares) + 1)
    freedom = float(np.clip(2 * poorly * mean**2 / spread if spread > 0 else most, len(squares) - 1, most))
    return float(stdtrit(freedom, (1 + confidence) / 2) * np.sqrt(mean))


def hits(recommended: pl.DataFrame) -> pl.DataFrame:
    """For each base and benchmark of table `recommend` with observed gains: was the dataset ranked first the best one?

    `hit` is true where it alone is best: where several tie nobody can be right. `chance` is that of any one of the `n`
    datasets, by the same rule; `claimed` is what the model says.
    """
    key = ["base", *MEASURE]
    seen = recommended.filter(pl.col("observed").is_not_null()).sort(*key, "rank")
    best = pl.col("observed") >= pl.col("observed").max() - ALIKE
    cases = seen.group_by(key, maintain_order=True).agg(
        hit=best.first() & (best.sum() == 1), tied=best.sum() > 1, claimed=pl.col("best").first(), n=pl.len()
    )
    return cases.with_columns(chance=pl.when("tied").then(0.0).otherwise(1 / pl.col("n")))


def _untuned(frame: pl.DataFrame, predictors: pl.DataFrame) -> pl.DataFrame:
    """Rows without gain, for bases that have perplexities but no run, on the measures of all others."""
    new = predictors.filter(~pl.col("base").is_in(frame["base"].unique().to_list()))
    values = new.select("base", "dataset", "benchmark", *[PREDICTORS[name].alias(name) for name in features_of(frame)])
    values = values.group_by("base", "dataset", "benchmark").agg(pl.col(features_of(frame)).mean())
    measures = frame.select(MEASURE).unique()
    return values.join(measures, on="benchmark").with_columns(gain=pl.lit(None, pl.Float64)).select(frame.columns)


def partials(frame: pl.DataFrame, intervals: Jackknife) -> pl.DataFrame:
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
        interval = intervals.correlation(
            x, y, row_codes(known_cells, ["dataset"]), strata=strata, rank=False, given=len(others)
        )
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
