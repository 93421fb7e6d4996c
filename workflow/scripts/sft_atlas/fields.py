"""Types that the sections of a study share, and checks of their values."""

import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


def matching(pattern: str, expected: str) -> AfterValidator:
    """A validator of text that a pattern must describe as a whole; `expected` says so in words."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"expected {expected}")
        return text

    return AfterValidator(check)


def _plain(path: str) -> str:
    """The same path without `./`, doubled and trailing slashes, as Snakemake compares paths."""
    return str(PurePosixPath(re.sub("/+", "/", path)))


def _home(path: str) -> str:
    try:
        return str(Path(path).expanduser()) if path.startswith("~") else path
    except RuntimeError:
        raise ValueError("~ stands for the home folder of no user; write the path in full") from None


def data_file(*suffixes: str) -> AfterValidator:
    """A validator of a local file's path by its suffix; braces would be wildcards in Snakemake's patterns."""
    expected = f"a {', '.join(suffixes[:-1])} or {suffixes[-1]} file, and no braces in its path"
    return matching(rf"[^{{}}\n]*({'|'.join(map(re.escape, suffixes))})", expected)


def distinct(numbers: list[int]) -> list[int]:
    """The numbers if none stands twice; else ValueError."""
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"a number stands twice in {numbers[:20]}")
    return numbers


Epoch = Annotated[int, Field(ge=1, le=1000)]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
Seeds = Annotated[list[Seed], Field(min_length=1), AfterValidator(distinct)]
Epochs = Annotated[list[Epoch], Field(min_length=1), AfterValidator(distinct)]
Shots = Annotated[int, Field(ge=0, le=100)]
Text = Annotated[str, Field(min_length=1)]
HubId = Annotated[str, matching(r"[\w-][\w.-]*/[\w-][\w.-]*", "`owner/name`")]
Revision = Annotated[str, matching(r"[\w+-][\w.+-]*(/[\w+-][\w.+-]*)*", "a commit, tag or branch")]
Plain = AfterValidator(_plain)
DataFile = Annotated[str, data_file(".jsonl", ".json", ".csv", ".parquet"), Plain]
ModelFolder = Annotated[str, matching(r"[^{}]+", "a folder, and no braces in its path"), Plain]
# it stands in shell commands and in Snakemake's patterns
Folder = Annotated[
    str,
    AfterValidator(_home),
    matching(r"[\w./+@:,=-]+", "a folder without spaces, quotes or braces"),
    Plain,
]
Selector = Annotated[
    list[str],
    BeforeValidator(lambda value: [value] if isinstance(value, str) else value, json_schema_input_type=str | list[str]),
    Field(min_length=1),
]


MAX_CHARACTERS = 200_000
"""Longer than any context; such a row is a broken file, not an example."""


class Strict(BaseModel):
    """A declaration that refuses keys it does not know and values of another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=(), allow_inf_nan=False)

    HASHED: ClassVar[tuple[str, ...]] = ()
    """Fields that every identity holds, as `field`, or as `field=key` where the key in the identity is another."""
    LABELS: ClassVar[tuple[str, ...]] = ()
    """Fields that no identity holds: what they say changes no result."""

    @classmethod
    def hashed(cls) -> dict[str, str]:
        """The fields of `HASHED` with their keys."""
        return {field: key or field for field, _, key in (entry.partition("=") for entry in cls.HASHED)}

    @classmethod
    def of_identity(cls, content: Any) -> Any:
        """Validator of what an identity holds: the same mapping with fields under their names in code."""
        if not isinstance(content, dict):
            return content
        fields = {key: field for field, key in cls.hashed().items()}
        return {fields.get(key, key): value for key, value in content.items()}


def exactly_one(declaration: Any, *keys: str) -> None:
    """Raise ValueError unless exactly one of the optional keys is given."""
    given = [key for key in keys if getattr(declaration, key) is not None]
    if len(given) != 1:
        found = " and ".join(given) if given else "none of them"
        raise ValueError(f"exactly one of {', '.join(keys)} is expected, found {found}")
