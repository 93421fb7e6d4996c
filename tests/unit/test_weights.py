"""How far weights moved, against plain fp64 arithmetic on whole tensors; adapters against their merged weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from sft_atlas.errors import DataError
from sft_atlas.files import write_record
from sft_atlas.stages.weights import run as weights
from sft_atlas.stages.weights.run import LAYER_SCHEMA, TENSOR_SCHEMA, compare, layers
from tests.unit.helpers import content, do, snapshot

State = dict[str, torch.Tensor]
LAYER = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def base(place_base: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `model/` folder of a base."""
    root = tmp_path_factory.mktemp("base")
    return (root / place_base(root)).with_name("model")


def moved(base: Path, scale: float, seed: int = 1) -> State:
    """The base's weights after a random step."""
    generator = torch.Generator().manual_seed(seed)
    state = load_file(base / "model.safetensors")
    return {name: tensor + scale * torch.randn(tensor.shape, generator=generator) for name, tensor in state.items()}


def saved(state: State, folder: Path, name: str = "model.safetensors") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / name)
    return folder


def by_hand(before: State, after: State) -> dict[str, tuple[float, float, float]]:
    """Norm of the difference, that norm over the base's, and 1 - cosine, of each tensor as a whole in fp64."""
    out = {}
    for name, a in before.items():
        x, y = a.double().flatten(), after[name].double().flatten()
        norm = torch.linalg.vector_norm(y - x)
        cosine = torch.nn.functional.cosine_similarity(x, y, dim=0, eps=0)
        out[name] = float(norm), float(norm / torch.linalg.vector_norm(x)), float(1 - cosine)
    return out


def assert_equal_to(table: pl.DataFrame, expected: dict[str, tuple[float, float, float]]) -> None:
    assert dict(table.schema) == TENSOR_SCHEMA
    assert table["tensor"].to_list() == sorted(expected)
    for row in table.iter_rows(named=True):
        norm, relative, distance = expected[row["tensor"]]
        assert row["norm"] == pytest.approx(norm, rel=1e-5)
        assert row["relative"] == pytest.approx(relative, rel=1e-5)
        assert row["cosine_distance"] == pytest.approx(distance, rel=1e-4, abs=1e-13)


@pytest.mark.parametrize("scale", [1.0, 1e-1, 1e-3])
def test_a_full_model_is_measured_as_by_hand(scale: float, base: Path, tmp_path: Path) -> None:
    after = moved(base, scale)
    table = compare(base, saved(after, tmp_path))
    assert_equal_to(table, by_hand(load_file(base / "model.safetensors"), after))
    assert table["changed"].to_list() == table["elements"].to_list()


def test_a_tiny_turn_is_measured(tmp_path: Path) -> None:
    """Weights that move by a millionth, across their own direction: 1 - cos is half the square of the change."""
    generator = torch.Generator().manual_seed(3)
    before, across = (torch.randn(64, 64, generator=generator, dtype=torch.float64) for _ in range(2))
    across -= before * (across * before).sum() / before.square().sum()
    folders = [
        saved({LAYER: state.float()}, tmp_path / name)
        for name, state in (("a", before), ("b", before.float().double() + 1e-6 * across))
    ]
    row = compare(*folders).row(0, named=True)
    assert row["relative"] == pytest.approx(1e-6, rel=0.1)
    assert row["cosine_distance"] == pytest.approx(row["relative"] ** 2 / 2, rel=0.01)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_every_type_of_file_is_read(kind: torch.dtype, base: Path, tmp_path: Path) -> None:
    before = {name: tensor.to(kind) for name, tensor in load_file(base / "model.safetensors").items()}
    after = {name: tensor.to(kind) for name, tensor in moved(base, 0.1).items()}
    table = compare(saved(before, tmp_path / "before"), saved(after, tmp_path / "after"))
    assert_equal_to(table, by_hand(before, after))


def test_a_bf16_model_is_compared_with_its_fp32_base(base: Path, tmp_path: Path) -> None:
    after = {name: tensor.bfloat16() for name, tensor in moved(base, 0.1).items()}
    assert_equal_to(compare(base, saved(after, tmp_path)), by_hand(load_file(base / "model.safetensors"), after))


def test_tensors_larger_than_a_block_are_summed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(5)
    before, after = ({LAYER: torch.randn(37, 53, generator=generator)} for _ in range(2))
    folders = saved(before, tmp_path / "a"), saved(after, tmp_path / "b")
    whole = compare(*folders)
    monkeypatch.setattr(weights, "BLOCK", 100)
    blocks = compare(*folders)
    assert blocks["norm"][0] == pytest.approx(whole["norm"][0], rel=1e-6)
    assert_equal_to(blocks, by_hand(before, after))


