"""At most one owner of a folder at a time: races, dead and sleeping owners, other machines."""

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from sft_atlas.files import read_json, write_json
from sft_atlas.training import lease as module
from sft_atlas.training.lease import Lease, LeaseLostError, lease, newest

FORK = multiprocessing.get_context("fork")


def count_up(folder: Path, times: int) -> None:
    """Under the lease, a read and a later write that two owners at once would spoil."""
    for _ in range(times):
        with lease(folder, beat=0.05, patience=30):
            counter = folder / "counter"
            value = int(counter.read_text())
            time.sleep(0.002)
            counter.write_text(str(value + 1))


def own(folder: Path, owned: Any, seconds: float, beat: float = 0.05) -> None:
    """Hold the lease for a while."""
    with lease(folder, beat=beat, patience=30):
        owned.set()
        time.sleep(seconds)


def start(folder: Path, seconds: float, beat: float = 0.05) -> Any:
    """A process that holds the lease by now."""
    owned = FORK.Event()
    process = FORK.Process(target=own, args=(folder, owned, seconds, beat))
    process.start()
    assert owned.wait(20)
    return process


def test_many_processes_take_turns(tmp_path: Path) -> None:
    (tmp_path / "counter").write_text("0")
    processes = [FORK.Process(target=count_up, args=(tmp_path, 5)) for _ in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert (tmp_path / "counter").read_text() == "40"
    assert [file.name for file in (tmp_path / "lease").iterdir()] == ["000040.json"]


def test_who_overlooked_an_owner_does_not_own(tmp_path: Path) -> None:
    """A folder is not listed at once: between one owner and the next, none may be seen."""
    place = tmp_path / "lease"
    write_json(place / "000002.json", module.identity())
    assert module._take(place, None, module.identity()) is None
    assert [file.name for file in place.iterdir()] == ["000002.json"]


def test_a_dead_owner_of_this_machine_is_succeeded_at_once(tmp_path: Path) -> None:
    process = start(tmp_path, 60)
    process.kill()
    process.join()
    began = time.monotonic()
    with lease(tmp_path, patience=1000) as owned:
        assert owned.path.name == "000002.json"
    assert time.monotonic() - began < 5


def test_a_killed_owner_that_nobody_has_waited_for_is_dead(tmp_path: Path) -> None:
    process = start(tmp_path, 60)
    os.kill(process.pid, signal.SIGKILL)
    with lease(tmp_path, patience=1000) as owned:
        assert owned.path.name == "000002.json"
    process.join()


def test_a_living_owner_is_waited_for(tmp_path: Path) -> None:
    process = start(tmp_path, 1.5)
    began = time.monotonic()
    with lease(tmp_path, patience=1000):
        assert time.monotonic() - began > 0.8
        process.join(5)
        assert process.exitcode == 0


def test_a_number_that_another_process_has_now_is_not_the_owner(tmp_path: Path) -> None:
    place = tmp_path / "lease"
    place.mkdir()
    write_json(place / "000007.json", module.identity() | {"started": "1"})
    with lease(tmp_path, patience=1000) as owned:
        assert owned.path.name == "000008.json"


def elsewhere(**facts: Any) -> dict[str, Any]:
    """An owner on another machine."""
    return module.identity() | {"machine": "another boot", "host": "node7", "slurm_job": "12"} | facts


def test_an_owner_elsewhere_is_dead_when_its_file_is_not_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "lease"
    write_json(place / "000001.json", elsewhere())
    # its clock may be ahead by hours
    os.utime(place / "000001.json", (time.time() + 9999, time.time() + 9999))
    began = time.monotonic()
    with lease(tmp_path, patience=1.0) as owned:
        assert time.monotonic() - began > 1
        assert owned.path.name == "000002.json"


def test_an_owner_elsewhere_is_alive_while_its_file_is_touched(tmp_path: Path) -> None:
    file = tmp_path / "lease/000001.json"
    write_json(file, elsewhere())
    ended = threading.Event()

    def touch() -> None:
        for number in range(20):
            os.utime(file, (1000 + number, 1000 + number))
            time.sleep(0.1)
        ended.set()

    thread = threading.Thread(target=touch)
    thread.start()
    with lease(tmp_path, patience=0.8):
        assert ended.is_set()
    thread.join()


def test_a_job_that_slurm_has_started_again_succeeds_itself_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(tmp_path / "lease/000001.json", elsewhere())
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    began = time.monotonic()
    with lease(tmp_path, patience=1000) as owned:
        assert read_json(owned.path)["slurm_restarts"] == 1
    assert time.monotonic() - began < 5


def test_an_owner_that_was_asleep_stops_before_it_writes(tmp_path: Path) -> None:
    with pytest.raises(LeaseLostError, match="another process has taken this run over"), lease(tmp_path) as sleeper:
        successor = Lease(tmp_path / "lease/000002.json")
        write_json(successor.path, elsewhere())
        sleeper.check()
    # and it does not give away what is not its own
    assert newest(tmp_path / "lease") == successor.path
    assert "released" not in read_json(successor.path)


def test_a_stopped_process_is_taken_over_and_leaves_the_successor_alone(tmp_path: Path) -> None:
    process = start(tmp_path, 0.5)
    os.kill(process.pid, signal.SIGSTOP)
    os.utime(tmp_path / "lease/000001.json", (1, 1))
    with lease(tmp_path, patience=1.0) as owned:
        os.kill(process.pid, signal.SIGCONT)
        process.join(20)
        owned.check()
    assert newest(tmp_path / "lease") == owned.path


def test_a_link_whose_answer_was_lost_is_still_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS repeats a request whose answer was lost, and then hears that the file exists: simulated at `os.link`."""
    link = os.link

    def twice(source: Path, target: Path) -> None:
        link(source, target)
        raise FileExistsError

    monkeypatch.setattr(module.os, "link", twice)
    with lease(tmp_path) as owned:
        assert owned.path.name == "000001.json"
