"""Pinned snapshots from the hub's cache, and what a user is told when they cannot be had; no network is used."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import httpx2
import pytest
import torch
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models

from sft_atlas.data import hub
from sft_atlas.data.sources import source_files
from sft_atlas.errors import DataError
from sft_atlas.files import read_json
from sft_atlas.models.deltas import encode
from sft_atlas.stages.weights.run import compare
from sft_atlas.study.model import Hub
from tests.unit.helpers import content, do

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODEL = {"config.json": "{}", "model.safetensors": "weights", "tokenizer.json": "{}", "README.md": "x"}


def cached(home: Path, kind: str, files: dict[str, str]) -> Path:
    """Lay out a cached snapshot as the hub's library does; returns the snapshot's folder."""
    repository = home / "hub" / f"{kind}s--owner--name"
    snapshot = repository / "snapshots" / COMMIT
    for name, text in files.items():
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).write_text(text)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(COMMIT)
    return snapshot


def fetch_offline(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Call `fetch` in a process of its own: where the cache lies is decided when the hub's library is imported."""
    code = (
        "import sys\nfrom sft_atlas.errors import DataError\nfrom sft_atlas.data.hub import fetch\n"
        "try: print(fetch(*sys.argv[1:]))\nexcept DataError as error: sys.exit(str(error))"
    )
    environment = {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "PATH": ""}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("revision", [COMMIT, "main"])
def test_a_cached_snapshot_needs_no_network(revision: str, tmp_path: Path) -> None:
    snapshot = cached(tmp_path, "model", MODEL)
    done = fetch_offline(tmp_path, "owner/name", revision, "model")
    assert done.stdout.strip() == str(snapshot), done.stderr


@pytest.mark.parametrize(
    ("repository", "revision", "kind"),
    [("owner/other", COMMIT, "model"), ("owner/name", COMMIT[::-1], "model"), ("owner/name", COMMIT, "dataset")],
    ids=["another repository", "another revision", "another kind"],
)
def test_what_is_not_cached_is_named(repository: str, revision: str, kind: str, tmp_path: Path) -> None:
    cached(tmp_path, "model", MODEL)
    done = fetch_offline(tmp_path, repository, revision, kind)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"hub {repository}@{revision}: not in the local cache")
    assert "HF_HUB_OFFLINE is set" in line
    assert line.endswith("fetch it on a machine with network, or give a local `path`")


def answer(status: int) -> httpx2.Response:
    return httpx2.Response(status, request=httpx2.Request("GET", "https://hub.test/owner/name"))


FAILURES: dict[str, tuple[Callable[[], Exception], str]] = {
    "gated": (
        lambda: GatedRepoError("x", response=answer(403)),
        "gated; accept its terms on the hub, then",
    ),
    "no repository": (lambda: RepositoryNotFoundError("x", response=answer(404)), "there is no such model repository"),
    "no revision": (
        lambda: RevisionNotFoundError("x", response=answer(404)),
        "no such revision; give a commit",
    ),
    "server error": (lambda: HfHubHTTPError("x", response=answer(500)), "the hub cannot be reached: HfHubHTTPError"),
    "no connection": (lambda: ConnectionError("x"), "the hub cannot be reached: ConnectionError"),
    "nothing cached": (lambda: LocalEntryNotFoundError("x"), "not in the local cache"),
    "offline": (lambda: OfflineModeIsEnabled("x"), "not in the local cache"),
    "disk full": (lambda: OSError(28, "No space left on device"), "No space left on device"),
}


