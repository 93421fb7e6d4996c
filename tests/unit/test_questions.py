"""Analyses of questions 1, 2 and 4 against independent implementations, to 1e-9, and against planted truths."""

import numpy as np
import polars as pl
import pytest
from scipy import stats
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression, Ridge

from sft_atlas.analysis import tables
from sft_atlas.analysis.cells import final_gains, free_effects, over_seeds
from sft_atlas.analysis.correlations import correlations
from sft_atlas.analysis.interactions import agreement, benchmarks, cube, pca, similarity, variance, variance_shares
from sft_atlas.analysis.intervals import Jackknife
from sft_atlas.analysis.maps import model_map
from sft_atlas.analysis.prediction import (
    EMBEDDED,
    FEATURES,
    MODELS,
    cells,
    features_of,
    leave_one_base_out,
    partials,
    predict,
    prediction,
    recommend,
    ridge,
)
from sft_atlas.analysis.statistics import components, disattenuated, partial, reliability
from sft_atlas.analysis.training import crosslingual, epochs, leave_one_out
from sft_atlas.study.analyses import AnalysisOptions
from tests.unit.synthetic import Study, tables_of

EXACT = 1e-9
INTERVALS = Jackknife()
STUDY = Study(bases=6, slope=-0.1)
LABELS = {
    "bases": {
        name: {"family": family, "language": "en"}
        for name, family in zip(("olmo", "llama", "mistral", "gemma", "qwen", "yi"), "aabbcc", strict=True)
    },
    "benchmarks": {"boolq": {"translation_of": "instructions"}},
}


@pytest.fixture(scope="module")
def frames() -> dict[str, pl.DataFrame]:
    return tables_of(STUDY)


@pytest.fixture(scope="module")
def effects(frames: dict[str, pl.DataFrame]) -> pl.DataFrame:
    return free_effects(frames["scores"])


# ---- statistics


def test_partial_correlation_equals_that_of_regression_residuals() -> None:
    rng = np.random.default_rng(0)
    given = rng.normal(size=(80, 2))
    x, y = given @ [1, 2] + rng.normal(size=80), given @ [2, -1] + rng.normal(size=80)
    rest = [v - LinearRegression().fit(given, v).predict(given) for v in (x, y)]
    assert partial(x, y, given, rank=False) == pytest.approx(stats.pearsonr(*rest).statistic, abs=EXACT)
    ranked, by = [stats.rankdata(v) for v in (x, y)], stats.rankdata(given, axis=0)
    rest = [v - LinearRegression().fit(by, v).predict(by) for v in ranked]
    assert partial(x, y, given) == pytest.approx(stats.pearsonr(*rest).statistic, abs=EXACT)


def test_partial_correlation_within_strata_equals_regression_on_indicators() -> None:
    rng = np.random.default_rng(1)
    strata = rng.integers(0, 5, 60)
    given, x, y = rng.normal(size=(60, 1)), rng.normal(size=60) + strata, rng.normal(size=60) - strata
    design = np.concatenate([given, np.eye(5)[strata]], axis=1)
    rest = [v - LinearRegression().fit(design, v).predict(design) for v in (x, y)]
    assert partial(x, y, given, strata, rank=False) == pytest.approx(stats.pearsonr(*rest).statistic, abs=EXACT)
    assert np.isnan(partial([1, 2, 3], [3, 1, 2], np.ones((3, 2))))


def test_components_equal_scikit_learn() -> None:
    values = np.random.default_rng(2).normal(size=(40, 6)) @ np.diag([5, 3, 2, 1, 1, 0.5])
    theirs = PCA().fit(values)
    share, loadings, place = components(values)
    np.testing.assert_allclose(share, theirs.explained_variance_ratio_, atol=EXACT)
    np.testing.assert_allclose(np.abs(loadings), np.abs(theirs.components_), atol=EXACT)
    np.testing.assert_allclose(np.abs(place), np.abs(theirs.transform(values)), atol=EXACT)
    assert (loadings[np.arange(6), np.abs(loadings).argmax(axis=1)] > 0).all()


