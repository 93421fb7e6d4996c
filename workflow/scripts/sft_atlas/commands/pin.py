"""The command `sft-atlas pin`: the commits behind branches and tags, written into the study file.

Only the text of each revision is replaced, where it stands: comments, order and layout stay. Revisions are part of what
a study is, so everything that comes from a pinned source gets another identity.
"""

from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sft_atlas.commands.places import declared_config, project_root
from sft_atlas.errors import StudyError
from sft_atlas.files import whole
from sft_atlas.study.identity import is_commit
from sft_atlas.study.load import MERGE, compose_yaml, load_config, read_yaml, study_path

Commit = Callable[[str, str, str], str]
"""From kind (model, dataset), repository and revision to the commit."""


@dataclass(frozen=True)
class Place:
    """A revision as it stands in the file: characters `start` to `end`."""

    key: str
    kind: str
    repository: str
    revision: str
    start: int
    end: int


def command(options: Namespace) -> int:
    """`sft-atlas pin`.

    Raises:
        StudyError: the study cannot be read, or the hub does not know a revision; then nothing is written.
    """
    config = load_config(declared_config() | ({"study": options.study} if options.study else {}))
    path = study_path(config, project_root())
    from sft_atlas.data.hub_probe import commit_of

    done = pin(path, commit_of)
    for place, commit in done:
        print(f"{place.key}\t{place.repository}\t{place.revision} -> {commit}")
    print(f"{path}: {len(done)} revisions pinned" if done else f"{path}: nothing to pin")
    parent = read_yaml(path).get("extends")
    if parent:
        print(f"sections of the study that it extends are pinned there: sft-atlas pin --study {parent}")
    return 0


def pin(path: Path, commit: Commit) -> list[tuple[Place, str]]:
    """Write the commits behind a study file's revisions into it; returns what was replaced.

    Raises:
        StudyError: the file cannot be read; or what `commit` raises. The file is then as it was.
    """
    before = read_yaml(path)
    # bytes, so that line ends stay
    text = path.read_bytes().decode("utf-8")
    known: dict[tuple[str, str, str], str] = {}
    try:
        found = [place for place in places(compose_yaml(text, path)) if not is_commit(place.revision)]
    except ValueError as error:
        raise error if isinstance(error, StudyError) else StudyError(f"{path}: {error}") from None
    for place in found:
        asked = (place.kind, place.repository, place.revision)
        known[asked] = known.get(asked) or commit(*asked)
    done = [(place, known[place.kind, place.repository, place.revision]) for place in found]
    for place, new in sorted(done, key=lambda pair: -pair[0].start):
        # digits, with an e among them or not, are a number
        shown = new if any(letter in new for letter in "abcdf") else f'"{new}"'
        text = text[: place.start] + shown + text[place.end :]
    if done:
        with whole(path) as temporary:
            temporary.write_bytes(text.encode("utf-8"))
            after = read_yaml(temporary)
            assert _unpinned(after) == _unpinned(before), f"{path}: more than revisions would have changed"
    return done


def places(node: Any) -> list[Place]:
    """Every revision of a hub source in a composed study, each text once, however many aliases stand for it.

    Raises:
        ValueError: one text is by aliases the revision of several repositories, and cannot hold the commit of each.
    """
    found: dict[int, Place] = {}
    for section, kind in (("bases", "model"), ("datasets", "dataset"), ("benchmarks", "dataset")):
        for name, entry in _entries(_value(node, section)):
            for key in ("hub", "shots_hub"):
                hub = _value(entry, key)
                repository, revision = _value(hub, "id"), _value(hub, "revision")
                if not isinstance(repository, yaml.ScalarNode) or not isinstance(revision, yaml.ScalarNode):
                    continue
                start, end = revision.start_mark.index, revision.end_mark.index
                where = f"{section}.{name}.{key}.revision"
                own = Place(where, kind, repository.value, revision.value, start, end)
                other = found.setdefault(start, own)
                if (other.kind, other.repository) != (own.kind, own.repository):
                    raise ValueError(
                        f"{other.key} and {own.key} are one text (line {revision.start_mark.line + 1}), of two "
                        "repositories; write each out, then pin"
                    )
    return list(found.values())


def _value(node: Any, key: str) -> Any:
    """The node of a key in a mapping, its own or one that it merges; None where there is none."""
    return dict(_entries(node)).get(key)


def _entries(node: Any) -> Iterator[tuple[str, Any]]:
    """Keys and nodes of a mapping; merged ones come first, since its own go before them."""
    if not isinstance(node, yaml.MappingNode):
        return
    merged = [value for key, value in node.value if key.tag == MERGE]
    for value in merged:
        # of several, the first goes before the others
        for other in reversed(value.value) if isinstance(value, yaml.SequenceNode) else [value]:
            yield from _entries(other)
    yield from ((key.value, value) for key, value in node.value if key.tag != MERGE)


def _unpinned(value: Any) -> Any:
    """The same content without revisions."""
    if isinstance(value, dict):
        return {key: None if key == "revision" else _unpinned(inner) for key, inner in value.items()}
    return [_unpinned(inner) for inner in value] if isinstance(value, list) else value
