"""Names and patterns of a study."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from sft_atlas.errors import StudyError
from sft_atlas.study.load import unknown


def select(patterns: Sequence[str], names: Iterable[str], kind: str, where: str) -> list[str]:
    """The names that the patterns mean, in their own order, each once.

    Raises:
        StudyError: a pattern that means nothing, or two that are the same.
    """
    known = list(names)
    if len(set(patterns)) < len(patterns):
        twice = next(pattern for pattern in patterns if patterns.count(pattern) > 1)
        raise StudyError(f"{where}: {twice!r} stands twice")
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in known):
            raise StudyError(f"{where}: {unknown(kind, pattern, known)}")
    return [name for name in known if any(fnmatchcase(name, pattern) for pattern in patterns)]
