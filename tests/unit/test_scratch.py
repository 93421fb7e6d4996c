"""A node's own disk: caches of a job go there and with it, and a base is copied once."""

import contextlib
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sft_atlas.models import local_models
from sft_atlas.runtime import scratch
from sft_atlas.runtime.settings import current
from tests.unit.helpers import runtime


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NODE_DISK", str(tmp_path))
    runtime(monkeypatch, scratch="$NODE_DISK/own", local_models=True)
    return tmp_path / "own/sft-atlas"


def test_without_a_scratch_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime(monkeypatch, scratch="")
    before = dict(os.environ)
    with scratch.own_scratch() as own:
        assert own is None and dict(os.environ) == before


def test_temporary_files_and_caches_go_to_it_and_go_with_the_job(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", "/somewhere/shared")
    with scratch.own_scratch() as own:
        assert own is not None and own.is_relative_to(disk)
        assert Path(tempfile.mkdtemp()).is_relative_to(own)
        assert Path(os.environ["HF_HOME"]).is_dir() and os.environ["HF_DATASETS_CACHE"].startswith(str(own))
    assert not own.exists() and os.environ["HF_HOME"] == "/somewhere/shared" and "HF_DATASETS_CACHE" not in os.environ
    assert not Path(tempfile.gettempdir()).is_relative_to(disk)


def test_what_a_killed_job_left_the_next_one_removes(disk: Path) -> None:
    code = "; ".join(
        [
            "import os, sft_atlas.runtime.scratch as scratch",
            "place = scratch.own_scratch()",
            "print(place.__enter__(), flush=True)",
            "os.kill(os.getpid(), 9)",
        ]
    )
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    left = Path(killed.stdout.strip())
    assert left.is_dir()
    with scratch.own_scratch() as first:
        assert first is not None and not left.exists()
        # a job that lives keeps its own
        scratch.remove_left(first.parent)
        assert first.exists()


def test_a_place_that_cannot_be_used_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    runtime(monkeypatch, scratch=str(tmp_path / "file"))
    with pytest.raises(ValueError, match=r"scratch: .* cannot be used on this node"), scratch.own_scratch():
        pass


@pytest.mark.parametrize("configured", ["$NOT_SET", "/local/$NOT_SET", "$EMPTY", "own"])
def test_a_variable_that_is_not_set_is_one_clear_error(
    configured: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("NOT_SET", raising=False)
    runtime(monkeypatch, scratch=configured)
    with pytest.raises(ValueError, match=r"scratch: .* has to be an absolute path"), scratch.own_scratch():
        pass
    assert not list(tmp_path.iterdir())


def test_a_job_of_another_node_keeps_its_folder_in_a_place_that_nodes_share(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    with contextlib.ExitStack() as jobs:
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr("platform.node", lambda: "another-node")
            elsewhere.setattr(scratch, "process_start", lambda process: 2.0)
            first = jobs.enter_context(scratch.own_scratch())
        monkeypatch.setenv("SLURM_JOB_ID", "2")
        second = jobs.enter_context(scratch.own_scratch())
        assert first is not None and second is not None and first != second
        assert first.exists() and second.exists()


def base(folder: Path) -> Path:
    model = folder / "bases/name-12345678/model"
    model.mkdir(parents=True)
    (model / "model.safetensors").write_bytes(bytes(1000))
    return model


def test_a_base_is_copied_once_however_many_jobs_ask_at_a_time(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, copies = base(tmp_path), []
    copytree = local_models.shutil.copytree
    monkeypatch.setattr(local_models.shutil, "copytree", lambda *places: (copies.append(places), copytree(*places)))
    with ThreadPoolExecutor(8) as jobs:
        found = set(jobs.map(local_models.local_model, [model] * 8))
    assert found == {disk / "models/name-12345678"} and len(copies) == 1
    assert (found.pop() / "model.safetensors").read_bytes() == bytes(1000)


def test_in_a_job_the_place_of_bases_does_not_move_with_its_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = base(tmp_path)
    runtime(monkeypatch, scratch="$TMPDIR", local_models=True)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "node"))
    with scratch.own_scratch():
        copied = local_models.local_model(model)
    assert copied == tmp_path / "node/sft-atlas/models/name-12345678" and copied.exists()
    assert current().scratch == "$TMPDIR"


def test_without_room_or_for_a_checkpoint_the_shared_model_is_read(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = base(tmp_path)
    assert local_models.local_model(tmp_path / "runs/a/b/epoch-01/model") == tmp_path / "runs/a/b/epoch-01/model"
    monkeypatch.setattr(local_models, "free_bytes", lambda folder: 1000)
    assert local_models.local_model(model) == model
    monkeypatch.undo()
    runtime(monkeypatch, scratch=str(tmp_path / "own"), local_models=False)
    assert local_models.local_model(model) == model
