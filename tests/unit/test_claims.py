"""Claims are judged by intervals, with and without suspect cells, and say what they lack."""

from dataclasses import replace
from pathlib import Path

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


@pytest.mark.parametrize(
    ("number", "low", "high", "verdict"),
    [
        (0.5, 0.3, 0.7, "confirmed"),
        (0.5, -0.1, 0.7, "weak"),
        (-0.1, -0.3, 0.2, "not"),
        (0.5, float("nan"), float("nan"), "weak"),
    ],
)
def test_a_verdict_follows_from_estimate_and_interval(number: float, low: float, high: float, verdict: str) -> None:
    assert Found(Interval(number, low, high), "", 0.0).verdict == verdict


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
        assert (row["number"] is None) == (row["verdict"] == "undecided") == (row["needs"] is not None)


def test_planted_truths_are_confirmed_and_what_is_not_so_is_not(found: dict[str, dict]) -> None:
    assert found["perplexity"]["verdict"] == "confirmed"
    assert found["perplexity"]["number"] < -0.3
    assert found["best predictor"]["verdict"] == "weak"
    assert found["upper layers"]["verdict"] == "confirmed"
    assert found["peak depth"]["number"] == pytest.approx(0.6, abs=0.1)
    # five points below full fine-tuning are not near
    assert found["LoRA near full"]["verdict"] == "not"
    assert found["LoRA near full"]["number"] == pytest.approx(-0.05, abs=0.01)
    # dimensions part by 1 above depth 0.5, beside noise of 0.1; texts are nearest under models of one base
    assert found["dimension"]["verdict"] == "confirmed"
    assert found["dimension"]["ci_low"] > 4
    assert found["clusters"]["verdict"] == "confirmed"


def test_labels_are_needed_for_families(found: dict[str, dict], tmp_path: Path) -> None:
    assert found["family"]["verdict"] == "undecided"
    assert found["family"]["needs"] == "labels of families, two bases of one family"
    bases = {
        name: {"family": "ab"[i % 2], "language": "en"} for i, name in enumerate(("olmo", "llama", "mistral", "gemma"))
    }
    labelled = _claims(tmp_path, labels={"bases": bases, "benchmarks": {}})
    assert labelled["family"]["verdict"] in ("weak", "not")


def test_a_copied_row_changes_what_it_touches_and_is_said_to(tmp_path: Path) -> None:
    """Base scores of one base are those of another: gains of both go, base-free effects stay."""
    frames = tables_of(replace(PLANTED, benchmarks=8, items=20_000))

    def copy(given: dict[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
        scores = frames["scores"].with_columns(pl.col("score").round(4))
        base = pl.col("sample").is_null()
        source = scores.filter(base & (pl.col("base") == "llama")).select("benchmark", given="score")
        scores = scores.join(source, on="benchmark", how="left").with_columns(
            score=pl.when(base & (pl.col("base") == "olmo")).then("given").otherwise("score")
        )
        return given | frames | {"scores": scores.drop("given")}

    _claims(tmp_path, copy)
    assert tables.read(tmp_path, "audit")["fault"].to_list()[:1] == ["copy"]
    effects = tables.read(tmp_path, "effects").filter(scope="cell")
    assert {"olmo", "llama"} & set(effects["base"]) == set()
    assert {"olmo", "llama"} < set(tables.read(tmp_path, "free")["base"])
    assert tables.read(tmp_path, "sensitivity").height > 0
