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


def _cells_of(sample: str, recipe: str, base: str = "base1") -> pl.Expr:
    return (pl.col("base") == base) & (pl.col("sample") == sample) & (pl.col("recipe") == recipe)


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


def test_the_copy_alone_is_left_out_where_its_neighbours_tell(scores: pl.DataFrame) -> None:
    """The last epoch of a run that rises from epoch to epoch holds scores of the first: it lies off its neighbour."""
    longer = clean(Table(epochs=6))
    rising = plant(longer, _cells_of("data2-1k", "full-constant"), pl.col("score") + 0.03 * pl.col("epoch"))
    rising = plant(rising, pl.col("benchmark").is_in(GROUP), pl.col("score").round(4))
    source, target = _cell("data2-1k", "full-constant", 1), _cell("data2-1k", "full-constant", 6)
    faulty = copied(rising, source, target, GROUP)
    findings, suspects = _audit(faulty)
    evidence = findings.filter(fault="copy")["evidence"].item()
    assert "the copy is base1 data2-1k full-constant epoch 6" in evidence
    planted = faulty.filter(target & pl.col("benchmark").is_in(GROUP)).select(KEY)
    found = suspects.filter(fault="copy")
    assert found.select(KEY).sort(KEY).equals(planted.sort(KEY))
    assert without_suspects(faulty, found).height == faulty.height - planted.height


def test_where_nothing_tells_both_rows_are_left_out(scores: pl.DataFrame) -> None:
    source, target = _cell("data2-1k", "full-constant", 2), _cell("data4-1k", "full-constant", 2)
    faulty = copied(scores, source, target).filter(
        ~(_cells_of("data2-1k", "full-constant") | _cells_of("data4-1k", "full-constant")) | (pl.col("epoch") == 2)
    )
    findings, suspects = _audit(faulty)
    assert "the table does not say, so both are left out" in findings.filter(fault="copy")["evidence"].item()
    assert suspects.filter(fault="copy").select(KEY).height == faulty.filter(source | target).height


def test_gains_of_a_copied_base_are_left_out_and_those_of_its_model_stay(scores: pl.DataFrame) -> None:
    from sft_atlas.stages.import_scores.run import gains_of

    tuned = scores.filter(pl.col("benchmark") == "gsm8k", pl.col("sample").is_not_null())
    low, *_, high = tuned.group_by("base").agg(pl.col("score").mean()).sort("score")["base"]
    # models of the copied base lie near it, those of the other base do not
    apart = plant(scores, (pl.col("base") == high) & ~BASE & (pl.col("metric") != "judge_1_10"), pl.col("score") + 0.1)
    faulty = copied(apart, _cell(None, None, 0, low), _cell(None, None, 0, high))
    findings, suspects = _audit(faulty)
    gains = gains_of(faulty, {})
    left = without_suspects(gains, suspects)
    assert {low, high} & set(left["base"]) == {low}
    assert f"the copy is base {high}" in findings.filter(fault="copy")["evidence"].item()


def test_copies_among_our_own_scores_are_marked_only(scores: pl.DataFrame) -> None:
    faulty = copied(scores, _cell(None, None, 0, "base0"), _cell(None, None, 0, "base3"))
    findings, suspects = audit(faulty, MISSING, IMPORTED, LABELS, own=True)
    assert findings["fault"].to_list() == ["copy"] and not findings["excluded"].any()
    assert suspects.height == 28 and without_suspects(faulty, suspects).height == faulty.height


def test_means_of_fewer_judged_answers_are_incomplete_and_stay(scores: pl.DataFrame) -> None:
    """Nine or eight answers of ten give other means; a mean of whole points over five does not count as that."""
    cells = [_cell(f"data{i}-1k", "full-constant", 2) for i in range(3)]
    faulty = scores
    for cell, value in zip(cells, (5.22, 5.125, 5.1), strict=True):
        faulty = plant(faulty, _is("mt_bench/maths") & cell, pl.lit(value))
    findings, suspects = _audit(faulty.filter(pl.col("benchmark") != "mt_bench"))
    row = findings.filter(fault="incomplete").row(0, named=True)
    assert (row["n_cells"], row["excluded"]) == (2, False)
    assert suspects.filter("excluded").is_empty()


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
    assert {(row["n_rows"], row["n_cells"]) for row in copies} == {(2, 58), (1, 12), (9, 72), (9, 99), (10, 90)}
    assert said["base Chinese-Mistral-7B-v0.1 and base Mistral-7B-v0.1 hold the same scores"]["n_cells"] == 58
    assert said["base LLM-jp-3-7B and base OLMo-7B-hf hold the same scores"]["n_cells"] == 12
    # which row is the copy: early epochs and a base far from what surrounds them; of a whole row nobody can tell
    told = {row["evidence"].partition("the copy is ")[2].partition(":")[0] for row in copies}
    assert told == {
        "",
        "LLM-jp-3-7B full-constant epoch 1 (9 samples)",
        "base LLM-jp-3-7B",
        "OLMo-7B-hf full-cosine epoch 10 (9 samples)",
        "Qwen2.5-7B full-constant epoch 1 (10 samples)",
    }
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
    coding = findings.filter(pl.col("what") == "mt_bench/coding, 0 shots has values that its item count does not give")
    assert set(coding.select("fault", "n_cells", "excluded").iter_rows()) == {
        ("incomplete", 111, False),
        ("impossible value", 1, True),
    }
    assert said["boolq, 5 shots of 10 base models"]["fault"] == "format, not knowledge"
    assert "Swallow-MS-7b-v0.1: 41 cells without any score" in said
    assert "Mistral-7B-v0.1: 20 cells without 10 of their scores" in said
    assert suspects.filter("excluded").select(KEY).n_unique() == 1138
