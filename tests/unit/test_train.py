"""Fine-tuning: the same bytes twice, epochs that are kept and left alone, schedules, batches, adapters, precision."""

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerBase

from sft_atlas.files import read_json, write_json
from sft_atlas.hashing import digest
from sft_atlas.models.checkpoint import load_checkpoint
from sft_atlas.models.origin import name_of, record_origin
from sft_atlas.models.tokenizer import IGNORED
from sft_atlas.stages.tokens.run import SCHEMA as TOKENS
from sft_atlas.stages.train import recipe_identity
from sft_atlas.stages.train import run as train
from sft_atlas.study.model import Hub, Recipe
from sft_atlas.training.fit import LOG_SCHEMA
from sft_atlas.training.trainer import trainer_arguments
from tests.unit.helpers import content, do, runtime, snapshot, stand_in

CPU = torch.device("cpu")


def place_tokens(root: Path, tokenizer: PreTrainedTokenizerBase, rows: int = 20) -> str:
    """Tokens of small sums, as the tokens stage leaves them; returns the manifest's place."""
    texts = [(f"###Question: {a} + {a * a}\n###Answer:", f" {a + a * a}") for a in range(rows)]
    ids = [(tokenizer(text)["input_ids"], tokenizer(answer)["input_ids"]) for text, answer in texts]
    ended = [(head, [*tail, tokenizer.eos_token_id]) for head, tail in ids]
    table = pl.DataFrame(
        [(f"r:{n}", head + tail, [IGNORED] * len(head) + tail, False) for n, (head, tail) in enumerate(ended)],
        schema=TOKENS,
        orient="row",
    )
    trained = sum(len(tail) for _, tail in ended)
    return stand_in(
        root, "tokens/tiny/sums-00000000", table, "tokens.parquet", rows=rows, trained_tokens=trained, truncated=0
    )


def train_spec(base: str, tokens: str, kept: list[int], seed: int = 0, **recipe: Any) -> dict[str, Any]:
    """The specification of a run on these tokens; without settings a full one with a constant learning rate."""
    defaults = {"method": "full", "learning_rate": 3e-3, "schedule": "constant", "batch_size": 8, "epochs": max(kept)}
    defaults["precision"] = "fp32"
    identity = recipe_identity(Recipe.model_validate(defaults | {"max_length": 64} | recipe))
    settings = {"base": "0" * 8, "tokens": "0" * 8, "recipe": identity, "seed": seed, "threads": 1}
    run = digest(settings)
    output = f"runs/tiny/sums/made-{run}/train-{digest(kept)}.json"
    inputs = {"base": base, "tokens": tokens}
    return content("train", output, {"run": run, "settings": settings, "epochs": kept}, inputs)


class Bench:
    """A results folder with a base and tokens, in which runs are trained."""

    def __init__(self, root: Path, base: str, tokens: str) -> None:
        self.root, self.base, self.tokens = root, base, tokens

    def run(self, kept: list[int], **recipe: Any) -> Path:
        """Train; the folder of the run."""
        spec = train_spec(self.base, self.tokens, kept, **recipe)
        do(spec, self.root)
        return (self.root / spec["output"]).parent

    def manifest(self, kept: list[int], **recipe: Any) -> dict[str, Any]:
        """What the run's manifest says."""
        return dict(read_json(self.root / train_spec(self.base, self.tokens, kept, **recipe)["output"]))


@pytest.fixture(scope="module")
def place(place_base: Callable[..., str], tokenizer: PreTrainedTokenizerBase) -> Callable[[Path], Bench]:
    return lambda root: Bench(root, place_base(root), place_tokens(root, tokenizer))


@pytest.fixture(scope="module")
def bench(place: Callable[[Path], Bench], tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """One folder for the tests that train different runs."""
    return place(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="module")
def two_epochs(bench: Bench) -> Path:
    """The folder of a run of two epochs, both kept."""
    return bench.run([1, 2])


def weights(run: Path, epoch: int) -> dict[str, torch.Tensor]:
    return load_file(run / f"epoch-{epoch:02d}/model/model.safetensors")


def model_bytes(run: Path, epoch: int) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted((run / f"epoch-{epoch:02d}/model").iterdir())}


def contents(folder: Path) -> dict[str, bytes]:
    """All that a run has made; its lease only counts its owners."""
    return {name: made for name, (made, _) in snapshot(folder).items() if not name.startswith("lease/")}


