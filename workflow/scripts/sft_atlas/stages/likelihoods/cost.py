"""What measuring likelihoods costs."""

from collections.abc import Iterable
from typing import Any

from sft_atlas.cost.estimates import Estimates
from sft_atlas.cost.formulas import BYTES, OF_A_JOB, Cost, Device, placed, rate_of, read_seconds
from sft_atlas.cost.sizes import BenchmarkSize, ModelSize, throughput
from sft_atlas.nodes import Benchmark
from sft_atlas.study.plan import Spec


def cost(estimates: Estimates, spec: Spec) -> Cost:
    """The texts of the study under the epochs of a model."""
    model, adapters = estimates.measured(spec)
    prepared = {name: estimates.plan.job("benchmark", Benchmark(name)).hash for name in estimates.benchmarks}
    chosen = spec.inputs["benchmarks"]
    sizes = [size for name, (_, size) in estimates.benchmarks.items() if prepared[name] in chosen]
    options, checkpoints = spec.identity["options"], len(spec.identity["epochs"])
    return likelihoods_cost(model, checkpoints, adapters, sizes, options, estimates.on(model))


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
    n, rate = model.parameters, rate_of(on, "forward_share")
    once = read_seconds(2 * n) + (tokens * 2 * n + sum(texts) ** 2 * 2 * model.hidden * model.layers) / rate
    width = 4 if adapters else BYTES[options["precision"]]
    work = 4096 * (min(40 * model.hidden, 150_000) * 8 + model.layers * model.hidden * 4)
    work += sum(texts) * model.layers * model.hidden * 4
    exact = model.exact and all(size.exact for size in counted)
    seconds = throughput()[on]["start_seconds"] + checkpoints * once
    return placed(
        on,
        seconds,
        width * n + work,
        width * n,
        disk=checkpoints * sum(texts) * 16,
        exact=exact,
        files=OF_A_JOB + 3 * checkpoints,
    )
