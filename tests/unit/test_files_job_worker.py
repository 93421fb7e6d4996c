"""Whole files, records of pieces, jobs from frozen specifications, and the process that local jobs share."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from sft_atlas import job, worker
from sft_atlas.errors import SpecError
from sft_atlas.files import (
    describe,
    intact,
    read_json,
    recorded,
    whole,
    write_json,
    write_record,
    write_table,
)
from sft_atlas.runtime.settings import VARIABLE
from sft_atlas.spec import JobSpec
from sft_atlas.stage import Stage, stages
from sft_atlas.study.identity import spec_file
from tests.unit.helpers import content, runtime

PATIENCE = 30.0

# --- files


def test_a_whole_file_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "new/folder/file.txt"
    for text in ("old", "new"):
        with whole(path) as temporary:
            temporary.write_text(text)
            assert not path.exists() or path.read_text() == "old"
        assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]


def test_a_whole_folder_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "model"
    for name in ("a", "b"):
        with whole(path) as temporary:
            (temporary / "sub").mkdir(parents=True)
            (temporary / f"sub/{name}").touch()
    assert [file.name for file in path.rglob("*") if file.is_file()] == ["b"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("folder", [True, False])
def test_a_failure_leaves_the_old_content_and_nothing_else(folder: bool, tmp_path: Path) -> None:
    path = tmp_path / "piece"
    (path / "sub").mkdir(parents=True) if folder else path.write_text("old")

    def fail() -> None:
        with whole(path) as temporary:
            temporary.mkdir() if folder else temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == [path]
    assert (path / "sub").is_dir() if folder else path.read_text() == "old"


def test_rubbish_of_an_earlier_process_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    left = tmp_path / f".file.txt.{os.getpid()}.tmp"
    left.mkdir()
    (left / "half").touch()
    with whole(path) as temporary:
        temporary.write_text("new")
    assert list(tmp_path.iterdir()) == [path]


def test_a_linked_folder_is_replaced_and_not_emptied(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "weights").touch()
    (tmp_path / "link").symlink_to(source)
    with whole(tmp_path / "link") as temporary:
        temporary.mkdir()
    assert (source / "weights").exists()
    assert not (tmp_path / "link").is_symlink()


def test_json_is_readable_sorted_and_without_nan(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"b": "é", "a": [1]})
    assert path.read_text(encoding="utf-8") == '{\n "a": [\n  1\n ],\n "b": "é"\n}\n'
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": float("nan")})
    assert read_json(path) == {"a": [1], "b": "é"}
    path.write_text("{")
    with pytest.raises(ValueError, match=r"a\.json: not valid JSON .*delete it to have it made again"):
        read_json(path)


def test_a_table_gives_the_same_bytes(tmp_path: Path) -> None:
    table = pl.DataFrame({"a": ["x", None] * 500, "b": [1.5, float("inf")] * 500})
    write_table(tmp_path / "a.parquet", table)
    write_table(tmp_path / "b.parquet", table.clone())
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert pl.read_parquet(tmp_path / "a.parquet").equals(table)


def test_a_folder_is_described_by_its_files(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/b").write_text("abc")
    (tmp_path / "a").touch()
    # sha256sum of nothing and of abc
    assert describe(tmp_path) == [
        {"name": "a", "size": 0, "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"name": "sub/b", "size": 3, "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
    ]
    assert intact(tmp_path, describe(tmp_path))


@pytest.fixture
def piece(tmp_path: Path) -> Path:
    """The record of a finished piece, a table and a folder."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model/weights").write_text("abc")
    (tmp_path / "table").write_text("abc")
    write_record(tmp_path / "record.json", {"run": "x", "version": 1}, [tmp_path / "model", tmp_path / "table"], step=7)
    return tmp_path / "record.json"


def test_a_finished_piece_is_found_again(piece: Path) -> None:
    found = recorded(piece, {"version": 1, "run": "x"})
    assert found is not None
    assert found["step"] == 7
    assert [file["name"] for file in found["files"]] == ["model/weights", "table"]


