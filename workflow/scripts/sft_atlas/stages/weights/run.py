"""Stage *weights*: how far training moved every tensor and every layer.

Files are mapped, never loaded whole: a tensor is read in blocks of 64k elements in fp32, sums are kept in fp64. For a
tensor before (a) and after (b) with d = b - a: norm = ‖d‖, relative = ‖d‖ / ‖a‖ (Frobenius norms), and the cosine
distance from 1 - cos = (‖d‖² - (‖b‖ - ‖a‖)²) / (2 ‖a‖ ‖b‖), which stays exact where the cosine itself rounds to 1.
‖b‖² = ‖a‖² + 2 a·d + ‖d‖². A LoRA update d = (alpha / r) B·A is measured from its factors, ‖d‖² = (alpha / r)²
tr(BᵀB AAᵀ) and a·d = (alpha / r) tr(Aᵀ(Bᵀa)), without rounding a merged model. Layers add up their tensors' sums.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from sft_atlas.errors import CellError, DataError
from sft_atlas.files import content_hash, epoch_folder, read_json, recorded, write_record, write_table
from sft_atlas.models.released import check_weights
from sft_atlas.models.weight_files import of_folder
from sft_atlas.stages.weights.spec import Spec

BLOCK = 1 << 16
TYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}
LAYER = re.compile(r"\.(?:layers|h|blocks)\.(\d+)\.")
MODULES = (
    ("norm", re.compile(r"norm|\bln_")),
    ("attention", re.compile(r"attn|attention")),
    ("mlp", re.compile(r"mlp|feed_forward|\bffn")),
)
TENSOR_SCHEMA = {
    "tensor": pl.String,
    "layer": pl.Int64,
    "module": pl.String,
    "elements": pl.Int64,
    "changed": pl.Int64,
    "aa": pl.Float64,
    "ad": pl.Float64,
    "dd": pl.Float64,
    "norm": pl.Float64,
    "base_norm": pl.Float64,
    "relative": pl.Float64,
    "cosine_distance": pl.Float64,
}
LAYER_SCHEMA = {
    "epoch": pl.Int64,
    "layer": pl.Int64,
    "depth": pl.Float64,
    "module": pl.String,
    "norm": pl.Float64,
    "base_norm": pl.Float64,
    "relative": pl.Float64,
    "cosine_distance": pl.Float64,
}


def run(spec: Spec, root: Path) -> None:
    """Write a table of layers (schema `LAYER_SCHEMA`) over the kept epochs, beside each epoch's table of tensors."""
    output = root / spec.output
    base, train = root / spec.inputs.base, root / spec.inputs.train
    tables = []
    for epoch in spec.identity.epochs:
        checkpoint = epoch_folder(train, epoch)
        piece = checkpoint / "weights.parquet"
        made_from = {
            "version": spec.version,
            "base": content_hash(base),
            "model": content_hash(checkpoint / "checkpoint.json"),
        }
        if recorded(piece.with_suffix(".json"), made_from) is None:
            folder = check_weights(train, epoch)
            try:
                table = compare(base.with_name("model"), folder)
            except DataError as error:
                raise CellError(str(error)) from None
            write_table(piece, table)
            write_record(piece.with_suffix(".json"), made_from, [piece])
        tables.append(layers(pl.read_parquet(piece)).with_columns(epoch=pl.lit(epoch, pl.Int64)))
    write_table(output, pl.concat(tables).select(*LAYER_SCHEMA))


def compare(base: Path, tuned: Path) -> pl.DataFrame:
    """Every tensor of a base against a fine-tuned model or an adapter for it (schema `TENSOR_SCHEMA`).

    Raises:
        DataError: the two do not have the same tensors in the same shapes.
    """
    before = tensors(base)
    if (tuned / "adapter_config.json").exists():
        updates = adapter_updates(tuned)
        if unknown := sorted(set(updates) - set(before)):
            raise DataError(f"{tuned}: the adapter changes {unknown[0]}, which the base does not have")
        rows = [
            _row(name, a, *low_rank_sums(a, *updates[name]), None)
            if name in updates
            else _row(name, a, *_unchanged(a), 0)
            for name, a in before.items()
        ]
    else:
        after = tensors(tuned)
        # with tied embeddings one side may store the head a second time; it is the same weight
        different = (set(before) ^ set(after)) - {"lm_head.weight"}
        if different:
            raise DataError(f"{tuned}: tensor {min(different)} is in only one of base and fine-tuned model")
        for name in before.keys() & after.keys():
            if before[name].shape != after[name].shape:
                shapes = f"{before[name].shape} in the base and {after[name].shape} after training"
                raise DataError(f"{tuned}: tensor {name} has shape {shapes}")
        rows = [_row(name, a, *sums(a, after[name])) for name, a in before.items() if name in after]
    return pl.DataFrame(rows, schema=TENSOR_SCHEMA, orient="row").sort("tensor")


