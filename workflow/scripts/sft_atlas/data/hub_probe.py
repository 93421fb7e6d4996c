"""Asks the hub about a source before anything is fetched: revision, gate, licence, files, sizes, columns.

A minute's work on a log-in node: one request for a repository's listing, and of one file its head (of Parquet its
footer), by HTTP ranges. What the hub answers is only shown in our own words: its texts may hold signed addresses.
"""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, Literal

from huggingface_hub import HfApi, constants, get_token, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils import build_hf_headers, filter_repo_objects, get_session, hf_raise_for_status

from sft_atlas.data.hub import MODEL_FILES, PICKLES, TOKENIZER_FILES
from sft_atlas.data.kinds import CONSOLIDATED, READABLE, VOCABULARIES
from sft_atlas.errors import StudyError

SECONDS = 20
HEAD = 1 << 16
MOST_HEAD = 1 << 22
Kind = Literal["model", "dataset"]

# columns that a row of each format needs; of several in one text, separated by |, one is enough
COLUMNS: dict[str, tuple[str, ...]] = {
    "alpaca": ("instruction", "output"),
    "prompt_completion": ("prompt", "completion"),
    "messages": ("messages",),
    "conversations": ("conversations",),
    "flan": ("inputs", "targets"),
    "openmath": ("question", "generated_solution", "is_correct"),
    "columns": (),
    "items": ("instruction", "answer"),
    "gsm8k": ("question", "answer"),
    "math": ("problem", "solution"),
    "mmlu": ("question", "choices", "answer"),
    "cmmlu": ("Question", "A", "B", "C", "D", "Answer"),
    "boolq": ("passage", "question", "answer"),
    "hellaswag": ("ctx", "endings", "label"),
    "nq": ("question", "answer"),
    "truthfulqa": ("question", "correct_answers", "best_answer"),
    "mbpp": ("text|prompt", "test_list", "code"),
    "humaneval": ("prompt", "canonical_solution"),
    "mt_bench": ("turns|prompt",),
    "alpaca_eval": ("instruction",),
}


class ProbeError(ValueError):
    """A source that cannot be had as it is declared; the message says what is wrong and what to do."""


@dataclass(frozen=True)
class Asked:
    """A hub source as a study declares it, and the columns that its rows must have."""

    key: str
    kind: Kind
    repository: str
    revision: str
    patterns: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()


@dataclass
class Found:
    """What the hub says of a source: commit, gate, licence, files that match with their sizes in bytes, and notes."""

    commit: str
    gated: str | None
    licence: str | None
    files: dict[str, int]
    missing: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def commit_of(kind: str, repository: str, revision: str) -> str:
    """The commit behind a branch, a tag or a short commit.

    Raises:
        StudyError: the hub does not know it, or cannot be asked.
    """
    try:
        return str(_listing(kind, repository, revision).sha)
    except ProbeError as error:
        raise StudyError(f"hub {repository}@{revision}: {error}") from None


def probe(asked: Asked) -> Found:
    """Ask the hub about a source.

    Raises:
        ProbeError: the first thing that is wrong with it, and what to do.
    """
    info = _listing(asked.kind, asked.repository, asked.revision)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
    files = _model_files(sizes) if asked.kind == "model" else _data_files(sizes, asked.patterns)
    found = Found(str(info.sha), _gate(info), _licence(info), files)
    found.missing = {name: size for name, size in files.items() if not _is_cached(asked, found.commit, name)}
    if info.id != asked.repository:
        found.notes.append(f"is now called {info.id}")
    suffixes = {name.rpartition(".")[2] for name in files}
    if asked.kind == "dataset" and len(suffixes) > 1:
        found.notes.append(f"files of several kinds ({', '.join(sorted(suffixes))}): are they the same rows twice?")
    if asked.kind == "model" and not any(name.endswith(".safetensors") for name in files):
        found.notes.append("its weights are pickles, which are converted")
    first = "config.json" if asked.kind == "model" else min(files)
    file = RemoteFile(asked.kind, asked.repository, found.commit, first, sizes[first], found.gated)
    columns = _columns(file, first)
    if lacking := [need for need in asked.columns if not columns & set(need.split("|"))]:
        raise ProbeError(
            f"{first} has no column {' and none '.join(map(repr, lacking))}; it has {', '.join(sorted(columns))}; "
            "correct `format`, `columns`, `keep` or `files`"
        )
    return found


