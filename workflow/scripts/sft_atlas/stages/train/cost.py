"""What a run costs."""

import math

from sft_atlas.cost.estimates import Estimates
from sft_atlas.cost.formulas import (
    BYTES,
    GPUS_TOGETHER,
    MB,
    OF_A_JOB,
    Cost,
    Device,
    model_files,
    placed,
    rate_of,
    read_seconds,
)
from sft_atlas.cost.sizes import ModelSize, SampleSize, throughput
from sft_atlas.nodes import RunKey
from sft_atlas.study.model import Recipe
from sft_atlas.study.plan import Spec
from sft_atlas.training.footprint import activation_bytes, state_bytes


def cost(estimates: Estimates, spec: Spec) -> Cost:
    """A run of the plan."""
    key = spec.key
    assert isinstance(key, RunKey)
    model, tokens = estimates.model(key.base), estimates.plan.job("tokens", estimates.plan.tokens_of(key))
    sample, recipe = estimates.sample(key.sample, tokens), estimates.plan.study.recipes[key.recipe]
    epochs, on = spec.identity["epochs"], estimates.on(model)
    return train_cost(model, sample, recipe, epochs, estimates.micro_batch, on, estimates.gpu_memory_gb)


def train_cost(
    model: ModelSize,
    sample: SampleSize,
    recipe: Recipe,
    kept: list[int],
    micro_batch: int | None,
    on: Device,
    gpu_memory_gb: float,
) -> Cost:
    """One run to its last kept epoch.

    seconds = start + read 2 N + epochs · (steps · step_seconds + T · padding · FLOP · N / C / GPUs) + kept · write
    GPU memory (full, AdamW) = 16 N: weights, gradients and two moments in fp32; (LoRA) 4 N and 16 per adapter weight,
    shared by the GPUs of the job; plus activations of the padded micro-batch (training/sizes.py), which has as many
    rows as fit, or as config.yaml says. As many GPUs as hold the model and one row: 1, 2, 4 or 8. Host memory: 4 N
    while loading in fp32, 2 N while saving. Checkpoints: N in the recipe's precision, or the adapter in fp32.
    """
    speed, training = throughput()[on], throughput()["training"]
    epochs, n = max(kept), model.parameters
    steps = math.ceil(sample.rows / recipe.batch_size)
    padded = min(sample.tokens * training["padding"], sample.rows * sample.longest)
    work = padded * training[recipe.method] * n / rate_of(on, "train_share")
    saved = model.adapter(recipe.adapter.rank) * 4 if recipe.adapter else n * BYTES[recipe.precision]
    trained = n if recipe.adapter is None else model.adapter(recipe.adapter.rank)
    state = state_bytes(n, trained, recipe.precision, recipe.optimizer)
    if recipe.adapter is not None:
        state += 4 * trained
    row = activation_bytes(model.hidden, model.layers) * sample.longest
    room = gpu_memory_gb * 1000 * MB - throughput()["gpu"]["gpu_process_mb"] * MB if on == "gpu" else math.inf
    together = next((gpus for gpus in GPUS_TOGETHER if state / gpus + row <= room), GPUS_TOGETHER[-1])
    share = math.ceil(recipe.batch_size / together)
    fitting = share if on == "cpu" else max(1, int((room - state / together) / row))
    rows = min(micro_batch or fitting, share)
    seconds = (
        speed["start_seconds"]
        + read_seconds(2 * n)
        + epochs * (steps * speed["step_seconds"] + work / together)
        + len(kept) * saved / throughput()["disk"]["write"]
    )
    return placed(
        on,
        seconds,
        state / together + rows * row,
        together=together,
        loading=6 * n,
        disk=len(kept) * saved,
        # log, its record and the lease; of every epoch its model and its record
        files=OF_A_JOB + 3 + len(kept) * (model_files(saved) + 1),
        weights=len(kept) * saved,
        merged=len(kept) * n * BYTES[recipe.precision],
        exact=model.exact and sample.exact,
    )
