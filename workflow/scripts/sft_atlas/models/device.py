"""Where and how models are loaded: device, numeric type, threads; the same for training and every measurement."""

import logging
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging as transformers_logging

from sft_atlas.models.local_models import local_model
from sft_atlas.runtime.settings import current

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def prepare(threads: int) -> torch.device:
    """Set CPU threads and quiet libraries; return the device that config.yaml asks for.

    Raises:
        ValueError: cuda is asked for and there is none.
    """
    torch.set_num_threads(threads)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    wanted = current().device
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ValueError("config.yaml: device: 'cuda' is asked for, but no GPU is visible to this job")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


# Bases that the process this one was forked from has loaded, by folder and state of the manifest beside it.
_loaded: dict[tuple[Path, int], PreTrainedModel] = {}


def load_for_children(folder: Path) -> None:
    """Load a base before forking, so that all runs of it share its weights until they change them.

    Only what takes less than an eighth of the machine's memory is kept, and only the last base: runs of one base follow
    each other. No thread may be started here, since a fork has its parent's locks but not its threads.
    """
    key = _state_of(folder)
    if key in _loaded:
        return
    _loaded.clear()
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    if size > os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 8:
        return
    torch.set_num_threads(1)
    _loaded[key] = _read(folder, "fp32")


def _state_of(folder: Path) -> tuple[Path, int]:
    manifest = folder.with_name("manifest.json")
    return folder.resolve(), manifest.stat().st_mtime_ns if manifest.exists() else 0


def load_model(folder: Path, precision: str, device: torch.device) -> PreTrainedModel:
    """A causal language model from a local folder of safetensors; no network, no pickle, no code of the model's own."""
    # taken out, since whoever asks may change the weights
    model: Any = _loaded.pop(_state_of(folder), None) if _loaded and precision == "fp32" else None
    if model is None:
        model = _read(folder, precision)
    return model.to(device)


def _read(folder: Path, precision: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(
        local_model(folder),
        dtype=TYPES[precision],
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
    )
