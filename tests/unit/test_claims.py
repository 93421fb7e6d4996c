"""Claims are judged by intervals, with and without suspect cells, and say what they lack."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sft_atlas.analysis import tables
from sft_atlas.analysis.claims import CLAIMS
from sft_atlas.analysis.decisions import Found
from sft_atlas.analysis.findings import analyse
from sft_atlas.analysis.statistics import Interval
from sft_atlas.stages.audit.run import audit
from sft_atlas.study.analyses import AnalysisOptions
from tests.unit.synthetic import Study, tables_of

OPTIONS = AnalysisOptions(bootstrap_draws=500, permutations=500)
PLANTED = Study(bases=6, sizes=(300, 1000), slope=-0.1, lora=-0.05)


NAN = float("nan")


@pytest.mark.parametrize(
    ("ends", "limits", "verdict"),
    [
        ((0.3, 0.7), (0.0, np.inf), "confirmed"),
        ((-0.1, 0.7), (0.0, np.inf), "open"),
        ((-0.3, 0.2), (0.0, np.inf), "open"),
        ((-0.3, -0.1), (0.0, np.inf), "contradicted"),
        ((0.3, 0.7), (-0.02, 0.02), "contradicted"),
        ((-0.01, 0.015), (-0.02, 0.02), "confirmed"),
        ((NAN, NAN), (0.0, np.inf), "open"),
    ],
)
def test_a_verdict_follows_from_the_interval(
    ends: tuple[float, float], limits: tuple[float, float], verdict: str
) -> None:
    found = Found(Interval(float(np.mean(ends)), *ends), "", *limits, units={"bases": 4, "datasets": 6})
    assert found.verdict == verdict
    assert (found.decides is None) == (verdict != "open")


def test_an_open_claim_says_what_would_decide_it() -> None:
    wide = Found(Interval(0.2, -0.2, 0.6), "", 0.0, units={"bases": 4, "datasets": 6})
    assert wide.decides == (
        "the interval reaches 0.4 towards 0, less than 0.2 would decide here: about 16 bases and 24 datasets"
    )
    # of two limits the one that is reached farther beyond, of a skewed interval the end on its side
    both = Found(Interval(0.01, -0.03, 0.04), "", -0.02, 0.02, units={"bases": 5})
    assert both.decides == "the interval reaches 0.03 towards 0.02, less than 0.01 would decide here: about 45 bases"
    hopeless = Found(Interval(0.001, -0.4, 0.4), "", 0.0, units={"bases": 4})
    assert (hopeless.decides or "").endswith("more than 1,000 bases")
    few = Found(Interval(0.2, NAN, NAN), "", 0.0, units={"bases": 1, "datasets": 6})
    assert few.decides == "too few: 1 bases, where an interval needs 3"
    doubted = Found(Interval(0.5, 0.4, 0.6), "", 0.0, units={"bases": 4}, doubt="a clear correlation")
    assert (doubted.verdict, doubted.by_interval, doubted.decides) == ("open", "confirmed", "a clear correlation")


def _claims(folder: Path, change=lambda frames: frames, labels=None) -> dict[str, dict]:  # type: ignore[no-untyped-def]
    for name, frame in change(tables_of(PLANTED)).items():
        tables.write(frame, folder, name)
    audit(folder, folder, labels or {})
    analyse(folder, folder, OPTIONS, labels)
    return {row["claim"]: row for row in tables.read(folder, "claims").iter_rows(named=True)}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    return _claims(tmp_path_factory.mktemp("claims"))


def test_every_claim_has_a_row_with_number_or_reason(found: dict[str, dict]) -> None:
    assert set(found) == {claim.name for claim in CLAIMS}
    for row in found.values():
        assert row["verdict"] in ("confirmed", "contradicted", "open")
        assert (row["verdict"] == "open") == (row["decides"] is not None)
        assert row["number"] is not None or row["decides"].startswith("needs ")


def test_planted_truths_are_confirmed_and_what_is_not_so_is_not(found: dict[str, dict]) -> None:
    assert found["perplexity"]["verdict"] == "confirmed"
    assert found["perplexity"]["number"] < -0.3
    assert found["best predictor"]["verdict"] == "confirmed"
    assert 0 < found["best predictor"]["ci_low"] < found["best predictor"]["number"]
    assert found["upper layers"]["verdict"] == "confirmed"
    assert found["peak depth"]["number"] == pytest.approx(0.6, abs=0.1)
    # five points below full fine-tuning are not near
    assert found["LoRA near full"]["verdict"] == "contradicted"
    assert found["LoRA near full"]["number"] == pytest.approx(-0.05, abs=0.01)
    assert "8 of 8 lie beyond" in found["LoRA near full"]["beside"]
    # dimensions part by 1 above depth 0.5, beside noise of 0.1; texts are nearest under models of one base
    assert found["dimension"]["verdict"] == "confirmed"
    assert found["dimension"]["ci_low"] > 4
    assert found["clusters"]["verdict"] == "confirmed"
    assert found["clusters"]["ci_high"] <= 6  # every model's neighbour of its own base is 6 times chance


def test_the_place_of_a_peak_of_noise_is_open(tmp_path: Path) -> None:
    noise = replace(PLANTED, layer_effect=0, seed=3)
    row = _claims(tmp_path, lambda _: tables_of(noise))["peak depth"]
    assert row["verdict"] == "open"
    assert row["decides"].startswith("a clear correlation at the peak; it is not: ρ = ")


def test_components_name_their_layout_alternatives_and_chance(found: dict[str, dict]) -> None:
    row = found["few components"]
    assert "columns scaled to equal variance" in row["rule"]
    assert row["beside"].count("shuffled") == 2  # one number of shots each: scaled or as they are
    # eight unrelated columns already give what five components of eight must
    chance = float(row["beside"].split("shuffled ")[1].split(";")[0])
    assert 0.6 < chance < row["number"]


def test_opposite_differences_on_benchmarks_do_not_make_lora_near_full(tmp_path: Path) -> None:
    """A mean of +6 and -6 points is near nought; the claim is not confirmed by it."""

    def opposite(frames: dict[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
        side = pl.when(pl.col("benchmark").rank("dense") % 2 == 0).then(0.06).otherwise(-0.06)
        lora = pl.when(pl.col("method") == "lora").then(side + 0.05).otherwise(0.0)
        return frames | {"scores": frames["scores"].with_columns(pl.col("score") + lora)}

    row = _claims(tmp_path, opposite)["LoRA near full"]
    assert abs(row["number"]) < 0.01
    assert row["verdict"] == "open"
    assert "lie beyond ±0.02, which a mean hides" in row["decides"]


def test_a_study_of_one_run_says_too_few(tmp_path: Path) -> None:
    one = Study(bases=1, datasets=1, recipes=("full",), sizes=(300,), seeds=(0,), mixture=False)
    rows = _claims(tmp_path, lambda _: tables_of(one))
    assert {row["verdict"] for row in rows.values()} == {"open"}
    for row in rows.values():
        assert row["decides"].startswith(("too few", "needs ")), row["claim"]


def test_labels_are_needed_for_families(found: dict[str, dict], tmp_path: Path) -> None:
    assert found["family"]["verdict"] == "open"
    assert found["family"]["decides"] == "needs labels of families, two bases of one family"
    bases = {
        name: {"family": "ab"[i % 2], "language": "en"} for i, name in enumerate(("olmo", "llama", "mistral", "gemma"))
    }
    labelled = _claims(tmp_path, labels={"bases": bases, "benchmarks": {}})
    # invented bases have no families, so that no verdict may be one of them
    assert labelled["family"]["verdict"] in ("open", "contradicted")
    assert labelled["family"]["number"] is not None


def _with_a_copied_base(given: dict[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """Base scores of olmo are those of llama."""
    frames = tables_of(replace(PLANTED, benchmarks=8, items=20_000))
    scores = frames["scores"].with_columns(pl.col("score").round(4))
    base = pl.col("sample").is_null()
    source = scores.filter(base & (pl.col("base") == "llama")).select("benchmark", given="score")
    scores = scores.join(source, on="benchmark", how="left").with_columns(
        score=pl.when(base & (pl.col("base") == "olmo")).then("given").otherwise("score")
    )
    return given | frames | {"scores": scores.drop("given")}


def test_a_copied_row_of_a_table_is_left_out_alone(tmp_path: Path) -> None:
    """The copy's gains go, those of the base that was copied and base-free effects stay; nothing was trained here."""
    _claims(tmp_path, lambda given: _with_a_copied_base(given) | {"training": tables.empty("training")})
    assert tables.read(tmp_path, "audit")["fault"].to_list()[:1] == ["copy"]
    effects = tables.read(tmp_path, "effects").filter(scope="cell")
    assert {"olmo", "llama"} & set(effects["base"]) == {"llama"}
    assert {"olmo", "llama"} < set(tables.read(tmp_path, "free")["base"])
    assert tables.read(tmp_path, "sensitivity").height > 0


def test_a_copy_among_our_own_scores_is_marked_and_stays(tmp_path: Path) -> None:
    _claims(tmp_path, _with_a_copied_base)
    audited = tables.read(tmp_path, "audit").row(0, named=True)
    assert (audited["fault"], audited["excluded"]) == ("copy", False)
    assert "our own" in audited["evidence"]
    assert {"olmo", "llama"} <= set(tables.read(tmp_path, "effects").filter(scope="cell")["base"])
