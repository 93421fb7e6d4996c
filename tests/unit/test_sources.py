"""Sources as they really lie: one file name in many folders, archives, second sources, long lists, shared reads."""

import json
import random
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from sft_atlas.data import hub, sources
from sft_atlas.data.sources import SourceFile, local_files, read_rows, refuse_twice, source_files
from sft_atlas.errors import DataError, TableError
from sft_atlas.files import read_json, write_json
from sft_atlas.stages.contamination.run import overlaps
from sft_atlas.stages.dataset import run as datasets
from sft_atlas.stages.dataset.shared import PASSED_ON
from sft_atlas.stages.evaluate.tables import paired_gain
from sft_atlas.stages.likelihoods.run import draw_texts
from sft_atlas.stages.likelihoods.spec import Options as LikelihoodOptions
from sft_atlas.study.model import Hub, Template
from tests.unit.helpers import content, do, stand_in

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TEMPLATE = Template()
HEADER = ",Question,A,B,C,D,Answer\n"
SUBJECTS = ("agronomy", "law", "world_history")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a fetched snapshot, under id owner/name; other repositories cannot be had."""
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()

    def fetch(repository: str, *_: Any, **__: Any) -> Path:
        if repository != "owner/name":
            raise DataError(f"hub {repository}: there is no such dataset repository")
        return snapshot

    monkeypatch.setattr(hub, "fetch", fetch)
    return snapshot


def source(*files: str, **more: Any) -> dict[str, Any]:
    return {"hub": {"id": "owner/name", "revision": COMMIT, "files": list(files)} | more}


def declared(*files: str) -> Hub:
    return Hub(id="owner/name", revision=COMMIT, files=list(files))


def parquet(file: Path, rows: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(rows).write_parquet(file)


def question(text: str) -> dict[str, Any]:
    return {"Question": text, "A": "1", "B": "2", "C": "3", "D": "4", "Answer": "B"}


def prepare(root: Path, layout: str, declared: dict[str, Any], **more: Any) -> tuple[dict[str, Any], pl.DataFrame]:
    """A prepared benchmark: manifest and items."""
    identity = {"source": declared, "format": layout, "limit": None, "examples": None} | more
    labels = identity.pop("labels", {})
    spec = content("benchmark", "benchmarks/made-00000000/manifest.json", identity) | {"labels": labels}
    do(spec, root)
    manifest = root / spec["output"]
    return read_json(manifest), pl.read_parquet(manifest.with_name("items.parquet"))


# --- ids


def test_one_file_name_in_many_folders_gives_as_many_ids(repository: Path, tmp_path: Path) -> None:
    """MATH: seven folders, each with `test-00000-of-00001.parquet`."""
    folders = ["algebra", "geometry", "number_theory"]
    for folder in folders:
        rows = [{"problem": f"{folder} {n}", "solution": f"\\boxed{{{n}}}"} for n in range(5)]
        parquet(repository / folder / "test-00000-of-00001.parquet", rows)
    made, items = prepare(tmp_path, "math", source("*/test-*.parquet"))
    assert made["items"] == items["item"].n_unique() == 15
    assert items["item"].to_list() == [f"{f}/test-00000-of-00001.parquet:{n}" for f in folders for n in range(1, 6)]
    assert items["group"].unique().to_list() == [""]


@pytest.mark.parametrize(
    "place", ["{subject}/test/0000.parquet", "test/{subject}.csv", "{subject}/test-00000-of-00002.csv"]
)
def test_the_subject_of_an_item_is_its_folders(place: str, repository: Path, tmp_path: Path) -> None:
    for subject in SUBJECTS:
        file = repository / place.format(subject=subject)
        rows = [question(f"{subject} {n}") for n in range(3)]
        if file.suffix == ".parquet":
            parquet(file, rows)
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(HEADER + "".join(f"{n}," + ",".join(row.values()) + "\n" for n, row in enumerate(rows)))
    made, items = prepare(tmp_path, "cmmlu", source("*/*"))
    assert made["items"] == items["item"].n_unique() == 9
    assert items["group"].to_list() == [subject for subject in SUBJECTS for _ in range(3)]
    # a column counts more than a folder
    parquet(repository / "x/test/0000.parquet", [{**question("q"), "Subject": "own"}])
    assert prepare(tmp_path / "own", "cmmlu", source("x/test/*.parquet"))[1]["group"].to_list() == ["own"]


def test_real_subjects_come_from_folders(shared: Path, repository: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (shared / "data/cmmlu_test_by_subject.jsonl").read_text().splitlines()]
    subjects = sorted({row["_folder"] for row in rows})
    for subject in subjects:
        own = [{k: v for k, v in row.items() if k != "_folder"} for row in rows if row["_folder"] == subject]
        parquet(repository / f"{subject}/test/0000.parquet", own)
    made, items = prepare(tmp_path, "cmmlu", source("*/test/*.parquet"))
    assert items["item"].n_unique() == made["items"] == len(rows)
    assert sorted(items["group"].unique()) == subjects
    assert len(subjects) > 50


def test_a_local_file_keeps_its_name_as_path(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/rows.jsonl").write_text('{"x": 1}\n')
    assert [row_id for row_id, _ in read_rows(local_files([tmp_path / "a/rows.jsonl"]))] == ["rows.jsonl:1"]


# --- archives and second sources


def archive(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as out:
        for split, count in (("test", 3), ("dev", 2)):
            for subject in SUBJECTS:
                lines = [f"{n},{subject} {split} {n},1,2,3,4,B\r\n" for n in range(count)]
                out.writestr(f"{split}/{subject}.csv", HEADER + "".join(lines))
        out.writestr("readme.txt", "no rows")


def test_members_of_an_archive_are_files_of_the_source(repository: Path, tmp_path: Path) -> None:
    archive(repository / "all.zip")
    (repository / "other.csv").write_text(HEADER)
    made, items = prepare(tmp_path, "cmmlu", source("all.zip/test/*.csv"))
    assert made["items"] == 9
    assert items["item"].to_list()[:4] == [
        *(f"all.zip/test/agronomy.csv:{n}" for n in (1, 2, 3)),
        "all.zip/test/law.csv:1",
    ]
    assert items["group"].unique(maintain_order=True).to_list() == list(SUBJECTS)
    found = source_files(declared("all.zip/dev/l*.csv", "other.csv"), [])
    assert [file.name for file in found] == ["other.csv", "all.zip/dev/law.csv"]


def test_a_broken_archive_is_named(repository: Path) -> None:
    (repository / "all.zip").write_text("no archive")
    with pytest.raises(DataError, match=r"all\.zip: cannot be read as a zip archive"):
        source_files(declared("all.zip/test/*.csv"), [])


def test_the_second_source_is_read_where_the_first_cannot_be_had(
    repository: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (repository / "rows.csv").write_text("a\n1\n")
    first = Hub(id="owner/gone", revision="main", otherwise=declared("rows.csv"))
    assert [file.name for file in source_files(first, [])] == ["rows.csv"]
    assert f"hub owner/gone: there is no such dataset repository; reading its second source, owner/name@{COMMIT}" in (
        caplog.text
    )
    second = Hub(id="owner/too", revision="main")
    with pytest.raises(DataError, match=r"hub owner/gone: .*; nor its second source: hub owner/too: there is no such"):
        source_files(first.model_copy(update={"otherwise": second}), [])


# --- lists of any length


@pytest.mark.parametrize("chunk", [1, 2, 7, 64, 1 << 20])
def test_a_list_is_read_in_pieces_of_any_length(chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "CHUNK", chunk)
    draw = random.Random(chunk)
    rows = [
        {
            "n": draw.choice([1, -2.5e10, None, True]),
            "t": '"\\,]}[{ 日本 \u2028' * draw.randint(0, 9),
            "l": [[], {"": 1}],
        }
        for _ in range(60)
    ]
    for text in (json.dumps(rows), json.dumps(rows, indent=2, ensure_ascii=False), "[]", " \n[ ]\n"):
        (tmp_path / "rows.json").write_text(text, encoding="utf-8")
        assert [row for _, row in read_rows(local_files([tmp_path / "rows.json"]))] == json.loads(text)


def test_a_long_list_takes_no_more_memory_than_its_rows(tmp_path: Path) -> None:
    """20 MB here, 12.6 GB in the study; the memory is the same."""
    row = json.dumps({"inputs": "x" * 900, "targets": "y" * 90})
    with (tmp_path / "rows.json").open("w") as file:
        file.write("[" + row + f",\n{row}" * 20_000 + "]")
    assert (tmp_path / "rows.json").stat().st_size > 20_000_000
    tracemalloc.start()
    assert sum(1 for _ in read_rows(local_files([tmp_path / "rows.json"]))) == 20_001
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8_000_000


# --- one pass for several datasets


TASKS = {"knowledge": ["bool_q:*"], "reasoning": ["piqa:*", "hellaswag:*"], "comprehension": ["quac:*"]}


@pytest.fixture
def flan(tmp_path: Path) -> Path:
    names = ["bool_q:1.0.0", "piqa:1.0.0", "quac:1.0.0", "hellaswag:1.1.0", "other:1.0.0"]
    rows = [{"inputs": f"q {n}", "targets": f"a {n}", "_task_name": names[n % 5]} for n in range(100)]
    (tmp_path / "flan.json").write_text(json.dumps(rows))
    return tmp_path / "flan.json"


def parts(root: Path, flan: Path, layout: str = "flan") -> dict[str, dict[str, Any]]:
    """Frozen specifications of three datasets of one source."""
    found = {}
    for number, (name, tasks) in enumerate(TASKS.items()):
        identity = {"source": {"content": "x"}, "format": layout, "columns": {}, "drop": {}, "turns": "first"}
        identity["keep"] = {"_task_name": tasks}
        spec = content("dataset", f"datasets/{name}-{number:08d}/manifest.json", identity, sources=[flan])
        write_json((root / spec["output"]).with_name(f"manifest-{spec['hash']}.spec.json"), spec)
        found[name] = spec
    return found


def made(root: Path, spec: dict[str, Any]) -> tuple[list[tuple[str, ...]], dict[str, int]]:
    do(spec, root)
    manifest = root / spec["output"]
    return pl.read_parquet(manifest.with_name("rows.parquet")).rows(), read_json(manifest)["dropped"]


def test_three_datasets_of_one_source_read_it_once(flan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    specs, alone = parts(tmp_path / "together", flan), parts(tmp_path / "x", flan)
    # each by itself, in a folder where nothing else is planned
    expected = {name: made(tmp_path / name, spec) for name, spec in alone.items()}
    passes = []

    def counted(files: list[SourceFile]) -> Any:
        passes.append(files)
        return read_rows(files)

    monkeypatch.setattr(datasets, "read_rows", counted)
    together = {name: made(tmp_path / "together", spec) for name, spec in specs.items()}
    assert len(passes) == 1
    assert together == expected
    assert [len(rows) for rows, _ in together.values()] == [20, 40, 20]
    assert together["knowledge"][1] == {"filtered": 80}
    assert not list((tmp_path / "together").rglob(PASSED_ON))


def test_a_dataset_that_failed_reads_again(flan: Path, tmp_path: Path) -> None:
    specs = parts(tmp_path, flan, "alpaca")
    with pytest.raises(DataError, match=r"flan\.json:1: column 'instruction' is missing"):
        do(specs["knowledge"], tmp_path)
    # its own rows are gone, those of the others wait for them
    assert len(list(tmp_path.rglob(PASSED_ON))) == 2
    right = specs["knowledge"] | {"identity": specs["knowledge"]["identity"] | {"format": "flan"}}
    assert len(made(tmp_path, right)[0]) == 20


# --- duplicates are refused wherever ids are joined by


def test_two_rows_with_one_id_are_refused() -> None:
    with pytest.raises(DataError, match=r"here: row id 'a:1' stands more than once \(2 such ids\)"):
        refuse_twice(["a:1", "a:2", "a:1", "b:1", "b:1"], "here")
    refuse_twice(["a:1", "a:2"], "here")


def test_preparing_refuses_ids_that_repeat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two files that are called the same, as all of MATH's were."""
    paths = [tmp_path / folder / "rows.jsonl" for folder in ("a", "b")]
    for number, path in enumerate(paths):
        path.parent.mkdir()
        path.write_text(json.dumps({"instruction": f"{number}?", "answer": "b", "inputs": f"{number}", "targets": "b"}))
    identity = {"source": {"content": "x"}, "format": "items", "limit": None, "examples": None}
    spec = content("benchmark", "benchmarks/b-00000000/manifest.json", identity, sources=paths)
    with pytest.raises(DataError, match=r"benchmarks/b-.*: item id 'rows\.jsonl:1' stands more than once"):
        do(spec, tmp_path)
    rows = {"columns": {}, "keep": {}, "drop": {}, "turns": "first"}
    identity = {"source": {"content": "x"}, "format": "flan"} | rows
    spec = content("dataset", "datasets/d-00000000/manifest.json", identity, sources=paths)
    with pytest.raises(DataError, match=r"datasets/d-.*: row id 'rows\.jsonl:1' stands more than once"):
        do(spec, tmp_path)
    assert not list(tmp_path.rglob("manifest.json"))


