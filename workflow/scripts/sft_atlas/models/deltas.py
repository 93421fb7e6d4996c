"""Weights of a fine-tuned model as what differs from its base: lossless, a fraction of the size.

Two models of one shape differ in few high bits. Each tensor is stored as base XOR tuned on the raw words, split into
byte planes (all first bytes, then all second bytes, …), each compressed with zstd: what BitX does (ZipLLM, arXiv
2505.06252). Reading needs the base, gives back the file byte for byte, and checks its SHA-256.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sft_atlas.errors import DataError
from sft_atlas.files import whole
from sft_atlas.hashing import sha256
from sft_atlas.models.weight_files import HEADER_BYTES, Tensor, header, of_folder, places, tensors

SUFFIX = ".delta"
LEVEL = 1


def encode(tuned: Path, base: Path) -> Path:
    """Write `tuned` (a safetensors file) as `tuned.delta` against the base's file of the same tensors; returns it.

    Tensors that the base does not have in the same type and shape are stored whole.

    Raises:
        DataError: the delta does not give the file back; nothing is left behind.
    """
    target = tuned.with_name(tuned.name + SUFFIX)
    originals = _tensors(base)
    codec = pa.Codec("zstd", LEVEL)
    with whole(target) as temporary, temporary.open("wb") as out:
        index: dict[str, Any] = {"sha256": sha256(tuned), "header": header(tuned).decode(), "tensors": {}}
        blocks = []
        for tensor in tensors(tuned):
            original = originals.get((tensor.name, tensor.type, tensor.shape))
            words = tensor.data if original is None else np.bitwise_xor(tensor.data, original)
            width = 1 if original is None else _width(tensor)
            planes = [codec.compress(words[plane::width].tobytes(), asbytes=True) for plane in range(width)]
            index["tensors"][tensor.name] = [len(plane) for plane in planes]
            blocks += planes
        text = json.dumps(index).encode()
        out.write(len(text).to_bytes(HEADER_BYTES, "little") + text)
        out.writelines(blocks)
    try:
        decode(target, base, target.with_name(f".{tuned.name}.check"))
    except DataError:
        target.unlink()
        raise
    finally:
        target.with_name(f".{tuned.name}.check").unlink(missing_ok=True)
    return target


def decode(delta: Path, base: Path, target: Path) -> None:
    """Write the safetensors file that a delta stands for.

    Raises:
        DataError: the result has another SHA-256 than the file that was encoded, so the base is another one.
    """
    originals = _tensors(base)
    codec = pa.Codec("zstd", LEVEL)
    with whole(target) as temporary:
        with delta.open("rb") as file, temporary.open("wb") as out:
            index = json.loads(file.read(int.from_bytes(file.read(HEADER_BYTES), "little")))
            text = index["header"].encode()
            out.write(len(text).to_bytes(HEADER_BYTES, "little") + text)
            for name, kind, shape, place in places(text):
                sizes = index["tensors"][name]
                words = np.empty(place.stop - place.start, dtype=np.uint8)
                for plane, size in enumerate(sizes):
                    length = len(words[plane :: len(sizes)])
                    words[plane :: len(sizes)] = np.frombuffer(codec.decompress(file.read(size), length), np.uint8)
                original = originals.get((name, kind, shape))
                out.write((words if original is None else np.bitwise_xor(words, original)).tobytes())
        if sha256(temporary) != index["sha256"]:
            raise DataError(f"{delta}: does not give back the weights it was made from; is {base} still the same base?")


def _tensors(folder: Path) -> dict[tuple[str, str, tuple[int, ...]], np.ndarray]:
    return {(tensor.name, tensor.type, tensor.shape): tensor.data for _, tensor in of_folder(folder)}


def _width(tensor: Tensor) -> int:
    return max(1, tensor.data.size // (int(np.prod(tensor.shape)) or 1))
