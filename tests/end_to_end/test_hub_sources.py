"""The published study's datasets, as they are declared, read from a mirror in the hub's own layout with real rows."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from sft_atlas.files import read_json, write_json
from sft_atlas.nodes import Benchmark, Dataset
from sft_atlas.study.build import build_plan
from sft_atlas.study.load import load_study
from sft_atlas.study.matrix import expand
from tests.conftest import ROOT

COMMIT = "0123456789abcdef0123456789abcdef01234567"
Row = dict[str, object]
NAMES = {
    "bool_q": "bool_q:1.0.0",
    "natural_questions": "natural_questions_open:1.0.0",
    "trivia_qa": "trivia_qa/rc:1.1.0",
    "arc_easy": "ai2_arc/ARC-Easy:1.0.0",
    "arc_challenge": "ai2_arc/ARC-Challenge:1.0.0",
    "hellaswag": "hellaswag:1.1.0",
    "winogrande": "winogrande:1.1.0",
    "piqa": "piqa:1.0.0",
    "squad_v1": "squad/v1.1:3.0.0",
    "squad_v2": "squad/v2.0:3.0.0",
    "quac": "quac:1.0.0",
}


def as_flan(row: Row) -> Row:
    """A stand-in's row under the column and the task names of Open-Orca/FLAN."""
    task = str(row["task"]).removesuffix("_10templates")
    return {"inputs": row["inputs"], "targets": row["targets"], "_task_name": NAMES[task]}


def as_evol(row: Row) -> Row:
    return {"instruction": row["problem"], "response": row["solution"]}


def same(row: Row) -> Row:
    return row


# dataset of the study: file in its repository, file with real rows, how a row is laid out there, rows that are kept
FLAN = "flan2021_zsnoopt_submix_data.json"
SOURCES: dict[str, tuple[str, list[str], Callable[[Row], Row]]] = {
    "alpaca_cleaned": ("alpaca_data_cleaned.json", ["alpaca_cleaned"], same),
    "lima": ("train.jsonl", ["standin/lima"], same),
    "ultrachat": ("data/train_sft-00000-of-00003.parquet", ["standin/ultrachat_200k", "ultrachat_200k"], same),
    "code_alpaca": ("code_alpaca_20k.json", ["code_alpaca"], same),
    "magicoder": ("data-evol_instruct-decontaminated.jsonl", ["standin/magicoder_oss_instruct"], as_evol),
    "openmath": ("correct_solutions/train.jsonl", ["standin/openmathinstruct1", "openmathinstruct1"], same),
    "math": ("MathInstruct.json", ["standin/mathinstruct", "mathinstruct"], same),
    **{
        name: (FLAN, [f"standin/flan_{part}" for part in ("knowledge", "reasoning", "comprehension")], as_flan)
        for name in ("flan_knowledge", "flan_reasoning", "flan_comprehension")
    },
}


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Path:
    """A cache folder as the hub's library lays it out: one snapshot per repository, one file of real rows in each."""
    home = tmp_path_factory.mktemp("hub")
    study = load_study(ROOT / "studies/massive-sft.yaml")
    for name, (file, origins, layout) in SOURCES.items():
        hub = study.datasets[name].hub
        assert hub is not None
        repository = home / "hub" / f"datasets--{hub.id.replace('/', '--')}"
        pinned = hub.revision != "main"
        target = repository / "snapshots" / (hub.revision if pinned else COMMIT) / file
        target.parent.mkdir(parents=True, exist_ok=True)
        if not pinned:
            (repository / "refs").mkdir(exist_ok=True)
            (repository / "refs/main").write_text(COMMIT)
        texts = [line for origin in origins for line in (shared / f"data/{origin}.jsonl").read_text().splitlines()]
        rows = [layout(json.loads(text)) for text in texts]
        if target.suffix == ".parquet":
            pl.DataFrame(rows, infer_schema_length=None).write_parquet(target)
        elif target.suffix == ".json":
            target.write_text(json.dumps(rows))
        else:
            target.write_text("\n".join(map(json.dumps, rows)))
    return home


@pytest.mark.parametrize("name", SOURCES)
def test_a_published_dataset_is_read_as_declared(name: str, mirror: Path, tmp_path: Path) -> None:
    path = ROOT / "studies/massive-sft.yaml"
    study = load_study(path)
    plan = build_plan(study, expand(study, path), path.stem)
    spec = plan.job("dataset", Dataset(name))
    write_json(tmp_path / spec.file, spec.content())
    environment = os.environ | {"HF_HOME": str(mirror), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "sft_atlas.job", str(tmp_path / spec.file)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    manifest = read_json(tmp_path / spec.output)
    rows = pl.read_parquet((tmp_path / spec.output).with_name("rows.parquet"))
    assert rows.height == manifest["rows"] > 100
    assert rows.select(pl.all().null_count()).row(0) == (0, 0, 0, 0)
    dropped = manifest["dropped"]
    if name.startswith("flan_"):
        # three datasets share the file; each keeps its own tasks
        assert dropped["filtered"] > 900
    if name == "openmath":
        assert dropped["format"] > 300  # wrong solutions
    if name == "ultrachat":
        assert rows.height < 504  # first turns only, of short and repetitive dialogues


def test_three_datasets_read_their_file_once(mirror: Path, tmp_path: Path) -> None:
    path = ROOT / "studies/massive-sft.yaml"
    study = load_study(path)
    plan = build_plan(study, expand(study, path), path.stem)
    specs = [plan.job("dataset", Dataset(name)) for name in ("flan_knowledge", "flan_reasoning", "flan_comprehension")]
    for spec in specs:
        write_json(tmp_path / spec.file, spec.content())
    environment = os.environ | {"HF_HOME": str(mirror), "HF_HUB_OFFLINE": "1"}
    for number, spec in enumerate(specs):
        command = [sys.executable, "-m", "sft_atlas.job", str(tmp_path / spec.file)]
        # the file itself is there for the first only
        moved = environment | ({"HF_HOME": str(tmp_path / "no-cache")} if number else {})
        done = subprocess.run(command, env=moved, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        rows = pl.read_parquet((tmp_path / spec.output).with_name("rows.parquet"))
        assert rows.height > 100
        assert rows["row"].str.starts_with(f"{FLAN}:").all()


def test_a_repository_that_is_not_in_the_mirror_is_named(mirror: Path, tmp_path: Path) -> None:
    path = ROOT / "studies/massive-sft.yaml"
    study = load_study(path)
    spec = build_plan(study, expand(study, path), path.stem).job("benchmark", Benchmark("gsm8k"))
    write_json(tmp_path / spec.file, spec.content())
    environment = os.environ | {"HF_HOME": str(mirror), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "sft_atlas.job", str(tmp_path / spec.file)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    said = f"error: hub openai/gsm8k@{spec.identity['source']['hub']['revision']}: not in the local cache and the hub"
    assert done.stderr.startswith(said)
