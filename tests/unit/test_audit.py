"""Every class of fault, planted in a clean table, is found and named; clean tables raise no alarm."""

from collections.abc import Callable

import polars as pl
import pytest

from sft_atlas.analysis import tables
from sft_atlas.analysis.audit import audit, without_suspects
from tests.conftest import ROOT, SHARED
from tests.unit.published import KEY, LABELS, Table, clean, copied, plant

MISSING, IMPORTED = tables.empty("missing"), tables.empty("imported")
PUBLISHED = SHARED / "published/evaluation_result.csv"
BASE = pl.col("sample").is_null()


def _audit(scores: pl.DataFrame, missing: pl.DataFrame = MISSING) -> tuple[pl.DataFrame, pl.DataFrame]:
    return audit(tables.check(scores, "scores"), missing, IMPORTED, LABELS)


def _cell(sample: str | None, recipe: str | None, epoch: int, base: str = "base1") -> pl.Expr:
    key = {"base": base, "sample": sample, "recipe": recipe, "epoch": epoch}
    return pl.all_horizontal(pl.col(name).eq_missing(pl.lit(value)) for name, value in key.items())


def _is(benchmark: str, shots: int = 0) -> pl.Expr:
    return (pl.col("benchmark") == benchmark) & (pl.col("shots") == shots)


@pytest.fixture(scope="module")
def scores() -> pl.DataFrame:
    return clean(Table())


def test_clean_tables_raise_no_alarm() -> None:
    """False alarms are counted over twelve tables of different sizes: none may occur."""
    alarms = []
    for seed in range(12):
        table = Table(bases=3 + seed % 3, datasets=3 + seed % 4, epochs=2 + seed % 3, seed=seed)
        alarms += _audit(clean(table))[0]["what"].to_list()
    assert alarms == []