def test_noise_is_taken_out_of_a_correlation() -> None:
    rng = np.random.default_rng(3)
    truth = rng.multivariate_normal([0, 0], [[1, 0.8], [0.8, 1]], 20_000)
    seen = truth + rng.normal(0, 0.7, truth.shape)
    sure = [reliability(column, np.full(len(column), 0.7)) for column in seen.T]
    assert sure[0] == pytest.approx(1 - 0.49 / seen[:, 0].var(ddof=1), abs=EXACT)
    r = stats.pearsonr(*seen.T).statistic
    assert disattenuated(r, *sure) == pytest.approx(r / np.sqrt(sure[0] * sure[1]), abs=EXACT)
    assert disattenuated(r, *sure) == pytest.approx(0.8, abs=0.02)
    assert np.isnan(disattenuated(0.5, float("nan"), 0.9))
    assert disattenuated(0.9, 0.5, 0.5) == 1


def test_ridge_equals_scikit_learn() -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(50, 3)) * [1, 10, 100]
    y = x @ [1, 0.2, 0.01] + rng.normal(size=50)
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    theirs = Ridge(alpha=1.0).fit(z, y)
    np.testing.assert_allclose(ridge(x, y)(x), theirs.predict(z), atol=EXACT)


# ---- question 1


def test_effects_need_no_base_score(frames: dict[str, pl.DataFrame], effects: pl.DataFrame) -> None:
    without = frames["scores"].filter(pl.col("sample").is_not_null())
    assert free_effects(without).equals(effects)
    mean = effects.group_by("base", "recipe", "size", "benchmark").agg(pl.col("effect").mean())["effect"]
    assert mean.abs().max() < 1e-12  # type: ignore[operator]


def test_agreement_equals_scipy_and_covers_the_pairs(effects: pl.DataFrame) -> None:
    data = cube(effects)
    frame = agreement(data, INTERVALS)
    row = frame.filter(base="gemma", other="llama", benchmark="nq").row(0, named=True)
    k = next(i for i, measure in enumerate(data.measures) if measure[0] == "nq")
    pair = [data.effect[data.bases.index(base), :, k] for base in ("gemma", "llama")]
    assert row["coefficient"] == pytest.approx(stats.pearsonr(*pair).statistic, abs=EXACT)
    assert row["spearman"] == pytest.approx(stats.spearmanr(*pair).statistic, abs=EXACT)
    mean = frame.filter(pl.col("base").is_null(), benchmark="nq").row(0, named=True)
    pairs = frame.filter(pl.col("base").is_not_null(), benchmark="nq")
    assert mean["coefficient"] == pytest.approx(pairs["coefficient"].mean(), abs=EXACT)
    assert mean["ci_low"] <= mean["coefficient"] <= mean["ci_high"]


def test_families_that_gain_alike_are_found_and_others_are_not(effects: pl.DataFrame) -> None:
    data = cube(effects)
    plain = similarity(data, LABELS, INTERVALS, 500, 0).filter(scope="difference by family").row(0, named=True)
    assert plain["p"] > 0.05
    rng = np.random.default_rng(6)
    shared = {family: rng.normal(0, 0.1, data.effect.shape[1:]) for family in "abc"}
    moved = [data.effect[i] + shared[LABELS["bases"][base]["family"]] for i, base in enumerate(data.bases)]
    planted = similarity(
        type(data)(data.bases, data.datasets, data.measures, np.array(moved), data.stderr), LABELS, INTERVALS, 500, 0
    )
    row = planted.filter(scope="difference by family").row(0, named=True)
    # bases and datasets both vary: six bases tell less than their fifteen pairs seem to
    assert row["coefficient"] > 0.3
    assert row["ci_low"] > 0.1
    assert planted.filter(pl.col("scope").str.contains("language")).is_empty()  # all speak one


def test_pca_equals_scikit_learn(effects: pl.DataFrame) -> None:
    data = cube(effects)
    values = data.scaled().reshape(-1, len(data.measures))
    values = values / values.std(axis=0)
    theirs = PCA().fit(values)
    table = pca(data, INTERVALS).filter(layout="all, scaled")
    frame = table.filter(pl.col("cumulative").is_not_null(), scope="benchmarks").sort("component")
    np.testing.assert_allclose(frame["cumulative"], np.cumsum(theirs.explained_variance_ratio_), atol=EXACT)
    loadings = table.filter(pl.col("loading").is_not_null(), scope="benchmarks", component=1).sort("benchmark")
    np.testing.assert_allclose(loadings["loading"].abs(), np.abs(theirs.components_[0]), atol=EXACT)


