"""What a study asks for that cannot work, decided while planning: no job has to fail for it.

Checked is what is known by then: generated bases, datasets and benchmarks, and the config.json of a local base. Of what
lies on the hub nothing is known here; `sft-atlas preflight` asks there.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sft_atlas.errors import StudyError
from sft_atlas.study.config import Config
from sft_atlas.study.load import unknown
from sft_atlas.study.model import Base, Benchmark, Study
from sft_atlas.study.patterns import select

if TYPE_CHECKING:
    from sft_atlas.study.matrix import Matrix

# architectures whose layers transformers names alike
ALIKE = ("llama", "mistral", "qwen2", "qwen3", "olmo", "olmo2", "gemma", "gemma2")
ATTENTION = tuple(f"self_attn.{name}_proj" for name in "qkvo")
FEED_FORWARD = tuple(f"mlp.{name}_proj" for name in ("gate", "up", "down"))
# folders in which results have no place: the project's, and those of the folder in which Snakemake runs
ROOMS = ("workflow", "rules", "studies", "tests", "profiles", "local", "slurm", "envs", "docs", "benchmarks", ".git")
WORKING = (".snakemake", ".venv", "logs")


@dataclass(frozen=True)
class Known:
    """What is known of a base's network before it is there; None where it is not."""

    positions: int | None = None
    width: int | None = None
    modules: tuple[str, ...] | None = None


class Problem(NamedTuple):
    """What is wrong at a key, and the bound that it breaks."""

    key: str
    bound: int
    text: str


def check_study(study: Study, matrix: "Matrix", path: Path) -> None:
    """Refuse what can be told to fail, or to mean less than it says, from the declaration alone.

    Raises:
        StudyError: a line for each problem: key, what was found, what would do.
    """
    bases = {name: known(study.bases[name]) for name in dict.fromkeys(key.base for key in matrix.runs)}
    problems = [
        *_sizes(study, matrix),
        *_warm_ups(study, matrix),
        *_recipes(study, matrix, bases),
        *_neighbours(study),
        *_answers(study, bases),
    ]
    # of one key only the tightest bound, so that it has to be mended once
    worst: dict[str, Problem] = {}
    for problem in sorted(problems, key=lambda problem: problem.bound):
        worst.setdefault(problem.key, problem)
    if worst:
        raise StudyError("\n".join(f"{path}: {problem.key}: {problem.text}" for problem in worst.values()))


def check_places(config: Config, root: Path) -> None:
    """Refuse a results folder among the project's own files, or one that holds the project or the working folder.

    Raises:
        StudyError: says where the results would lie.
    """
    results, here = Path(config.results).resolve(), Path.cwd().resolve()
    rooms = [*(root.resolve() / room for room in ROOMS), *(here / room for room in WORKING)]
    holds = next((place for place in (here, root.resolve()) if place.is_relative_to(results)), None)
    within = next((room for room in rooms if results.is_relative_to(room)), None)
    if holds or within:
        what = f"the folder {holds} is that or lies in it" if holds else f"{within} holds other things"
        raise StudyError(
            f"config.yaml: results: found {config.results!r}, but {what}; give a folder of its own, such as `results`"
        )


def known(base: Base) -> Known:
    """Positions, width and module names of a generated base, or of a local one by its config.json."""
    if base.micro:
        micro = base.micro
        return Known(micro.positions, micro.hidden_size, _modules(micro.architecture, micro.layers))
    config = _read(Path(base.path, "config.json")) if base.path else {}
    layers, kind = config.get("num_hidden_layers"), config.get("model_type")
    positions, width = (_count(config.get(name)) for name in ("max_position_embeddings", "hidden_size"))
    return Known(positions, width, _modules(kind, layers) if kind in ALIKE and isinstance(layers, int) else None)


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        # the base's own stage says what is wrong with it
        return {}
    return content if isinstance(content, dict) else {}


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and value > 0 else None


def _modules(kind: str, layers: int) -> tuple[str, ...]:
    """The modules of a model that an adapter can stand beside, as transformers names them."""
    inner = [f"model.layers.{layer}.{name}" for layer in range(layers) for name in (*ATTENTION, *FEED_FORWARD)]
    return ("model.embed_tokens", *inner, "lm_head")


def _sizes(study: Study, matrix: "Matrix") -> Iterator[Problem]:
    for name in _drawn(matrix):
        sample = matrix.samples[name]
        for dataset in sample.datasets:
            micro, size = study.datasets[dataset].micro, sample.declared.size
            if micro and size and size > micro.rows and sample.declared.shortfall == "error":
                key = next(key for key, declared in study.samples.items() if declared is sample.declared)
                yield Problem(
                    f"samples.{key}.size",
                    micro.rows,
                    f"found {size}, but dataset {dataset!r} has {micro.rows} rows; lower it, raise "
                    f"datasets.{dataset}.micro.rows, or say `shortfall: take_all`",
                )