@pytest.mark.parametrize(("failure", "said"), FAILURES.values(), ids=FAILURES)
def test_every_failure_says_what_to_do(
    failure: Callable[[], Exception], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> str:
        raise failure()

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(hub, "_check_room", lambda *_: None)
    monkeypatch.setattr(hub, "snapshot_download", refuse)
    with pytest.raises(DataError) as raised:
        hub.fetch("owner/name", COMMIT, "model")
    assert str(raised.value).startswith(f"hub owner/name@{COMMIT}: ")
    assert said in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What the hub's library was asked for; it answers with a folder."""
    found: dict[str, Any] = {}

    def download(repository: str, **options: Any) -> str:
        # a second request is for pickled weights, where the first brought no safetensors
        if not found:
            found.update(options, repository=repository)
        return str(tmp_path / "snapshot")

    monkeypatch.setattr(hub, "_check_room", lambda *_: None)
    monkeypatch.setattr(hub, "snapshot_download", download)
    return found


def chosen(asked: dict[str, Any], names: list[str]) -> set[str]:
    """Which files of a repository those patterns fetch."""
    from huggingface_hub.utils import filter_repo_objects

    patterns = {key: asked[key] for key in ("allow_patterns", "ignore_patterns")}
    return set(filter_repo_objects(names, **patterns))


def test_of_a_model_only_weights_config_and_tokenizer_are_fetched(asked: dict[str, Any]) -> None:
    hub.fetch("owner/name", COMMIT, "model")
    assert (asked["repository"], asked["revision"], asked["repo_type"]) == ("owner/name", COMMIT, "model")
    wanted = {
        "config.json",
        "generation_config.json",
        "model-00001-of-00002.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "tokenizer.model",
        "special_tokens_map.json",
        "vocab.json",
        "merges.txt",
    }
    others = {
        "pytorch_model.bin",
        "modeling_custom.py",
        "README.md",
        "training_args.bin",
        "consolidated.safetensors",
        "original/model.safetensors",
        "onnx/tokenizer.json",
    }
    assert chosen(asked, sorted(wanted | others)) == wanted


def test_of_a_dataset_the_declared_files_are_fetched(asked: dict[str, Any]) -> None:
    hub.fetch("owner/name", "main", "dataset", ["data/train*.parquet"])
    assert asked["repo_type"] == "dataset"
    assert chosen(asked, ["data/train-0.parquet", "data/test-0.parquet", "x.py"]) == {"data/train-0.parquet"}


@pytest.mark.parametrize(
    ("files", "read"),
    [
        (["data/train-*"], ["data/train-0.parquet", "data/train-1.parquet"]),
        (["*.jsonl", "data/test*"], ["data/test-0.parquet", "extra.jsonl"]),
        ([], ["data/test-0.parquet", "data/train-0.parquet", "data/train-1.parquet", "extra.jsonl"]),
    ],
)
def test_a_source_reads_its_own_files_of_a_shared_cache(
    files: list[str], read: list[str], asked: dict[str, Any], tmp_path: Path
) -> None:
    """Another study may have fetched other files of the same snapshot."""
    snapshot = tmp_path / "snapshot"
    for name in ("data/train-1.parquet", "data/train-0.parquet", "data/test-0.parquet", "extra.jsonl", "x.py"):
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).touch()
    source = Hub(id="owner/name", revision=COMMIT, files=files)
    assert [(file.name, file.path) for file in source_files(source, [])] == [(name, snapshot / name) for name in read]


def test_a_source_without_files_is_an_error(asked: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "snapshot").mkdir()
    source = Hub(id="owner/name", revision=COMMIT, files=["train*"])
    with pytest.raises(DataError, match=rf"hub owner/name@{COMMIT}: no file matches \['train\*'\]"):
        source_files(source, [])


# --- a fetched model becomes a base


def link(root: Path, **declared: Any) -> Path:
    """Run the stage on the fetched snapshot; the base's `model/` folder."""
    identity = {"source": {"hub": {"id": "owner/name", "revision": COMMIT, "files": []}}} | declared
    spec = content("base", "bases/fetched-00000000/manifest.json", identity)
    do(spec, root)
    return (root / spec["output"]).with_name("model")


def snapshot_of(tmp_path: Path, names: list[str]) -> Path:
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for name in names:
        if name.endswith(".safetensors"):
            save_file({"norm": torch.ones(2)}, snapshot / name)
        elif name == "tokenizer.json":
            Tokenizer(models.WordLevel({"a": 0, "?": 1}, unk_token="?")).save(str(snapshot / name))
        else:
            (snapshot / name).write_text(json.dumps({"model_type": "llama"} if name == "config.json" else name))
    return snapshot


def test_a_fetched_model_is_linked_and_hashed(asked: dict[str, Any], tmp_path: Path) -> None:
    names = [*MODEL, "pytorch_model.bin", "modeling.py", "consolidated.safetensors"]
    snapshot = snapshot_of(tmp_path, names)
    folder = link(tmp_path / "results")
    linked, made = {"config.json", "model.safetensors"}, {"tokenizer.json", "tokenizer_config.json"}
    assert {file.name for file in folder.iterdir()} == linked | made
    assert all((folder / name).resolve().parent == snapshot for name in linked)
    assert not any((folder / name).is_symlink() for name in made)
    files = read_json(folder.with_name("manifest.json"))["files"]
    assert [file["name"] for file in files] == [f"model/{name}" for name in sorted(linked | made)]