GROUP = ["gsm8k", "nq", "hellaswag", "boolq"]
FAULTS: dict[str, tuple[Callable[[pl.DataFrame], pl.DataFrame], str, list[str]]] = {
    "a whole base row": (
        lambda s: copied(s, _cell(None, None, 0, "base0"), _cell(None, None, 0, "base3")),
        "copy",
        ["base base0 and base base3", "(the whole row)"],
    ),
    "columns of a base row": (
        lambda s: copied(s, _cell(None, None, 0, "base0"), _cell(None, None, 0, "base3"), GROUP),
        "copy",
        ["base base0 and base base3", "of 14 columns are equal in 1 pair"],
    ),
    "a whole row": (
        lambda s: copied(s, _cell("data2-1k", "full-constant", 2), _cell("data4-1k", "lora-constant", 3)),
        "copy",
        ["base1 data2-1k full-constant epoch 2", "base1 data4-1k lora-constant epoch 3"],
    ),
    "columns of a row": (
        lambda s: copied(s, _cell("data2-1k", "full-constant", 1), _cell("data2-1k", "full-constant", 4), GROUP),
        "copy",
        ["base1 data2-1k full-constant epoch 1", "epoch 4"],
    ),
    "percent among fractions": (
        lambda s: plant(s, _is("math"), pl.col("score") * 100),
        "scale",
        ["math, 0 shots is on another scale", "outside 0..1"],
    ),
    "a fraction rounded like percent": (
        lambda s: plant(s, _is("drop"), pl.col("score").round(2)),
        "scale",
        ["drop, 0 shots is on another scale than its peers", "25 of 2500 items"],
    ),
    "means over other subjects": (
        lambda s: plant(s, _is("mmlu") & (pl.col("base") == "base2"), (pl.col("score") * 1240000).round() / 1240000),
        "mixed sets",
        ["mmlu, 0 shots mixes sets of items", "are means over 124 groups, not 57", "124 is what mmlu and cmmlu have"],
    ),
    "other items": (
        lambda s: plant(s, _is("code") & (pl.col("base") == "base2"), ((pl.col("score") * 131).round() / 131).round(4)),
        "mixed sets",
        ["code, 0 shots has values that its item count does not give", "131 answers fit all"],
    ),
    "an impossible value": (
        lambda s: plant(s, _is("code") & _cell("data2-1k", "full-constant", 2), pl.lit(0.4993)),
        "impossible value",
        ["1 of 245 values are no share of 164 items (0.4993"],
    ),
    "a judge's impossible mean": (
        lambda s: plant(s, _is("mt_bench/maths") & _cell("data2-1k", "full-constant", 2), pl.col("score") - 0.005),
        "impossible value",
        ["1 of 245 values are no mean of whole points of 10 items ("],
    ),
    "a wrong total": (
        lambda s: plant(s, _is("mt_bench") & _cell("data3-1k", "lora-constant", 2), pl.col("score") + 0.4),
        "inconsistent total",
        ["mt_bench, 0 shots is not the mean of its parts", "by up to 0.4"],
    ),
    "a benchmark hardly run": (
        lambda s: s.filter(~_is("drop") | (pl.col("dataset") == "data1")),
        "hardly run",
        ["drop, 0 shots was hardly run"],
    ),
    "a base that misses the format": (
        lambda s: plant(s, _is("boolq", 5) & BASE & (pl.col("base") == "base4"), pl.lit(0.0006)),
        "format, not knowledge",
        ["boolq, 5 shots of 1 base model", "base4: 0.001 where guessing gives 0.5"],
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_alone(fault: str, scores: pl.DataFrame) -> None:
    change, found_as, says = FAULTS[fault]
    findings, _ = _audit(change(scores))
    said = "\n".join(f"{row['fault']}: {row['what']}: {row['evidence']}" for row in findings.iter_rows(named=True))
    assert findings["fault"].to_list() == [found_as], said
    for text in says:
        assert text in said


def test_missing_cells_are_findings(scores: pl.DataFrame) -> None:
    rows = [
        {"base": "base9", "epoch": 0, "reason": "declared, but not in the table"},
        {"base": "base9", "sample": "data1-1k", "recipe": "full", "seed": 0, "epoch": 3, "reason": "out of memory"},
        {
            "base": "base1",
            "sample": "data1-1k",
            "recipe": "full",
            "seed": 0,
            "epoch": 3,
            "benchmark": "nq",
            "reason": "x",
        },
    ]
    findings, suspects = _audit(scores, tables.build("missing", rows))
    assert findings["fault"].to_list() == ["missing"] * 3
    assert "base9: 1 cell without any score" in findings["what"].to_list()
    assert "base1: 1 cell without 1 of their scores" in findings["what"].to_list()
    assert suspects.is_empty()


def test_suspects_name_just_the_planted_cells(scores: pl.DataFrame) -> None:
    source, target = _cell("data2-1k", "full-constant", 1), _cell("data2-1k", "full-constant", 4)
    faulty = copied(scores, source, target, GROUP)
    _, suspects = _audit(faulty)
    planted = faulty.filter((source | target) & pl.col("benchmark").is_in(GROUP)).select(KEY)
    assert suspects.select(KEY).sort(KEY).equals(planted.sort(KEY))
    assert without_suspects(faulty, suspects).height == faulty.height - planted.height


def test_gains_of_a_suspect_base_are_left_out_too(scores: pl.DataFrame) -> None:
    from sft_atlas.stages.import_scores.run import gains_of

    faulty = copied(scores, _cell(None, None, 0, "base0"), _cell(None, None, 0, "base3"))
    _, suspects = _audit(faulty)
    gains = gains_of(faulty, {})
    left = without_suspects(gains, suspects)
    assert set(gains["base"]) - set(left["base"]) == {"base0", "base3"}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[pl.DataFrame, pl.DataFrame]:
    if not PUBLISHED.exists():
        pytest.skip("the released table is not here: ../shared/published is absent")
    from sft_atlas.stages.import_scores.run import import_table
    from sft_atlas.study.table import plan_study

    path = tmp_path_factory.mktemp("study") / "published-table.yaml"
    path.write_text((ROOT / "studies/published-table.yaml").read_text().replace("../shared", str(SHARED)))
    plan = plan_study(path, ROOT)
    identity = plan.study_specs()["collect"].identity
    frames = import_table(PUBLISHED, "released", identity["labels"], identity["declared"])
    return audit(frames["scores"], frames["missing"], frames["imported"], plan.labels()["benchmarks"])


def test_the_faults_of_the_released_table_are_found(published: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    findings, suspects = published
    said = {row["what"]: row for row in findings.iter_rows(named=True)}
    copies = [row for row in said.values() if row["fault"] == "copy"]
    assert {(row["n_rows"], row["n_cells"]) for row in copies} == {(2, 58), (2, 24), (18, 144), (18, 198), (20, 180)}
    assert said["base Chinese-Mistral-7B-v0.1 and base Mistral-7B-v0.1 hold the same scores"]["n_cells"] == 58
    assert said["base LLM-jp-3-7B and base OLMo-7B-hf hold the same scores"]["n_cells"] == 24
    mixed = said["mmlu, 5 shots mixes sets of items"]
    assert mixed["n_cells"] == 774
    assert "774 of 1007 cells are means over 181 groups, not 57" in mixed["evidence"]
    assert "181 is what mmlu and cmmlu and jmmlu have together" in mixed["evidence"]
    assert mixed["source_columns"] == "mmlu-5shot"
    assert "truthfulqa, 0 shots is on another scale than its peers" in said
    assert (
        said["longbench_v2, 0 shots was hardly run"]["evidence"]
        == "33 of 1027 cells have it; 32 of these are exactly 0"
    )
    assert said["mt_bench/coding, 0 shots has values that its item count does not give"]["n_cells"] == 112
    assert said["boolq, 5 shots of 10 base models"]["fault"] == "format, not knowledge"
    assert "Swallow-MS-7b-v0.1: 41 cells without any score" in said
    assert "Mistral-7B-v0.1: 20 cells without 10 of their scores" in said
    assert suspects.filter("excluded").select(KEY).n_unique() == 1554
