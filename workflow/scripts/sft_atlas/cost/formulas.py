"""Seconds, memory and disk of a job, stage by stage, as formulas over sizes and the speeds of throughput.yaml.

Symbols: N weights, T tokens, C = flops · share the arithmetic a device really does in a second, B = bytes_per_second of
its memory. A forward pass of one token takes 2 N operations and training 6 N (Kaplan et al. 2020, arXiv 2001.08361,
section 2.1); with a frozen base, whose weights need no gradients, 4 N. Recomputed activations are left out, as in the
published shares of peak that `train_share` comes from.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from sft_atlas.cost.sizes import BYTES_PER_TOKEN, BenchmarkSize, ModelSize, SampleSize, throughput
from sft_atlas.study.model import Benchmark, Evaluation, Recipe
from sft_atlas.training.footprint import activation_bytes, state_bytes

Device = Literal["gpu", "cpu"]
BYTES = {"fp32": 4, "bf16": 2, "pure_bf16": 2}
GPUS_TOGETHER = (1, 2, 4, 8)
MB = 1e6


@dataclass(frozen=True)
class Cost:
    """What one job takes: wall seconds on its device, memory on host and GPU in MB, bytes that stay on disk.

    `weights` is the part of `disk` that holds fine-tuned weights, and `merged` what they would take with every adapter
    merged into a model of its own; `exact` says that every size behind the numbers was counted, not estimated;
    `together` is the number of GPUs that share the job, each with `gpu_mem_mb`.
    """

    seconds: float
    device: Device = "cpu"
    mem_mb: float = 1000.0
    gpu_mem_mb: float = 0.0
    disk: float = 0.0
    weights: float = 0.0
    merged: float = 0.0
    threads: int = 1
    exact: bool = True
    together: int = 1

    def remains(self, kept: str) -> float:
        """Bytes of fine-tuned weights that stay: all, deltas, adapters, none, or everything merged."""
        adapters = self.merged != self.weights
        if kept == "deltas" and not adapters:
            return float(self.weights * throughput()["disk"]["delta_share"])
        if kept == "merged":
            return self.merged
        return self.weights if kept == "all" or (adapters and kept != "none") else 0.0

    @property
    def gpus(self) -> int:
        """GPUs the job holds: more than one only for training what one cannot hold."""
        return self.together if self.device == "gpu" else 0

    @property
    def gpu_hours(self) -> float:
        """Hours of one GPU."""
        return self.gpus * self.seconds / 3600


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
    work = padded * training[recipe.method] * n / _rate(on, "train_share")
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
        + _read(2 * n)
        + epochs * (steps * speed["step_seconds"] + work / together)
        + len(kept) * saved / throughput()["disk"]["write"]
    )
    return _placed(
        on,
        seconds,
        state / together + rows * row,
        together=together,
        loading=6 * n,
        disk=len(kept) * saved,
        weights=len(kept) * saved,
        merged=len(kept) * n * BYTES[recipe.precision],
        exact=model.exact and sample.exact,
    )


def evaluate_cost(
    model: ModelSize,
    checkpoints: int,
    adapters: bool,
    benchmarks: Iterable[tuple[Benchmark, BenchmarkSize]],
    settings: Evaluation,
    on: Device,
) -> Cost:
    """Every benchmark in every number of shots on each checkpoint of a run.

    A checkpoint takes read + sum of: building and tokenising its requests; prompt tokens · 2 N / C, where k worked
    examples make a prompt k + 1 times as long, up to the longest context; and for generated answers
    batches · max_tokens · (decode_step_seconds + N · bytes / B + batch · 2 N / C). A batch goes on until its last
    sequence stops, so nearly always to `max_tokens`. Memory: weights (fp32 of merged adapters), and keys and values of
    a batch at the longest context. Disk: about 100 bytes for each item's result.
    """
    speed, n, width = throughput()[on], model.parameters, BYTES[settings.precision]
    rate, share = _rate(on, "forward_share"), throughput()["evaluation"]
    step = speed["decode_step_seconds"] + n * width / speed["bytes_per_second"]
    seconds, items, exact = 0.0, 0.0, model.exact
    for benchmark, size in benchmarks:
        exact = exact and size.exact
        for shots in benchmark.shots:
            items += size.items
            requests = size.items * size.passes
            prompt = min(size.tokens * (1 + shots), settings.max_length)
            seconds += requests * (share["request_seconds"] + prompt * share["request_seconds_per_token"])
            seconds += requests * prompt * 2 * n / rate
            if size.generates:
                batch = min(settings.batch_size, size.items)
                batches = math.ceil(size.items / settings.batch_size)
                seconds += batches * benchmark.max_tokens * (step + batch * 2 * n / rate)
    cached = settings.batch_size * settings.max_length * 2 * model.layers * model.hidden * share["key_value_share"]
    weights = (4 if adapters else width) * n
    total = speed["start_seconds"] + checkpoints * (seconds + _read(2 * n))
    return _placed(on, total, weights + cached * width, loading=weights, disk=checkpoints * items * 100, exact=exact)


def perplexity_cost(model: ModelSize, samples: Iterable[SampleSize], precision: str, on: Device) -> Cost:
    """One forward pass over every sample: start + read + T · 2 N / C. Memory: weights, and logits of 4,096 tokens."""
    counted = list(samples)
    tokens = sum(sample.tokens for sample in counted)
    seconds = throughput()[on]["start_seconds"] + _read(2 * model.parameters)
    seconds += tokens * 2 * model.parameters / _rate(on, "forward_share")
    weights = model.parameters * BYTES[precision]
    # logits in fp32 and their logarithm over a vocabulary that is taken as 40 h, as in 7B models
    logits = 4096 * min(40 * model.hidden, 150_000) * 8
    exact = model.exact and all(sample.exact for sample in counted)
    return _placed(
        on, seconds, weights + logits, loading=weights, disk=24 * sum(sample.rows for sample in counted), exact=exact
    )


def likelihoods_cost(
    model: ModelSize,
    checkpoints: int,
    adapters: bool,
    benchmarks: Iterable[BenchmarkSize],
    options: dict[str, Any],
    on: Device,
) -> Cost:
    """Log-likelihoods of texts under each checkpoint of a run, and intrinsic dimensions of its L layers.

    start + checkpoints · (read 2 N + T · 2 N / C + n² · 2 h · L / C) for T tokens of n texts: the forward pass, and the
    distances between representations. Memory: weights, logits of 4,096 tokens, and hidden states of as many in fp32.
    Disk: 16 bytes for each text.
    """
    counted = list(benchmarks)
    texts = [min(size.items, options["texts"]) for size in counted]
    tokens = sum(n * min(size.tokens, options["max_length"]) for n, size in zip(texts, counted, strict=True))
    n, rate = model.parameters, _rate(on, "forward_share")
    once = _read(2 * n) + (tokens * 2 * n + sum(texts) ** 2 * 2 * model.hidden * model.layers) / rate
    width = 4 if adapters else BYTES[options["precision"]]
    work = 4096 * (min(40 * model.hidden, 150_000) * 8 + model.layers * model.hidden * 4)
    work += sum(texts) * model.layers * model.hidden * 4
    exact = model.exact and all(size.exact for size in counted)
    seconds = throughput()[on]["start_seconds"] + checkpoints * once
    return _placed(on, seconds, width * n + work, width * n, disk=checkpoints * sum(texts) * 16, exact=exact)


def embedding_cost(model: ModelSize, rows: float, longest: int) -> Cost:
    """The mean embedding of some rows, on the CPU: start + rows · tokens · 2 N / C, rows taken as half the longest."""
    seconds = rows * longest / 2 * 2 * model.parameters / _rate("cpu", "forward_share")
    memory = _host("cpu") + (4 * model.parameters + 64 * longest * model.hidden * 4 * model.layers) / MB
    return Cost(throughput()["cpu"]["start_seconds"] + seconds, mem_mb=memory, disk=16 * model.hidden)


def weights_cost(model: ModelSize, checkpoints: int, saved: float) -> Cost:
    """Base and each checkpoint read once, from disk: the arithmetic keeps up with it (two files at 2.4 GB/s a core)."""
    seconds = throughput()["cpu"]["start_seconds"] + checkpoints * _read(2 * model.parameters + saved)
    return Cost(seconds, mem_mb=_host("cpu") + 1000, disk=checkpoints * 5e4, exact=model.exact)


def release_cost(training: Cost, kept: str) -> Cost:
    """Giving back a run's weights: deleting takes no time; encoding deltas reads and writes them at delta_rate."""
    rate = throughput()["disk"]["delta_rate"]
    encoded = training.weights if kept == "deltas" and training.remains(kept) != training.weights else 0.0
    seconds = throughput()["cpu"]["start_seconds"] + encoded / rate
    return Cost(seconds, mem_mb=_host("cpu") + 2000, exact=training.exact)