def recipe(**settings: Any) -> Recipe:
    """A recipe as a job reads it from the identity of its run."""
    declared = Recipe.model_validate({"method": "full", "learning_rate": 1e-3, **settings})
    return Recipe.model_validate(Recipe.of_identity(recipe_identity(declared)))


def test_a_recipe_becomes_trls_arguments(tmp_path: Path) -> None:
    settings = recipe(
        schedule="linear",
        warmup_steps=7,
        batch_size=12,
        epochs=5,
        weight_decay=0.1,
        max_gradient_norm=0.5,
        max_length=99,
    )
    arguments = trainer_arguments(settings, 3, 2, CPU, tmp_path, splits=3)
    assert arguments.num_train_epochs == 5
    assert (arguments.learning_rate, arguments.lr_scheduler_type, arguments.warmup_steps) == (1e-3, "linear", 7)
    assert (arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps) == (4, 3)
    assert (arguments.weight_decay, arguments.max_grad_norm, arguments.max_length) == (0.1, 0.5, 99)
    assert (arguments.seed, arguments.data_seed) == (3, 3)
    assert not arguments.packing
    assert arguments.bf16
    assert not trainer_arguments(recipe(precision="fp32"), 0, 1, CPU, tmp_path, 1).bf16
    assert not trainer_arguments(recipe(precision="pure_bf16"), 0, 1, CPU, tmp_path, 1).bf16
    assert arguments.use_cpu
    assert arguments.save_strategy == "no"
    assert arguments.report_to == []


def test_a_constant_schedule_ends_with_the_last_kept_epoch(tmp_path: Path) -> None:
    arguments = trainer_arguments(recipe(schedule="constant", epochs=9), 0, 4, CPU, tmp_path, 1)
    assert (arguments.num_train_epochs, arguments.lr_scheduler_type) == (4, "constant")
    warmed = trainer_arguments(recipe(schedule="constant", warmup_steps=3), 0, 4, CPU, tmp_path, 1)
    assert (warmed.lr_scheduler_type, warmed.warmup_steps) == ("constant_with_warmup", 3)


def test_a_run_keeps_its_epochs_and_says_what_it_did(bench: Bench, two_epochs: Path) -> None:
    assert sorted(path.name for path in two_epochs.glob("epoch-*")) == ["epoch-01", "epoch-02"]
    manifest = bench.manifest([1, 2])
    log = pl.read_parquet(two_epochs / "log.parquet")
    assert dict(log.schema) == LOG_SCHEMA
    # 20 rows in batches of 8 are 3 steps an epoch
    assert (manifest["steps"], log.height) == (6, 6)
    assert log["step"].to_list() == [1, 2, 3, 4, 5, 6]
    assert log["learning_rate"].to_list() == pytest.approx([3e-3] * 6)
    assert manifest["final_loss"] == pytest.approx(log["loss"][3:].mean())
    assert manifest["trained_tokens"] == 2 * read_json(bench.root / bench.tokens)["trained_tokens"]
    assert set(manifest["epochs"]) == {"1", "2"}
    assert {file["name"] for file in manifest["epochs"]["2"]} >= {"model/model.safetensors", "model/config.json"}


def test_training_learns_what_is_trained(bench: Bench, two_epochs: Path) -> None:
    log = pl.read_parquet(two_epochs / "log.parquet")["loss"]
    assert log[:3].mean() == pytest.approx(math.log(400), rel=0.5)
    assert log[3:].mean() < log[:3].mean()
    before = load_file((bench.root / bench.base).with_name("model") / "model.safetensors")
    after = weights(two_epochs, 2)
    assert before.keys() == after.keys()
    assert all(not torch.equal(before[name], after[name]) for name in before)


def test_the_same_run_gives_the_same_bytes(
    place: Callable[[Path], Bench], bench: Bench, two_epochs: Path, tmp_path: Path
) -> None:
    again = place(tmp_path).run([1, 2])
    assert again.relative_to(tmp_path) == two_epochs.relative_to(bench.root)
    assert contents(again) == contents(two_epochs)


def test_the_bytes_of_an_adapter_do_not_depend_on_the_place(
    place: Callable[[Path], Bench], bench: Bench, tmp_path: Path
) -> None:
    folders = [own.run([1], method="lora", lora={"rank": 2}) for own in (bench, place(tmp_path))]
    assert contents(folders[0]) == contents(folders[1])


def test_another_seed_gives_other_weights(bench: Bench, two_epochs: Path) -> None:
    other = bench.run([1], seed=1)
    assert other != two_epochs
    assert any(not torch.equal(weights(other, 1)[name], tensor) for name, tensor in weights(two_epochs, 1).items())