@lru_cache(maxsize=1024)
def _listing(kind: str, repository: str, revision: str) -> Any:
    page = f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{repository}"
    try:
        return HfApi().repo_info(repository, revision=revision, repo_type=kind, files_metadata=True, timeout=SECONDS)
    except GatedRepoError:
        raise ProbeError(_gated_words(page)) from None
    except RevisionNotFoundError:
        raise ProbeError(f"there is no revision {revision!r}; give a commit of {page}/commits/main") from None
    except RepositoryNotFoundError as error:
        if error.response is not None and error.response.status_code == 401 and get_token():
            raise ProbeError("the hub does not accept the token; make another one, and set HF_TOKEN") from None
        raise ProbeError(f"there is no such {kind} repository, or it is private to others; check the id") from None
    except HfHubHTTPError as error:
        raise ProbeError(_status_words(error)) from None
    except Exception as error:
        # of the hub's library and of what it stands on, with addresses in their texts
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else type(error).__name__
        raise ProbeError(
            f"the hub cannot be reached at {constants.ENDPOINT} ({why}); ask where there is a network"
        ) from None


def _status_words(error: HfHubHTTPError) -> str:
    status = error.response.status_code if error.response is not None else 0
    if status == 401:
        return "the hub does not accept the token; make another one, and set HF_TOKEN"
    if status == 403:
        return "the token may not read this repository; allow it to read gated repositories, or set another HF_TOKEN"
    return f"the hub answers with status {status}; try again later"


def _gated_words(page: str) -> str:
    has = "the token in use has no access yet" if get_token() else "there is no token"
    return f"gated, and {has}; accept its terms at {page}, then set HF_TOKEN or run `hf auth login`"


def _gate(info: Any) -> str | None:
    return str(info.gated) if getattr(info, "gated", False) else None


def _licence(info: Any) -> str | None:
    card = getattr(info, "card_data", None)
    stated = getattr(card, "license", None) if card is not None else None
    tags = [tag.partition(":")[2] for tag in info.tags or [] if tag.startswith("license:")]
    return ", ".join(stated) if isinstance(stated, list) else stated or (tags[0] if tags else None)


def _model_files(sizes: dict[str, int]) -> dict[str, int]:
    """What is fetched of a model: as data/hub.py does."""
    top = [name for name in sizes if "/" not in name and not fnmatchcase(name, CONSOLIDATED)]
    chosen = [*filter_repo_objects(top, allow_patterns=[*MODEL_FILES, *TOKENIZER_FILES])]
    if not any(name.endswith(".safetensors") for name in chosen):
        chosen += filter_repo_objects(top, allow_patterns=[*PICKLES])
    if "config.json" not in chosen:
        raise ProbeError(f"holds no config.json, so it is no transformers model; it has {_some(sizes)}")
    if not any(name.endswith((".safetensors", ".bin")) for name in chosen):
        raise ProbeError(f"holds no weights as safetensors or pytorch_model*.bin; it has {_some(sizes)}")
    if not any(fnmatchcase(name, pattern) for name in chosen for pattern in VOCABULARIES):
        raise ProbeError(f"holds no tokenizer (one of {', '.join(VOCABULARIES)}); it has {_some(sizes)}")
    return {name: sizes[name] for name in chosen}


