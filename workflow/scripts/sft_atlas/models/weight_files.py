"""A file of weights in the safetensors format, mapped: tensors without a copy, in bf16 too, which NumPy lacks."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HEADER_BYTES = 8
"""The length of the header stands before it, in so many bytes, little-endian."""


@dataclass(frozen=True)
class Tensor:
    """A tensor of a file: name, type (`F32`, `BF16`, …), shape, and its bytes as a mapped array of uint8."""

    name: str
    type: str
    shape: tuple[int, ...]
    data: np.ndarray


def header(file: Path) -> bytes:
    """The JSON text before the tensors' bytes."""
    with file.open("rb") as handle:
        return handle.read(int.from_bytes(handle.read(HEADER_BYTES), "little"))


def places(text: bytes) -> list[tuple[str, str, tuple[int, ...], slice]]:
    """Name, type, shape and place of every tensor that a header lists, in the order of their bytes."""
    entries = ((name, entry) for name, entry in json.loads(text).items() if name != "__metadata__")
    found = [(name, entry["dtype"], tuple(entry["shape"]), slice(*entry["data_offsets"])) for name, entry in entries]
    return sorted(found, key=lambda place: (place[3].start, place[3].stop))


def tensors(file: Path) -> Iterator[Tensor]:
    """The tensors of a file, in the order of their bytes."""
    text = header(file)
    data = np.memmap(file, mode="r", dtype=np.uint8, offset=HEADER_BYTES + len(text))
    for name, kind, shape, place in places(text):
        yield Tensor(name, kind, shape, data[place])


def of_folder(folder: Path) -> Iterator[tuple[Path, Tensor]]:
    """Each tensor of a model's files, with its file."""
    for file in sorted(folder.glob("*.safetensors")):
        for tensor in tensors(file):
            yield file, tensor
