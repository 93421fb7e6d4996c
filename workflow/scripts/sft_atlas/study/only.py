"""What `only` means: `base=a,block=b` (patterns), with a line for a key or a name that the study does not have."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from sft_atlas.errors import StudyError
from sft_atlas.study.load import unknown


def patterns(only: str, names: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """The patterns by key; `names` are the keys there are, each with what its patterns may mean.

    Raises:
        StudyError: a part is no KEY=PATTERN, or means nothing; names the valid and the nearest values.
    """
    found: dict[str, list[str]] = {}
    for part in only.split(","):
        key, equals, pattern = (piece.strip() for piece in part.partition("="))
        if not equals or not pattern:
            raise StudyError(
                f"config.yaml: only: found {part!r}; expected KEY=PATTERN, KEY one of {', '.join(names)}, as in "
                f"{_example(names)}"
            )
        if key not in names:
            raise StudyError(f"config.yaml: only: {unknown('key', key, names)}")
        known = dict.fromkeys(names[key])
        if not any(fnmatchcase(name, pattern) for name in known):
            raise StudyError(f"config.yaml: only: {key}: {unknown(key, pattern, known)}")
        found.setdefault(key, []).append(pattern)
    return found


def _example(names: Mapping[str, Iterable[str]]) -> str:
    key, known = next((key, list(known)) for key, known in names.items() if list(known))
    return f"{key}={known[0]}"