def _data_files(sizes: dict[str, int], patterns: Sequence[str]) -> dict[str, int]:
    """What is read of a data repository: as data/sources.py does; every pattern has to match something.

    Raises:
        ProbeError: names the pattern, and files that there are.
    """
    readable = [name for name in sizes if name.endswith(READABLE)]
    wanted = list(patterns) or [f"*{suffix}" for suffix in READABLE]
    for pattern in patterns:
        if not any(filter_repo_objects(readable, allow_patterns=[pattern])):
            raise ProbeError(f"no file matches {pattern!r}; it has {_some(readable or sizes)}; correct `files`")
    chosen = list(filter_repo_objects(readable, allow_patterns=wanted))
    if not chosen:
        raise ProbeError(f"holds no file of a kind that is read ({', '.join(READABLE)}); it has {_some(sizes)}")
    return {name: sizes[name] for name in chosen}


def _some(names: Any, most: int = 8) -> str:
    listed = sorted(names)
    return ", ".join(listed[:most]) + (f", … ({len(listed)} files)" if len(listed) > most else "") or "no file"


def _is_cached(asked: Asked, commit: str, name: str) -> bool:
    return isinstance(try_to_load_from_cache(asked.repository, name, revision=commit, repo_type=asked.kind), str)


class RemoteFile(io.RawIOBase):
    """A file of a repository, read by HTTP ranges.

    Raises, where it is read:
        ProbeError: it is gated, or cannot be had.
    """

    def __init__(
        self, kind: Kind, repository: str, commit: str, name: str, size: int, gated: str | None = None
    ) -> None:
        self.url = hf_hub_url(repository, name, revision=commit, repo_type=kind)
        self.page = f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{repository}"
        self.size, self.gated, self.position = size, gated, 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place, as in any file."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.size}[whence]
        self.position = max(0, start + offset)
        return self.position

    def read(self, size: int | None = -1) -> bytes:
        """The next bytes, fewer only at the end."""
        end = self.size if size is None or size < 0 else min(self.size, self.position + size)
        if end <= self.position:
            return b""
        content = self._range(self.position, end)
        self.position += len(content)
        return content

    def _range(self, start: int, end: int) -> bytes:
        headers = build_hf_headers() | {"Range": f"bytes={start}-{end - 1}"}
        try:
            answer = get_session().get(self.url, headers=headers, timeout=SECONDS, follow_redirects=True)
            hf_raise_for_status(answer)
        except GatedRepoError:
            raise ProbeError(_gated_words(self.page)) from None
        except HfHubHTTPError as error:
            gated = self.gated and error.response is not None and error.response.status_code == 401
            raise ProbeError(_gated_words(self.page) if gated else _status_words(error)) from None
        except Exception as error:
            raise ProbeError(f"its files cannot be reached ({type(error).__name__}); try again later") from None
        # a server that knows no ranges sends the whole
        return bytes(answer.content[start:end] if answer.status_code == 200 else answer.content)


def _columns(file: RemoteFile, name: str) -> set[str]:
    """Columns of a file by its head or footer; of a model's config.json its keys.

    Raises:
        ProbeError: it is not what its name says.
    """
    try:
        if name.endswith(".parquet"):
            from pyarrow.parquet import read_schema

            return set(read_schema(file).names)
        return _first_row(file, name)
    except ProbeError:
        raise
    except (ValueError, OSError, csv.Error, StopIteration) as error:
        raise ProbeError(f"{name} is not what its name says ({str(error)[:120]}); is it the right file?") from None


def _first_row(file: RemoteFile, name: str) -> set[str]:
    """Keys of the first row of a text file; the head is read further while that row has no end."""
    length = HEAD
    while True:
        file.seek(0)
        text = file.read(length).decode("utf-8-sig", errors="replace")
        whole = length >= min(file.size, MOST_HEAD)
        try:
            return _keys(text, name)
        except (ValueError, StopIteration):
            if whole:
                raise
        length *= 4


def _keys(text: str, name: str) -> set[str]:
    if name.endswith(".csv"):
        return set(next(csv.reader(io.StringIO(text))))
    start = text.lstrip().removeprefix("[").lstrip() if name.endswith(".json") else text.lstrip()
    row = json.JSONDecoder().raw_decode(start)[0]
    if not isinstance(row, dict):
        raise ValueError(f"its first row is a {type(row).__name__}")
    return set(row)
