"""`sft-atlas preflight` and `pin` against a server that speaks the hub's API, with one fault of each kind."""

import re
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest
from huggingface_hub import constants

from sft_atlas.commands import cli
from sft_atlas.commands.pin import pin
from sft_atlas.data import hub_probe
from sft_atlas.data.formats import Options, normalise
from sft_atlas.data.hub_probe import COLUMNS
from sft_atlas.errors import DataError, StudyError
from sft_atlas.stages.benchmark.run import LAYOUTS
from sft_atlas.study.model import BenchmarkFormat, DatasetFormat
from tests.conftest import ENVIRONMENT, ROOT
from tests.unit.hub_server import GOOD, GSM8K, QWEN, STRANGER, Hub, running

STUDY = """\
# a study of sources that all can be had
title: sources  # one line
allow_moving: true
bases:
  qwen: {hub: {id: Qwen/Qwen2.5-7B, revision: main}, family: qwen}   # open
  sarashina:
    hub:
      id: sbintuitions/sarashina2-7b
      revision: 'main'   # pickles only
datasets:
  lima: {hub: {id: GAIR/lima, revision: main, files: [train.jsonl]}, format: conversations}
  alpaca: {hub: &alpaca {id: yahma/alpaca-cleaned, revision: "main"}, format: alpaca}
  again: {hub: *alpaca, format: columns, columns: {instruction: instruction, completion: output}}
  flan:
    hub: {id: Open-Orca/FLAN, revision: main, files: ["flan_zsnoopt_data/*.parquet"]}
    format: flan
    keep: {_task_name: ["piqa:*"]}
samples:
  "{dataset}-9": {datasets: "*", size: 9}
recipes:
  full: {method: full, learning_rate: 1e-5}
blocks:
  main: {bases: "*", samples: "*", recipes: full}
benchmarks:
  gsm8k:
    hub: {id: openai/gsm8k, revision: %s, files: ["main/test-*"]}
    format: gsm8k
    shots: [4]
    shots_hub: {id: openai/gsm8k, revision: main, files: ["main/train-*"]}
  jmmlu: {hub: {id: openai/MMMLU, revision: main, files: [test/mmlu_JA-JP.csv]}, format: cmmlu}
  boolq: {hub: {id: google/boolq, revision: main, files: ["data/validation-*"]}, format: boolq}
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running() as server:
        yield server


@pytest.fixture
def ask(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> "Ask":
    """`sft-atlas` on a study, in a folder of its own, with the server as its hub; `alone` in a process of its own."""

    def command(
        *arguments: str,
        edits: tuple[tuple[str, str], ...] = (),
        token: str | None = GOOD,
        config: str = "",
        device: str = "cpu",
        alone: bool = False,
        **changed: str,
    ) -> Said:
        text = STUDY % GSM8K
        for old, new in edits:
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        (tmp_path / "sources.yaml").write_text(text)
        (tmp_path / "config.yaml").write_text(f"study: sources.yaml\ndevice: {device}\n{config}")
        places = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "hf"), "SFT_ATLAS_ROOT": str(ROOT)}
        places |= {"HF_TOKEN": token or ""} | changed
        if alone:
            run = [sys.executable, "-m", "sft_atlas.commands.cli", *arguments]
            environment = ENVIRONMENT | places
            environment.pop("HF_HUB_OFFLINE", None)
            done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
            return Said(done.returncode, done.stdout, done.stderr)
        monkeypatch.chdir(tmp_path)
        for name, value in places.items():
            monkeypatch.setenv(name, value)
        # what the hub's library reads from the environment when it is imported
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", places["HF_ENDPOINT"])
        template = places["HF_ENDPOINT"] + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf/hub"))
        hub_probe._listing.cache_clear()
        capfd.readouterr()
        return Said(cli.main(list(arguments)), *capfd.readouterr())

    return command


class Said(NamedTuple):
    """How a command ended, and what it printed."""

    returncode: int
    stdout: str
    stderr: str


Ask = Callable[..., Said]


def test_sources_that_can_be_had_are_told_with_files_size_licence_and_gate(ask: Ask, hub: Hub, tmp_path: Path) -> None:
    done = ask("preflight", alone=True)
    assert done.returncode == 0, done.stdout + done.stderr
    said = dict(re.findall(r"^ok +(\S+): (.*)$", done.stdout, flags=re.MULTILINE))
    assert said["bases.qwen.hub"] == (
        f"Qwen/Qwen2.5-7B@main (commit {QWEN[:12]}): 11 files, 15.6 GB, licence apache-2.0"
    )
    assert said["datasets.lima.hub"].endswith("1 file, 46 B, licence other, gated (auto) and open to this token")
    assert "licence not stated" in said["benchmarks.boolq.hub"]
    assert said["datasets.flan.hub"].partition(": ")[2].startswith("2 files, 141 MB")
    assert {"benchmarks.gsm8k.hub", "benchmarks.gsm8k.shots_hub", "benchmarks.jmmlu.hub", "datasets.again.hub"} < set(
        said
    )
    assert "are to be fetched into" in said["disk"]
    assert "note  bases.sarashina.hub: sbintuitions/sarashina2-7b@main: its weights are pickles" in done.stdout
    # a head or a footer only, and of nothing more than is needed
    heads = [(path, place) for method, path, place, _ in hub.requests if place]
    assert heads and all(method == "GET" for method, *_ in hub.requests)
    assert not [path for path, _ in heads if path.endswith((".safetensors", ".bin"))]
    # where large files lie, the token is not sent
    elsewhere = [token for _, path, _, token in hub.requests if path.startswith("/cdn/")]
    assert elsewhere and set(elsewhere) == {None}
    assert not list(tmp_path.glob("hf/**/*"))


def test_a_token_is_never_printed(ask: Ask, hub: Hub) -> None:
    for token in (GOOD, STRANGER, "hf_wrongToken012345678"):
        done = ask("preflight", token=token)
        assert token not in done.stdout + done.stderr
        assert "Signature" not in done.stdout + done.stderr
    hub.broken = 500
    done = ask("preflight")
    assert GOOD not in done.stdout + done.stderr
    assert "the hub answers with status 500; try again later" in done.stdout


# no program of the site's is found
NOTHING: dict[str, str | None] = {"PATH": "/nowhere"}
FAULTS: dict[str, tuple[tuple[str, str], dict[str, str | None], str]] = {
    "revision": (
        ("id: Qwen/Qwen2.5-7B, revision: main", f"id: Qwen/Qwen2.5-7B, revision: {GSM8K}"),
        {},
        r"bases\.qwen\.hub: .*: there is no revision '740312add.*; give a commit of http",
    ),
    "repository": (
        ("id: google/boolq", "id: google/bolq"),
        {},
        r"benchmarks\.boolq\.hub: .*: there is no such dataset repository, or it is private to others; check the id",
    ),
    "a model that is a dataset": (
        ("id: Qwen/Qwen2.5-7B", "id: openai/MMMLU"),
        {},
        r"bases\.qwen\.hub: .*: there is no such model repository",
    ),
    "gate, no token": (
        ("# open", "#"),
        {"token": None},
        r"datasets\.lima\.hub: .*: gated, and there is no token; accept its terms at http.*/datasets/GAIR/lima, then",
    ),
    "gate, a token without access": (
        ("# open", "#"),
        {"token": STRANGER},
        r"datasets\.lima\.hub: .*: gated, and the token in use has no access yet; accept its terms at",
    ),
    "gate of a model": (
        ("id: Qwen/Qwen2.5-7B", "id: meta-llama/Meta-Llama-3-8B"),
        {"token": STRANGER},
        r"bases\.qwen\.hub: .*: gated, and the token in use has no access yet; accept .*/Meta-Llama-3-8B, then",
    ),
    "token": (
        ("# open", "#"),
        {"token": "hf_wrongToken012345678"},
        r"bases\.qwen\.hub: .*: the hub does not accept the token; make another one, and set HF_TOKEN",
    ),
    "pattern": (
        ('["data/validation-*"]', '["data/valid-*"]'),
        {},
        r"benchmarks\.boolq\.hub: .*: no file matches 'data/valid-\*'; it has data/train-.*, data/valida.*; correct",
    ),
    "a script and no data": (
        ('id: google/boolq, revision: main, files: ["data/validation-*"]', "id: haonan-li/cmmlu, revision: main"),
        {},
        r"benchmarks\.boolq\.hub: .*: holds no file of a kind that is read .*; it has README.md, cmmlu.py, cmmlu",
    ),
    "columns of parquet": (
        ("format: boolq", "format: hellaswag"),
        {},
        r"benchmarks\.boolq\.hub: .*: data/validation-.* has no column 'ctx' and none 'endings' and none 'label'",
    ),
    "columns of JSON lines": (
        ("format: conversations", "format: messages"),
        {},
        r"datasets\.lima\.hub: .*: train\.jsonl has no column 'messages'; it has conversations, source; correct",
    ),
    "columns of JSON": (
        ("completion: output", "completion: reply"),
        {},
        r"datasets\.again\.hub: .*: alpaca_data_cleaned\.json has no column 'reply'; it has input, instruction, output",
    ),
    "columns of CSV": (
        ("format: cmmlu", "format: mmlu"),
        {},
        r"benchmarks\.jmmlu\.hub: .*: test/mmlu_JA-JP\.csv has no column 'question' and none 'choices'",
    ),
    "column of a filter": (
        ("keep: {_task_name:", "keep: {task:"),
        {},
        r"datasets\.flan\.hub: .*: flan_zsnoopt_data/part\.0\.parquet has no column 'task'; it has _task_name",
    ),
    "moving revision": (
        ("allow_moving: true\n", ""),
        {},
        r"revisions: sources: revisions that can move.* pin",
    ),
    "a GPU that is not there": (
        ("# open", "#"),
        {"device": "cuda", **NOTHING},
        "gpu: config.yaml says device: cuda, but neither",
    ),
    "no apptainer": (
        ("# open", "#"),
        {"config": "container: docker://a/b\n", **NOTHING},
        "container: .*no apptainer here",
    ),
}


@pytest.mark.parametrize(("edit", "options", "said"), FAULTS.values(), ids=FAULTS)
def test_every_fault_is_one_line_that_says_what_to_do(edit: tuple[str, str], options: Any, said: str, ask: Ask) -> None:
    done = ask("preflight", edits=(edit,), **options)
    assert done.returncode == 1, done.stdout + done.stderr
    faults = [line for line in done.stdout.splitlines() if line.startswith("FAULT")]
    assert [line for line in faults if re.search(f"^FAULT {said}", line)], done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == f"{len(faults)} fault{'s' if len(faults) > 1 else ''}"
    assert not done.stderr
    if options.get("token", GOOD) == GOOD:
        assert len(faults) == 1


def test_a_hub_that_is_not_there_is_told_for_every_source(ask: Ask) -> None:
    done = ask("preflight", HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 1
    lines = [line for line in done.stdout.splitlines() if line.startswith("FAULT")]
    assert len(lines) == 10 and all("the hub cannot be reached at http://127.0.0.1:9 (" in line for line in lines)


def test_a_disk_that_cannot_hold_it_is_told_with_both_numbers(ask: Ask, hub: Hub) -> None:
    hub.repositories["Qwen/Qwen2.5-7B"].files["model-00001-of-00004.safetensors"] = 10**18
    done = ask("preflight")
    assert done.returncode == 1
    assert re.search(
        r"^FAULT disk: 1[.,]0+ EB|^FAULT disk: 1,?000,?000.* are to be fetched into .*hf/hub, where .* free; make",
        done.stdout,
        re.M,
    ), done.stdout


def test_what_is_not_quite_right_is_a_note(ask: Ask, hub: Hub) -> None:
    two = ('["data/validation-*"]', '["raw/*", "data/*"]')
    edits = (("id: google/boolq", "id: HuggingFaceH4/mt_bench_prompts"), two, ("format: boolq", "format: mt_bench"))
    hub.moved["old/qwen"] = "Qwen/Qwen2.5-7B"
    done = ask("preflight", edits=(*edits, ("id: Qwen/Qwen2.5-7B", "id: old/qwen")))
    assert done.returncode == 0, done.stdout
    assert re.search(
        r"^note +benchmarks\.boolq\.hub: .*files of several kinds \(jsonl, parquet\): are they", done.stdout, re.M
    )
    assert re.search(r"^note +bases\.qwen\.hub: old/qwen@main: is now called Qwen/Qwen2\.5-7B$", done.stdout, re.M)


def program(folder: Path, name: str, text: str) -> None:
    """A stand-in for a program of the site's."""
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(stat.S_IRWXU)