def test_variance_shares_equal_regressions_and_recover_truth(frames: dict[str, pl.DataFrame]) -> None:
    rng = np.random.default_rng(7)
    base, dataset = (a.ravel() for a in np.meshgrid(np.arange(8), np.arange(9), indexing="ij"))
    y = rng.normal(0, 2, 8)[base] + rng.normal(0, 1, 9)[dataset] + rng.normal(0, 1, 72)
    keep = rng.random(72) < 0.9
    base, dataset, y = base[keep], dataset[keep], y[keep]
    one, other = np.eye(8)[base], np.eye(9)[dataset]

    def fit(x: np.ndarray) -> float:
        return LinearRegression().fit(x, y).score(x, y)

    both = fit(np.concatenate([one, other], axis=1))
    shares = variance_shares(y, base, dataset)
    assert shares is not None
    assert shares["base"] == pytest.approx(both - fit(other), abs=EXACT)
    assert shares["dataset"] == pytest.approx(both - fit(one), abs=EXACT)
    assert shares["rest"] == pytest.approx(1 - both, abs=EXACT)
    # here one factor hides the other, so that what both explain would be negative
    assert both - fit(other) + both - fit(one) + 1 - both > 1
    assert shares["shared"] == 0
    whole = variance_shares(*(np.ravel(a) for a in (y[:1] * np.eye(6) + np.arange(6), *np.indices((6, 6)))))
    assert whole is not None and sum(whole.values()) == pytest.approx(1)
    table = variance(frames["gains"], INTERVALS)
    assert table.group_by("benchmark").agg(pl.col("share").sum())["share"].to_list() == pytest.approx([1] * 8)


def test_correlations_between_benchmarks_equal_scipy(effects: pl.DataFrame, frames: dict[str, pl.DataFrame]) -> None:
    row = (
        benchmarks(effects, frames["gains"], INTERVALS)
        .filter(benchmark="gsm8k", other_benchmark="nq")
        .row(0, named=True)
    )
    key = ["base", "sample", "recipe"]
    both = effects.filter(benchmark="gsm8k").join(effects.filter(benchmark="nq"), on=key, suffix="_other")
    assert row["coefficient"] == pytest.approx(
        stats.pearsonr(both["effect"], both["effect_other"]).statistic, abs=EXACT
    )
    assert row["spearman"] == pytest.approx(stats.spearmanr(both["effect"], both["effect_other"]).statistic, abs=EXACT)
    assert row["n_runs"] == both.height


# ---- question 2


def test_nothing_of_a_base_is_used_to_predict_it(frames: dict[str, pl.DataFrame]) -> None:
    frame = cells(frames["gains"], frames["predictors"])
    found = leave_one_base_out(frame).filter(base="qwen")
    other = frame.with_columns(
        pl.when(pl.col("base") == "qwen").then(pl.col("gain") + 9).otherwise("gain").alias("gain")
    )
    again = leave_one_base_out(other).filter(base="qwen")
    for name in ("mean", "dataset elsewhere", "features"):
        np.testing.assert_allclose(found[name], again[name], atol=EXACT)


def test_the_mean_and_the_expected_gain_are_plain_means(frames: dict[str, pl.DataFrame]) -> None:
    frame = cells(frames["gains"], frames["predictors"])
    row = leave_one_base_out(frame).filter(base="qwen", dataset="code", benchmark="nq").row(0, named=True)
    rest = frame.filter(pl.col("base") != "qwen", benchmark="nq")
    assert row["mean"] == pytest.approx(rest["gain"].mean(), abs=EXACT)
    assert row["expected"] == pytest.approx(rest.filter(dataset="code")["gain"].mean() - rest["gain"].mean(), abs=EXACT)  # type: ignore[operator]