def test_the_commit_that_was_fetched_is_noted_beside_the_base(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    snapshot_of(tmp_path, ["config.json", "tokenizer.json", "model.safetensors"]).rename(tmp_path / COMMIT)
    monkeypatch.setattr(hub, "_check_room", lambda *_: None)
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, **__: str(tmp_path / COMMIT))
    noted = link(tmp_path / "results").with_name("hub.json")
    assert read_json(noted) == {"id": "owner/name", "commit": COMMIT}
    # runs are known by the manifest, which does not say it
    assert read_json(noted.with_name("manifest.json")).keys() == {"made_from", "files", "tokenizer"}


def test_weights_in_pickles_are_converted(asked: dict[str, Any], tmp_path: Path) -> None:
    snapshot_of(tmp_path, ["config.json", "tokenizer.json"])
    shared = torch.arange(6.0).reshape(2, 3)
    parts = [{"embed": shared, "head": shared}, {"norm": torch.ones(3, dtype=torch.bfloat16)}]
    for number, part in enumerate(parts, 1):
        torch.save(part, tmp_path / f"snapshot/pytorch_model-{number:05d}-of-00002.bin")
    folder = link(tmp_path / "results")
    index = read_json(folder / "model.safetensors.index.json")["weight_map"]
    # tied weights are stored once
    assert set(index) == {"embed", "norm"}
    loaded = {name: load_file(folder / file)[name] for name, file in index.items()}
    assert torch.equal(loaded["embed"], shared) and loaded["norm"].dtype == torch.bfloat16
    assert read_json(folder.with_name("manifest.json"))["cast"] == {"cast": 0, "as_published": 2}


class Payload:
    """What a hostile pickle could hold."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("ran"),)


def test_a_pickle_that_holds_more_than_tensors_is_not_read(
    asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    snapshot_of(tmp_path, ["config.json", "tokenizer.json"])
    torch.save({"weight": torch.ones(2), "extra": Payload()}, tmp_path / "snapshot/pytorch_model.bin")
    with pytest.raises(DataError, match=r"pytorch_model\.bin: holds more than tensors and is not read"):
        link(tmp_path / "results")
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "results/bases/fetched-00000000/model").exists()


def test_a_folder_that_is_no_model_is_refused(asked: dict[str, Any], tmp_path: Path) -> None:
    snapshot_of(tmp_path, ["model.safetensors"])
    with pytest.raises(DataError, match=r"there is no config\.json"):
        link(tmp_path / "results")


WRONG_FOLDERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), r"snapshot: holds no tokenizer; expected one of"),
    "link to nothing": (
        lambda f: (f / "vocab.txt").symlink_to("/none/vocab.txt"),
        r"vocab\.txt: a link to /none/vocab\.txt, where no file is; copy",
    ),
    "unknown architecture": (
        lambda f: (f / "config.json").write_text('{"model_type": "lama9"}'),
        r"config\.json: transformers [\d.]+ cannot load it .*lama9.*; correct the file",
    ),
    "broken config": (lambda f: (f / "config.json").write_text("{"), r"config\.json: transformers .* not a valid JSON"),
    "weights cut off": (
        lambda f: os.truncate(f / "model.safetensors", 60),
        r"snapshot/model\.safetensors: cannot be read as safetensors .* copy it again",
    ),
}


@pytest.mark.parametrize(("harm", "said"), WRONG_FOLDERS.values(), ids=WRONG_FOLDERS)
def test_a_folder_that_no_job_could_load_is_refused_in_one_line(
    harm: Callable[[Path], Any], said: str, asked: dict[str, Any], tmp_path: Path
) -> None:
    harm(snapshot_of(tmp_path, list(MODEL)))
    with pytest.raises(DataError, match=said) as raised:
        link(tmp_path / "results")
    assert "\n" not in str(raised.value)
    assert "git" not in str(raised.value)
    assert not (tmp_path / "results/bases/fetched-00000000/model").exists()


def test_a_download_that_the_disk_cannot_hold_is_refused_before_its_first_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [SimpleNamespace(rfilename="model.safetensors", size=10**18), SimpleNamespace(rfilename="x.h5", size=1)]

    class Api:
        def repo_info(self, *_: object, **__: object) -> SimpleNamespace:
            return SimpleNamespace(siblings=files, sha=COMMIT)

    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "HfApi", Api)
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, **__: pytest.fail("a download was begun"))
    with pytest.raises(DataError, match=r"owner/name@main.*1000000000\.0 GB are needed"):
        hub.fetch("owner/name", "main", "model")


class Api:
    """A hub that knows the sizes of a repository's files."""

    sizes: ClassVar[dict[str, int]] = {}

    def repo_info(self, *_: object, **__: object) -> SimpleNamespace:
        files = [SimpleNamespace(rfilename=name, size=size) for name, size in self.sizes.items()]
        return SimpleNamespace(siblings=files, sha=COMMIT)


