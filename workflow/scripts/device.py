"""Where and how models are loaded: device, numeric type, threads; the same for training and every measurement."""

import logging
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging as transformers_logging

from sft_atlas.local_models import local_model

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def prepare(threads: int) -> torch.device:
    """Set CPU threads and quiet libraries; return the device (environment SFT_ATLAS_DEVICE: auto, cpu or cuda).

    Raises:
        ValueError: cuda is asked for and there is none.
    """
    torch.set_num_threads(threads)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    wanted = os.environ.get("SFT_ATLAS_DEVICE", "auto")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ValueError("config.yaml: device: 'cuda' is asked for, but no GPU is visible to this job")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def load_model(folder: Path, precision: str, device: torch.device) -> PreTrainedModel:
    """A causal language model from a local folder of safetensors; no network, no pickle, no code of the model's own."""
    place = local_model(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(
        place, dtype=TYPES[precision], local_files_only=True, use_safetensors=True, trust_remote_code=False
    )
    return model.to(device)