def test_the_site_is_compared_with_config_and_profile(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    program(tmp_path / "bin", "sinfo", 'case "$*" in *%R*) echo cpu; echo gpu-long;; *) echo gpu:h100:8;; esac')
    program(tmp_path / "bin", "sacctmgr", "echo chem; echo phys")
    profile = "default-resources: {slurm_partition: \"'cpu'\", slurm_account: \"'chen'\"}\n"
    profile += "set-resources: {train_run: {slurm_partition: \"'gpu_long'\"}}\n"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/config.yaml").write_text(profile)
    options = {"device": "cuda", "config": f"scratch: {tmp_path}\n", "PATH": str(tmp_path / "bin")}
    done = ask("preflight", "--profile", "mine", **options)
    assert done.returncode == 1
    assert "ok    gpu: none here; nodes of the cluster have gpu:h100:8" in done.stdout
    assert re.search(rf"^ok    scratch: {tmp_path}, .* free here$", done.stdout, re.M)
    assert "ok    slurm_partition: cpu\n" in done.stdout
    assert (
        "FAULT slurm_partition: mine/config.yaml: unknown slurm_partition 'gpu_long'; expected one of: cpu"
        in done.stdout
    )
    assert "unknown slurm_account 'chen'; expected one of: chem, phys; did you mean 'chem'?" in done.stdout
    lost = ask("preflight", "--profile", "slum", **options)
    assert (
        lost.stderr
        == "error: --profile: unknown profile 'slum'; expected one of: local, slurm, template; did you mean 'slurm'?\n"
    )
    # off a cluster nothing can be said about it
    there = ask("preflight", "--profile", "mine", config="scratch: $NOWHERE/x\n", PATH="/nowhere")
    assert there.returncode == 0
    assert "note  slurm_account: chen: SLURM cannot be asked here" in there.stdout
    assert "note  scratch: $NOWHERE/x is not on this machine" in there.stdout


ROWS: dict[str, dict[str, Any]] = {
    "alpaca": {"instruction": "a", "output": "b"},
    "prompt_completion": {"prompt": "a", "completion": "b"},
    "messages": {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
    "conversations": {"conversations": ["a", "b"]},
    "flan": {"inputs": "a", "targets": "b"},
    "openmath": {"question": "a", "generated_solution": "b", "is_correct": True},
    "items": {"instruction": "a", "answer": "b"},
    "gsm8k": {"question": "a", "answer": "#### 1"},
    "math": {"problem": "a", "solution": r"\boxed{1}"},
    "mmlu": {"question": "a", "choices": ["b", "c"], "answer": 0},
    "cmmlu": {"Question": "a", "A": "1", "B": "2", "C": "3", "D": "4", "Answer": "A"},
    "boolq": {"passage": "a", "question": "b", "answer": True},
    "hellaswag": {"ctx": "a", "endings": ["b", "c"], "label": "0"},
    "nq": {"question": "a", "answer": ["b"]},
    "truthfulqa": {"question": "a", "correct_answers": ["b"], "best_answer": "b"},
    "mbpp": {"text": "a", "test_list": ["b"], "code": "c"},
    "humaneval": {"prompt": "a", "canonical_solution": "b"},
    "mt_bench": {"turns": ["a"]},
    "alpaca_eval": {"instruction": "a"},
}


@pytest.mark.parametrize(
    "name", [name for name in (*get_args(DatasetFormat), *get_args(BenchmarkFormat)) if name != "columns"]
)
def test_the_columns_of_a_format_are_those_that_its_reader_needs(name: str) -> None:
    def read(row: dict[str, Any]) -> object:
        return LAYOUTS[name].read(row) if name in LAYOUTS else normalise(name, row, Options({}, "first"))

    read(ROWS[name])
    assert {need.split("|")[0] for need in COLUMNS[name]} == set(ROWS[name])
    for column in ROWS[name]:
        with pytest.raises(DataError):
            read({other: value for other, value in ROWS[name].items() if other != column})


FETCH = """\
import sys
from sft_atlas.data.sources import DataError, read_rows, source_files
from sft_atlas.study.model import Hub
hub = Hub(id=sys.argv[1], revision="main", files=sys.argv[2:])
try: print(len(list(read_rows(source_files(hub, [])))))
except DataError as error: print(error)
"""


@pytest.mark.parametrize(
    ("source", "got"),
    [
        (("openai/gsm8k", "main/test-*"), "40"),
        (("yahma/alpaca-cleaned", "*.json"), "3"),
        (("GAIR/lima", "train.jsonl"), "hub GAIR/lima@main: gated; accept its terms on the hub, then"),
    ],
    ids=["parquet", "json", "gated"],
)
def test_a_job_fetches_from_this_hub_what_preflight_saw(
    source: tuple[str, ...], got: str, hub: Hub, tmp_path: Path
) -> None:
    places = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": ""}
    environment = ENVIRONMENT | places
    environment.pop("HF_HUB_OFFLINE", None)
    command = [sys.executable, "-c", FETCH, *source]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.startswith(got), done.stderr
    listed = [path for method, path, *_ in hub.requests if "/tree/" in path]
    assert listed or got.startswith("hub")


# --- pin


def test_pin_writes_commits_and_leaves_everything_else(ask: Ask, tmp_path: Path, hub: Hub) -> None:
    done = ask("pin")
    assert done.returncode == 0, done.stderr
    written = (tmp_path / "sources.yaml").read_text()
    before, now = (STUDY % GSM8K).splitlines(), written.splitlines()
    changed = [(old, new) for old, new in zip(before, now, strict=True) if old != new]
    # the alias is pinned where it is defined, what was pinned is left alone
    assert len(changed) == 8
    for old, new in changed:
        assert re.sub("[0-9a-f]{40}", "main", new) == re.sub("['\"]main['\"]", "main", old)
    assert f"revision: {QWEN}}}, family: qwen}}   # open" in written
    assert f"revision: {hub.repositories['sbintuitions/sarashina2-7b'].commit}   # pickles only" in written
    assert f"bases.qwen.hub.revision\tQwen/Qwen2.5-7B\tmain -> {QWEN}" in done.stdout
    assert done.stdout.splitlines()[-1] == "sources.yaml: 8 revisions pinned"
    # and so there is nothing to do the next time, though the file now needs no leave to move
    offline = ENVIRONMENT | {"HF_ENDPOINT": "http://127.0.0.1:9", "SFT_ATLAS_ROOT": str(ROOT)}
    command = [sys.executable, "-m", "sft_atlas.commands.cli", "pin"]
    again = subprocess.run(command, cwd=tmp_path, env=offline, capture_output=True, text=True, check=False)
    assert again.stdout == "sources.yaml: nothing to pin\n", again.stderr
    assert (tmp_path / "sources.yaml").read_text() == written


def test_a_revision_that_the_hub_does_not_know_leaves_the_file_as_it_was(ask: Ask, tmp_path: Path) -> None:
    done = ask("pin", edits=(("id: google/boolq, revision: main", "id: google/boolq, revision: v9"),))
    assert done.returncode == 1
    assert done.stderr.startswith("error: hub google/boolq@v9: there is no revision 'v9'; give a commit of ")
    assert "main" in (tmp_path / "sources.yaml").read_text()


def test_line_ends_merges_and_digits_survive(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    text = (
        '\ufeffbases:\r\n  a: {hub: &a {id: o/a, revision: "v1"}}  # ü\r\n'
        "  b: {hub: {<<: *a, revision: v2}}\r\n  c: {hub: *a}\r\n"
        "datasets: {d: {hub: {id: o/d, revision: x, files: [main]}}}\r\n"
    )
    path.write_bytes(text.encode())
    commits = {"v1": "1" * 40, "v2": "a" * 40, "x": "1" * 19 + "e" + "1" * 20}
    done = pin(path, lambda kind, repository, revision: commits[revision])
    expected = (
        text.replace('"v1"', f'"{"1" * 40}"')
        .replace("v2", "a" * 40)
        .replace("revision: x", f'revision: "{commits["x"]}"')
    )
    assert path.read_bytes() == expected.encode()
    assert [(place.key, place.kind, new) for place, new in done] == [
        ("bases.a.hub.revision", "model", commits["v1"]),
        ("bases.b.hub.revision", "model", commits["v2"]),
        ("datasets.d.hub.revision", "dataset", commits["x"]),
    ]


def test_one_text_for_several_repositories_cannot_be_pinned(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("bases:\n  a: {hub: {id: o/a, revision: &r main}}\n  b: {hub: {id: o/b, revision: *r}}\n")
    with pytest.raises(
        StudyError, match=r"own\.yaml: bases\.a\.hub\.revision and bases\.b\.hub\.revision are one text \(line 2\)"
    ):
        pin(path, lambda *_: pytest.fail("nothing is asked"))