def test_files_in_parts_are_one_model(base: Path, tmp_path: Path) -> None:
    after = moved(base, 0.1)
    names = sorted(after)
    parts = tmp_path / "parts"
    saved({name: after[name] for name in names[::2]}, parts, "model-00001-of-00002.safetensors")
    saved({name: after[name] for name in names[1::2]}, parts, "model-00002-of-00002.safetensors")
    assert compare(base, parts).equals(compare(base, saved(after, tmp_path / "one")))


def test_unchanged_weights_have_moved_by_nothing(base: Path) -> None:
    table = compare(base, base)
    for column in ("changed", "norm", "relative", "cosine_distance"):
        assert table[column].to_list() == [0] * table.height
    assert (table["base_norm"] > 0).all()


def test_a_single_changed_element_is_found(base: Path, tmp_path: Path) -> None:
    after = load_file(base / "model.safetensors")
    after[LAYER][3, 4] += 0.5
    table = compare(base, saved(after, tmp_path)).filter(pl.col("changed") > 0)
    assert table.select("tensor", "layer", "module", "changed").rows() == [(LAYER, 0, "attention", 1)]
    assert table["norm"][0] == pytest.approx(0.5)


def test_a_tensor_of_zeros_has_no_direction(tmp_path: Path) -> None:
    folders = saved({LAYER: torch.zeros(4, 4)}, tmp_path / "a"), saved({LAYER: torch.ones(4, 4)}, tmp_path / "b")
    row = compare(*folders).row(0, named=True)
    assert (row["norm"], row["base_norm"], row["relative"], row["cosine_distance"]) == (4.0, 0.0, None, None)


# --- adapters


def adapted(base: Path, folder: Path, **settings: Any) -> State:
    """Save a random adapter with peft; the base's weights with the update added in fp64."""
    torch.manual_seed(7)
    config = LoraConfig(r=3, lora_alpha=5, task_type="CAUSAL_LM", init_lora_weights=False, **settings)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)
    model.save_pretrained(str(folder), save_embedding_layers=False)
    state = {name: tensor.double() for name, tensor in load_file(base / "model.safetensors").items()}
    for name, module in model.named_modules():
        if hasattr(module, "lora_A") and "default" in module.lora_A:
            down, up = (getattr(module, part)["default"].weight.detach().double() for part in ("lora_A", "lora_B"))
            state[f"{name.removeprefix('base_model.model.')}.weight"] += module.scaling["default"] * up @ down
    return state


@pytest.mark.parametrize(
    "settings",
    [{"target_modules": "all-linear"}, {"target_modules": ["q_proj"], "use_rslora": True}],
    ids=["every linear module", "one module, rank-stabilised"],
)
def test_an_adapter_is_measured_as_its_merged_weights(settings: dict[str, Any], base: Path, tmp_path: Path) -> None:
    merged = adapted(base, tmp_path, **settings)
    before = load_file(base / "model.safetensors")
    table = compare(base, tmp_path)
    assert_equal_to(table, by_hand(before, merged))
    touched = {name for name in before if not torch.equal(before[name].double(), merged[name])}
    assert len(touched) == (14 if settings["target_modules"] == "all-linear" else 2)
    for row in table.iter_rows(named=True):
        # how many elements an adapter changes is not known without merging it
        assert row["changed"] == (None if row["tensor"] in touched else 0)


def test_an_adapter_of_another_base_is_refused(base: Path, tmp_path: Path) -> None:
    adapted(base, tmp_path / "adapter", target_modules=["down_proj"])
    other = {name: tensor for name, tensor in load_file(base / "model.safetensors").items() if ".1.mlp" not in name}
    with pytest.raises(DataError, match=r"the adapter changes model\.layers\.1\.mlp\.down_proj\.weight"):
        compare(saved(other, tmp_path / "other"), tmp_path / "adapter")


# --- what does not fit


def test_missing_and_foreign_tensors_are_refused(base: Path, tmp_path: Path) -> None:
    state = load_file(base / "model.safetensors")
    without = {name: tensor for name, tensor in state.items() if name != LAYER}
    for before, after in ((base, saved(without, tmp_path / "a")), (saved(without, tmp_path / "b"), base)):
        with pytest.raises(DataError, match=f"tensor {LAYER} is in only one of base and fine-tuned model"):
            compare(before, after)


def test_another_shape_is_refused(base: Path, tmp_path: Path) -> None:
    state = load_file(base / "model.safetensors") | {LAYER: torch.zeros(32, 31)}
    with pytest.raises(DataError, match=rf"{LAYER} has shape \(32, 32\) in the base and \(32, 31\) after training"):
        compare(base, saved(state, tmp_path))


