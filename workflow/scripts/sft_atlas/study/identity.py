"""Identity of what the study makes: a hash of scientific fields, never of names, labels, paths or hardware.

What of a declaration is hashed is an explicit list (`Strict.HASHED`): those fields stand in every identity under the
key that they had when they entered it, whatever they are called in code. Labels (`Strict.LABELS`) are in none. Any
other field entered later: it is absent while it has its default, which therefore has to mean what was done before there
was such a field. So an option that is added to a declaration moves no identity, and one that is used moves its own.
"""

import re
from collections.abc import Collection
from pathlib import PurePosixPath
from typing import Any

from sft_atlas.fields import Strict
from sft_atlas.hashing import digest


def identity_of(declared: Strict, without: Collection[str] = ()) -> dict[str, Any]:
    """The part of a declaration that is hashed, JSON-ready; `without` leaves fields out by their name in code."""
    kind = type(declared)
    keys = kind.hashed()
    found = {key: _value(getattr(declared, field)) for field, key in keys.items() if field not in without}
    for name, field in kind.model_fields.items():
        value = getattr(declared, name)
        if name not in (*keys, *kind.LABELS, *without) and value != field.get_default(call_default_factory=True):
            found[name] = _value(value)
    return found


def _value(value: Any) -> Any:
    if isinstance(value, Strict):
        return identity_of(value)
    if isinstance(value, dict):
        return {key: _value(inner) for key, inner in value.items()}
    return [_value(inner) for inner in value] if isinstance(value, list | tuple) else value


def is_commit(revision: str) -> bool:
    """Whether a revision is a whole commit. A short one may become ambiguous, and may be the name of a branch."""
    return re.fullmatch("[0-9a-f]{40}", revision) is not None


def spec_hash(stage: str, version: int, identity: dict[str, Any]) -> str:
    """The hash in a spec's name; a job recomputes it before it believes the file."""
    return digest({"stage": stage, "version": version, "identity": identity})


def spec_file(output: str, hash8: str) -> str:
    """`runs/…/train-1a2b3c4d.json` → `runs/…/train-1a2b3c4d.spec.json`; the hash is added where it is missing."""
    path = PurePosixPath(output)
    stem = path.stem if path.stem.endswith(f"-{hash8}") else f"{path.stem}-{hash8}"
    return str(path.with_name(f"{stem}.spec.json"))