def base_cost(model: ModelSize, pretraining_tokens: float, steps: int, fetched: bool) -> Cost:
    """A base: 2 N bytes over the network, kept in bf16; or 6 N per token of pre-training from scratch, kept in fp32.

    Memory: all weights at once, as converting an old format takes; or weights, gradients and moments.
    """
    speed, disk = throughput()["cpu"], throughput()["disk"]
    width = 4 if pretraining_tokens else 2
    seconds = speed["start_seconds"] + width * model.parameters * (
        1 / disk["download"] if fetched else 1 / disk["write"]
    )
    seconds += steps * speed["step_seconds"] + pretraining_tokens * 6 * model.parameters / _rate("cpu", "train_share")
    memory = _host("cpu") + (20 if pretraining_tokens else 2) * model.parameters / MB
    return Cost(seconds, mem_mb=memory, disk=width * model.parameters, exact=model.exact)


def tokens_cost(sample: SampleSize) -> Cost:
    """Tokenising a sample: T / tokens_per_second. Ids and labels as lists of Python take about 200 bytes a token."""
    speed = throughput()["host"]["tokens_per_second"]
    seconds = throughput()["cpu"]["start_seconds"] + sample.tokens / speed
    return Cost(seconds, mem_mb=_host("cpu") + sample.tokens * 200 / MB, disk=4 * sample.tokens, exact=sample.exact)