def test_a_sample_refuses_ids_that_repeat(tmp_path: Path) -> None:
    rows = {"row": ["r:1", "r:1"], "instruction": ["a", "b"], "input": ["", ""], "completion": ["c", "d"]}
    place = stand_in(tmp_path, "datasets/d-00000000", pl.DataFrame(rows), "rows.parquet", rows=2, dropped={})
    identity = {"datasets": ["0"], "size": None, "seed": 0, "template": TEMPLATE.model_dump()}
    spec = content("sample", "samples/s-00000000/manifest.json", identity, {"parts": [place]})
    with pytest.raises(DataError, match=r"datasets/d-.*: row id 'r:1' stands more than once"):
        do(spec, tmp_path)


def items(*ids: str) -> pl.DataFrame:
    texts = [f"what are the names of all the {n} rivers?" for n in range(len(ids))]
    return pl.DataFrame({"item": list(ids), "instruction": texts, "score": [1.0] * len(ids)})


def test_a_gain_is_not_paired_by_ids_that_repeat() -> None:
    once, again = items("a", "b"), items("a", "a")
    assert paired_gain(once, once)["gain"] == 0.0  # type: ignore[index]
    for pair, side in (((again, once), "before"), ((once, again), "after")):
        with pytest.raises(TableError, match=f"scores {side} training: item 'a' stands 2 times"):
            paired_gain(*pair)