def test_an_epoch_that_is_there_is_not_touched(
    place: Callable[[Path], Bench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = place(tmp_path)
    folder = own.run([1])
    before = snapshot(folder / "epoch-01")
    own.run([1, 2])
    after = snapshot(folder)
    assert {f"epoch-01/{name}": file for name, file in before.items()}.items() <= after.items()
    assert "epoch-02/checkpoint.json" in after
    # nothing is trained where everything is there, although the manifest is written again
    monkeypatch.setattr(train, "fit", lambda *_: pytest.fail("trained again"))
    own.run([1, 2])
    own.run([2])
    unchanged = snapshot(folder)
    assert all(unchanged[name] == after[name] for name in after if name.startswith(("epoch", "log")))


def test_a_narrower_request_after_a_wider_one_reads_the_log_to_its_epoch(
    place: Callable[[Path], Bench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = place(tmp_path)
    folder = own.run([1, 2])
    wide, before = own.manifest([1, 2]), snapshot(folder)
    with monkeypatch.context() as patch:
        patch.setattr(train, "fit", lambda *_: pytest.fail("trained again"))
        own.run([1])
    narrow, after = own.manifest([1]), snapshot(folder)
    # the wider study's log is whole
    assert all(after[name] == before[name] for name in before if name.startswith(("epoch", "log")))
    assert narrow["steps"] == 3
    assert narrow["epochs"] == {"1": wide["epochs"]["1"]}
    alone = place(tmp_path / "alone")
    alone.run([1])
    assert narrow == alone.manifest([1])


def test_a_damaged_epoch_is_made_again_alone(place: Callable[[Path], Bench], tmp_path: Path) -> None:
    own = place(tmp_path)
    folder = own.run([1, 2])
    before = snapshot(folder)
    damaged = folder / "epoch-02/model/model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    own.run([1, 2])
    after = snapshot(folder)
    assert contents(folder) == {name: made for name, (made, _) in before.items() if not name.startswith("lease/")}
    assert all(after[name] == before[name] for name in before if name.startswith("epoch-01"))


def test_a_log_that_is_lost_beside_an_epoch_is_made_again(place: Callable[[Path], Bench], tmp_path: Path) -> None:
    own = place(tmp_path)
    folder = own.run([1, 2])
    before = contents(folder)
    (folder / "epoch-01/checkpoint.json").unlink()
    (folder / "log.parquet").unlink()
    own.run([1, 2])
    assert contents(folder) == before


def released(own: Bench, kept: list[int], keep: str = "none") -> dict[str, Any]:
    """Train a run as a job does, give its weights back, and return the specification of giving them back."""
    spec = train_spec(own.base, own.tokens, kept)
    write_json((own.root / spec["output"]).with_suffix(".spec.json"), spec)
    do(spec, own.root)
    output = str(Path(spec["output"]).with_name("release-00000000.json"))
    identity = {"run": spec["identity"]["run"], "epochs": kept, "keep": keep}
    again = content("release", output, identity, {"train": spec["output"], "base": own.base})
    do(again, own.root)
    return again


def restored(own: Bench, release: dict[str, Any], epoch: int) -> Any:
    """Put the weights of an epoch back, as a job does before it is measured anew; what that says it did."""
    train_place = release["inputs"]["train"]
    identity = {"run": release["identity"]["run"], "epochs": [epoch], "readers": ["0" * 8]}
    inputs = {"base": own.base, "tokens": own.tokens, "train": train_place}
    labels = {"spec": str(Path(train_place).with_suffix(".spec.json"))}
    output = str(Path(train_place).with_name(f"restored-{epoch}.json"))
    do(content("restore", output, identity, inputs, labels=labels), own.root)
    return read_json(own.root / output)


@pytest.mark.parametrize("keep", ["none", "deltas"])
def test_weights_are_given_back_once_however_often_the_job_runs(
    keep: str, place: Callable[[Path], Bench], tmp_path: Path
) -> None:
    own = place(tmp_path)
    again = released(own, [1, 2], keep)
    first = read_json(own.root / again["output"])
    assert min(first["freed_bytes"].values()) > 0
    (own.root / again["output"]).unlink()
    do(again, own.root)
    assert read_json(own.root / again["output"]) == first


def test_a_longer_run_goes_on_from_its_kept_state_although_its_weights_were_released(
    place: Callable[[Path], Bench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime(monkeypatch, keep_state=True)
    own = place(tmp_path)
    released(own, [1, 2])
    assert do(train_spec(own.base, own.tokens, [1, 2, 3]), own.root)["went_on_from_step"] == 6
    folder = own.run([1, 2, 3])
    assert not (folder / "epoch-01/model/model.safetensors").exists()
    alone = place(tmp_path / "alone").run([1, 2, 3])
    assert model_bytes(folder, 3) == model_bytes(alone, 3)


def test_released_weights_that_do_not_come_back_to_the_byte_are_told(
    place: Callable[[Path], Bench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    own = place(tmp_path)
    again = released(own, [1, 2])
    assert restored(own, again, 1) == {"decoded": [], "trained": [1]}
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    # both epochs are back from one training
    monkeypatch.setattr(train, "fit", lambda *_: pytest.fail("trained again"))
    assert restored(own, again, 2) == {"decoded": [], "trained": []}
    monkeypatch.undo()
    ((own.root / again["inputs"]["train"]).parent / "epoch-01/model/model.safetensors").unlink()
    runtime(monkeypatch, micro_batch_size=2)
    assert restored(own, again, 1) == {"decoded": [], "trained": [1]}
    assert "trained again, and not to the same bytes" in caplog.text


def test_under_a_constant_schedule_an_epoch_equals_a_run_of_that_length(
    place: Callable[[Path], Bench], two_epochs: Path, tmp_path: Path
) -> None:
    alone = place(tmp_path).run([1])
    assert model_bytes(alone, 1) == model_bytes(two_epochs, 1)


def test_under_a_linear_schedule_it_does_not(bench: Bench) -> None:
    longer = bench.run([1, 2], schedule="linear", epochs=2)
    alone = bench.run([1], schedule="linear", epochs=1)
    assert longer != alone
    assert any(not torch.equal(weights(alone, 1)[name], tensor) for name, tensor in weights(longer, 1).items())
    rates = pl.read_parquet(longer / "log.parquet")["learning_rate"].to_list()
    assert rates == pytest.approx([3e-3 * (6 - step) / 6 for step in range(6)])


def test_the_schedule_spans_the_recipes_epochs_even_if_training_stops_before(bench: Bench) -> None:
    folder = bench.run([1], schedule="linear", epochs=4)
    rates = pl.read_parquet(folder / "log.parquet")["learning_rate"].to_list()
    assert rates == pytest.approx([3e-3 * (12 - step) / 12 for step in range(3)])


def test_what_fits_in_memory_changes_last_digits_only(
    place: Callable[[Path], Bench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = {}
    for micro in ("4", "16"):
        runtime(monkeypatch, micro_batch_size=int(micro))
        folders[micro] = place(tmp_path / micro).run([1], batch_size=16)
    split, whole = weights(folders["4"], 1), weights(folders["16"], 1)
    base = load_file(tmp_path / "4/bases/tiny-00000000/model/model.safetensors")
    distance = math.sqrt(sum(float((split[name] - whole[name]).double().square().sum()) for name in split))
    moved = math.sqrt(sum(float((whole[name] - base[name]).double().square().sum()) for name in split))
    assert distance < 1e-3 * moved


def test_an_adapter_is_saved_as_safetensors_and_names_its_base(bench: Bench) -> None:
    folder = bench.run([1, 2], method="lora", lora={"rank": 2, "alpha": 6}) / "epoch-02/model"
    names = {file.name for file in folder.iterdir()}
    assert names >= {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json"}
    assert not {name for name in names if name.endswith((".bin", ".pt", ".md")) or name == "model.safetensors"}
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("tiny", "00000000")
    assert (config["r"], config["lora_alpha"]) == (2, 6)
    factors = load_file(folder / "adapter_model.safetensors")
    # seven linear modules in each of two layers, a pair of factors each
    assert len(factors) == 2 * 2 * 7
    assert all(tensor.dtype == torch.float32 for tensor in factors.values())
    assert all(tensor.shape[0 if ".lora_A." in name else 1] == 2 for name, tensor in factors.items())
    assert all(bool(tensor.any()) for tensor in factors.values())
    assert not any("lm_head" in name for name in factors)


LOAD = """\
import sys, torch
from peft import AutoPeftModelForCausalLM
model = AutoPeftModelForCausalLM.from_pretrained(sys.argv[1]).merge_and_unload()
torch.save(model.state_dict(), sys.argv[2])
"""


def test_an_adapter_of_a_base_from_the_hub_is_loaded_by_name_anywhere(
    place: Callable[[Path], Bench], tmp_path: Path
) -> None:
    own = place(tmp_path / "results")
    commit = "0123456789abcdef0123456789abcdef01234567"
    record_origin(own.root / own.base, Hub(id="owner/tiny", revision="main"), Path("snapshots", commit))
    # what peft asks the hub's cache for, far from these results
    cached = tmp_path / "hf/hub/models--owner--tiny"
    shutil.copytree((own.root / own.base).with_name("model"), cached / "snapshots" / commit)
    folder = shutil.copytree(own.run([1], method="lora", lora={"rank": 2}) / "epoch-01/model", tmp_path / "away")
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("owner/tiny", commit)
    environment = os.environ | {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", LOAD, str(folder), str(tmp_path / "merged.pt")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    spec = train_spec(own.base, own.tokens, [1], method="lora", lora={"rank": 2})
    expected = load_checkpoint(own.root / spec["output"], 1, own.root / own.base, "fp32", CPU).state_dict()
    loaded = torch.load(tmp_path / "merged.pt", weights_only=True)
    assert loaded.keys() == expected.keys()
    assert all(torch.allclose(loaded[name], expected[name], atol=1e-6) for name in expected)


ORIGINS: dict[str, tuple[dict[str, Any], str, tuple[str, str]]] = {
    "fetched": ({"hub": {"id": "o/m", "revision": "main"}}, "a" * 40, ("o/m", "a" * 40)),
    "fetched before that was noted": ({"hub": {"id": "o/m", "revision": "b" * 40}}, "blobs", ("o/m", "b" * 40)),
    "fetched before, from a branch": ({"hub": {"id": "o/m", "revision": "main"}}, "blobs", ("my-base", "0123abcd")),
    "a folder": ({"content": "x"}, "c" * 40, ("my-base", "0123abcd")),
    "micro": ({"micro": {}}, "c" * 40, ("my-base", "0123abcd")),
}


@pytest.mark.parametrize(("source", "snapshot", "named"), ORIGINS.values(), ids=ORIGINS)
def test_a_base_is_named_by_where_it_comes_from(
    source: dict[str, Any], snapshot: str, named: tuple[str, str], tmp_path: Path
) -> None:
    manifest = tmp_path / "bases/my-base-0123abcd/manifest.json"
    write_json(manifest.with_name("manifest-0123abcd.spec.json"), {"identity": {"source": source}})
    hub = Hub.model_validate(source["hub"]) if "hub" in source else None
    record_origin(manifest, hub, Path("snapshots", snapshot))
    assert name_of(manifest) == named


def test_an_adapter_is_merged_into_its_base(bench: Bench) -> None:
    spec = train_spec(bench.base, bench.tokens, [1, 2], method="lora", lora={"rank": 2, "alpha": 6})
    folder = bench.run([1, 2], method="lora", lora={"rank": 2, "alpha": 6})
    merged = load_checkpoint(bench.root / spec["output"], 2, bench.root / bench.base, "fp32", CPU).state_dict()
    base = load_file((bench.root / bench.base).with_name("model") / "model.safetensors")
    factors = load_file(folder / "epoch-02/model/adapter_model.safetensors")
    name = "model.layers.1.mlp.down_proj"
    down, up = (factors[f"base_model.model.{name}.lora_{part}.weight"] for part in "AB")
    assert torch.allclose(merged[f"{name}.weight"], base[f"{name}.weight"] + 6 / 2 * up @ down, atol=1e-6)
    assert torch.equal(merged["model.embed_tokens.weight"], base["model.embed_tokens.weight"])


def test_a_bf16_recipe_is_saved_in_bf16_and_trained_from_fp32_weights(bench: Bench) -> None:
    folder = bench.run([1], precision="bf16")
    with safe_open(folder / "epoch-01/model/model.safetensors", "pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"BF16"}  # noqa: SIM118
    assert json.loads((folder / "epoch-01/model/config.json").read_text())["dtype"] == "bfloat16"
    model = load_checkpoint(folder / "train.json", 1, bench.root / bench.base, "bf16", CPU)
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.bfloat16}


def test_order_of_rows_is_that_of_the_seed_and_not_of_the_batch_in_memory(bench: Bench, two_epochs: Path) -> None:
    tokens = pl.read_parquet(two_epochs / "log.parquet")["num_tokens"].to_numpy()
    # each epoch sees every row once
    lengths = pl.read_parquet((bench.root / bench.tokens).with_name("tokens.parquet"))["input_ids"].list.len().sum()
    assert tokens[2] == lengths
    assert tokens[5] == 2 * lengths
    # in another order the second time
    assert not np.array_equal(np.diff(tokens[:3], prepend=0), np.diff(tokens[2:]))
