"""From a study's declaration to its cells: samples by name, then base × sample × recipe × seed × epoch."""

from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from sft_atlas.errors import StudyError
from sft_atlas.nodes import RunKey
from sft_atlas.study.checks import check_study
from sft_atlas.study.model import DATASET_PLACEHOLDER, NAME, Block, Cells, Match, Sample, Study
from sft_atlas.study.patterns import select

MAX_CELLS = 1_000_000


@dataclass(frozen=True)
class ExpandedSample:
    """A sample after `{dataset}` and patterns are resolved: draws of datasets, or parts that are such samples."""

    name: str
    declared: Sample
    datasets: tuple[str, ...]
    parts: tuple[str, ...] = ()
    held_out: str | None = None
    whole: str | None = None
    """The sample that `held_out` was left out of, if the study has it."""

    @property
    def dataset(self) -> str:
        """The dataset it stands for in tables: its only one, or the mixture's own name."""
        return self.datasets[0] if len(self.datasets) == 1 else self.name


@dataclass
class Run:
    """A run and the epochs the study keeps of it, each with the blocks that ask for it."""

    key: RunKey
    epochs: dict[int, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Matrix:
    """Every cell of a study: the runs to make, and the cells known to fail with their reasons."""

    samples: dict[str, ExpandedSample]
    runs: dict[RunKey, Run]
    missing: dict[tuple[RunKey, int], str]
    subsets: dict[str, set[tuple[RunKey, int]]] = field(default_factory=dict)

    @property
    def checkpoints(self) -> int:
        """How many fine-tuned models the study keeps."""
        return sum(len(run.epochs) for run in self.runs.values())


def expand(study: Study, path: Path) -> Matrix:
    """Resolve names and patterns, multiply the blocks, and check what only the whole study can tell.

    Raises:
        StudyError: an unknown name, an empty product, a duplicate, an impossible combination, an absent source; names
            its place.
    """
    _refuse_twins(study, path)
    _refuse_absent(study, path)
    if study.likelihoods and study.likelihoods.benchmarks:
        select(study.likelihoods.benchmarks, study.benchmarks, "benchmark", f"{path}: likelihoods.benchmarks")
    if study.selection:
        select(study.selection.benchmarks, study.benchmarks, "benchmark", f"{path}: selection.benchmarks")
    samples = _expand_samples(study, path)
    runs: dict[RunKey, Run] = {}
    missing: dict[tuple[RunKey, int], str] = {}
    for name, block in study.blocks.items():
        where = f"{path}: blocks.{name}"
        cells = _block_cells(study, samples, block, where)
        for index, expected in enumerate(block.expected_missing):
            for cell in _matching(cells, expected, study, samples, f"{where}.expected_missing[{index}]"):
                missing[cell] = expected.reason
        for cell in cells:
            if cell not in missing:
                key, epoch = cell
                runs.setdefault(key, Run(key)).epochs.setdefault(epoch, []).append(name)
    for cell in [cell for cell in missing if cell[0] in runs and cell[1] in runs[cell[0]].epochs]:
        del missing[cell]
    if not runs:
        raise StudyError(f"{path}: blocks: no cell is left to run; every one is excluded or expected to be missing")
    for run in runs.values():
        run.epochs = dict(sorted(run.epochs.items()))
    everything = [(key, epoch) for key, run in runs.items() for epoch in run.epochs] + list(missing)
    subsets = {}
    for name, subset in study.subsets.items():
        where = f"{path}: subsets.{name}.all_but"
        absent = {
            cell
            for index, match in enumerate(subset.all_but)
            for cell in _matching(everything, match, study, samples, f"{where}[{index}]")
        }
        if len(absent) == len(everything):
            raise StudyError(f"{where}: no cell is left; every one is excepted")
        subsets[name] = set(everything) - absent
    matrix = Matrix(samples, dict(sorted(runs.items())), missing, subsets)
    check_study(study, matrix, path)
    return matrix


def _refuse_twins(study: Study, path: Path) -> None:
    labels = {
        "bases": {"family", "language", "parameters"},
        "datasets": {"expected_tokens"},
        "recipes": {"keep"},
        "benchmarks": {"matches", "chance", "translation_of", "expected_items", "expected_tokens"},
    }
    for section in ("bases", "datasets", "recipes", "benchmarks"):
        seen: dict[str, str] = {}
        for name, declared in getattr(study, section).items():
            content = declared.model_dump_json(exclude=labels.get(section))
            if content in seen:
                raise StudyError(f"{path}: {section}.{name}: declares the same as {section}.{seen[content]}; drop one")
            seen[content] = name


def _refuse_absent(study: Study, path: Path) -> None:
    bases = {f"bases.{name}.path": base.path for name, base in study.bases.items()}
    if study.similarity.embedding:
        bases["similarity.embedding.path"] = study.similarity.embedding.path
    files = {f"datasets.{name}.path": dataset.path for name, dataset in study.datasets.items()}
    for name, benchmark in study.benchmarks.items():
        files |= {f"benchmarks.{name}.path": benchmark.path, f"benchmarks.{name}.shots_path": benchmark.shots_path}
    for where, source in (bases | files).items():
        if source is None or (Path(source, "config.json") if where in bases else Path(source)).is_file():
            continue
        expected = "the folder of a transformers model, with config.json" if where in bases else "a file"
        here = f"paths start at the working folder, {Path.cwd()}"
        raise StudyError(f"{path}: {where}: {source!r} is not {expected}; {here}")


def _expand_samples(study: Study, path: Path) -> dict[str, ExpandedSample]:
    expanded: dict[str, ExpandedSample] = {}
    seen: dict[tuple[Any, ...], str] = {}

    def add(sample: ExpandedSample, where: str) -> None:
        if not NAME.fullmatch(sample.name):
            raise StudyError(
                f"{where}: {sample.name!r} is no valid name; use letters, digits and . _ - + (at most 64), "
                f"and {DATASET_PLACEHOLDER} for one sample per dataset"
            )
        if sample.name in expanded:
            raise StudyError(f"{where}: makes a second sample named {sample.name!r}")
        content = (sample.declared.size, sample.declared.seed, sample.datasets, sample.parts)
        if content in seen:
            raise StudyError(f"{where}: {sample.name!r} declares the same as samples.{seen[content]}; drop one")
        expanded[sample.name], seen[content] = sample, sample.name

    for name, declared in study.samples.items():
        where = f"{path}: samples.{name}"
        if declared.datasets is None:
            continue
        drawn = select(declared.datasets, study.datasets, "dataset", f"{where}.datasets")
        if DATASET_PLACEHOLDER in name:
            for dataset in drawn:
                add(ExpandedSample(name.replace(DATASET_PLACEHOLDER, dataset), declared, (dataset,)), where)
        else:
            add(ExpandedSample(name, declared, tuple(drawn)), where)
    singles = dict(expanded)
    left_out_of: dict[str, tuple[str, ...]] = {}
    for name, declared in study.samples.items():
        where = f"{path}: samples.{name}"
        if declared.mix is None:
            continue
        if clash := [part for part in declared.mix if part in study.samples and study.samples[part].mix]:
            raise StudyError(f"{where}.mix: {clash[0]!r} is a mixture itself; name the samples it is made of")
        parts = select(declared.mix, singles, "sample", f"{where}.mix")
        if declared.leave_out is None:
            if DATASET_PLACEHOLDER in name:
                raise StudyError(f"{where}: {DATASET_PLACEHOLDER} in the name of a mixture needs `leave_out`")
            add(_mixture(name, declared, parts, singles, None), where)
            continue
        if DATASET_PLACEHOLDER not in name:
            raise StudyError(
                f"{where}: `leave_out` makes one sample for each dataset: put {DATASET_PLACEHOLDER} in the name"
            )
        for dataset in select(declared.leave_out, study.datasets, "dataset", f"{where}.leave_out"):
            rest = [part for part in parts if dataset not in singles[part].datasets]
            if not rest or len(rest) == len(parts):
                problem = "nothing is left" if not rest else "it is not in the mixture"
                raise StudyError(f"{where}.leave_out: without {dataset!r}: {problem}")
            without = _mixture(name.replace(DATASET_PLACEHOLDER, dataset), declared, rest, singles, dataset)
            add(without, where)
            left_out_of[without.name] = tuple(parts)
    wholes = {sample.parts: name for name, sample in expanded.items() if sample.parts and sample.held_out is None}
    for name, mixed in left_out_of.items():
        expanded[name] = replace(expanded[name], whole=wholes.get(mixed))
    return expanded


def _mixture(
    name: str, declared: Sample, parts: list[str], singles: dict[str, ExpandedSample], held_out: str | None
) -> ExpandedSample:
    datasets = tuple(dict.fromkeys(dataset for part in parts for dataset in singles[part].datasets))
    return ExpandedSample(name, declared, datasets, tuple(parts), held_out)


Cell = tuple[RunKey, int]


def _block_cells(study: Study, samples: dict[str, ExpandedSample], block: Block, where: str) -> list[Cell]:
    cells = _product(study, samples, block, where)
    for index, exception in enumerate(block.exclude):
        dropped = set(_matching(cells, exception, study, samples, f"{where}.exclude[{index}]"))
        cells = [cell for cell in cells if cell not in dropped]
    for index, further in enumerate(block.include):
        extra = _product(study, samples, further, f"{where}.include[{index}]")
        if twice := set(cells) & set(extra):
            key, epoch = min(twice)
            raise StudyError(
                f"{where}.include[{index}]: {key.base} × {key.sample} × {key.recipe}, seed {key.seed}, "
                f"epoch {epoch} is in the block already"
            )
        cells += extra
    if not cells:
        raise StudyError(f"{where}: the product is empty: every cell is excluded")
    return cells


def _product(study: Study, samples: dict[str, ExpandedSample], cells: Block | Cells, where: str) -> list[Cell]:
    bases = select(cells.bases, study.bases, "base", f"{where}.bases")
    drawn = select(cells.samples, samples, "sample", f"{where}.samples")
    recipes = select(cells.recipes, study.recipes, "recipe", f"{where}.recipes")
    seeds = cells.seeds or study.seeds
    kept = {}
    for name in recipes:
        recipe = study.recipes[name]
        kept[name] = cells.epochs or recipe.keep or [recipe.epochs]
        if max(kept[name]) > recipe.epochs:
            raise StudyError(f"{where}.epochs: asks for epoch {max(kept[name])}; recipe {name!r} has {recipe.epochs}")
    count = len(bases) * len(drawn) * len(seeds) * sum(len(epochs) for epochs in kept.values())
    if count > MAX_CELLS:
        raise StudyError(f"{where}: the product has {count} cells; at most {MAX_CELLS} can be planned")
    return [
        (RunKey(base, sample, recipe, seed), epoch)
        for base, sample, recipe, seed in product(bases, drawn, recipes, seeds)
        for epoch in kept[recipe]
    ]


def _matching(
    cells: list[Cell], match: Match, study: Study, samples: dict[str, ExpandedSample], where: str
) -> list[Cell]:
    bases = set(select(match.base or ["*"], study.bases, "base", f"{where}.base"))
    drawn = set(select(match.sample or ["*"], samples, "sample", f"{where}.sample"))
    recipes = set(select(match.recipe or ["*"], study.recipes, "recipe", f"{where}.recipe"))
    found = [
        (key, epoch)
        for key, epoch in cells
        if key.base in bases
        and key.sample in drawn
        and key.recipe in recipes
        and (match.seed is None or key.seed in match.seed)
        and (match.epoch is None or epoch in match.epoch)
    ]
    if not found:
        raise StudyError(f"{where}: matches no cell of the block; correct it or drop it")
    return found