def test_contamination_refuses_ids_that_repeat() -> None:
    rows = pl.DataFrame({"row": ["r", "r"], "dataset": ["x", "y"], "prompt": ["a", "b"], "completion": ["c", "d"]})
    assert overlaps(rows, {"b": items("a", "b").drop("score")}, 8, 0.7).height == 0
    with pytest.raises(DataError, match="benchmark b: item id 'a' stands more than once"):
        overlaps(rows, {"b": items("a", "a")}, 8, 0.7)
    with pytest.raises(DataError, match="dataset x: row id 'r' stands more than once"):
        overlaps(rows.with_columns(dataset=pl.lit("x")), {"b": items("a").drop("score")}, 8, 0.7)


def test_texts_are_not_drawn_by_ids_that_repeat(tmp_path: Path) -> None:
    place: Callable[[pl.DataFrame], Path] = lambda table: tmp_path / stand_in(tmp_path, "b-0", table, "items.parquet")  # noqa: E731
    options = LikelihoodOptions(texts=2, seed=0, max_length=64, precision="fp32", representation="last", neighbour=1)
    assert draw_texts({"0": place(items("a", "b", "c"))}, options, TEMPLATE).height == 2
    with pytest.raises(DataError, match=r"item id 'a' stands more than once"):
        draw_texts({"0": place(items("a", "b", "a"))}, options, TEMPLATE)


