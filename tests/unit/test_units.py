"""By which units things are compared, what is clear and what is borderline, and who may know whom in a prediction."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from scipy import stats

from sft_atlas.analysis import decisions, tables
from sft_atlas.analysis.cells import MEASURE
from sft_atlas.analysis.decisions import Evidence
from sft_atlas.analysis.effects import effects
from sft_atlas.analysis.factors import contrasts, seeds
from sft_atlas.analysis.interactions import benchmarks, cube, variance
from sft_atlas.analysis.intervals import Jackknife
from sft_atlas.analysis.maps import LIKELIHOODS, centred, likelihood_map
from sft_atlas.analysis.prediction import _errors, cells, half_width, hits, recommend
from sft_atlas.analysis.statistics import reliability
from sft_atlas.report import figures_factors, say
from sft_atlas.report.results import Results
from sft_atlas.study.analyses import AnalysisOptions
from tests.unit.synthetic import Study, tables_of

EXACT = 1e-9
INTERVALS = Jackknife()
OPTIONS = AnalysisOptions(bootstrap_draws=200, permutations=200)
STUDY = Study(bases=5, datasets=5, benchmarks=5, mixture=False, seeds=(0,), layers=2)


@pytest.fixture(scope="module")
def frames() -> dict[str, pl.DataFrame]:
    return tables_of(STUDY)


def _all(frame: pl.DataFrame, scope: str) -> dict:
    whole = pl.col("method").is_null() & pl.col("size").is_null()
    return frame.filter(whole, scope=scope).row(0, named=True)


def test_matching_is_compared_on_one_base_and_benchmark() -> None:
    """Where benchmarks that some data matches gain less than all others, whatever is trained, matching does nothing."""
    frames = tables_of(replace(STUDY, slope=0))
    tested = sorted(frames["gains"].filter("matched")["benchmark"].unique())[:3]
    hard = pl.when(pl.col("benchmark").is_in(tested)).then(-0.3).otherwise(0.0)
    moved = frames["gains"].with_columns(
        matched=pl.col("matched") & pl.col("benchmark").is_in(tested),
        gain=pl.col("gain") - pl.col("matched") * STUDY.matched + hard,
    )
    table = effects(moved, INTERVALS)
    matched, unmatched, difference = (_all(table, scope) for scope in ("matched", "unmatched", "difference"))
    assert matched["gain"] - unmatched["gain"] < -0.1
    assert abs(difference["gain"]) < 0.02
    assert difference["ci_low"] < 0 < difference["ci_high"]
    strata = ["base", "method", "size", *MEASURE]
    last = moved.filter(pl.col("epoch") == 3).filter(pl.col("matched").any().over(strata))
    plain = last.filter("matched").join(
        last.filter(~pl.col("matched")).group_by(strata).agg(other=pl.col("gain").mean()), on=strata
    )
    assert difference["gain"] == pytest.approx((plain["gain"] - plain["other"]).mean(), abs=EXACT)


def test_means_carry_the_q_of_scipy(frames: dict[str, pl.DataFrame]) -> None:
    means = effects(frames["gains"], INTERVALS).filter(pl.col("size") == 300, scope="mean", method="full")
    np.testing.assert_allclose(means["q"], stats.false_discovery_control(means["p"]), atol=EXACT)
    row = means.row(0, named=True)
    same = {name: row[name] for name in ("dataset", "benchmark", "method")}
    values = frames["gains"].filter(pl.col("size") == 300, epoch=3, **same)["gain"]
    assert row["p"] == pytest.approx(stats.ttest_1samp(values, 0).pvalue, abs=EXACT)


def test_contrasts_pair_scores_benchmark_by_benchmark(frames: dict[str, pl.DataFrame]) -> None:
    table = contrasts(frames["scores"], frames["gains"], INTERVALS)
    key = ["base", "sample", "benchmark"]
    last = frames["scores"].filter(pl.col("epoch") == 3)
    sides = [last.filter(method=method).select(*key, "score") for method in ("full", "lora")]
    pairs = sides[0].join(sides[1], on=key, suffix="_lora").with_columns(d=pl.col("score_lora") - pl.col("score"))
    single = table.filter(pl.col("benchmark").is_not_null(), factor="method")
    assert single.height == STUDY.benchmarks
    for row in single.iter_rows(named=True):
        mine = pairs.filter(benchmark=row["benchmark"])
        assert row["difference"] == pytest.approx(mine["d"].mean(), abs=EXACT)
        assert row["n_pairs"] == mine.height
    np.testing.assert_allclose(single["q"], stats.false_discovery_control(single["p"]), atol=EXACT)
    together = table.filter(pl.all_horizontal(pl.col("base", "benchmark", "matched").is_null()), factor="method")
    gains = frames["gains"].filter(pl.col("epoch") == 3).group_by("method").agg(pl.col("gain").mean())
    by_method = dict(gains.iter_rows())
    assert together["difference"].item() == pytest.approx(by_method["lora"] - by_method["full"], abs=EXACT)
    # what the base itself scored is not needed
    without = frames["scores"].filter(pl.col("sample").is_not_null())
    assert contrasts(without, frames["gains"], INTERVALS).equals(table)


def test_cells_that_differ_in_two_factors_are_no_contrast(frames: dict[str, pl.DataFrame]) -> None:
    apart = frames["scores"].filter((pl.col("method") == "full") == (pl.col("size") == 300))
    assert contrasts(apart, frames["gains"], INTERVALS).is_empty()


def test_shares_and_their_ends_stay_between_nought_and_one(frames: dict[str, pl.DataFrame]) -> None:
    table = variance(frames["gains"], INTERVALS)
    for name in ("share", "ci_low", "ci_high"):
        assert table[name].min() >= 0 and table[name].max() <= 1  # type: ignore[operator]


def test_reliability_is_that_of_paired_noise(frames: dict[str, pl.DataFrame]) -> None:
    from sft_atlas.analysis.cells import free_effects

    free = free_effects(frames["scores"])
    row = benchmarks(free, frames["gains"], INTERVALS).row(0, named=True)
    own = free.filter(benchmark=row["benchmark"])
    noise = 0.02 * ((STUDY.datasets - 1) / (2 * STUDY.datasets)) ** 0.5  # 0.02: paired, of every gain
    assert row["reliability"] == pytest.approx(reliability(own["effect"], np.full(own.height, noise)), abs=EXACT)
    unpaired = benchmarks(free, tables.empty("gains"), INTERVALS).row(0, named=True)
    assert unpaired["reliability"] < row["reliability"]
    assert cube(free).effect.shape == (5, 5, 5)


# ---- predictions


def test_errors_are_those_of_models_that_saw_neither_base(frames: dict[str, pl.DataFrame]) -> None:
    """The gains of the base asked about may be anything: the errors by which its interval is made do not move."""
    frame = cells(frames["gains"], frames["predictors"])
    model, base = "dataset elsewhere", "gemma"
    noise = pl.Series(np.random.default_rng(0).normal(0, 5, frame.height))
    moved = frame.with_columns(gain=pl.when(pl.col("base") == base).then(pl.col("gain") + noise).otherwise("gain"))
    bases = frame["base"].unique().sort().to_list()
    before, after = (_errors(part, model, bases)[base] for part in (frame, moved))
    assert set(next(iter(before.values()))) == set(bases) - {base}
    for measure, errors in before.items():
        for other, missed in errors.items():
            np.testing.assert_allclose(missed, after[measure][other], atol=EXACT)
    one = recommend(frame, frames["predictors"], OPTIONS).filter(base=base)
    wild = recommend(moved, frames["predictors"], OPTIONS).filter(base=base)
    assert one.drop("observed").equals(wild.drop("observed"))


def test_half_widths_count_bases_where_errors_are_theirs() -> None:
    """Errors that are alike on a base count by bases; independent ones nearly by cells."""
    rng = np.random.default_rng(1)
    shared = [np.full(50, value) for value in rng.normal(size=12)]
    alone = [rng.normal(size=50) for _ in range(12)]
    for errors, least, most in ((shared, 2.08, 2.3), (alone, 1.96, 2.05)):
        root = np.sqrt(np.mean(np.concatenate(errors) ** 2))
        assert least <= half_width(errors, 0.95) / root <= most
    assert np.isnan(half_width(shared[:1], 0.95))


def test_ties_are_no_hits_and_chance_knows_them() -> None:
    def case(base: str, observed: list[float]) -> list[dict]:
        about = {"base": base, "benchmark": "nq", "shots": 0, "metric": "exact_match", "model": "m"}
        return [
            about | {"rank": i + 1, "dataset": f"d{i}", "predicted": 0.1 - i / 100, "best": 0.5, "observed": value}
            for i, value in enumerate(observed)
        ]

    rows = case("right", [0.3, 0.1, 0.2]) + case("wrong", [0.1, 0.3, 0.2]) + case("tied", [0.0, 0.0, 0.0])
    rows += case("rounded", [0.3, 0.1 + 0.2, 0.1])
    found = {row["base"]: row for row in hits(tables.build("recommend", rows)).iter_rows(named=True)}
    assert {base: row["hit"] for base, row in found.items()} == {
        "right": True, "wrong": False, "tied": False, "rounded": False,
    }  # fmt: skip
    assert {base: row["chance"] for base, row in found.items()} == pytest.approx(
        {"right": 1 / 3, "wrong": 1 / 3, "tied": 0, "rounded": 0}
    )


# ---- the map


def test_the_rim_is_told_by_the_vectors_and_not_by_the_map(frames: dict[str, pl.DataFrame]) -> None:
    placed = likelihood_map(frames["likelihoods"], frames["dimensions"])
    key = ["base", "sample", "recipe", "seed", "epoch"]
    wide = frames["likelihoods"].pivot("item", index=key, values="log_likelihood", sort_columns=True).sort(key)
    q = centred(wide.drop(key).to_numpy())
    tuned = (wide["sample"].is_not_null() & (wide["base"] == "olmo")).to_numpy()
    own = placed.filter(kind=LIKELIHOODS).sort(key).filter(pl.Series(tuned))
    away = ((q[tuned] - q[tuned].mean(axis=0)) ** 2).mean(axis=1)
    np.testing.assert_allclose(own["from_middle"], away, atol=EXACT)
    moved = placed.with_columns(x=-pl.col("y") * 7, y=pl.col("x") ** 2)
    told = [decisions.larger_on_the_rim(Evidence({"map": table}, {}, INTERVALS)) for table in (placed, moved)]
    assert told[0] is not None and told[0] == told[1]
    near = [decisions.clusters_by_base(Evidence({"map": table}, {}, INTERVALS)) for table in (placed, moved)]
    assert near[0] is not None and near[0] == near[1] and near[0].number.high <= STUDY.bases


# ---- words


def test_seed_noise_says_on_which_bases_it_was_measured(tmp_path) -> None:  # type: ignore[no-untyped-def]
    several = tables_of(replace(STUDY, seeds=(0, 1), sizes=(300,)))
    gains = several["gains"].filter((pl.col("base") == "llama") | (pl.col("seed") == 0))
    for name, frame in (several | {"gains": gains}).items():
        tables.write(frame, tmp_path, name)
    tables.write(seeds(gains, INTERVALS), tmp_path, "seeds")
    said = figures_factors.explain_seeds(Results(tmp_path, {}))
    assert said.startswith("Measured on one base alone, llama, of 5, another training seed moves a gain by")
    tables.write(seeds(several["gains"], INTERVALS), tmp_path, "seeds")
    said = figures_factors.explain_seeds(Results(tmp_path, {}))
    assert said.startswith("On 5 bases of 5, another training seed moves a gain by")
    assert "times that" not in said


@pytest.mark.parametrize(
    ("ends", "q", "says"),
    [
        ((-0.44, -0.03), 0.048, "gain falls with perplexity"),
        ((-0.44, -0.03), 0.06, "borderline, no more than a hint that gain falls with perplexity"),
        ((-0.40, 0.02), 0.06, "borderline, no more than a hint that gain falls with perplexity"),
        ((-0.44, 0.30), 0.6, "no clear relation of gain with perplexity"),
    ],
)
def test_a_relation_may_be_borderline(ends: tuple[float, float], q: float, says: str) -> None:
    row = {"coefficient": -0.22, "ci_low": ends[0], "ci_high": ends[1], "q": q}
    assert say.relation(row, "perplexity") == says
