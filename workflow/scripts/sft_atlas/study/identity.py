"""Identity of what the study makes: a hash of scientific fields, never of names, labels, paths or hardware."""

import hashlib
import json
from pathlib import Path, PurePosixPath
from typing import Any

# Raised by hand when a costly stage's results change; part of every identity of that stage and of all that follows.
# tests/unit/test_stage_versions.py asks for the decision when a stage's source changes.
STAGE_VERSIONS = {
    "tokenizer": 1,
    "base": 2,
    "dataset": 2,
    "sample": 2,
    "benchmark": 2,
    "contamination": 2,
    "tokens": 2,
    "perplexity": 1,
    "similarity": 2,
    "train": 2,
    "evaluate": 2,
    "weights": 1,
    "likelihoods": 2,
    "embedding": 1,
}

SAMPLED_BLOCK = 1 << 20
WHOLE_FILE_LIMIT = 16 << 20


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: one text for one content.

    Raises:
        ValueError: the content holds NaN or an infinity.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any, digits: int = 8) -> str:
    """The first hex digits of the SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:digits]


def sha256(path: Path) -> str:
    """SHA-256 of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(path: Path) -> str:
    """Content of a local source, cheap enough to be asked for at every planning.

    A file up to 16 MB is hashed whole; of a larger one its size and 18 evenly spaced blocks of 1 MB. A folder is the
    fingerprints of its model files by name. The stage that reads the source hashes it whole, so a change that this
    overlooks still reaches everything that depends on it; it only keeps its place.

    Raises:
        OSError: the source cannot be read.
    """
    if path.is_dir():
        names = sorted(
            file.name for file in path.iterdir() if file.suffix in (".safetensors", ".json", ".model", ".txt")
        )
        return digest({name: fingerprint(path / name) for name in names}, 16)
    size = path.stat().st_size
    if size <= WHOLE_FILE_LIMIT:
        return sha256(path)[:16]
    content = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for block in range(18):
            file.seek((size - SAMPLED_BLOCK) * block // 17)
            content.update(file.read(SAMPLED_BLOCK))
    return content.hexdigest()[:16]


def spec_hash(stage: str, version: int, identity: dict[str, Any]) -> str:
    """The hash in a spec's name; a job recomputes it before it believes the file."""
    return digest({"stage": stage, "version": version, "identity": identity})


def spec_file(output: str, hash8: str) -> str:
    """`runs/…/train-1a2b3c4d.json` → `runs/…/train-1a2b3c4d.spec.json`; the hash is added where it is missing."""
    path = PurePosixPath(output)
    stem = path.stem if path.stem.endswith(f"-{hash8}") else f"{path.stem}-{hash8}"
    return str(path.with_name(f"{stem}.spec.json"))
