"""Fetches pinned snapshots from the Hugging Face hub: only the needed files, resumable, never code."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from sft_atlas.bases import CONSOLIDATED
from sft_atlas.data.sources import DataError

MODEL_FILES = ("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json")
TOKENIZER_FILES = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "*.model")


def fetch(repository: str, revision: str, kind: Literal["model", "dataset"], patterns: Sequence[str] = ()) -> Path:
    """The local folder of a snapshot, downloaded if the hub's cache does not hold it.

    The token is taken from the environment or the hub's own login, and never written anywhere.

    Raises:
        DataError: gated without a token, unknown repository or revision, no network, no room; says what to do.
    """
    where = f"hub {repository}@{revision}"
    ignored = ["*/*", CONSOLIDATED] if kind == "model" else None
    wanted = list(patterns) or [*MODEL_FILES, *TOKENIZER_FILES]
    try:
        folder = snapshot_download(
            repository, revision=revision, repo_type=kind, allow_patterns=wanted, ignore_patterns=ignored
        )
        return Path(folder)
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
