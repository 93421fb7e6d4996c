"""One pass over a source for all datasets that are parts of it: 12 GB are read once, not three times.

The job that comes first also writes down, for each dataset of the same source that is planned and not made yet, the
rows which that one's declaration selects; its own job reads those and removes them. Which datasets these are stands in
the frozen specifications beside the results. Rows are passed on as they were read, and handled by their own job.
"""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock

from sft_atlas.data.sources import Row
from sft_atlas.errors import DataError
from sft_atlas.files import read_json, whole
from sft_atlas.hashing import digest
from sft_atlas.spec import parse
from sft_atlas.stages.dataset.spec import Identity, Spec

PASSED_ON = "selected.jsonl"
Rows = Iterable[tuple[str, Row]]
Selects = Callable[[Row, Identity], bool]


def shared_rows(spec: Spec, root: Path, read: Callable[[], Rows], selects: Selects) -> Iterator[tuple[str, Row | None]]:
    """The source's rows for one dataset, with their ids; None where its own `keep` and `drop` leave a row out.

    Raises:
        DataError: as reading does.
    """
    siblings = _siblings(spec, root)
    own = (root / spec.output).with_name(PASSED_ON)
    if not siblings and not own.exists():
        yield from read()
        return
    with _alone(root, spec):
        if not own.exists():
            # whoever held the lock may have made some of them
            _pass_on(read, [spec, *_siblings(spec, root)], root, selects)
    try:
        with own.open(encoding="utf-8") as lines:
            for line in lines:
                row_id, found = json.loads(line)
                # the last line counts the rows that were left out
                yield from [("", None)] * found if row_id is None else [(row_id, found)]
    finally:
        own.unlink()


def _siblings(spec: Spec, root: Path) -> list[Spec]:
    """Specifications of other datasets that select rows of this source and whose rows nobody has written down."""
    identity = spec.identity
    if not identity.keep and not identity.drop:
        return []
    found = []
    for file in sorted((root / spec.output).parent.parent.glob("*/*.spec.json")):
        with contextlib.suppress(OSError, ValueError, KeyError):
            # of another version, perhaps: that is none of ours
            other = parse(Spec, read_json(file))
            made = [root / other.output, (root / other.output).with_name(PASSED_ON)]
            same = other.identity.source == identity.source and other.sources == spec.sources
            selective = other.identity.keep or other.identity.drop
            if same and selective and other.hash != spec.hash and not any(path.exists() for path in made):
                found.append(other)
    return found


def _pass_on(read: Callable[[], Rows], specs: list[Spec], root: Path, selects: Selects) -> None:
    with contextlib.ExitStack() as stack:
        outs = []
        for spec in specs:
            temporary = stack.enter_context(whole((root / spec.output).with_name(PASSED_ON)))
            outs.append((spec.identity, stack.enter_context(temporary.open("w", encoding="utf-8"))))
        left_out = [0] * len(outs)
        for row_id, row in read():
            line = ""
            for number, (identity, out) in enumerate(outs):
                if _wants(row, identity, selects):
                    line = line or json.dumps([row_id, row], default=_unfit) + "\n"
                    out.write(line)
                else:
                    left_out[number] += 1
        for (_, out), count in zip(outs, left_out, strict=True):
            out.write(json.dumps([None, count]) + "\n")


def _wants(row: Row, identity: Identity, selects: Selects) -> bool:
    try:
        return selects(row, identity)
    except DataError:
        # its own job says what is wrong
        return True


def _unfit(value: Any) -> Any:
    raise DataError(
        f"a value of type {type(value).__name__} ({str(value)[:40]!r}) cannot be used; expected JSON's types"
    )


@contextlib.contextmanager
def _alone(root: Path, spec: Spec) -> Iterator[None]:
    """Held by one job of a source at a time; fetching jobs run on one machine."""
    lock = (
        root / spec.output
    ).parent.parent / f".{digest([spec.identity.source.model_dump(mode='json'), spec.sources])}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        yield
