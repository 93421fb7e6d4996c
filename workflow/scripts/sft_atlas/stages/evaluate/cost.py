"""What evaluating a model costs."""

import math
from collections.abc import Iterable

from sft_atlas.cost.estimates import Estimates
from sft_atlas.cost.formulas import BYTES, OF_A_JOB, Cost, Device, placed, rate_of, read_seconds
from sft_atlas.cost.sizes import BenchmarkSize, ModelSize, throughput
from sft_atlas.study.model import Benchmark, Evaluation
from sft_atlas.study.plan import Spec


def cost(estimates: Estimates, spec: Spec) -> Cost:
    """All benchmarks on the epochs of a model."""
    model, adapters = estimates.measured(spec)
    checkpoints, sizes = len(spec.identity["epochs"]), estimates.benchmarks.values()
    return evaluate_cost(model, checkpoints, adapters, sizes, estimates.plan.study.evaluation, estimates.on(model))


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
    rate, share = rate_of(on, "forward_share"), throughput()["evaluation"]
    step = speed["decode_step_seconds"] + n * width / speed["bytes_per_second"]
    seconds, items, exact, pieces = 0.0, 0.0, model.exact, 0
    for benchmark, size in benchmarks:
        exact = exact and size.exact
        for shots in benchmark.shots:
            items += size.items
            pieces += 2
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
    total = speed["start_seconds"] + checkpoints * (seconds + read_seconds(2 * n))
    files = OF_A_JOB + checkpoints * pieces
    disk = checkpoints * items * 100
    return placed(on, total, weights + cached * width, loading=weights, disk=disk, exact=exact, files=files)