# --- the number of items


def test_the_number_of_items_is_checked(repository: Path, tmp_path: Path) -> None:
    """MT-Bench: a pattern that crosses folders finds each question twice, in two formats."""
    turns = [{"prompt": [f"ask {n}", "and more"], "category": "writing"} for n in range(4)]
    parquet(repository / "data/train-00000-of-00001-67c6.parquet", turns)
    (repository / "raw").mkdir()
    (repository / "raw/question.jsonl").write_text("\n".join(map(json.dumps, turns)))
    expects = {"labels": {"expected_items": 4}}
    with pytest.raises(DataError, match=r"the source holds 8 items, `expected_items` of the benchmark says 4; correct"):
        prepare(tmp_path, "mt_bench", source("*.jsonl", "*.parquet"), **expects)
    assert not list(tmp_path.rglob("manifest.json"))
    made, table = prepare(tmp_path, "mt_bench", source("data/train-*.parquet"), limit=3, **expects)
    # it is the source's number, whatever `limit` leaves
    assert (made["items"], made["in_source"]) == (3, 4)
    assert json.loads(table["details"][0]) == {"turns": ["ask 0", "and more"], "reference": []}


def test_real_tests_keep_what_they_import(shared: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (shared / "data/mbpp_sanitized_test.jsonl").read_text().splitlines()]
    spec_source = [shared / "data/mbpp_sanitized_test.jsonl"]
    identity = {"source": {"content": "x"}, "format": "mbpp", "limit": None, "examples": None}
    spec = content("benchmark", "benchmarks/b-00000000/manifest.json", identity, sources=spec_source)
    do(spec, tmp_path)
    table = pl.read_parquet((tmp_path / spec["output"]).with_name("items.parquet"))
    kept = [json.loads(details)["test_imports"] for details in table["details"]]
    assert kept == [row["test_imports"] for row in rows]
    assert sum(map(bool, kept)) == 13
