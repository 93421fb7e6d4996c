"""The price of every job of a plan, corrected by what finished jobs took, and the resources it is queued with."""

import json
import math
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any, Literal

from sft_atlas.cost import formulas as costs
from sft_atlas.cost.formulas import Cost, Device
from sft_atlas.cost.sizes import (
    BenchmarkSize,
    ModelSize,
    SampleSize,
    benchmark_size,
    counted_bytes,
    counted_rows,
    declared_size,
    embedder_size,
    known_size,
    model_size,
    sample_size,
    throughput,
)
from sft_atlas.study.identity import spec_file
from sft_atlas.study.matrix import RunKey
from sft_atlas.study.model import Benchmark
from sft_atlas.study.plan import Plan, Spec

# Stages whose sums depend on the number of threads, which is therefore the study's.
NUMERIC = ("base", "tokens", "perplexity", "train", "evaluate", "weights", "likelihoods", "embedding")
# The study's own jobs, whose work grows with its cells.
TABLE_STAGES = ("collect", "import", "audit", "analyse", "report", "price")
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


class Prices:
    """Prices by job, each worked out when it is first asked for."""

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
        specs = [spec for spec in self.plan.specs.values() if spec.stage == stage]
        return max((self.resource(spec, name, attempt) for spec in specs), default=1)

    def predicted(self, spec: Spec) -> Cost:
        """The price by formula alone."""
        stage = "table" if spec.stage in TABLE_STAGES else spec.stage
        cost: Cost = getattr(self, f"_{stage}_job")(spec)
        return replace(cost, threads=self.plan.study.threads) if stage in NUMERIC else cost

    @cached_property
    def corrections(self) -> dict[tuple[str, Device], Correction]:
        """Stages with finished jobs of this plan, by device; nothing else than their records is read."""
        stages: dict[str, list[Spec]] = defaultdict(list)
        for spec in self.plan.specs.values() if self.corrected else ():
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

    # what a job costs, by stage

    def _train_job(self, spec: Spec) -> Cost:
        key: RunKey = self._keys[spec.output]
        model, sample = self._model(key.base), self._sample(key.sample, self.plan.run_tokens[key])
        recipe, epochs = self.plan.study.recipes[key.recipe], spec.identity["epochs"]
        return costs.train_cost(model, sample, recipe, epochs, self.micro_batch, self._on(model), self.gpu_memory_gb)

    def _evaluate_job(self, spec: Spec) -> Cost:
        key, study = self._keys[spec.output], self.plan.study
        model = self._model(key.base if isinstance(key, RunKey) else key)
        adapters = isinstance(key, RunKey) and study.recipes[key.recipe].adapter is not None
        checkpoints, sizes = len(spec.identity["epochs"]), self._benchmarks.values()
        return costs.evaluate_cost(model, checkpoints, adapters, sizes, study.evaluation, self._on(model))

    def _likelihoods_job(self, spec: Spec) -> Cost:
        key, study = self._keys[spec.output], self.plan.study
        model = self._model(key.base if isinstance(key, RunKey) else key)
        adapters = isinstance(key, RunKey) and study.recipes[key.recipe].adapter is not None
        sizes = [
            self._benchmarks[name][1]
            for name, own in self.plan.benchmarks.items()
            if own.hash in spec.inputs["benchmarks"]
        ]
        options, checkpoints = spec.identity["options"], len(spec.identity["epochs"])
        return costs.likelihoods_cost(model, checkpoints, adapters, sizes, options, self._on(model))

    def _embedding_job(self, spec: Spec) -> Cost:
        kind, name = self._keys[spec.output]
        rows = self._rows(name).rows if kind == "sample" else self._benchmarks[name][1].items
        model = embedder_size(Path(spec.sources[0]).parent)
        return costs.embedding_cost(model, min(rows, spec.identity["rows"]), spec.identity["max_length"])

    def _weights_job(self, spec: Spec) -> Cost:
        key: RunKey = self._keys[spec.output]
        checkpoints = len(spec.identity["epochs"])
        saved = self.predicted(self.plan.train[key]).weights / checkpoints
        return costs.weights_cost(self._model(key.base), checkpoints, saved)

    def _release_job(self, spec: Spec) -> Cost:
        return costs.release_cost(
            self.predicted(self.plan.train[self._keys[spec.output]]), self.plan.study.keep_weights
        )

    def _perplexity_job(self, spec: Spec) -> Cost:
        base, precision = self._keys[spec.output], self.plan.study.evaluation.precision
        sizes = [self._sample(sample, tokens) for (owner, sample), tokens in self.plan.tokens.items() if owner == base]
        model = self._model(base)
        return costs.perplexity_cost(model, sizes, precision, self._on(model))

    def _base_job(self, spec: Spec) -> Cost:
        name = self._keys[spec.output]
        declared, model = self.plan.study.bases[name], self._model(name)
        if declared.micro:
            tokens = declared.micro.steps * declared.micro.batch_size * throughput()["assumed"]["micro_document_tokens"]
            return costs.base_cost(model, tokens, declared.micro.steps, fetched=False)
        return costs.base_cost(model, 0, 0, fetched=declared.hub is not None)

    def _tokens_job(self, spec: Spec) -> Cost:
        key = self._keys[spec.output]
        return costs.tokens_cost(self._sample(key.sample if isinstance(key, RunKey) else key[1], spec))

    def _sample_job(self, spec: Spec) -> Cost:
        return self._as_written(spec, costs.rows_cost(self._rows(self._keys[spec.output])))

    def _similarity_job(self, spec: Spec) -> Cost:
        size = self._rows(self._keys[spec.output])
        return costs.rows_cost(size, compared=len(self.plan.benchmarks))

    _contamination_job = _similarity_job

    def _dataset_job(self, spec: Spec) -> Cost:
        name, assumed = self._keys[spec.output], throughput()["assumed"]
        declared, rows = self.plan.study.datasets[name], assumed["dataset_rows"]
        tokens = rows * (declared.expected_tokens or assumed["tokens_per_row"])
        size = self._known.get(name) or SampleSize(rows, tokens, 0, False)
        return self._as_written(spec, costs.rows_cost(size, fetched=declared.hub is not None))

    def _as_written(self, spec: Spec, cost: Cost) -> Cost:
        """The same with the disk that the files of a finished job take."""
        found = counted_bytes(self.results / spec.output)
        return cost if found is None else replace(cost, disk=found)

    def _benchmark_job(self, spec: Spec) -> Cost:
        declared, size = self._benchmarks[self._keys[spec.output]]
        rows = SampleSize(size.items, size.items * size.tokens, 0, size.exact)
        return costs.rows_cost(rows, fetched=declared.hub is not None)

    def _tokenizer_job(self, spec: Spec) -> Cost:
        return costs.rows_cost(SampleSize(6000, 6000 * throughput()["assumed"]["micro_document_tokens"], 0, True))

    def _table_job(self, spec: Spec) -> Cost:
        return costs.table_cost(self.plan.matrix.checkpoints)

    # sizes, each worked out once

    @cached_property
    def _keys(self) -> dict[str, Any]:
        """Whose job an output is: a run's key, or the name of a base, sample, dataset or benchmark."""
        plan = self.plan
        tables: tuple[dict[Any, Spec], ...] = (
            *(plan.datasets, plan.samples, plan.benchmarks, plan.tokenizers, plan.bases, plan.tokens, plan.run_tokens),
            *(plan.perplexity, plan.similarity, plan.contamination),
            *(plan.train, plan.scores, plan.weights, plan.release, plan.likelihoods, plan.embeddings),
        )
        return {spec.output: key for table in tables for key, spec in table.items()}

    @cached_property
    def _benchmarks(self) -> dict[str, tuple[Benchmark, BenchmarkSize]]:
        declared = self.plan.study.benchmarks
        return {
            name: (declared[name], benchmark_size(declared[name], self.results / spec.output))
            for name, spec in self.plan.benchmarks.items()
        }

    @cached_property
    def _known(self) -> dict[str, SampleSize]:
        """Datasets whose rows are counted, declared, or those of a local file."""
        declared = self.plan.study.datasets
        found = {
            name: known_size(declared[name], self.results / spec.output) for name, spec in self.plan.datasets.items()
        }
        return {name: size for name, size in found.items() if size}

    def _rows(self, sample: str) -> SampleSize:
        declared = declared_size(self.plan.study, self.plan.matrix.samples, self._known, sample)
        return counted_rows(self.results / self.plan.samples[sample].output, declared)

    def _model(self, base: str) -> ModelSize:
        if base not in self._models:
            manifest = self.results / self.plan.bases[base].output
            self._models[base] = model_size(self.plan.study.bases[base], manifest)
        return self._models[base]

    def _sample(self, name: str, tokens: Spec) -> SampleSize:
        if tokens.output not in self._sizes:
            length = tokens.identity["max_length"]
            declared = declared_size(self.plan.study, self.plan.matrix.samples, self._known, name, length)
            self._sizes[tokens.output] = sample_size(self.results / tokens.output, declared)
        return self._sizes[tokens.output]

    def _on(self, model: ModelSize) -> Device:
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