def test_planted_perplexity_predicts_better_than_the_mean(frames: dict[str, pl.DataFrame]) -> None:
    table = prediction(cells(frames["gains"], frames["predictors"]), INTERVALS).filter(pl.col("base").is_null())
    skill = {row["model"]: row for row in table.iter_rows(named=True)}
    assert skill["dataset elsewhere and features"]["ci_low"] > 0.3
    assert skill["dataset elsewhere and features"]["error"] < skill["dataset elsewhere and features"]["error_of_mean"]
    noise = tables_of(Study(bases=6, slope=0, matched=0, lora=0, mixture=False, seed=5))
    null = prediction(cells(noise["gains"], noise["predictors"]), INTERVALS).filter(pl.col("base").is_null())
    assert (null["skill"] < 0.1).all()


def test_only_perplexity_remains_given_the_others(frames: dict[str, pl.DataFrame]) -> None:
    table = partials(cells(frames["gains"], frames["predictors"]), INTERVALS)
    rows = {row["predictor"]: row for row in table.iter_rows(named=True)}
    assert set(rows) == {*FEATURES, EMBEDDED}
    assert rows["log_perplexity"]["ci_high"] < 0
    assert abs(rows["similarity"]["coefficient"]) < 0.2


def test_a_study_without_embeddings_predicts_by_the_other_features(frames: dict[str, pl.DataFrame]) -> None:
    without = frames["predictors"].with_columns(pl.lit(None, pl.Float64).alias(EMBEDDED))
    frame = cells(frames["gains"], without)
    assert features_of(frame) == list(FEATURES)
    assert set(partials(frame, INTERVALS)["predictor"]) == set(FEATURES)
    assert set(prediction(frame, INTERVALS)["model"]) == set(MODELS)
    found = correlations(frames["gains"], without, AnalysisOptions(bootstrap_draws=200, permutations=200))
    assert EMBEDDED not in set(found["predictor"])


def test_recommendations_rank_datasets_for_tuned_and_new_bases(frames: dict[str, pl.DataFrame]) -> None:
    options = AnalysisOptions(bootstrap_draws=200, permutations=200)
    new = frames["predictors"].filter(base="yi").with_columns(base=pl.lit("newcomer"))
    predictors = pl.concat([frames["predictors"], new])
    frame = cells(frames["gains"], frames["predictors"])
    table = recommend(frame, predictors, options)
    assert set(table["dataset"]) == set(frame["dataset"])
    mine = table.filter(base="newcomer", benchmark="nq").sort("rank")
    assert mine["rank"].to_list() == list(range(1, mine.height + 1))
    assert mine["predicted"].is_sorted(descending=True)
    assert mine["observed"].null_count() == mine.height
    assert mine["best"].sum() == pytest.approx(1)
    assert ((mine["ci_low"] < mine["predicted"]) & (mine["predicted"] < mine["ci_high"])).all()
    first = table.filter(pl.col("rank") == 1, pl.col("observed").is_not_null())
    mean = table.filter(pl.col("observed").is_not_null())["observed"].mean()
    assert first["observed"].mean() > mean + 0.02  # type: ignore[operator]
    assert predict(frame, frame.head(3))["mean"].null_count() == 0


# ---- question 4


def test_epoch_curves_are_means_of_complete_runs(frames: dict[str, pl.DataFrame]) -> None:
    table = epochs(frames["gains"], INTERVALS)
    row = table.filter(pl.col("base").is_null(), pl.col("benchmark").is_null(), method="full", size=300, epoch=1)
    plain = frames["gains"].filter(pl.col("size") == 300, method="full", epoch=1)
    assert row["gain"].item() == pytest.approx(plain["gain"].mean(), abs=EXACT)
    assert row["to_last"].item() == pytest.approx(1)  # planted: half of the last gain