def _drawn(matrix: "Matrix") -> list[str]:
    """The samples of datasets that runs use, by themselves or in a mixture."""
    used = dict.fromkeys(key.sample for key in matrix.runs)
    return list(dict.fromkeys(part for name in used for part in (matrix.samples[name].parts or (name,))))


def _warm_ups(study: Study, matrix: "Matrix") -> Iterator[Problem]:
    for key, run in matrix.runs.items():
        recipe, rows = study.recipes[key.recipe], _most_rows(study, matrix, key.sample)
        # under a constant schedule a run is as long as its last kept epoch
        epochs = max(run.epochs) if recipe.schedule == "constant" else recipe.epochs
        if rows and recipe.warmup_steps > (steps := epochs * ceil(rows / recipe.batch_size)):
            yield Problem(
                f"recipes.{key.recipe}.warmup_steps",
                steps,
                f"found {recipe.warmup_steps}, but on sample {key.sample!r} a run has at most {steps} steps ({rows} "
                f"rows in steps of {recipe.batch_size}, {epochs} epochs) and would never reach its rate; lower it",
            )


def _most_rows(study: Study, matrix: "Matrix", name: str) -> int | None:
    """The rows that a sample has at most, or None where a source is not known."""
    total = 0
    for part in matrix.samples[name].parts or (name,):
        size = matrix.samples[part].declared.size
        for dataset in matrix.samples[part].datasets:
            micro = study.datasets[dataset].micro
            bounds = [bound for bound in (size, micro.rows if micro else None) if bound]
            if not bounds:
                return None
            total += min(bounds)
    return total


def _recipes(study: Study, matrix: "Matrix", bases: dict[str, Known]) -> Iterator[Problem]:
    for name, base in dict.fromkeys((key.recipe, key.base) for key in matrix.runs):
        recipe, facts = study.recipes[name], bases[base]
        if facts.positions and recipe.max_length > facts.positions:
            yield Problem(
                f"recipes.{name}.max_length",
                facts.positions,
                f"found {recipe.max_length}, but base {base!r} has {facts.positions} positions; lower it to "
                f"{facts.positions}, or take another base",
            )
        adapter = recipe.adapter
        if adapter and facts.width and adapter.rank > facts.width:
            yield Problem(
                f"recipes.{name}.lora.rank",
                facts.width,
                f"found {adapter.rank}, but base {base!r} is {facts.width} wide, and no change of its weights has a "
                "higher rank; lower it",
            )
        targets = adapter.targets if adapter and isinstance(adapter.targets, list) else []
        for index, target in enumerate(targets):
            if facts.modules and not any(f".{module}".endswith(f".{target}") for module in facts.modules):
                short = {module.rpartition(".")[2] for module in facts.modules}
                text = f"of base {base!r}, {unknown('module', target, short)}"
                yield Problem(f"recipes.{name}.lora.targets[{index}]", 0, text)


def _neighbours(study: Study) -> Iterator[Problem]:
    options = study.likelihoods
    if options is None:
        return
    names = select(options.benchmarks or ["*"], study.benchmarks, "benchmark", "likelihoods.benchmarks")
    texts = sum(min(options.texts, _items(study.benchmarks[name]) or options.texts) for name in names)
    if (needed := 2 * options.neighbour + 2) > texts:
        yield Problem(
            "likelihoods.neighbour",
            texts,
            f"found {options.neighbour}, whose distances need {needed} texts at least, but of {len(names)} benchmarks "
            f"at most {texts} are drawn; lower it, or raise `texts`",
        )


def _items(benchmark: Benchmark) -> int | None:
    """The items that a benchmark has at most, if that is known."""
    bounds = [bound for bound in (benchmark.limit, benchmark.micro.items if benchmark.micro else None) if bound]
    return min(bounds, default=None)


def _answers(study: Study, bases: dict[str, Known]) -> Iterator[Problem]:
    """Answers that leave no room for a question; only where the length of answers is said, since choices have none."""
    for name, benchmark in study.benchmarks.items():
        if "max_tokens" not in benchmark.model_fields_set:
            continue
        for base, facts in bases.items():
            room = min(study.evaluation.max_length, facts.positions or study.evaluation.max_length)
            if benchmark.max_tokens >= room:
                yield Problem(
                    f"benchmarks.{name}.max_tokens",
                    room,
                    f"found {benchmark.max_tokens}, but under base {base!r} question and answer have {room} tokens "
                    "together (evaluation.max_length, and at most the base's positions); lower it",
                )
