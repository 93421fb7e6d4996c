"""A study whose scores come from a table: its declaration, and the plan of its few jobs."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from sft_atlas.errors import StudyError
from sft_atlas.fields import Plain, Strict, Text, data_file, exactly_one, matching
from sft_atlas.hashing import sha256
from sft_atlas.study.analyses import AnalysisOptions
from sft_atlas.study.build import build_plan
from sft_atlas.study.config import Config
from sft_atlas.study.load import load_study, read_yaml, study_path, unknown, validate
from sft_atlas.study.matrix import Matrix, expand
from sft_atlas.study.model import Study
from sft_atlas.study.plan import Plan

Sha256 = Annotated[str, matching(r"[0-9a-f]{64}", "64 hex digits")]
TableFile = Annotated[str, data_file(".csv", ".parquet"), Plain]
TableUrl = Annotated[str, matching(r"https?://\S+\.(csv|parquet)", "the http(s) address of a .csv or .parquet file")]


class TableSource(Strict):
    """A results table: exactly one of `path` and `url`."""

    path: TableFile | None = Field(default=None, description="A local file; paths start at the working folder.")
    url: TableUrl | None = Field(default=None, description="Fetched by the workflow; pin it with `sha256`.")
    format: Literal["long", "released"] = Field(
        default="long",
        description="long: a row per cell and benchmark (docs/tables.md); released: the published study's wide CSV.",
    )
    sha256: Sha256 | None = Field(default=None, description="Hash that the content must have.")

    @model_validator(mode="after")
    def _one_source(self) -> "TableSource":
        exactly_one(self, "path", "url")
        return self


class TableBase(Strict):
    """Labels of a base model."""

    family: str | None = Field(default=None, description="Label: model family.")
    language: str | None = Field(default=None, description="Label: main language.")


class TableBenchmark(Strict):
    """What is known about a benchmark of the table; the audit checks scores against it."""

    items: int | None = Field(default=None, ge=1, description="Items; fills `n` where the table has none.")
    groups: int | None = Field(
        default=None, ge=2, description="The score is the plain mean over so many groups (subjects) of items."
    )
    whole: bool = Field(default=True, description="An item scores 0 or 1 (judges: a whole number of points).")
    chance: float | None = Field(default=None, ge=0, le=1, description="Score of guessing.")
    matches: list[str] = Field(default=[], description="Datasets that train what this benchmark tests (a label).")
    translation_of: str | None = Field(
        default=None, description="The benchmark that this one is the counterpart of in another language."
    )


class TableStudy(Strict):
    """A study that trains nothing: a table of scores, and what is known about it."""

    title: str = Field(default="", description="One line for the report.")
    table: TableSource = Field(description="Where the scores are.")
    matrix: Text | None = Field(
        default=None, description="Study (a name in studies/, or a path) whose cells the table should hold."
    )
    bases: dict[str, TableBase] = Field(default={}, description="Labels by base; the matrix's where not given.")
    benchmarks: dict[str, TableBenchmark] = Field(default={}, description="What is known, by benchmark.")
    analyses: AnalysisOptions = Field(default=AnalysisOptions(), description="Options of the analyses.")

    # what the rules ask of every study
    threads: int = Field(default=1, ge=1, le=256, description="CPU threads of each numeric job.")

    @property
    def blocks(self) -> dict[str, Any]:
        """No block is run."""
        return {}


@dataclass
class TablePlan(Plan):
    """The plan of a table study: import, analysis and report."""

    table: TableStudy = field(kw_only=True)
    declared: Plan | None = field(default=None, kw_only=True)

    def summary(self) -> str:
        """One line for the start of a run."""
        source = self.table.table
        cells = f"{self.declared.matrix.checkpoints} cells declared" if self.declared else "no matrix declared"
        return f"study {self.name}: scores from {source.path or source.url}, nothing to train; {cells}"

    def narrowed(self, only: str) -> "Plan":
        """A table is taken whole.

        Raises:
            StudyError: something is to be left out.
        """
        if only:
            raise StudyError("config.yaml: only: a study with a table has no jobs to narrow; drop it")
        return self

    def labels(self) -> dict[str, Any]:
        """What the analysis knows beside the tables."""
        known = self.declared.labels() if self.declared else {"bases": {}, "benchmarks": {}}
        bases = {name: label.model_dump() for name, label in self.table.bases.items()}
        benchmarks = dict(known["benchmarks"])
        for name, label in self.table.benchmarks.items():
            given = label.model_dump(exclude_unset=True)
            benchmarks[name] = TableBenchmark().model_dump() | benchmarks.get(name, {}) | given
        return {**known, "bases": known["bases"] | bases, "benchmarks": benchmarks}

    @property
    def imported(self) -> tuple[dict[str, Any], tuple[str, ...]]:
        """The table of scores and what is known about it, and its file."""
        source = self.table.table
        identity = {
            "source": {"sha256": source.sha256, "url": source.url, "path": source.path, "format": source.format},
            "labels": self.labels()["benchmarks"],
            "declared": declared_cells(self.declared) if self.declared else [],
            "named": self._named(),
        }
        return identity, (source.path,) if source.path else ()

    def _named(self) -> dict[str, dict[str, str]]:
        """Names that only the table can have, not the matrix, by column; each under its key in the study."""
        known = self.declared.study if self.declared else None
        bases, benchmarks = (known.bases, known.benchmarks) if known else ({}, {})
        matched = {
            f"benchmarks.{name}.matches[{index}]": dataset
            for name, label in self.table.benchmarks.items()
            for index, dataset in enumerate(label.matches)
        }
        return {
            "base": {f"bases.{name}": name for name in self.table.bases if name not in bases},
            "benchmark": {f"benchmarks.{name}": name for name in self.table.benchmarks if name not in benchmarks},
            # those of a matrix are looked up when the study is read
            "dataset": {} if known else matched,
        }


def declared_cells(plan: Plan) -> list[dict[str, Any]]:
    """Every cell of a matrix, bases first, with its description and the reason if it is expected to be missing."""
    study, matrix = plan.study, plan.matrix
    cells: list[dict[str, Any]] = [{"base": base, "epoch": 0} for base in study.bases]
    asked = [
        ((run.key, epoch), ",".join(blocks)) for run in matrix.runs.values() for epoch, blocks in run.epochs.items()
    ]
    for (key, epoch), block in [*asked, *((cell, None) for cell in matrix.missing)]:
        sample, recipe = matrix.samples[key.sample], study.recipes[key.recipe]
        cells.append(
            {
                **{name: getattr(key, name) for name in ("base", "sample", "recipe", "seed")},
                "epoch": epoch,
                "dataset": sample.dataset,
                "held_out": sample.held_out,
                "method": recipe.method,
                "schedule": recipe.schedule,
                "block": block,
                "reason": matrix.missing.get((key, epoch)),
            }
        )
    return cells


def plan_study(path: Path, root: Path, results: Path | None = None) -> Plan:
    """Read any study file and plan its jobs, those of a matrix or those of a table, beside the results there are.

    Raises:
        StudyError: the file, or the study that it refers to, cannot be used.
    """
    declared = read_yaml(path)
    if not isinstance(declared, dict) or "table" not in declared:
        return _plan_matrix(path, results)
    _refuse_both(declared, path)
    table = validate(TableStudy, declared, path)
    _refuse_absent(table, path)
    matrix = None
    if table.matrix:
        try:
            other = study_path(Config(study=table.matrix), root)
        except StudyError as error:
            # that study is no key of config.yaml
            raise StudyError(f"{path}: matrix: {str(error).removeprefix('config.yaml: study: ')}") from None
        matrix = _plan_matrix(other, None)
        for name, label in table.benchmarks.items():
            for index, dataset in enumerate(label.matches):
                if dataset not in matrix.study.datasets:
                    known = unknown("dataset", dataset, matrix.study.datasets)
                    raise StudyError(f"{path}: benchmarks.{name}.matches[{index}]: {known}")
    plain = Study.model_construct(
        title=table.title,
        analyses=table.analyses,
        bases=matrix.study.bases if matrix else {},
        datasets=matrix.study.datasets if matrix else {},
        benchmarks={},
        blocks={},
        recipes={},
        samples={},
        threads=table.threads,
    )
    return TablePlan(plain, Matrix({}, {}, {}), path.stem, results, table=table, declared=matrix)


def _plan_matrix(path: Path, results: Path | None) -> Plan:
    study = load_study(path)
    return build_plan(study, expand(study, path), path.stem, results)


def _refuse_both(declared: dict[str, Any], path: Path) -> None:
    """Say in one line that a matrix and a table do not go together; key by key it would take one for each entry."""
    if found := [key for key in ("datasets", "samples", "recipes", "blocks") if key in declared]:
        raise StudyError(
            f"{path}: table: a study has a matrix or a table of scores, and this one has {', '.join(found)} too; drop "
            "`table`, or put it into a study of its own, whose `matrix:` may name this one"
        )


def _refuse_absent(table: TableStudy, path: Path) -> None:
    """Say at once, before any job, that the table is not where the study says, or is another one."""
    source = table.table
    if source.path is None:
        return
    file = Path(source.path)
    if not file.is_file():
        raise StudyError(
            f"{path}: table.path: {source.path!r} is not a file; paths start at the working folder, {Path.cwd()}; "
            "place the table there, or give its `url`"
        )
    if source.sha256 and (found := sha256(file)) != source.sha256:
        raise StudyError(
            f"{path}: table.sha256: {source.path!r} has {found}; it is another table than the declared one"
        )
