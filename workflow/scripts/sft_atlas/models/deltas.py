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

SUFFIX = ".delta"
LEVEL = 1
HEADER_BYTES = 8


def encode(tuned: Path, base: Path) -> Path:
    """Write `tuned` (a safetensors file) as `tuned.delta` against the base's file of the same tensors; returns it.

    Tensors that the base does not have in the same type and shape are stored whole.

    Raises:
        DataError: the delta does not give the file back; nothing is left behind.
    """
    target = tuned.with_name(tuned.name + SUFFIX)
    header, data = _open(tuned)
    originals = _tensors(base)
    codec = pa.Codec("zstd", LEVEL)
    with whole(target) as temporary, temporary.open("wb") as out:
        index: dict[str, Any] = {"sha256": sha256(tuned), "header": header.decode(), "tensors": {}}
        blocks = []
        for name, entry in _entries(header):
            raw = data[slice(*entry["data_offsets"])]
            original = originals.get((name, entry["dtype"], tuple(entry["shape"])))
            words = raw if original is None else np.bitwise_xor(raw, original)
            width = 1 if original is None else _width(entry)
            planes = [codec.compress(words[plane::width].tobytes(), asbytes=True) for plane in range(width)]
            index["tensors"][name] = [len(plane) for plane in planes]
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
            header = index["header"].encode()
            out.write(len(header).to_bytes(HEADER_BYTES, "little") + header)
            for name, entry in _entries(header):
                start, end = entry["data_offsets"]
                sizes = index["tensors"][name]
                words = np.empty(end - start, dtype=np.uint8)
                for plane, size in enumerate(sizes):
                    length = len(words[plane :: len(sizes)])
                    words[plane :: len(sizes)] = np.frombuffer(codec.decompress(file.read(size), length), np.uint8)
                original = originals.get((name, entry["dtype"], tuple(entry["shape"])))
                out.write((words if original is None else np.bitwise_xor(words, original)).tobytes())
        if sha256(temporary) != index["sha256"]:
            raise DataError(f"{delta}: does not give back the weights it was made from; is {base} still the same base?")


def _open(file: Path) -> tuple[bytes, np.ndarray]:
    with file.open("rb") as handle:
        size = int.from_bytes(handle.read(HEADER_BYTES), "little")
        header = handle.read(size)
    return header, np.memmap(file, mode="r", dtype=np.uint8, offset=HEADER_BYTES + size)


def _entries(header: bytes) -> list[tuple[str, dict[str, Any]]]:
    """Tensors in the order of their bytes, so that what is written one after another is the file's own data."""
    found = [(name, entry) for name, entry in json.loads(header).items() if name != "__metadata__"]
    return sorted(found, key=lambda item: item[1]["data_offsets"])


def _tensors(folder: Path) -> dict[tuple[str, str, tuple[int, ...]], np.ndarray]:
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        header, data = _open(file)
        for name, entry in _entries(header):
            found[name, entry["dtype"], tuple(entry["shape"])] = data[slice(*entry["data_offsets"])]
    return found


def _width(entry: dict[str, Any]) -> int:
    count = int(np.prod(entry["shape"])) or 1
    start, end = entry["data_offsets"]
    return max(1, (end - start) // count)
