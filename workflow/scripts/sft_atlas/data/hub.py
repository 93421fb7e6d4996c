"""Fetches pinned snapshots from the Hugging Face hub: only the needed files, resumable, never code."""

import errno
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import HfApi, constants, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import filter_repo_objects

from sft_atlas.data.kinds import CONSOLIDATED
from sft_atlas.errors import DataError

MODEL_FILES = ("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json")
PICKLES = ("pytorch_model*.bin", "pytorch_model.bin.index.json")
TOKENIZER_FILES = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "*.model")


def fetch(
    repository: str,
    revision: str,
    kind: Literal["model", "dataset"],
    patterns: Sequence[str] = (),
    results: Path | None = None,
) -> Path:
    """The local folder of a snapshot, downloaded if the hub's cache does not hold it.

    A model without safetensors comes as pickles, of which the stage of bases makes a second copy in `results`: the room
    for that is asked for before the download, too.

    The token is taken from the environment or the hub's own login, and never written anywhere.

    Raises:
        DataError: gated without a token, unknown repository or revision, no network, no room; says what to do.
    """
    where = f"hub {repository}@{revision}"
    ignored = ["*/*", CONSOLIDATED] if kind == "model" else None
    wanted = list(patterns) or [*MODEL_FILES, *TOKENIZER_FILES]
    try:
        _check_room(repository, revision, kind, wanted, ignored, results)
        folder = Path(
            snapshot_download(
                repository, revision=revision, repo_type=kind, allow_patterns=wanted, ignore_patterns=ignored
            )
        )
        if kind == "model" and not any(folder.glob("*.safetensors")):
            # an old repository: the base's stage converts these without running what they may hold
            snapshot_download(repository, revision=revision, repo_type=kind, allow_patterns=[*PICKLES])
        return folder
    except GatedRepoError:
        raise DataError(f"{where}: gated; accept its terms on the hub, then set HF_TOKEN or log in") from None
    except RevisionNotFoundError:
        raise DataError(f"{where}: there is no such revision; give a commit of the repository") from None
    except RepositoryNotFoundError:
        raise DataError(f"{where}: there is no such {kind} repository, or it is private; check the id") from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise DataError(f"{where}: cannot be stored in the hub's cache: {error}; see HF_HOME") from None
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
        raise DataError(
            f"{where}: not in the local cache and the hub cannot be reached{offline}: {type(error).__name__}; "
            "fetch it on a machine with network, or give a local `path`"
        ) from None


def _check_room(
    repository: str, revision: str, kind: str, wanted: list[str], ignored: list[str] | None, results: Path | None
) -> None:
    """Refuse a download that the cache's disk cannot hold, before its first byte.

    Raises:
        OSError: no space is left for the files that are not in the cache yet, or for what is made of them.
    """
    if constants.HF_HUB_OFFLINE:
        return
    info: Any = HfApi().repo_info(repository, revision=revision, repo_type=kind, files_metadata=True)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
    names = list(filter_repo_objects(sizes, allow_patterns=wanted, ignore_patterns=ignored))
    pickles: list[str] = []
    if kind == "model" and not any(name.endswith(".safetensors") for name in names):
        pickles = list(filter_repo_objects(sizes, allow_patterns=[*PICKLES], ignore_patterns=ignored))
    missing = sum(
        sizes[name]
        for name in [*names, *pickles]
        if not isinstance(try_to_load_from_cache(repository, name, revision=info.sha, repo_type=kind), str)
    )
    cache = _existing(Path(constants.HF_HUB_CACHE))
    copied = sum(sizes[name] for name in pickles) if results else 0
    place = _existing(results) if results else cache
    if place.stat().st_dev == cache.stat().st_dev:
        missing, copied = missing + copied, 0
    for folder, needed in ((cache, missing), (place, copied)):
        free = shutil.disk_usage(folder).free
        if needed > free:
            why = ", pickled weights and their copy as safetensors counted" if pickles else ""
            raise OSError(
                errno.ENOSPC, f"{needed / 1e9:.1f} GB are needed at {folder}{why}, {free / 1e9:.1f} GB are free"
            )


def _existing(path: Path) -> Path:
    return next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())
