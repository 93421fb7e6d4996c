"""How much memory training takes, how many tokens fit at once, and what to change where nothing does."""

from typing import TYPE_CHECKING, Any

import torch

from sft_atlas.runtime.settings import current
from sft_atlas.study.model import Recipe
from sft_atlas.training.footprint import activation_bytes, state_bytes

if TYPE_CHECKING:
    from sft_atlas.training.fit import Request

# Padded tokens in a micro-batch on a CPU: enough to keep its cores busy; see benchmarks/training.py.
CPU_TOKENS = 2048
# The part of a GPU's free memory that a micro-batch may fill; the rest is for fragments and kernels.
GPU_SHARE = 0.8
GB = 1e9


def micro_batch_tokens(model: Any, recipe: Recipe) -> int:
    """How many padded tokens a micro-batch may have on this device."""
    if not next(model.parameters()).is_cuda:
        return CPU_TOKENS
    free, _ = torch.cuda.mem_get_info()
    count = sum(weight.numel() for weight in model.parameters())
    trained = count if recipe.adapter is None else 0
    # weights are loaded already
    coming = state_bytes(count, trained, recipe.precision, recipe.optimizer) - sum(
        weight.numel() * weight.element_size() for weight in model.parameters()
    )
    config = model.config
    tokens = (GPU_SHARE * free - coming) / activation_bytes(config.hidden_size, config.num_hidden_layers)
    return max(1, int(tokens))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU's or the host's memory ran out."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def cannot_fit(request: "Request", processes: int) -> str:
    """One line: how much this run needs, and the settings that would need less."""
    from transformers import AutoConfig, AutoModelForCausalLM

    recipe = request.settings.recipe
    config = AutoConfig.from_pretrained(request.base.with_name("model"), local_files_only=True)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    count = sum(weight.numel() for weight in model.parameters())
    row = activation_bytes(config.hidden_size, config.num_hidden_layers) * recipe.max_length

    def need(method: str, optimizer: str, gpus: int) -> str:
        trained = count if method == "full" else 0
        return f"{(state_bytes(count, trained, recipe.precision, optimizer) / gpus + row) / GB:.3g} GB"

    method, optimizer = recipe.method, recipe.optimizer
    free = f"{torch.cuda.mem_get_info()[1] / GB:.3g} GB" if torch.cuda.is_available() else "the host's memory"
    more = f"{2 * processes} GPUs (gpu_memory_gb in config.yaml decides how many a run gets)"
    ways = [f"{more}: {need(method, optimizer, 2 * processes)} each"]
    if method == "full":
        if optimizer == "adamw":
            ways.append(f"optimizer: paged_adamw_8bit in the recipe: {need(method, 'paged_adamw_8bit', processes)}")
        ways.append(f"method: lora: {need('lora', optimizer, processes)}")
    ways.append(f"a shorter max_length than {recipe.max_length}")
    if current().micro_batch_size not in (None, 1):
        ways.insert(0, "micro_batch_size: 1 in config.yaml")
    return (
        f"out of memory: a micro-batch of one row of {recipe.max_length} tokens needs about "
        f"{need(method, optimizer, processes)} and there is {free}; what would need less: {'; '.join(ways)}"
    )
