"""A table of scores from elsewhere becomes the tables of a study, or is refused with what was found."""

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from sft_atlas.analysis import tables
from sft_atlas.analysis.findings import analyse
from sft_atlas.errors import StudyError
from sft_atlas.files import read_json
from sft_atlas.hashing import sha256
from sft_atlas.stages.audit.run import audit
from sft_atlas.stages.import_scores import released
from sft_atlas.stages.import_scores.released import TableFormatError
from sft_atlas.stages.import_scores.run import fetch, import_table
from sft_atlas.stages.import_scores.spec import Source
from sft_atlas.study.analyses import AnalysisOptions
from sft_atlas.study.table import TablePlan, plan_study
from tests.conftest import ROOT
from tests.unit.helpers import do, write_study

LONG = """\
base,sample,recipe,seed,epoch,benchmark,shots,metric,score,n
alpha,,,,0,sums,0,exact_match,0.5,20
alpha,math-40,full,0,4,sums,0,exact_match,0.75,20
alpha,math-40,lora,0,2,sums,0,exact_match,,20
"""
HEAD = [*released.KEY, *released.COLUMNS]


def _released(path: Path, *rows: dict[str, str]) -> Path:
    defaults = {
        **dict.fromkeys(HEAD, ""),
        "lora": "false",
        "epoch": "10",
        "data_size": "1000.0",
        "lr_strategy": "cosine",
    }
    lines = [",".join(["", *HEAD])]
    lines += [",".join([str(i), *({**defaults, **row}[name] for name in HEAD)]) for i, row in enumerate(rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


BASE = {"model_name": "OLMo-7B-hf", "data_name": "pretrain", "lora": "None", "epoch": "0", "data_size": "0.0"}
TUNED = {"model_name": "OLMo-7B-hf", "data_name": "lima", "math-0shot": "12.34", "Truthful_QA-0shot": "0.07"}


def test_long_rows_become_scores_gains_and_missing_cells(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text(LONG)
    declared = [{"base": "alpha", "epoch": 0}, {"base": "beta", "epoch": 0}]
    frames = import_table(path, "long", {"sums": {"matches": ["math"]}}, declared)
    assert frames["scores"].height == 2
    assert frames["scores"]["stderr"].to_list() == pytest.approx([(0.25 / 20) ** 0.5, (0.1875 / 20) ** 0.5])
    gain = frames["gains"].row(0, named=True)
    assert (gain["gain"], gain["n"]) == (0.25, 20)
    assert gain["stderr"] == pytest.approx(((0.25 + 0.1875) / 20) ** 0.5)
    assert frames["missing"].select("base", "reason").rows() == [("beta", "declared, but not in the table")]


def test_parquet_and_csv_are_read_alike(tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text(LONG)
    first = import_table(tmp_path / "scores.csv", "long", {}, [])["scores"]
    first.write_parquet(tmp_path / "scores.parquet")
    assert import_table(tmp_path / "scores.parquet", "long", {}, [])["scores"].equals(first)


def test_the_needed_columns_alone_are_analysed(tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text(LONG)
    frames = import_table(tmp_path / "scores.csv", "long", {"sums": {"matches": ["math-40"]}}, [])
    assert frames["scores"]["dataset"].to_list() == [None, "math-40"]
    assert frames["gains"]["matched"].to_list() == [True]
    for name, frame in frames.items():
        tables.write(frame, tmp_path / "tables", name)
    audit(tmp_path / "tables", tmp_path / "tables", {})
    analyse(tmp_path / "tables", tmp_path / "tables", AnalysisOptions(bootstrap_draws=100, permutations=100))
    assert tables.read(tmp_path / "tables", "effects")["dataset"].drop_nulls().unique().to_list() == ["math-40"]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (",score,n", ",points,n", "column score is missing; a long table needs base, sample"),
        (",score,n", ",score,items", "column items is unknown; expected base"),
        ("0.75,20", "good,20", "column score holds what is no Float64"),
        (",4,sums", ",4.5,sums", "column epoch holds a broken number; expected whole ones"),
        ("full,0,4", "lora,0,2", "2 rows are not unique, such as base=alpha, sample=math-40, recipe=lora"),
        ("0.75,20", "0.75,20,1", "scores.csv: line 3: found 11 values, expected 10 as in the header; put a value"),
        (LONG.partition("\n")[2], "", "scores.csv: found a header and no row; expected a row for each cell"),
        ("full,0,4", "full,,4", "scores.csv: row 2 below the header: seed is empty; expected sample, recipe and seed"),
        ("alpha,,,,0,sums", "alpha,,,,0,", "scores.csv: row 1 below the header: benchmark is empty; expected a value"),
    ],
)
def test_a_wrong_long_table_is_refused(old: str, new: str, says: str, tmp_path: Path) -> None:
    assert LONG.count(old) == 1
    (tmp_path / "scores.csv").write_text(LONG.replace(old, new))
    with pytest.raises(TableFormatError) as caught:
        import_table(tmp_path / "scores.csv", "long", {}, [])
    assert says in str(caught.value)


def test_the_released_layout_is_made_long(tmp_path: Path) -> None:
    rows = [BASE | {"math-0shot": "10.0"}, TUNED, TUNED | {"data_name": "w/o-math", "data_size": "9000"}]
    path = _released(tmp_path / "wide.csv", *rows, TUNED | {"data_name": "all", "lora": "true", "data_size": "10000"})
    labels = {"math": {"items": 5000, "matches": ["lima"]}, "truthfulqa": {"items": 817}}
    frames = import_table(path, "released", labels, [])
    scores = frames["scores"].filter(benchmark="math")
    assert scores.select("sample", "recipe", "held_out", "size", "method").rows() == [
        (None, None, None, None, None),
        ("all", "lora-cosine", None, 10000, "lora"),
        ("lima-1k", "full-cosine", None, 1000, "full"),
        ("without-math", "full-cosine", "math", 9000, "full"),
    ]
    assert scores["score"].to_list() == [0.1, 0.1234, 0.1234, 0.1234]
    assert frames["scores"].filter(benchmark="truthfulqa")["score"].to_list() == [0.07] * 3
    units = {row["column"]: (row["unit"], row["factor"]) for row in frames["imported"].iter_rows(named=True)}
    assert units["math-0shot"] == ("percent", 0.01)
    assert units["Truthful_QA-0shot"] == ("fraction", 1.0)
    assert frames["gains"].filter(sample="lima-1k")["matched"].to_list() == [True]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text.replace("math-0shot", "maths-0shot", 1), "column math-0shot is missing"),
        (lambda text: text.replace("12.34", "twelve"), "column math-0shot holds what is no number"),
        (lambda text: text.replace("1000.0", "many"), "lacks a size, an epoch or a method"),
    ],
)
def test_a_wrong_released_table_is_refused(change, says: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = _released(tmp_path / "wide.csv", TUNED)
    path.write_text(change(path.read_text()))
    with pytest.raises(TableFormatError, match=says):
        import_table(path, "released", {}, [])


STUDY = "title: a table\ntable: {path: PATH, format: long}\nanalyses: {bootstrap_draws: 200}\n"


def test_a_table_study_needs_no_section_of_a_matrix(tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text(LONG)
    study = tmp_path / "mine.yaml"
    study.write_text(STUDY.replace("PATH", str(tmp_path / "scores.csv")))
    plan = plan_study(study, ROOT)
    assert isinstance(plan, TablePlan)
    assert list(plan.study_specs()) == ["collect", "audit", "analyse", "complete", "report"]
    assert not plan.by_output
    assert "nothing to train; no matrix declared" in plan.summary()
    spec = plan.study_specs()["collect"].content()
    do(spec, tmp_path)
    assert read_json(tmp_path / "mine/collect.json")["rows"]["scores"] == 2
    for name in tables.INPUTS:
        tables.read(tmp_path / "mine/tables", name)


@pytest.mark.parametrize(
    ("about", "says"),
    [
        ("bases: {alpha: {}, alhpa: {}}", "bases.alhpa: unknown base 'alhpa'; expected one of: alpha; did you mean"),
        ("benchmarks: {sum: {items: 20}}", "benchmarks.sum: unknown benchmark 'sum'; expected one of: sums"),
        ("benchmarks: {sums: {matches: [math]}}", "benchmarks.sums.matches[0]: unknown dataset 'math'"),
        ("bases: {alpha: {language: en}}\nbenchmarks: {sums: {matches: [math-40]}}", None),
    ],
)
def test_what_is_said_about_a_name_that_the_table_lacks_is_refused(
    about: str, says: str | None, tmp_path: Path
) -> None:
    (tmp_path / "scores.csv").write_text(LONG)
    study = tmp_path / "mine.yaml"
    study.write_text(STUDY.replace("PATH", str(tmp_path / "scores.csv")) + about)
    spec = plan_study(study, ROOT).study_specs()["collect"].content()
    if says is None:
        do(spec, tmp_path)
        return
    with pytest.raises(TableFormatError) as caught:
        do(spec, tmp_path)
    assert f"{tmp_path / 'scores.csv'}: the study's {says}" in str(caught.value)


def test_a_declared_matrix_names_the_missing_cells(tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text(LONG.replace("alpha", "calculator"))
    other = write_study(tmp_path)
    study = tmp_path / "mine.yaml"
    study.write_text(f"matrix: {other}\n" + STUDY.replace("PATH", str(tmp_path / "scores.csv")))
    plan = plan_study(study, ROOT)
    identity = plan.study_specs()["collect"].identity
    frames = import_table(tmp_path / "scores.csv", "long", identity["labels"], identity["declared"])
    cells = {tuple(row) for row in frames["missing"].select("base", "sample", "recipe", "seed", "epoch").iter_rows()}
    assert ("calculator", "math-40", "full", 0, 1) in cells
    assert ("calculator", "math-40", "full", 0, 4) not in cells
    assert ("reader", None, None, None, 0) in cells
    assert "out of memory" in frames["missing"]["reason"].to_list()
    assert frames["scores"].filter(pl.col("epoch") == 4)["dataset"].to_list() == ["math"]


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (("PATH", "nowhere.csv"), "table.path: 'nowhere.csv' is not a file; paths start at the working folder"),
        (("path: PATH", "path: PATH, url: 'http://a.b/c.csv'"), "exactly one of path, url is expected"),
        (("format: long", "format: wide"), "table.format: unknown value 'wide'"),
        (("format: long", "sha256: '" + "0" * 64 + "'"), "it is another table than the declared one"),
        (("title:", "matrix: nothing\ntitle:"), "mine.yaml: matrix: unknown study 'nothing'"),
        (
            ("title:", "recipes: {}\ntitle:"),
            "table: a study has a matrix or a table of scores, and this one has recipes too",
        ),
    ],
)
def test_a_wrong_table_study_is_refused(edit: tuple[str, str], says: str, tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text(LONG)
    study = tmp_path / "mine.yaml"
    study.write_text(STUDY.replace(*edit).replace("PATH", str(tmp_path / "scores.csv")))
    with pytest.raises(StudyError) as caught:
        plan_study(study, ROOT)
    assert says in str(caught.value)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "scores.csv").write_text(LONG)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/scores.csv"
    server.shutdown()


def test_a_table_at_a_url_is_fetched_once_and_checked(served: str, tmp_path: Path) -> None:
    source = Source(url=served, path=None, sha256=None, format="long")
    path = fetch(source, tmp_path)
    assert path.read_text() == LONG
    pinned = source.model_copy(update={"sha256": sha256(path)})
    (tmp_path / "served/scores.csv").unlink()
    assert fetch(pinned, tmp_path) == path
    with pytest.raises(TableFormatError, match=r"cannot be fetched .*give the `path`"):
        fetch(source, tmp_path)
    with pytest.raises(TableFormatError, match="cannot be fetched"):
        fetch(source.model_copy(update={"sha256": "0" * 64}), tmp_path)


def test_generated_files_are_what_the_code_says() -> None:
    from sft_atlas.commands.export import generated

    for path, content in generated().items():
        assert path.read_text(encoding="utf-8") == content, f"{path.relative_to(ROOT)} is stale: run `make schemas`"