BOTH = {"config.json": 1, "model.safetensors": 30, "pytorch_model.bin": 30, "tokenizer.json": 1}
PICKLED = {"config.json": 1, "pytorch_model-00001-of-00002.bin": 20, "pytorch_model-00002-of-00002.bin": 10}


@pytest.mark.parametrize(
    ("sizes", "free", "fits"),
    [
        (BOTH, 32, True),
        (BOTH, 31, False),
        # downloaded, then written again as safetensors
        (PICKLED, 61, True),
        (PICKLED, 60, False),
        (PICKLED, 32, False),
    ],
)
def test_room_is_asked_for_all_that_is_written(
    sizes: dict[str, int], free: int, fits: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Api, "sizes", sizes)
    monkeypatch.setattr(hub, "HfApi", Api)
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, **__: str(tmp_path))
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    if fits:
        hub.fetch("owner/name", "main", "model", results=tmp_path / "results")
    else:
        with pytest.raises(DataError, match="GB are needed"):
            hub.fetch("owner/name", "main", "model", results=tmp_path / "results")


# --- weights in another type


def test_a_base_in_fp32_is_cast_once(asked: dict[str, Any], tmp_path: Path) -> None:
    snapshot = snapshot_of(tmp_path, list(MODEL))
    torch.manual_seed(0)
    weights = {"model.layers.0.mlp.weight": torch.randn(64, 64), "half": torch.ones(2, dtype=torch.float16)}
    weights |= {"places": torch.arange(5), "norm": torch.rand(8).to(torch.bfloat16)}
    save_file(weights, snapshot / "model.safetensors")
    (snapshot / "config.json").write_text(json.dumps({"model_type": "llama", "torch_dtype": "float32"}))
    as_published = link(tmp_path / "as-published")
    assert (as_published / "model.safetensors").is_symlink()
    folder = link(tmp_path / "cast", cast="bf16")
    index = read_json(folder / "model.safetensors.index.json")["weight_map"]
    loaded = {name: load_file(folder / file)[name] for name, file in index.items()}
    types = {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in loaded.items()}
    mlp = "model.layers.0.mlp.weight"
    assert types == {mlp: "bfloat16", "half": "float16", "places": "int64", "norm": "bfloat16"}
    assert torch.equal(loaded[mlp], weights[mlp].to(torch.bfloat16))
    assert read_json(folder.with_name("manifest.json"))["cast"] == {"cast": 1, "as_published": 3}
    config = read_json(folder / "config.json")
    assert config["dtype"] == "bfloat16" and "torch_dtype" not in config
    assert not (folder / "model.safetensors").exists()


def test_rounding_is_no_change_of_a_base_that_was_cast(asked: dict[str, Any], tmp_path: Path) -> None:
    """A checkpoint of an fp32 base that learnt nothing, saved in bf16 as checkpoints are."""
    snapshot = snapshot_of(tmp_path, list(MODEL))
    torch.manual_seed(0)
    weights = {"model.layers.0.mlp.weight": torch.randn(256, 256) * 0.02}
    save_file(weights, snapshot / "model.safetensors")
    as_published, cast = link(tmp_path / "as-published"), link(tmp_path / "cast", cast="bf16")
    saved = tmp_path / "saved"
    saved.mkdir()
    save_file({name: tensor.to(torch.bfloat16) for name, tensor in weights.items()}, saved / "model.safetensors")
    # the size of a real update, out of nothing
    assert compare(as_published, saved)["relative"][0] == pytest.approx(0.0017, abs=2e-4)
    assert compare(cast, saved).select("relative", "changed").row(0) == (0.0, 0)
    # and a delta against it is small
    copies = [Path(shutil.copytree(saved, tmp_path / name)) / "model.safetensors" for name in ("a", "b")]
    small, whole = (encode(file, base).stat().st_size for file, base in zip(copies, (cast, as_published), strict=True))
    assert small < 2000 < whole / 20
