"""The price of every job of a plan, corrected by what finished jobs took, and the resources it is queued with."""

import json
import math
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Literal

from sft_atlas.cost.formulas import Cost, Device, table_cost
from sft_atlas.cost.sizes import (
    BenchmarkSize,
    ModelSize,
    SampleSize,
    benchmark_size,
    counted_bytes,
    counted_rows,
    declared_size,
    known_size,
    model_size,
    sample_size,
    throughput,
)
from sft_atlas.nodes import Base, Benchmark, Dataset, RunKey, Sample
from sft_atlas.stage import stages
from sft_atlas.study import model as declared
from sft_atlas.study.identity import spec_file
from sft_atlas.study.plan import Plan, Spec

# How many jobs of a stage are asked for their records: enough for a median, and cheap for a study of any size.
RECORDS = 64
# Room above the prediction: padding, samples and machines differ, and a job stopped for time has to start again.
TIME_ROOM, MEMORY_ROOM = 2.0, 1.25
LEAST_MINUTES, MEMORY_STEP = 10, 500
# Attempts also follow time limits and dead nodes; memory that grew with all of them would soon fit no node.
MOST_MEMORY = 2
# A job is told to save so long before its end (profiles/slurm/config.yaml), and starts with imports and loading.
SAVING_MINUTES = 10
Resource = Literal["gpu", "mem_mb", "runtime", "threads"]


@dataclass(frozen=True)
class Correction:
    """What a stage's finished jobs say of its prices: median of measured / predicted seconds, largest of memory."""

    seconds: float
    memory: float
    records: int


