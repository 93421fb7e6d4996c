"""The map of log-likelihoods: its arithmetic, its bytes, and whether what is near in truth is near on it."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from sklearn.manifold import trustworthiness

from sft_atlas.analysis import tables
from sft_atlas.analysis.dimensions import dimension_changes
from sft_atlas.analysis.intervals import Jackknife
from sft_atlas.analysis.maps import LIKELIHOODS, SCORES, best_map, centred, likelihood_map, tsne
from tests.unit.synthetic import Study, tables_of

STUDY = Study(bases=3, datasets=5, benchmarks=2, sizes=(300,), seeds=(0,), mixture=False)
KEY = ["base", "sample", "recipe", "seed", "epoch"]


@pytest.fixture(scope="module")
def frames() -> dict[str, pl.DataFrame]:
    return tables_of(STUDY)


@pytest.fixture(scope="module")
def placed(frames: dict[str, pl.DataFrame]) -> pl.DataFrame:
    return likelihood_map(frames["likelihoods"], frames["dimensions"])


def test_rows_and_columns_are_centred_after_the_floor() -> None:
    values = np.random.default_rng(0).normal(-50, 20, (12, 40))
    values[3, 5] = -1e6
    q = centred(values)
    np.testing.assert_allclose(q.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(q.mean(axis=1), 0, atol=1e-9)
    assert np.abs(q).max() < 200
    floor = np.quantile(values, 0.02)
    raised = np.where(values < floor, floor, values)
    expected = raised[2, 7] - raised[2].mean() - raised[:, 7].mean() + raised.mean()
    assert q[2, 7] == pytest.approx(expected, abs=1e-9)
    # a text that all models find equally likely, or a model that finds all texts less likely, changes nothing
    np.testing.assert_allclose(centred(values[:, :5] + 7)[:, 0], centred(values[:, :5])[:, 0], atol=1e-9)


def test_every_model_is_a_point_beside_its_nearest(frames: dict[str, pl.DataFrame], placed: pl.DataFrame) -> None:
    models = frames["likelihoods"].select(KEY).n_unique()
    assert dict(placed["kind"].value_counts().iter_rows()) == {LIKELIHOODS: models, "PCA of log-likelihoods": models}
    rows = placed.filter(kind=LIKELIHOODS)
    assert (rows["nearest"] == rows["base"]).all()
    assert (rows.filter(pl.col("sample").is_null())["from_base"] < 1e-9).all()
    wide = frames["likelihoods"].pivot("item", index=KEY, values="log_likelihood", sort_columns=True).sort(KEY)
    q = centred(wide.drop(KEY).to_numpy())
    index = wide.with_row_index().filter(base="llama")
    own, base = int(index["index"][3]), int(index.filter(pl.col("sample").is_null())["index"][0])
    row = wide.select(KEY).slice(own, 1).join(rows, on=KEY, nulls_equal=True)
    assert row["from_base"].item() == pytest.approx(((q[own] - q[base]) ** 2).sum() / q.shape[1], abs=1e-9)
    assert row["dataset"].item() is not None


def test_neighbours_on_the_map_are_neighbours(frames: dict[str, pl.DataFrame], placed: pl.DataFrame) -> None:
    wide = frames["likelihoods"].pivot("item", index=KEY, values="log_likelihood", sort_columns=True).sort(KEY)
    rows = wide.select(KEY).join(placed.filter(kind=LIKELIHOODS), on=KEY, nulls_equal=True, maintain_order="left")
    q = centred(wide.drop(KEY).to_numpy())
    assert trustworthiness(q, rows.select("x", "y").to_numpy(), n_neighbors=5) > 0.85


DIGEST = """
import hashlib
from sft_atlas.analysis.maps import likelihood_map
from tests.unit.test_maps import STUDY, tables_of
frames = tables_of(STUDY)
print(hashlib.sha256(likelihood_map(frames["likelihoods"], frames["dimensions"]).write_csv().encode()).hexdigest())
"""


@pytest.mark.parametrize("threads", ["1", "2"])
def test_the_same_bytes_in_another_process_whatever_the_threads(placed: pl.DataFrame, threads: str) -> None:
    limits = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"), threads)
    done = subprocess.run(
        [sys.executable, "-c", DIGEST], env=os.environ | limits, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == hashlib.sha256(placed.write_csv().encode()).hexdigest()


def test_few_models_or_none_give_no_map(frames: dict[str, pl.DataFrame]) -> None:
    for part in (frames["likelihoods"].head(0), frames["likelihoods"].filter(epoch=0)):
        assert likelihood_map(part, frames["dimensions"]).is_empty()
    assert tsne(np.zeros((6, 3))).shape == (6, 2)


def test_a_study_without_likelihoods_falls_back_on_scores(placed: pl.DataFrame) -> None:
    scores = placed.with_columns(kind=pl.lit(SCORES))
    assert set(best_map(pl.concat([scores, placed]))["kind"]) == {LIKELIHOODS}
    assert set(best_map(scores)["kind"]) == {SCORES}
    assert best_map(tables.empty("map")).is_empty()


def test_dimensions_part_where_they_were_made_to(frames: dict[str, pl.DataFrame]) -> None:
    table = dimension_changes(frames["dimensions"], Jackknife())
    means = table.filter(pl.col("base").is_null(), method="full").sort("depth")
    for row in means.iter_rows(named=True):
        assert row["difference"] == pytest.approx(row["after"] - row["before"], abs=1e-9)
    assert means.filter(pl.col("depth") < 0.4)["difference"].abs().max() < 0.3  # type: ignore[operator]
    last = means.row(-1, named=True)
    assert 0.7 < last["ci_low"] <= last["difference"] <= last["ci_high"] < 1.3
    assert set(table["base"].drop_nulls()) == set(frames["dimensions"]["base"])
    assert dimension_changes(frames["dimensions"].filter(pl.col("sample").is_not_null()), Jackknife()).is_empty()