def test_a_type_that_holds_no_weights_is_refused(base: Path, tmp_path: Path) -> None:
    state = load_file(base / "model.safetensors") | {LAYER: torch.zeros(32, 32, dtype=torch.int8)}
    with pytest.raises(DataError, match=f"tensor {LAYER} has type I8; expected one of F64, F32, F16, BF16"):
        compare(base, saved(state, tmp_path))


def test_a_tied_head_that_is_stored_twice_is_one_weight(place_base: Callable[..., str], tmp_path: Path) -> None:
    tied = (tmp_path / place_base(tmp_path, tied=True)).with_name("model")
    before = load_file(tied / "model.safetensors")
    assert "lm_head.weight" not in before
    after = moved(tied, 0.1)
    doubled = after | {"lm_head.weight": after["model.embed_tokens.weight"].clone()}
    table = compare(tied, saved(doubled, tmp_path / "doubled"))
    assert_equal_to(table, by_hand(before, after))


# --- layers


def test_layers_are_the_sums_of_their_tensors(base: Path, tmp_path: Path) -> None:
    before, after = load_file(base / "model.safetensors"), moved(base, 0.1)
    table = layers(compare(base, saved(after, tmp_path)))
    assert table["layer"].to_list() == [0] * 4 + [1] * 4
    assert table["depth"].to_list() == [0.0] * 4 + [1.0] * 4
    kinds = {"all": "", "attention": "self_attn", "mlp": "mlp", "norm": "layernorm"}
    for row in table.iter_rows(named=True):
        names = [name for name in before if f"layers.{row['layer']}." in name and kinds[row["module"]] in name]
        assert names
        joined = (
            {"joined": torch.cat([before[name].flatten() for name in names])},
            {"joined": torch.cat([after[name].flatten() for name in names])},
        )
        norm, relative, distance = by_hand(*joined)["joined"]
        assert row["norm"] == pytest.approx(norm, rel=1e-5)
        assert row["relative"] == pytest.approx(relative, rel=1e-5)
        assert row["cosine_distance"] == pytest.approx(distance, rel=1e-4)


NAMES = {
    "model.layers.11.self_attn.k_proj.weight": (11, "attention"),
    "model.layers.3.mlp.gate_proj.weight": (3, "mlp"),
    "model.layers.3.post_attention_layernorm.weight": (3, "norm"),
    "model.layers.0.self_attn.q_norm.weight": (0, "norm"),
    "transformer.h.7.ln_1.weight": (7, "norm"),
    "transformer.h.7.attn.c_attn.weight": (7, "attention"),
    "model.embed_tokens.weight": (None, "other"),
    "lm_head.weight": (None, "other"),
    "model.norm.weight": (None, "norm"),
}


def test_names_tell_layer_and_module(tmp_path: Path) -> None:
    folder = saved({name: torch.ones(2, 2) for name in NAMES}, tmp_path)
    found = compare(folder, folder).select("tensor", "layer", "module").rows()
    assert {name: (layer, module) for name, layer, module in found} == NAMES


def test_the_stage_measures_a_checkpoint_once(place_base: Callable[..., str], tmp_path: Path) -> None:
    base = place_base(tmp_path)
    model = (tmp_path / base).with_name("model")
    run = tmp_path / "runs/tiny"
    for epoch in (1, 2):
        folder = run / f"epoch-{epoch:02d}"
        write_record(folder / "checkpoint.json", {"run": "x"}, [saved(moved(model, 0.1 * epoch), folder / "model")])

    def measure(*epochs: int) -> pl.DataFrame:
        inputs = {"base": base, "train": "runs/tiny/train-0.json"}
        identity = {"run": "0" * 8, "base": "0" * 8, "epochs": list(epochs)}
        spec = content("weights", f"runs/tiny/weights-{len(epochs)}.parquet", identity, inputs)
        do(spec, tmp_path)
        return pl.read_parquet(tmp_path / spec["output"])

    first = measure(1)
    assert dict(first.schema) == LAYER_SCHEMA
    before = snapshot(run / "epoch-01")
    both = measure(1, 2)
    assert snapshot(run / "epoch-01") == before
    assert both.filter(epoch=1).equals(first)
    assert (both.filter(epoch=2)["norm"] > both.filter(epoch=1)["norm"]).all()
    # other weights in the same place are measured again
    write_record(run / "epoch-01/checkpoint.json", {"run": "y"}, [saved(moved(model, 0.3), run / "epoch-01/model")])
    assert (measure(1)["norm"] > first["norm"]).all()
