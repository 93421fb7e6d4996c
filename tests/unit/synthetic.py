"""Tables of an invented study with a planted effect: what the analysis has to find again, and the report to show."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from sft_atlas.analysis import tables

BASES = ("olmo", "llama", "mistral", "gemma", "qwen", "yi", "swallow", "sarashina", "llm-jp", "breeze", "falcon", "phi")
DATASETS = (
    "alpaca",
    "lima",
    "chat",
    "code",
    "evol",
    "maths",
    "proofs",
    "flan-qa",
    "flan-logic",
    "flan-read",
    "jp",
    "zh",
)
BENCHMARKS = (
    "instructions",
    "boolq",
    "dialogue",
    "humaneval",
    "mbpp",
    "gsm8k",
    "math",
    "nq",
    "arc",
    "squad",
    "jmmlu",
    "cmmlu",
    "mmlu",
    "hellaswag",
    "truthful",
    "winogrande",
    "piqa",
    "trivia",
    "drop",
    "bbh",
)


@dataclass(frozen=True)
class Study:
    """How large the invented study is, and what is true in it."""

    bases: int = 4
    datasets: int = 6
    benchmarks: int = 8
    recipes: tuple[str, ...] = ("full", "lora")
    sizes: tuple[int, ...] = (300, 1000)
    seeds: tuple[int, ...] = (0, 1)
    mixture: bool = True
    matched: float = 0.12
    """Added to the gain where the dataset trains what the benchmark tests."""
    slope: float = -0.05
    """Change of gain per unit of log perplexity."""
    noise: float = 0.02
    """Standard deviation of gain over base x dataset x benchmark."""
    seed_noise: float = 0.01
    lora: float = -0.02
    """Added to the gain under LoRA."""
    layer_effect: float = 1.0
    """How strongly the change of layers near depth 0.6 follows the gain."""
    layers: int = 6
    items: int = 200
    texts: int = 30
    embedded: bool = True
    """Whether the study has an embedding model, by which similarity is that of wording and noise."""
    seed: int = 0


def tables_of(study: Study) -> dict[str, pl.DataFrame]:
    """All input tables of the invented study."""
    return _Draw(study).tables()


class _Draw:
    """One draw of all tables."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.rng = np.random.default_rng(study.seed)
        self.bases = BASES[: study.bases]
        self.datasets = DATASETS[: study.datasets] + (("all",) if study.mixture else ())
        self.benchmarks = BENCHMARKS[: study.benchmarks]
        shape = (len(self.bases), len(self.datasets))
        level = self.rng.uniform(0.8, 3.0, len(self.datasets))
        self.log_perplexity = level + self.rng.normal(0, 0.5, shape)
        self.similarity = self.rng.uniform(0.02, 0.3, (len(self.datasets), len(self.benchmarks)))
        self.meaning = self.similarity + np.random.default_rng(study.seed + 2000).normal(0, 0.05, self.similarity.shape)
        self.tokens = self.rng.integers(40, 400, len(self.datasets))
        self.base_scores = self.rng.uniform(0.25, 0.6, (len(self.bases), len(self.benchmarks)))
        # texts have draws of their own, so that all other numbers are as they were without them
        self.text_rng = np.random.default_rng(study.seed + 1000)
        self.text_levels = self.text_rng.normal(-60, 20, (len(self.bases), study.texts))
        self.cell_noise = self.rng.normal(0, study.noise, (*shape, len(self.benchmarks)))

    def tables(self) -> dict[str, pl.DataFrame]:
        rows: dict[str, list[dict]] = {name: [] for name in tables.INPUTS | tables.RECORDS}
        for b, base in enumerate(self.bases):
            for k, benchmark in enumerate(self.benchmarks):
                score = {"base": base, "epoch": 0, "score": float(self.base_scores[b, k]), "n": self.study.items}
                rows["scores"].append(score | self._measure(benchmark) | {"stderr": 0.03})
            self._texts(rows, b, {"base": base, "epoch": 0}, {}, 0.0)
            for d, dataset in enumerate(self.datasets):
                for size in self.study.sizes if dataset != "all" else self.study.sizes[:1]:
                    self._sample(rows, b, d, base, dataset, size)
        rows["missing"].append({"base": self.bases[0], "sample": "lost-300", "recipe": "full", "seed": 0, "epoch": 3})
        rows["missing"][-1]["reason"] = "out of memory <while loading> & stopped"
        return {name: tables.build(name, part) for name, part in rows.items()}

    def _measure(self, benchmark: str) -> dict:
        return {"benchmark": benchmark, "shots": 0, "metric": "exact_match"}

    def _sample(self, rows: dict[str, list[dict]], b: int, d: int, base: str, dataset: str, size: int) -> None:
        used = size * (len(self.datasets) - 1) if dataset == "all" else size
        sample = dataset if dataset == "all" else f"{dataset}-{size}"
        mean = float(self.tokens[d])
        perplexity = float(np.exp(self.log_perplexity[b, d]))
        rows["samples"].append(
            {"base": base, "sample": sample, "rows": used, "tokens": int(mean * used), "truncated": 2}
            | {"trained_tokens": int(mean * used / 2), "mean_tokens": mean, "mean_completion_tokens": mean / 2}
            | {"left_out": 3, "left_out_by_reason": "duplicate 2, empty 1"}
            | {"shortened": 5, "shortened_by_reason": "later_turns 5"}
        )
        for k, benchmark in enumerate(self.benchmarks):
            rows["predictors"].append(
                {"base": base, "sample": sample, "benchmark": benchmark, "dataset": dataset, "size": used}
                | {"perplexity": perplexity, "perplexity_stderr": perplexity * 0.02, "mean_tokens": mean}
                | {"perplexity_full": perplexity * 1.4, "perplexity_full_stderr": perplexity * 0.03}
                | {"mean_completion_tokens": mean / 2, "similarity": float(self.similarity[d, k])}
                | ({"embedding_similarity": float(self.meaning[d, k])} if self.study.embedded else {})
            )
        for recipe in self.study.recipes:
            for seed in self.study.seeds if size == self.study.sizes[0] else self.study.seeds[:1]:
                key = {"base": base, "sample": sample, "recipe": recipe, "seed": seed}
                about = {"dataset": dataset, "size": used, "method": recipe, "schedule": "cosine", "block": "single"}
                self._run(rows, b, d, key, about, 0.0 if size == self.study.sizes[0] else 0.01)

    def _run(self, rows: dict[str, list[dict]], b: int, d: int, key: dict, about: dict, bonus: float) -> None:
        study = self.study
        shift = study.slope * (self.log_perplexity[b, d] - 2) + (study.lora if about["method"] == "lora" else 0) + bonus
        gains = []
        for k, benchmark in enumerate(self.benchmarks):
            matched = k == d
            noise = self.cell_noise[b, d, k] + self.rng.normal(0, study.seed_noise)
            gain = float(shift + matched * study.matched + noise)
            before = float(self.base_scores[b, k])
            gains.append(gain)
            for epoch, share in ((1, 0.5), (3, 1.0)):
                cell = key | {"epoch": epoch} | self._measure(benchmark) | about | {"n": study.items}
                rows["gains"].append(
                    cell
                    | {"gain": gain * share, "stderr": 0.02, "score": before + gain * share}
                    | {"base_score": before, "matched": matched}
                )
                rows["scores"].append(cell | {"score": before + gain * share, "stderr": 0.03})
        steps = about["size"] * 3 // 32
        rows["training"].append(
            key
            | {"run": f"{len(rows['training']):08x}", "epochs": 3, "steps": steps, "tokens": steps * 1000}
            | {"final_loss": 1.5, "method": about["method"]}
        )
        for point in range(1, 13):
            loss = 1.5 + 1.5 / point + 0.1 * b
            step = {"step": point * max(1, steps // 12), "epoch": point / 4, "loss": loss, "grad_norm": 0.8}
            rows["curves"].append(key | about | step | {"learning_rate": 1e-5 * (1 - point / 13)})
        rows["cost"].append(
            key
            | {"stage": "train", "output": f"runs/{len(rows['cost']):04}/train.json", "wall_seconds": 12.5}
            | {"cpu_seconds": 20.0, "gpu_seconds": 12.5, "peak_memory_mb": 900.0}
        )
        self._layers(rows, b, key, about, float(np.mean(gains)))
        for epoch in (1, 3):
            self._texts(rows, b, key | {"epoch": epoch}, about, 1.0)

    def _texts(self, rows: dict[str, list[dict]], b: int, cell: dict, about: dict, shift: float) -> None:
        """Log-likelihoods near the base's, and dimensions that part from it above depth 0.5."""
        values = self.text_levels[b] + shift * self.text_rng.normal(0, 3, self.study.texts)
        for text, value in enumerate(values):
            named = {"benchmark": self.benchmarks[0], "item": f"{text}", "tokens": 20}
            rows["likelihoods"].append(cell | named | {"log_likelihood": float(value)})
        count = self.study.layers + b % 2
        for layer in range(count):
            depth = layer / (count - 1)
            dimension = 8 + 4 * depth + shift * (depth > 0.5) + 0.1 * float(self.text_rng.normal())
            found = {"dimension": dimension, "stderr": 0.5, "texts": self.study.texts}
            rows["dimensions"].append(cell | about | {"layer": layer, "depth": depth} | found)

    def _layers(self, rows: dict[str, list[dict]], b: int, key: dict, about: dict, gain: float) -> None:
        count = self.study.layers + b % 2
        scale = 0.3 if about["method"] == "lora" else 1.0
        for layer in range(count):
            depth = layer / (count - 1)
            follow = self.study.layer_effect * gain * np.exp(-(((depth - 0.6) / 0.2) ** 2))
            relative = float(scale * (0.01 + 0.01 * depth) * np.exp(follow + self.rng.normal(0, 0.05)))
            for module in ("all", "attention", "mlp", "norm"):
                cell = key | {"epoch": 3, "layer": layer, "depth": depth, "module": module} | about
                change = {"norm": relative * 20, "base_norm": 20.0, "relative": relative}
                rows["layers"].append(cell | change | {"cosine_distance": relative**2 / 2})