class Estimates:
    """What every job of a plan costs, each worked out when it is first asked for."""

    def __init__(
        self,
        plan: Plan,
        results: Path,
        device: str = "auto",
        micro_batch: int | None = None,
        corrected: bool = True,
        gpu_memory_gb: float = 141,
        max_runtime: int | None = None,
    ) -> None:
        self.plan, self.results, self.device, self.micro_batch = plan, results, device, micro_batch
        self.corrected, self.gpu_memory_gb, self.max_runtime = corrected, gpu_memory_gb, max_runtime
        self._costs: dict[str, Cost] = {}
        self._models: dict[str, ModelSize] = {}
        self._sizes: dict[str, SampleSize] = {}

    def of(self, spec: Spec) -> Cost:
        """The price of a job, corrected by the records of its stage."""
        if spec.output not in self._costs:
            cost = self.predicted(spec)
            found = self.corrections.get((spec.stage, cost.device))
            if found:
                memory = cost.mem_mb * max(1.0, found.memory)
                cost = replace(cost, seconds=cost.seconds * found.seconds, mem_mb=memory)
            self._costs[spec.output] = cost
        return self._costs[spec.output]

    def resource(self, spec: Spec, name: Resource, attempt: int = 1) -> int:
        """What a job asks the queue for; time grows with each attempt, memory with the second alone.

        No job asks for more time than the site grants (`max_runtime`): it saves its state before the end, and the next
        attempt goes on from there.
        """
        cost = self.of(spec)
        if name == "gpu":
            return cost.gpus
        if name == "threads":
            return cost.threads
        if name == "mem_mb":
            return math.ceil(cost.mem_mb * MEMORY_ROOM / MEMORY_STEP) * MEMORY_STEP * min(attempt, MOST_MEMORY)
        minutes = max(LEAST_MINUTES, math.ceil(cost.seconds * TIME_ROOM / 60)) * attempt
        return min(minutes, self.max_runtime or minutes)

    def attempts(self, spec: Spec) -> int:
        """How many times the longest time that the site grants a job needs, a few minutes of each for saving."""
        if not self.max_runtime:
            return 1
        return math.ceil(self.of(spec).seconds / 60 / max(1, self.max_runtime - SAVING_MINUTES))

    def largest(self, stage: str, name: Resource, attempt: int = 1) -> int:
        """The most that any planned job of a stage asks for: for a job that an earlier version of the study planned."""
        specs = [spec for spec in self.plan.by_output.values() if spec.stage == stage]
        return max((self.resource(spec, name, attempt) for spec in specs), default=1)

    def predicted(self, spec: Spec) -> Cost:
        """The price by formula alone."""
        stage = stages()[spec.stage]
        if stage.scope == "study":
            return table_cost(self.plan.matrix.checkpoints)
        cost: Cost = stage.module("cost").cost(self, spec)
        return replace(cost, threads=self.plan.study.threads) if stage.numeric else cost

    @cached_property
    def corrections(self) -> dict[tuple[str, Device], Correction]:
        """Stages with finished jobs of this plan, by device; nothing else than their records is read."""
        stages: dict[str, list[Spec]] = defaultdict(list)
        for spec in self.plan.by_output.values() if self.corrected else ():
            stages[spec.stage].append(spec)
        found: dict[tuple[str, Device], list[tuple[float, float]]] = defaultdict(list)
        for stage, specs in stages.items():
            for spec in specs[:: -(-len(specs) // RECORDS)]:
                taken = read_record(self.results, spec)
                cost = self.predicted(spec) if taken else None
                if taken and cost and taken.device == cost.device:
                    found[stage, cost.device].append((taken.seconds / cost.seconds, taken.mem_mb / cost.mem_mb))
        return {
            key: Correction(median(s for s, _ in ratios), max(m for _, m in ratios), len(ratios))
            for key, ratios in found.items()
        }

    # sizes, each worked out once

    def measured(self, spec: Spec) -> tuple[ModelSize, bool]:
        """The model that a job measures, and whether it is an adapter on it."""
        key = spec.key
        assert isinstance(key, Base | RunKey)
        adapters = isinstance(key, RunKey) and self.plan.study.recipes[key.recipe].adapter is not None
        return self.model(key.base), adapters

    def as_written(self, spec: Spec, cost: Cost) -> Cost:
        """The same with the disk that the files of a finished job take."""
        found = counted_bytes(self.results / spec.output)
        return cost if found is None else replace(cost, disk=found)

    @cached_property
    def benchmarks(self) -> dict[str, tuple[declared.Benchmark, BenchmarkSize]]:
        """Every benchmark's declaration and size, by name."""
        return {
            name: (
                benchmark,
                benchmark_size(benchmark, self.results / self.plan.job("benchmark", Benchmark(name)).output),
            )
            for name, benchmark in sorted(self.plan.study.benchmarks.items())
        }

    @cached_property
    def known(self) -> dict[str, SampleSize]:
        """Datasets whose rows are counted, declared, or those of a local file."""
        known = self.plan.study.datasets
        found = {
            key.dataset: known_size(known[key.dataset], self.results / spec.output)
            for (_, key), spec in self.plan.specs.items()
            if isinstance(key, Dataset)
        }
        return {name: size for name, size in found.items() if size}

    def rows(self, sample: str) -> SampleSize:
        """Rows and text of a sample."""
        size = declared_size(self.plan.study, self.plan.matrix.samples, self.known, sample)
        return counted_rows(self.results / self.plan.job("sample", Sample(sample)).output, size)

    def model(self, base: str) -> ModelSize:
        """The size of a base."""
        if base not in self._models:
            manifest = self.results / self.plan.job("base", Base(base)).output
            self._models[base] = model_size(self.plan.study.bases[base], manifest)
        return self._models[base]

    def sample(self, name: str, tokens: Spec) -> SampleSize:
        """Rows and tokens of a sample under one tokenizer."""
        if tokens.output not in self._sizes:
            length = tokens.identity["max_length"]
            size = declared_size(self.plan.study, self.plan.matrix.samples, self.known, name, length)
            self._sizes[tokens.output] = sample_size(self.results / tokens.output, size)
        return self._sizes[tokens.output]

    def on(self, model: ModelSize) -> Device:
        """Where a job with this model runs."""
        if self.device == "auto":
            return "gpu" if model.parameters > throughput()["gpu_above_parameters"] else "cpu"
        return "gpu" if self.device == "cuda" else "cpu"


@dataclass(frozen=True)
class Taken:
    """What a finished job took."""

    seconds: float
    mem_mb: float
    device: str


def read_record(results: Path, spec: Spec) -> Taken | None:
    """What a finished job recorded of itself beside its output, or None; a broken record is none."""
    frozen = results / spec_file(spec.output, spec.hash)
    try:
        record = json.loads(frozen.with_name(frozen.name.replace(".spec.json", ".record.json")).read_bytes())
        # records from before there was a device are of CPUs
        return Taken(float(record["wall_seconds"]), float(record["peak_memory_mb"]), record.get("device", "cpu"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