def test_a_dataset_that_helps_a_mixture_is_found() -> None:
    rows = [
        {"base": "a", "sample": sample, "recipe": "full", "seed": 0, "epoch": 3, "benchmark": "nq", "shots": 0}
        | {"metric": "exact_match", "score": score, "stderr": 0.03, "n": 100, "dataset": sample, "held_out": out}
        for sample, out, score in (("all", None, 0.5), ("without-x", "x", 0.4), ("without-y", "y", 0.55))
    ]
    table = leave_one_out(tables.build("scores", rows)).filter(pl.col("benchmark").is_not_null())
    assert dict(table.select("held_out", "contribution").iter_rows()) == pytest.approx({"x": 0.1, "y": -0.05})
    assert table["stderr"].to_list() == pytest.approx([0.03 * 2**0.5] * 2)


def _mixtures(*rows: tuple[str, str | None, str, float]) -> pl.DataFrame:
    """Table `scores` of one base from rows of sample, dataset left out, recipe and score."""
    about = {"base": "a", "seed": 0, "epoch": 3, "benchmark": "nq", "shots": 0, "metric": "exact_match"}
    about |= {"stderr": 0.03, "n": 100, "method": "full", "schedule": "cosine"}
    return tables.build(
        "scores",
        [
            about | {"sample": sample, "dataset": sample, "held_out": out, "recipe": recipe, "score": score}
            for sample, out, recipe, score in rows
        ],
    )


def test_a_dataset_is_taken_out_of_its_own_mixture_under_one_recipe() -> None:
    """Two mixtures (say, of two sizes), a third without parts left out, and two recipes of one method."""
    scores = _mixtures(
        *[("small", None, "lr1", 0.5), ("small-x", "x", "lr1", 0.4), ("pair", None, "lr1", 0.9)],
        *[("large", None, "lr1", 0.7), ("large-x", "x", "lr1", 0.75)],
        *[("small", None, "lr2", 0.6), ("small-x", "x", "lr2", 0.3)],
        ("lonely-x", "x", "lr1", 0.2),
    )
    whole = {"small-x": "small", "large-x": "large", "lonely-x": None}
    table = leave_one_out(scores, whole).filter(pl.col("benchmark").is_not_null())
    found = {(row["mixture"], row["recipe"]): row["contribution"] for row in table.iter_rows(named=True)}
    assert found == pytest.approx({("small", "lr1"): 0.1, ("small", "lr2"): 0.3, ("large", "lr1"): -0.05})


def test_without_a_matrix_only_a_single_mixture_is_taken_for_the_whole() -> None:
    one = [("all", None, "full", 0.5), ("without-x", "x", "full", 0.4)]
    assert leave_one_out(_mixtures(*one))["mixture"].unique().to_list() == ["all"]
    assert leave_one_out(_mixtures(*one, ("pair", None, "full", 0.9))).is_empty()
    assert leave_one_out(_mixtures(*one, ("small-without-x", "x", "full", 0.3))).is_empty()


def test_counterparts_are_correlated_as_scipy_does(frames: dict[str, pl.DataFrame]) -> None:
    table = crosslingual(frames["gains"], frames["scores"], LABELS, INTERVALS)
    row = table.filter(scope="pooled").row(0, named=True)
    runs = over_seeds(final_gains(frames["gains"]))
    both = runs.filter(benchmark="boolq").join(
        runs.filter(benchmark="instructions"), on=["base", "sample", "recipe"], suffix="_other"
    )
    assert (row["benchmark"], row["other"]) == ("boolq", "instructions")
    assert row["coefficient"] == pytest.approx(stats.spearmanr(both["gain"], both["gain_other"]).statistic, abs=EXACT)
    assert set(table["scope"]) == {"pooled", "within base", "language"}


def test_the_map_is_scikit_learns_pca(frames: dict[str, pl.DataFrame]) -> None:
    table = model_map(frames["scores"], frames["gains"]).filter(kind="PCA of scores")
    key = ["base", "sample", "recipe", "seed", "epoch"]
    wide = frames["scores"].pivot("benchmark", index=key, values="score", sort_columns=True).sort(key)
    values = wide.drop(key).to_numpy()
    theirs = PCA(2).fit_transform(values / values.std(axis=0))
    ours = wide.select(key).join(table, on=key, how="left", nulls_equal=True, maintain_order="left")
    np.testing.assert_allclose(ours.select("x", "y").to_numpy() ** 2, theirs**2, atol=1e-8)
    assert table.height == wide.height
