"""What a job costs: seconds, memory and disk as formulas over sizes and the speeds of throughput.yaml.

A stage's own formula stands in its folder (`cost.py`); here is what they share.

Symbols: N weights, T tokens, C = flops · share the arithmetic a device really does in a second, B = bytes_per_second of
its memory. A forward pass of one token takes 2 N operations and training 6 N (Kaplan et al. 2020, arXiv 2001.08361,
section 2.1); with a frozen base, whose weights need no gradients, 4 N. Recomputed activations are left out, as in the
published shares of peak that `train_share` comes from.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

from sft_atlas.cost.sizes import BYTES_PER_TOKEN, SampleSize, throughput

Device = Literal["gpu", "cpu"]
BYTES = {"fp32": 4, "bf16": 2, "pure_bf16": 2}
GPUS_TOGETHER = (1, 2, 4, 8)
MB = 1e6
# its specification, its record and its output
OF_A_JOB = 3
# config, generation config, and a tokenizer of two files beside the weights
OF_A_MODEL = 4
# Parquet and CSV of ten tables, of about fifty that the study's own stages write together, and figures
OF_TABLES = 25
# transformers writes weights in pieces of so many bytes at most
SHARD = 50e9


@dataclass(frozen=True)
class Cost:
    """What one job takes: wall seconds on its device, memory on host and GPU in MB, bytes that stay on disk.

    `weights` is the part of `disk` that holds fine-tuned weights, and `merged` what they would take with every adapter
    merged into a model of its own; `exact` says that every size behind the numbers was counted, not estimated;
    `together` is the number of GPUs that share the job, each with `gpu_mem_mb`; `files` counts what it leaves below the
    results folder, since many sites have a quota of them.
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
    files: int = OF_A_JOB

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


def rows_cost(size: SampleSize, compared: int = 0, fetched: bool = False) -> Cost:
    """Reading, filtering and writing rows of text, 4 bytes a token, after fetching them; or comparing with benchmarks.

    Text in Python takes about ten times its bytes, and its n-grams five times that.
    """
    host, text = throughput()["host"], BYTES_PER_TOKEN * size.tokens
    seconds = throughput()["cpu"]["start_seconds"] + size.rows / host["rows_per_second"]
    seconds += size.rows * compared / host["compared_per_second"]
    seconds += text / throughput()["disk"]["download"] if fetched else 0
    memory = host_memory("cpu") + text * (50 if compared else 10) / MB
    return Cost(seconds, mem_mb=memory, disk=0 if compared else text, exact=size.exact, files=OF_A_JOB + 1)


def model_files(size: float) -> int:
    """Files of a saved model with so many bytes of weights; several pieces of weights have an index."""
    pieces = max(1, math.ceil(size / SHARD))
    return OF_A_MODEL + pieces + (1 if pieces > 1 else 0)


def table_cost(cells: int) -> Cost:
    """Collecting, analysing or reporting a study of so many cells."""
    seconds = throughput()["cpu"]["start_seconds"] + cells * throughput()["host"]["seconds_per_cell"]
    return Cost(seconds, mem_mb=host_memory("cpu") + 2 * cells, disk=2 * MB + 2e4 * cells, files=OF_A_JOB + OF_TABLES)


def placed(on: Device, seconds: float, memory: float, loading: float, **rest: Any) -> Cost:
    """A job that runs a model: its memory is the GPU's, with the host's while loading; or all of it is the host's."""
    speed = throughput()[on]
    if on == "gpu":
        return Cost(seconds, on, host_memory(on) + loading / MB, speed["gpu_process_mb"] + memory / MB, **rest)
    return Cost(seconds, on, host_memory(on) + max(memory, loading) / MB, **rest)


def rate_of(on: Device, share: str) -> float:
    """Operations a second that a device really does, by the share of its peak."""
    return float(throughput()[on]["flops"] * throughput()[on][share])


def host_memory(on: Device) -> float:
    """MB of the host that a process takes before it has loaded anything."""
    return float(throughput()[on]["process_mb"])


def read_seconds(size: float) -> float:
    """Seconds that reading so many bytes takes."""
    return float(size / throughput()["disk"]["read"])