DAMAGES: dict[str, Callable[[Path], object]] = {
    "table gone": lambda folder: (folder / "table").unlink(),
    "weights gone": lambda folder: shutil.rmtree(folder / "model"),
    "weights cut": lambda folder: (folder / "model/weights").write_text("ab"),
    "record gone": lambda folder: (folder / "record.json").unlink(),
    "record cut": lambda folder: (folder / "record.json").write_text('{"made_from": {"run": "x", "ver'),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_piece_is_not_finished(damage: Callable[[Path], object], piece: Path) -> None:
    damage(piece.parent)
    assert recorded(piece, {"run": "x", "version": 1}) is None


@pytest.mark.parametrize("made_from", [{"run": "y", "version": 1}, {"run": "x", "version": 2}, {"run": "x"}, {}])
def test_a_piece_of_something_else_is_refused(made_from: dict[str, Any], piece: Path) -> None:
    assert recorded(piece, made_from) is None


# --- jobs

STAGE = '''
import os, sys, time
from pathlib import Path
from sft_atlas.runtime.stopping import StoppedError, stop_request

Path(os.environ["IMPORTED"], str(os.getpid())).touch()


def run(spec, root):
    """A stage that does as its specification says."""
    do, output = spec.identity.do, root / spec.output
    output.write_text(f"{os.getpid()} {os.getppid()} {Path.cwd()}")
    print("said on stdout", flush=True)
    print("said on stderr", file=sys.stderr, flush=True)
    if do == "fail":
        raise ValueError("rows.jsonl:3: column 'x' is missing")
    if do == "lose":
        raise FileNotFoundError(2, "No such file", "model.safetensors")
    if do == "crash":
        raise RuntimeError("a fault of the program")
    if do == "die":
        os._exit(3)
    if do == "sleep":
        time.sleep(60)
    if do == "save":
        with stop_request() as stop:
            while not stop.received:
                time.sleep(0.02)
        time.sleep(1)
        Path("saved").touch()
        raise StoppedError("saved")
'''
SPEC = """
from sft_atlas.spec import JobSpec, Nothing, Part


class Identity(Part):
    do: str
    number: int


class Spec(JobSpec):
    identity: Identity
    inputs: Nothing
    labels: Nothing
"""
DECLARED: dict[str, Any] = {"name": "fake", "scope": "dataset", "output": "{place}/fake-{hash}.json", "jobs": list}
# The same interpreter with the stage `fake`, and as little as possible to import in the shared process.
PRELUDE = (
    "import sys; from pathlib import Path; from sft_atlas import job, worker; "
    "from sft_atlas.stage import Stage, stages; "
    "stages()['fake'] = Stage('fake_stage', name='fake', scope='dataset', output='', jobs=list); "
    "worker.preloaded = lambda: ['fake_stage.run']; "
)
JOB = PRELUDE + "sys.exit(job.main())"
SERVE = PRELUDE + "worker.serve(Path(sys.argv[1]), int(sys.argv[2]), job.guarded)"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the stage's own folder, in which jobs work; here, too, there is the stage."""
    folder = tmp_path / "modules/fake_stage"
    folder.mkdir(parents=True)
    for name, source in {"__init__": "", "run": STAGE, "spec": SPEC}.items():
        (folder / f"{name}.py").write_text(source)
    (tmp_path / "imported").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"), prepend=os.pathsep)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    for module in ("fake_stage", "fake_stage.run", "fake_stage.spec"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(stages(), "fake", Stage("fake_stage", **DECLARED))
    monkeypatch.setenv("IMPORTED", str(tmp_path / "imported"))
    monkeypatch.delenv(VARIABLE, raising=False)
    return tmp_path


def frozen(root: Path, do: str = "work", number: int = 0) -> Path:
    """A frozen specification of the stage."""
    spec = content("fake", f"runs/a/fake-{number}.json", {"do": do, "number": number})
    path = root / "results" / spec_file(spec["output"], spec["hash"])
    write_json(path, spec)
    return path


def output_of(path: Path) -> Path:
    return path.parents[2] / read_json(path)["output"]


def run_job(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", JOB, str(path)]
    return subprocess.run(command, cwd=path.parents[3], capture_output=True, text=True, check=False, timeout=PATIENCE)


def test_a_job_does_its_work_and_leaves_a_record(place: Path) -> None:
    path = frozen(place)
    done = run_job(path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "said on stdout\n", "said on stderr\n")
    assert output_of(path).read_text().endswith(str(place))
    record = read_json(path.with_name(path.name.replace(".spec.", ".record.")))
    assert (record["stage"], record["output"]) == ("fake", "runs/a/fake-0.json")
    assert record["wall_seconds"] >= 0
    assert record["cpu_seconds"] >= 0
    assert abs(record["started"] - time.time()) < 2 * PATIENCE
    assert record["python"] == sys.version.split()[0]
    assert record["libraries"]["polars"] == pl.__version__
    assert record["slurm_job"] == os.environ.get("SLURM_JOB_ID")


@pytest.mark.parametrize(
    ("do", "said"),
    [
        ("fail", "error: rows.jsonl:3: column 'x' is missing"),
        ("lose", "error: [Errno 2] No such file: 'model.safetensors'"),
    ],
)
def test_an_error_that_a_user_can_mend_is_one_line(do: str, said: str, place: Path) -> None:
    done = run_job(frozen(place, do))
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["said on stderr", said]


def test_a_fault_of_the_program_shows_where_it_is(place: Path) -> None:
    path = frozen(place, "crash")
    done = run_job(path)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "fake_stage/run.py" in done.stderr
    assert done.stderr.endswith("RuntimeError: a fault of the program\n")
    assert not list(path.parent.glob("*.record.json"))


def test_the_traceback_of_any_error_can_be_asked_for(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime(monkeypatch, traceback=True)
    assert "Traceback" in run_job(frozen(place, "fail")).stderr


@pytest.mark.parametrize("source", [{}, {"hub": {"id": "owner/name", "revision": "main"}}])
def test_what_a_job_fetches_stays_when_the_job_is_over(
    source: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("HF_HOME", "/home/cache")
    runtime(monkeypatch, scratch=str(tmp_path / "scratch"))
    spec = content("base", "bases/b/manifest.json", {"source": source})
    path = tmp_path / "results" / spec_file(spec["output"], spec["hash"])
    write_json(path, spec)
    homes: list[str] = []
    monkeypatch.setattr(job, "guarded", lambda path: homes.append(os.environ["HF_HOME"]) or 0)
    assert job.main([str(path)]) == 0
    assert (homes == ["/home/cache"]) is bool(source)


@pytest.mark.parametrize(("facts", "device"), [({}, "cpu"), ({"gpu": None}, "cpu"), ({"gpu": "NVIDIA H200"}, "gpu")])
def test_a_run_whose_processes_have_used_gpus_is_one_on_gpus(
    facts: dict[str, Any], device: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(spec: JobSpec, root: Path) -> dict[str, Any]:
        (root / spec.output).touch()
        return facts

    monkeypatch.setattr(job, "_device", lambda: "cpu")
    monkeypatch.setattr(stages()["fake"].module("run"), "run", work)
    path = frozen(place)
    job.run(path)
    assert read_json(path.with_name(path.name.replace(".spec.", ".record.")))["device"] == device


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "identity": lambda spec: spec["identity"].update(number=1),
    "version": lambda spec: spec.update(version=9),
    "stage": lambda spec: spec.update(stage="collect"),
    "hash": lambda spec: spec.update(hash="00000000"),
    "output": lambda spec: spec.update(output="runs/a/other.json"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_specification_is_refused(
    change: Callable[[dict[str, Any]], object], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = frozen(place)
    assert job.read_spec(path).identity.model_dump() == {"do": "work", "number": 0}
    spec = read_json(path)
    change(spec)
    path.write_text(json.dumps(spec))
    with pytest.raises(SpecError, match="it was changed after it was frozen: delete the file"):
        job.read_spec(path)
    assert job.main([str(path)]) == 1
    assert capsys.readouterr().err.startswith(f"error: {path}: its content has the hash")
    assert not output_of(path).exists()


def test_an_absent_specification_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert job.main([str(tmp_path / "none.spec.json")]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_every_stage_has_a_module_that_runs_it() -> None:
    for name, stage in stages().items():
        assert "\ndef run(spec: Spec, root: Path) -> " in (stage.folder / "run.py").read_text(), name
        assert "\nclass Spec(JobSpec):\n" in (stage.folder / "spec.py").read_text(), name


# --- the shared process


def alive(process: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return False


def eventually(holds: Callable[[], object]) -> bool:
    """Whether something comes true within a generous time."""
    end = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


class Shared:
    """A worker, the process that owns it, and the clients that ask it for jobs."""

    def __init__(self, place: Path) -> None:
        # the path of a socket has at most 107 bytes
        self.socket = Path(tempfile.mkdtemp(prefix="worker-")) / "worker"
        self.place = place
        self.owner = subprocess.Popen(["sleep", "600"])
        self.processes = [self.owner]
        self.workers: list[subprocess.Popen[str]] = []

    def serve(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", SERVE, str(self.socket), str(self.owner.pid)]
        process = subprocess.Popen(command, cwd=self.place, text=True, stderr=subprocess.PIPE)
        self.processes.append(process)
        self.workers.append(process)
        return process

    def ask(self, spec: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", JOB, str(spec)]
        process = subprocess.Popen(command, cwd=self.place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.processes.append(process)
        return process

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
            # not read to their end, which a job that outlives a broken worker would put off
            for pipe in filter(None, (process.stdout, process.stderr)):
                pipe.close()
        shutil.rmtree(self.socket.parent, ignore_errors=True)


@pytest.fixture
def shared_process(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shared]:
    made = Shared(place)
    runtime(monkeypatch, worker=str(made.socket))
    yield made
    made.close()


def started(shared_process: Shared, spec: Path) -> tuple[subprocess.Popen[str], int]:
    """A client, and the process of its job, which has begun."""
    client = shared_process.ask(spec)
    assert eventually(lambda: output_of(spec).exists() and output_of(spec).read_text())
    return client, int(output_of(spec).read_text().split()[0])


def test_jobs_share_one_process_that_has_imported_once(shared_process: Shared, place: Path) -> None:
    server = shared_process.serve()
    assert eventually(shared_process.socket.exists)
    specs = [frozen(place, number=number) for number in range(3)]
    for client in [shared_process.ask(spec) for spec in specs]:
        assert client.communicate(timeout=PATIENCE) == ("said on stdout\n", "said on stderr\n")
        assert client.returncode == 0
    jobs = [output_of(spec).read_text().split() for spec in specs]
    assert {parent for _, parent, _ in jobs} == {str(server.pid)}
    assert len({process for process, _, _ in jobs}) == 3
    assert {folder for _, _, folder in jobs} == {str(place)}
    assert [path.name for path in (place / "imported").iterdir()] == [str(server.pid)]
    assert read_json(place / "logs/worker.json")["import_cpu_seconds"] > 0
    assert len(list(specs[0].parent.glob("*.record.json"))) == 3


@pytest.mark.parametrize(
    ("do", "status", "said"),
    [
        ("fail", 1, "error: rows.jsonl:3: column 'x' is missing\n"),
        ("crash", 1, "a fault of the program\n"),
        ("die", 3, ""),
    ],
)
def test_a_failure_reaches_the_client(do: str, status: int, said: str, shared_process: Shared, place: Path) -> None:
    shared_process.serve()
    assert eventually(shared_process.socket.exists)
    client = shared_process.ask(frozen(place, do))
    _, errors = client.communicate(timeout=PATIENCE)
    assert client.returncode == status
    assert errors.endswith(said)
    # and the worker lives on
    after = shared_process.ask(frozen(place, number=1))
    after.communicate(timeout=PATIENCE)
    assert after.returncode == 0


def test_the_worker_ends_with_its_owner_and_takes_its_jobs_along(shared_process: Shared, place: Path) -> None:
    server = shared_process.serve()
    assert eventually(shared_process.socket.exists)
    client, process = started(shared_process, frozen(place, "sleep"))
    shared_process.owner.kill()
    shared_process.owner.wait()
    assert server.wait(timeout=PATIENCE) == 0
    assert eventually(lambda: not alive(process))
    assert not shared_process.socket.parent.exists()
    _, errors = client.communicate(timeout=PATIENCE)
    assert client.returncode == 256 - signal.SIGTERM
    assert f"the job was killed by signal {signal.SIGTERM}" in errors


def test_a_job_ends_with_its_client(shared_process: Shared, place: Path) -> None:
    server = shared_process.serve()
    assert eventually(shared_process.socket.exists)
    client, process = started(shared_process, frozen(place, "sleep"))
    client.kill()
    assert eventually(lambda: not alive(process))
    assert server.poll() is None
    after = shared_process.ask(frozen(place, number=1))
    after.communicate(timeout=PATIENCE)
    assert after.returncode == 0


def test_a_killed_job_is_a_failed_one(shared_process: Shared, place: Path) -> None:
    shared_process.serve()
    assert eventually(shared_process.socket.exists)
    client, process = started(shared_process, frozen(place, "sleep"))
    os.kill(process, signal.SIGKILL)
    _, errors = client.communicate(timeout=PATIENCE)
    assert client.returncode == 256 - signal.SIGKILL
    assert f"the job was killed by signal {signal.SIGKILL}" in errors


def test_a_client_that_is_asked_to_stop_waits_for_what_its_job_saves(shared_process: Shared, place: Path) -> None:
    shared_process.serve()
    assert eventually(shared_process.socket.exists)
    client, _ = started(shared_process, frozen(place, "save"))
    client.send_signal(signal.SIGTERM)
    client.communicate(timeout=PATIENCE)
    assert client.returncode == 128 + signal.SIGTERM
    assert (place / "saved").exists()


def test_after_a_worker_was_killed_another_one_is_started(
    shared_process: Shared, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_launch", lambda path: shared_process.serve().pid)
    worker._connect(shared_process.socket).close()
    (first,) = shared_process.workers
    first.kill()
    first.wait()
    worker._connect(shared_process.socket).close()
    assert len(shared_process.workers) == 2
    after = shared_process.ask(frozen(place, number=1))
    after.communicate(timeout=PATIENCE)
    assert after.returncode == 0


def test_many_clients_start_one_worker(shared_process: Shared, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launched: list[Path] = []

    def launch(path: Path) -> int:
        launched.append(path)
        return shared_process.serve().pid

    monkeypatch.setattr(worker, "_launch", launch)
    connections: list[Any] = []
    threads = [
        threading.Thread(target=lambda: connections.append(worker._connect(shared_process.socket))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(connections) == 4
    assert launched == [shared_process.socket]
    # clients that are gone before they have asked for anything do no harm
    for connection in connections:
        connection.close()
    after = shared_process.ask(frozen(place))
    after.communicate(timeout=PATIENCE)
    assert after.returncode == 0


def test_a_worker_that_cannot_start_says_why(shared_process: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    def launch(path: Path) -> int:
        path.with_suffix(".log").write_text("ImportError: no module named torch\n")
        process = subprocess.Popen(["true"])
        process.wait()
        return process.pid

    monkeypatch.setattr(worker, "_launch", launch)
    with pytest.raises(RuntimeError, match=r"did not start; set share_imports to false(?s:.)*no module named torch"):
        worker._connect(shared_process.socket)


def test_the_worker_imports_what_the_costly_stages_need() -> None:
    costly = ("train", "evaluate", "perplexity", "tokens", "base", "weights", "likelihoods", "embedding")
    assert set(worker.preloaded()) >= {
        *(f"sft_atlas.stages.{stage}.run" for stage in costly),
        "sft_atlas.micro.pretrain",
    }
    assert worker.preloaded()[0] == "sft_atlas.stages.train.run"


def test_the_worker_loads_the_base_of_a_run_before_its_job_is_a_fork(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Path] = []
    monkeypatch.setattr("sft_atlas.models.device.load_for_children", loaded.append)
    inputs = {"base": "bases/b-00000000/manifest.json", "tokens": "tokens/t-00000000/manifest.json"}
    spec = content("train", "runs/b/s/full-00000000/train-0.json", {"run": "0" * 8}, inputs)
    path = tmp_path / "results" / spec_file(spec["output"], spec["hash"])
    write_json(path, spec)
    worker._load_base(path)
    assert loaded == [tmp_path / "results/bases/b-00000000/model"]
