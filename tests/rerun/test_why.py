"""`sft-atlas why`: after a finished run, each change is named down to its field, as Snakemake would act on it."""

import subprocess
import sys

import pytest

from tests.conftest import ENVIRONMENT, Repository

STUDY = "tests/studies/trimmed.yaml"


def why(repository: Repository, target: str) -> str:
    """What the command prints."""
    command = [sys.executable, "-m", "sft_atlas.commands.cli", "why", target, "--study", STUDY]
    done = subprocess.run(
        command, cwd=repository.folder, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=60
    )
    assert not done.stderr, done.stderr
    return done.stdout


def target_of(repository: Repository, kind: str, recipe: str = "lora") -> str:
    """The path of a run's file as the study plans it now."""
    command = [sys.executable, "-m", "sft_atlas.commands.cli", "cells", "--study", STUDY]
    cells = subprocess.run(command, cwd=repository.folder, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    scores = next(line.split("\t")[-1] for line in cells.stdout.splitlines() if f"\t{recipe}\t" in line)
    if kind == "scores":
        return scores
    folder = (repository.folder / scores).parent
    planned = repository.snakemake("--dry-run", "train").stdout
    found = [word.strip(",") for word in planned.split() if f"{folder.name}/train-" in word]
    return next(iter(found), None) or str(next(folder.glob("train-*[0-9a-f].json")).relative_to(repository.folder))


@pytest.mark.parametrize("target", ["report", "all", "results/trimmed/collect.json", "trimmed/analyse.json"])
def test_a_finished_study_is_up_to_date(finished: Repository, target: str) -> None:
    assert why(finished, target).endswith(": up to date\n")


def test_a_field_of_the_recipe(finished: Repository) -> None:
    finished.edit(STUDY, "learning_rate: 5e-3", "learning_rate: 4e-3")
    said = why(finished, target_of(finished, "scores"))
    assert "it was planned before as runs/calculator/math-40/lora-" in said
    assert "model.recipe.learning_rate: 0.005 -> 0.004" in said
    assert "  recipe.learning_rate: 0.005 -> 0.004" in said
    assert len(set(said.splitlines())) == len(said.splitlines())
    # nothing else has changed
    assert {line.split(": ")[0].split(".")[-1] for line in said.splitlines() if " -> " in line} == {"learning_rate"}


def test_a_field_far_up(finished: Repository) -> None:
    finished.edit(STUDY, "  math: {micro: {topic: math, rows: 60}}", "  math: {micro: {topic: math, rows: 50}}")
    said = why(finished, target_of(finished, "scores"))
    assert "source.micro.rows: 60 -> 50" in said
    assert "its input datasets/math-" in said


def test_a_new_benchmark_and_a_new_seed(finished: Repository) -> None:
    finished.edit(STUDY, "evaluation: {", "  reading: {micro: {topic: reading, items: 20}}\nevaluation: {")
    assert "benchmarks.reading: (absent) -> {" in why(finished, target_of(finished, "scores"))
    finished.edit(STUDY, "recipes: lora}", "recipes: lora, seeds: [1]}")
    assert "seed: 0 -> 1" in why(finished, target_of(finished, "train"))


def test_a_missing_output(finished: Repository) -> None:
    target = target_of(finished, "scores")
    (finished.folder / target).unlink()
    assert "the output is missing; it was planned before, with just this specification" in why(finished, target)
    said = why(finished, "report")
    # said once, though collect, analyse and report all hang on it
    assert said.count(f"its input {target.removeprefix('results/')} would be made:") == 1


def test_code_and_options_of_the_analysis(finished: Repository) -> None:
    with (finished.folder / "workflow/scripts/sft_atlas/report/figures.py").open("a") as file:
        file.write("\n# another line\n")
    said = why(finished, "report")
    assert "workflow/scripts/sft_atlas/report/figures.py has changed: " in said
    assert "code file" in said
    finished.edit(STUDY, "title: trimmed micro study", "title: trimmed micro study\nanalyses: {seed: 7}")
    assert "options.seed: 0 -> 7" in why(finished, "analyse")


def test_an_input_that_has_changed(finished: Repository) -> None:
    table = finished.folder / "results/trimmed/collect.json"
    table.write_text(table.read_text() + "\n")
    assert "input results/trimmed/collect.json has changed: " in why(finished, "analyse")


def test_a_target_that_the_study_does_not_make(finished: Repository) -> None:
    command = [sys.executable, "-m", "sft_atlas.commands.cli", "why", "results/nothing.json", "--study", STUDY]
    done = subprocess.run(command, cwd=finished.folder, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: results/nothing.json: belongs to no cell of the study; `sft-atlas cells` lists them\n"
