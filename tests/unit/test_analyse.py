"""Analyses find planted effects, leave planted nulls alone, and write documented, reproducible tables."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sft_atlas.analysis import tables
from sft_atlas.analysis.cells import final_gains, nominal_sizes
from sft_atlas.analysis.correlations import correlations
from sft_atlas.analysis.effects import effects
from sft_atlas.analysis.factors import contrasts, seeds
from sft_atlas.analysis.findings import analyse
from sft_atlas.analysis.intervals import Jackknife
from sft_atlas.analysis.layers import layer_correlations
from sft_atlas.study.analyses import AnalysisOptions
from tests.unit.synthetic import Study, tables_of

OPTIONS = AnalysisOptions(bootstrap_draws=1000, permutations=1000)
INTERVALS = Jackknife()
PLANTED = Study()
# tables that need what the invented study lacks: mixtures without a dataset, counterparts in other languages, faults
NOT_HERE = {"leave_one_out", "crosslingual", "sensitivity", "selection"}
NULL = Study(slope=0, matched=0, lora=0, layer_effect=0, seed=3)


@pytest.fixture(scope="module")
def planted() -> dict[str, pl.DataFrame]:
    return tables_of(PLANTED)


@pytest.fixture(scope="module")
def null() -> dict[str, pl.DataFrame]:
    return tables_of(NULL)


@pytest.fixture(scope="module")
def related() -> pl.DataFrame:
    frames = tables_of(replace(PLANTED, bases=8))
    return correlations(frames["gains"], frames["predictors"], OPTIONS)


def _overall(frame: pl.DataFrame, predictor: str, scope: str) -> dict:
    same = (pl.col("predictor") == predictor) & (pl.col("scope") == scope)
    everything = pl.all_horizontal(pl.col("benchmark", "method", "size").is_null())
    return frame.filter(same & everything).row(0, named=True)


def test_matching_data_is_found(planted: dict[str, pl.DataFrame]) -> None:
    frame = effects(planted["gains"], INTERVALS)
    row = frame.filter((pl.col("scope") == "difference") & pl.col("method").is_null() & pl.col("size").is_null())
    found = row.row(0, named=True)
    assert found["ci_low"] < PLANTED.matched < found["ci_high"]
    assert found["ci_low"] > 0.05
    # mixtures are of another size, in which no data matches anything they could be compared with
    assert found["n_runs"] == planted["training"].filter(pl.col("sample") != "all").height


def test_no_difference_is_found_where_none_is(null: dict[str, pl.DataFrame]) -> None:
    frame = effects(null["gains"], INTERVALS).filter((pl.col("scope") == "difference") & pl.col("method").is_null())
    assert all(row["ci_low"] < 0 < row["ci_high"] for row in frame.to_dicts())


def test_cell_means_are_plain_means_over_seeds(planted: dict[str, pl.DataFrame]) -> None:
    key = {"base": "olmo", "dataset": "code", "method": "full", "benchmark": "mbpp"}
    ours = effects(planted["gains"], INTERVALS).filter(pl.col("size") == 300, scope="cell", **key)
    plain = planted["gains"].filter(pl.col("size") == 300, epoch=3, **key)
    assert ours["gain"].item() == pytest.approx(plain["gain"].mean(), abs=1e-12)
    assert ours["n_runs"].item() == plain.height == 2


@pytest.mark.parametrize("scope", ["pooled", "within_base", "within_dataset"])
def test_a_planted_relation_with_perplexity_is_clear(related: pl.DataFrame, scope: str) -> None:
    row = _overall(related, "log_perplexity", scope)
    assert row["coefficient"] < -0.4
    assert row["ci_high"] < 0
    assert row["q"] < 0.05
    # bases compared on one dataset are the units, whatever the number of datasets
    assert row["n_clusters"] == (8 if scope == "within_dataset" else 7)


def test_planted_nulls_are_not_called_significant(null: dict[str, pl.DataFrame]) -> None:
    frame = correlations(null["gains"], null["predictors"], OPTIONS)
    assert frame.height > 100
    assert frame.filter((pl.col("q") < 0.05) & ((pl.col("ci_low") > 0) | (pl.col("ci_high") < 0))).is_empty()
    layers = layer_correlations(null["layers"], null["gains"], OPTIONS)
    assert layers.filter((pl.col("q") < 0.05) & ((pl.col("ci_low") > 0) | (pl.col("ci_high") < 0))).is_empty()


def test_a_dataset_effect_alone_is_seldom_taken_for_a_relation() -> None:
    """Gains and perplexities that differ by dataset, unrelated: runs of one dataset must not count as independent."""
    small = replace(NULL, benchmarks=4, recipes=("full",), sizes=(300,), seeds=(0,), mixture=False, layers=2)
    called = 0
    for seed in range(12):
        frames = tables_of(replace(small, seed=seed))
        names = frames["gains"]["dataset"].unique().sort()
        shift = dict(zip(names, np.random.default_rng(seed).normal(0, 0.05, len(names)), strict=True))
        moved = pl.col("gain") + pl.col("dataset").replace_strict(shift, return_dtype=pl.Float64)
        frame = correlations(frames["gains"].with_columns(gain=moved), frames["predictors"], OPTIONS)
        called += _overall(frame, "log_perplexity", "pooled")["p"] < 0.05
    assert called <= 2


def test_layers_that_follow_the_gain_are_found_at_their_depth(planted: dict[str, pl.DataFrame]) -> None:
    frame = layer_correlations(planted["layers"], planted["gains"], OPTIONS)
    same = {"scope": "within_base", "module": "all", "method": "full", "target": "mean_gain"}
    part = frame.filter(change="relative", **same).sort("coefficient")
    top = part.row(-1, named=True)
    assert top["depth"] == pytest.approx(0.6)
    assert top["ci_low"] > 0
    assert top["q"] < 0.05
    first = part.filter(pl.col("depth") == 0).row(0, named=True)
    assert first["ci_low"] < 0 < first["ci_high"]


def test_raw_and_relative_change_are_told_apart(planted: dict[str, pl.DataFrame]) -> None:
    """With norms that are noise, only the relative change follows the gain; within a base both are one check."""
    layers = planted["layers"]
    noise = np.random.default_rng(1).uniform(1, 2, layers.height)
    frame = layer_correlations(layers.with_columns(norm=pl.Series(noise)), planted["gains"], OPTIONS)
    part = frame.filter(scope="pooled", module="all", method="full", target="mean_gain", depth=0.6)
    assert part.filter(change="relative")["p"].item() < 0.05 < part.filter(change="raw")["p"].item()
    assert frame.filter(scope="within_base")["change"].unique().to_list() == ["relative"]


def test_method_and_size_differences_cover_the_truth(planted: dict[str, pl.DataFrame]) -> None:
    table = contrasts(planted["scores"], planted["gains"], INTERVALS)
    rows = table.filter(pl.all_horizontal(pl.col("base", "benchmark", "matched").is_null()))
    truth = {"method": PLANTED.lora, "size": 0.01}
    assert rows["factor"].to_list() == ["method", "size"]
    for row in rows.iter_rows(named=True):
        assert row["ci_low"] < truth[row["factor"]] < row["ci_high"]
        assert row["difference"] == pytest.approx(row["second_score"] - row["first_score"])
        assert (row["n_bases"], row["n_datasets"]) == (4, 7 if row["factor"] == "method" else 6)
    assert rows["second"].to_list() == ["lora", "1000"]


def test_seed_noise_is_recovered(planted: dict[str, pl.DataFrame]) -> None:
    frame = seeds(planted["gains"], INTERVALS).filter(pl.col("scope") == "all", pl.col("matched").is_null())
    row = frame.row(0, named=True)
    assert row["ci_low"] < PLANTED.seed_noise < row["ci_high"]
    assert seeds(planted["gains"].filter(seed=0), INTERVALS).is_empty()


def test_near_sizes_are_one_size() -> None:
    sizes = pl.Series("size", [1000] * 5 + [1030, 870, 20000, 10000, None])
    assert nominal_sizes(sizes) == {1000: 1000, 1030: 1000, 870: 1000, 20000: 20000, 10000: 10000}


def test_only_last_epochs_count_judges_are_rescaled_and_held_out_mixtures_left_out(
    planted: dict[str, pl.DataFrame],
) -> None:
    gains = planted["gains"].with_columns(metric=pl.lit("judge_1_10"))
    assert final_gains(gains)["epoch"].unique().to_list() == [3]
    assert final_gains(gains)["gain"].sum() == pytest.approx(final_gains(planted["gains"])["gain"].sum() / 9)
    assert final_gains(gains.with_columns(held_out=pl.lit("lima"))).is_empty()


def _write(frames: dict[str, pl.DataFrame], folder: Path) -> None:
    for name, frame in frames.items():
        tables.write(frame, folder, name)


def test_tables_are_written_in_their_schema_and_the_same_to_the_byte(tmp_path: Path) -> None:
    frames = tables_of(replace(PLANTED, benchmarks=4, layers=3))
    shuffled = {name: frame.sample(fraction=1, shuffle=True, seed=1) for name, frame in frames.items()}
    _write(frames, tmp_path / "in")
    _write(shuffled, tmp_path / "shuffled")
    analyse(tmp_path / "in", tmp_path / "a", OPTIONS)
    analyse(tmp_path / "shuffled", tmp_path / "b", OPTIONS)
    for name in set(tables.OUTPUTS) - set(tables.AUDIT):
        assert tables.read(tmp_path / "a", name).height or name in NOT_HERE, name
        for suffix in ("parquet", "csv"):
            assert (tmp_path / f"a/{name}.{suffix}").read_bytes() == (tmp_path / f"b/{name}.{suffix}").read_bytes()


def test_absent_inputs_give_empty_tables(tmp_path: Path) -> None:
    analyse(tmp_path, tmp_path / "out", OPTIONS)
    for name in set(tables.OUTPUTS) - set(tables.AUDIT) - {"claims"}:
        assert tables.read(tmp_path / "out", name).equals(tables.empty(name))
    claims = tables.read(tmp_path / "out", "claims")
    assert set(claims["verdict"]) == {"open"}
    assert claims["decides"].str.starts_with("needs ").all()


def test_a_run_with_missing_benchmarks_predictors_and_bases_is_analysed(planted: dict[str, pl.DataFrame]) -> None:
    gains = planted["gains"].filter(~((pl.col("base") == "olmo") & (pl.col("dataset").is_in(["code", "lima"]))))
    gains = gains.filter(~((pl.col("benchmark") == "nq") & (pl.col("seed") == 1)))
    predictors = planted["predictors"].with_columns(
        similarity=pl.when(pl.col("benchmark") == "nq").then(None).otherwise("similarity"),
        perplexity=pl.when(pl.col("sample") == "evol-300").then(None).otherwise("perplexity"),
    )
    frame = correlations(gains, predictors, OPTIONS)
    assert _overall(frame, "log_perplexity", "within_base")["ci_high"] < 0
    assert _overall(frame, "similarity", "within_run")["coefficient"] is not None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: f.drop("gain"), "column gain is missing"),
        (lambda f: f.with_columns(extra=1), "column extra is unknown"),
        (lambda f: f.with_columns(pl.col("n").cast(pl.Float64)), "column n has type Float64; expected Int64"),
        (lambda f: f.with_columns(base=pl.lit(None, pl.String)), "column base has 2560 null of 2560 values"),
        (lambda f: f.with_columns(gain=pl.lit(float("nan"))), "column gain has 2560 values that are NaN"),
        (lambda f: pl.concat([f, f.head(1)]), "names 2 rows that are not unique, such as base="),
    ],
)
def test_a_broken_table_is_refused_with_what_was_found(planted: dict[str, pl.DataFrame], change, says: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(tables.TableError, match="table 'gains'") as caught:
        tables.check(change(planted["gains"]), "gains")
    assert says in str(caught.value)


def test_unknown_tables_and_columns_of_rows_are_refused() -> None:
    with pytest.raises(tables.TableError, match="unknown table 'gain'"):
        tables.schema("gain")
    with pytest.raises(tables.TableError, match="column rowz is unknown"):
        tables.build("samples", [{"base": "b", "sample": "s", "rowz": 1}])