def rows_cost(size: SampleSize, compared: int = 0, fetched: bool = False) -> Cost:
    """Reading, filtering and writing rows of text, 4 bytes a token, after fetching them; or comparing with benchmarks.

    Text in Python takes about ten times its bytes, and its n-grams five times that.
    """
    host, text = throughput()["host"], BYTES_PER_TOKEN * size.tokens
    seconds = throughput()["cpu"]["start_seconds"] + size.rows / host["rows_per_second"]
    seconds += size.rows * compared / host["compared_per_second"]
    seconds += text / throughput()["disk"]["download"] if fetched else 0
    memory = _host("cpu") + text * (50 if compared else 10) / MB
    return Cost(seconds, mem_mb=memory, disk=0 if compared else text, exact=size.exact)


def table_cost(cells: int) -> Cost:
    """Collecting, analysing or reporting a study of so many cells."""
    seconds = throughput()["cpu"]["start_seconds"] + cells * throughput()["host"]["seconds_per_cell"]
    return Cost(seconds, mem_mb=_host("cpu") + 2 * cells, disk=2 * MB + 2e4 * cells)


def _placed(on: Device, seconds: float, memory: float, loading: float, **rest: Any) -> Cost:
    """A job that runs a model: its memory is the GPU's, with the host's while loading; or all of it is the host's."""
    speed = throughput()[on]
    if on == "gpu":
        return Cost(seconds, on, _host(on) + loading / MB, speed["gpu_process_mb"] + memory / MB, **rest)
    return Cost(seconds, on, _host(on) + max(memory, loading) / MB, **rest)


def _rate(on: Device, share: str) -> float:
    return float(throughput()[on]["flops"] * throughput()[on][share])


def _host(on: Device) -> float:
    return float(throughput()[on]["process_mb"])


def _read(size: float) -> float:
    return float(size / throughput()["disk"]["read"])
