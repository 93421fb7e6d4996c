"""The released table, from the file to its report, without training anything."""

import time
from collections.abc import Callable

import polars as pl
import pytest

from sft_atlas.analysis import tables
from tests.conftest import SHARED, Repository


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    if not (SHARED / "published").is_dir():
        pytest.skip("the released table is not here: ../shared/published is absent")
    from tests.conftest import copy_project

    folder = tmp_path_factory.mktemp("published") / "project"
    folder.mkdir()
    copy_project(folder)
    (folder.parent / "shared").symlink_to(SHARED)
    repository = Repository(folder, "published-table")
    started = time.monotonic()
    repository.snakemake()
    # under a minute on an idle machine; tests may share theirs with others
    assert time.monotonic() - started < 180
    return repository


def test_it_yields_every_table(imported: Repository) -> None:
    folder = imported.folder / "results/published-table/tables"
    for name in tables.TABLES:
        tables.check(pl.read_parquet(folder / f"{name}.parquet"), name)
    scores = tables.read(folder, "scores")
    cells = scores.select("base", "sample", "recipe", "seed", "epoch").unique()
    assert cells.height == 1027
    assert cells.filter(pl.col("epoch") == 0).height == 11
    missing = tables.read(folder, "missing").filter(pl.col("benchmark").is_null())
    # 12 bases and 1,070 models are declared
    assert missing.height == 1082 - 1027
    for empty in ("predictors", "layers", "layer_peaks", "partials"):
        assert tables.read(folder, empty).is_empty()


def test_its_claims_are_judged(imported: Repository) -> None:
    claims = tables.read(imported.folder / "results/published-table/tables", "claims")
    assert set(claims.filter(pl.col("number").is_null())["claim"]) == {
        "perplexity",
        "best predictor",
        "upper layers",
        "peak depth",
        "dimension",
    }
    assert set(claims.filter(pl.col("number").is_null())["verdict"]) == {"open"}
    few = claims.filter(claim="few components").row(0, named=True)
    # 0.77 of 20 scaled columns, 0.92 of 13 as they are: the published layout is unknown
    assert few["verdict"] == "open"
    assert few["decides"].startswith("the layout")
    assert "all, scaled (20 columns): 0.77" in few["beside"]
    assert "one number of shots, as they are (13 columns): 0.91" in few["beside"]


def test_numbers_that_were_recomputed_elsewhere_stay(imported: Repository) -> None:
    """Eight numbers of the released table, with all of its cells, as an independent recomputation has them."""
    claims = tables.read(imported.folder / "results/published-table/tables", "claims")
    everything = dict(claims.select("claim", "number_all").iter_rows())
    for name, number in {
        "LoRA near full": 0.017082468930862,
        "languages": 0.441929323929,
        "few components": 0.774870191583,
        "few patterns": 0.844882563641,
        "family": 0.203898485155,
        "code for maths": 0.024150365854,
        "convergence": 0.264484956205,
        "LoRA early": 0.947504630727,
    }.items():
        assert everything[name] == pytest.approx(number, abs=2e-9), name


def test_matching_data_does_not_do_worse_on_the_same_benchmark(imported: Repository) -> None:
    folder = imported.folder / "results/published-table/tables"
    rows = tables.read(folder, "effects").filter(pl.col("method").is_null() & pl.col("size").is_null())
    found = {row["scope"]: row for row in rows.iter_rows(named=True) if row["scope"] not in ("cell", "mean")}
    assert found["difference"]["ci_low"] < 0 < found["difference"]["ci_high"]


def test_verdicts_follow_from_intervals(imported: Repository) -> None:
    claims = tables.read(imported.folder / "results/published-table/tables", "claims")
    verdicts = dict(claims.select("claim", "verdict").iter_rows())
    assert verdicts["family"] == "confirmed"
    assert verdicts["clusters"] == "confirmed"


def test_its_report_says_what_a_table_cannot_hold(imported: Repository) -> None:
    page = (imported.folder / "results/published-table/report.html").read_text()
    assert len(page) < 5_000_000
    assert "changes of weights by layer (table layers)" in page
    assert "perplexity, length and similarity of the training data (table predictors)" in page
    assert "base LLM-jp-3-7B and base OLMo-7B-hf hold the same scores" in page


def test_another_table_is_refused_before_any_job(project: Callable[[str], Repository]) -> None:
    repository = project("published-table")
    done = repository.snakemake(check=False)
    assert done.returncode != 0
    assert "table.path: '../shared/published/evaluation_result.csv' is not a file" in done.stderr


def test_snakemakes_own_report_holds_ours(imported: Repository) -> None:
    imported.snakemake("--report", "all.html")
    text = (imported.folder / "all.html").read_text()
    assert "findings in plain words" in text
    assert "report.html" in text