def tensors(folder: Path) -> dict[str, np.ndarray]:
    """Every tensor of a folder's safetensors files, mapped; bf16 comes as its raw uint16.

    Raises:
        DataError: a tensor has a type that holds no weights.
    """
    found: dict[str, np.ndarray] = {}
    for file, tensor in of_folder(folder):
        if tensor.type not in TYPES:
            expected = ", ".join(TYPES)
            raise DataError(f"{file}: tensor {tensor.name} has type {tensor.type}; expected one of {expected}")
        found[tensor.name] = tensor.data.view(TYPES[tensor.type]).reshape(tensor.shape)
    return found


def sums(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float, int]:
    """‖a‖², a·d, ‖d‖² for d = b - a, and how many elements differ."""
    aa = ad = dd = 0.0
    changed = 0
    flat_a, flat_b = a.reshape(-1), b.reshape(-1)
    for start in range(0, flat_a.size, BLOCK):
        x, y = _floats(flat_a[start : start + BLOCK]), _floats(flat_b[start : start + BLOCK])
        d = y - x
        aa += float(np.dot(x, x))
        ad += float(np.dot(x, d))
        dd += float(np.dot(d, d))
        changed += int(np.count_nonzero(d))
    return aa, ad, dd, changed


def low_rank_sums(a: np.ndarray, down: np.ndarray, up: np.ndarray, scale: float) -> tuple[float, float, float]:
    """‖a‖², a·d, ‖d‖² for d = scale · up · down, from the factors: up is (out, r), down is (r, in), a is (out, in)."""
    aa, projected = 0.0, np.zeros(down.shape)
    step = max(1, BLOCK // a.shape[1])
    for start in range(0, a.shape[0], step):
        block = _floats(a[start : start + step]).astype(np.float64)
        aa += float((block * block).sum())
        projected += up[start : start + step].T @ block
    ad = scale * float((projected * down).sum())
    dd = scale**2 * float(((up.T @ up) * (down @ down.T)).sum())
    return aa, ad, dd


def adapter_updates(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray, float]]:
    """An adapter's (down, up, scale) in fp64 by the name of the base's tensor."""
    config = read_json(folder / "adapter_config.json")
    scale = config["lora_alpha"] / (config["r"] ** 0.5 if config.get("use_rslora") else config["r"])
    factors = tensors(folder)
    updates = {}
    for name, down in factors.items():
        if ".lora_A." in name:
            target = name.removeprefix("base_model.model.").replace(".lora_A.weight", ".weight")
            up = factors[name.replace(".lora_A.", ".lora_B.")]
            updates[target] = (_floats(down).astype(np.float64), _floats(up).astype(np.float64), scale)
    return updates


def layers(table: pl.DataFrame) -> pl.DataFrame:
    """Sum tensors up to layers: module `all`, and attention, mlp and norm apart; depth is layer / (layers - 1)."""
    inside = table.filter(pl.col("layer").is_not_null())
    parts = pl.concat([inside.with_columns(module=pl.lit("all")), inside.filter(pl.col("module") != "other")])
    summed = parts.group_by("layer", "module").agg(pl.col("aa", "ad", "dd").sum()).sort("layer", "module")
    last = max(1, int(inside["layer"].max() or 0))  # type: ignore[arg-type]
    measures = [_measures(*row) for row in summed.select("aa", "ad", "dd").iter_rows()]
    columns = pl.DataFrame(measures, schema=["norm", "base_norm", "relative", "cosine_distance"], orient="row")
    return pl.concat([summed, columns.cast(pl.Float64)], how="horizontal").with_columns(depth=pl.col("layer") / last)


def _row(name: str, a: np.ndarray, aa: float, ad: float, dd: float, changed: int | None) -> tuple[Any, ...]:
    layer = LAYER.search(name)
    module = next((kind for kind, pattern in MODULES if pattern.search(name)), "other")
    number = int(layer.group(1)) if layer else None
    return name, number, module, a.size, changed, aa, ad, dd, *_measures(aa, ad, dd)


def _measures(aa: float, ad: float, dd: float) -> tuple[float, float, float | None, float | None]:
    norm, base = dd**0.5, aa**0.5
    after = max(0.0, aa + 2 * ad + dd) ** 0.5
    # ‖b‖ - ‖a‖ as (‖b‖² - ‖a‖²) / (‖b‖ + ‖a‖), since the difference of two nearly equal roots has few digits left
    cosine = (dd - ((2 * ad + dd) / (after + base)) ** 2) / (2 * base * after) if base and after else None
    return norm, base, norm / base if base else None, None if cosine is None else max(0.0, cosine)


def _unchanged(a: np.ndarray) -> tuple[float, float, float]:
    return sums(a, a)[:3]


def _floats(block: np.ndarray) -> np.ndarray:
    if block.dtype == np.uint16:
        return (block.astype(np.uint32) << 16).view(np.float32)
    return block.astype(np.float32, copy=False)
