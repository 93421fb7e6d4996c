"""docs/extending.md as it stands: its own blocks, applied to a copy, make an option and a stage, and move nothing."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from tests.conftest import ROOT, Repository

STUDY = "tests/studies/trimmed.yaml"
BLOCK = re.compile(r'^```python file=(\S+)(?: after="((?:[^"\\]|\\.)*)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
GENERATED = ("docs/tables.md", "studies/template.yaml", "workflow/schemas/study.schema.json")


@dataclass(frozen=True)
class Block:
    """A new file, or lines that are put in after the one line that holds a text."""

    file: str
    after: str
    text: str

    def apply(self, folder: Path) -> None:
        path = folder / self.file
        if not self.after:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.text)
            return
        lines = path.read_text().splitlines(keepends=True)
        found = [number for number, line in enumerate(lines) if self.after in line]
        assert len(found) == 1, f"{self.after!r} stands {len(found)} times in {self.file}"
        path.write_text("".join([*lines[: found[0] + 1], self.text, *lines[found[0] + 1 :]]))


def blocks(title: str) -> Iterator[Block]:
    page = (ROOT / "docs/extending.md").read_text()
    section = page.partition(f"## {title}\n")[2].partition("\n## ")[0]
    for file, after, text in BLOCK.findall(section):
        yield Block(file, after.replace('\\"', '"'), text)


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture
def tracked(finished: Repository) -> Repository:
    """A finished study in a copy of the project under version control."""
    for name in ("docs", "Makefile"):
        subprocess.run(["cp", "-r", ROOT / name, finished.folder / name], check=True)
    (finished.folder / ".gitignore").write_text("results/\n.snakemake/\nlogs/\n__pycache__/\n*.egg-info/\n")
    git(finished.folder, "init", "--quiet")
    git(finished.folder, "add", "--all")
    git(finished.folder, "commit", "--quiet", "--message", "as it is")
    return finished


def touched(repository: Repository) -> list[str]:
    """Files that differ from what was committed, those that are generated apart."""
    lines = git(repository.folder, "status", "--porcelain", "--untracked-files=all").splitlines()
    return sorted(line[3:] for line in lines if line[3:] not in GENERATED)


def generate(repository: Repository) -> None:
    repository.python("-m", "sft_atlas.commands.export")


def test_a_recipe_option_is_one_file_and_moves_only_the_runs_that_use_it(tracked: Repository) -> None:
    for block in blocks("A recipe option"):
        block.apply(tracked.folder)
    generate(tracked)
    assert touched(tracked) == ["workflow/scripts/sft_atlas/study/model.py"]
    schema = (tracked.folder / "workflow/schemas/study.schema.json").read_text()
    assert "AdamW's decay of squared gradients" in schema
    # the page lists what a recipe may be; nothing that was trained or measured is made again
    assert tracked.plan().jobs.keys() <= {"write_report"}

    tracked.edit(STUDY, "method: lora, ", "method: lora, adam_beta2: 0.9, ")
    assert tracked.plan("train").jobs == {"train_run": 1, "train": 1}
    tracked.snakemake("train")
    runs = sorted(
        (tracked.folder / "results/runs/calculator/math-40").glob("lora-*"), key=lambda path: path.stat().st_mtime
    )
    before, after = (next(run.glob("epoch-01/model/adapter_model.safetensors")).read_bytes() for run in runs)
    assert before != after
    assert '"adam_beta2": 0.9' in next(runs[1].glob("train-*.spec.json")).read_text()

    tracked.edit(STUDY, "adam_beta2: 0.9", "adam_beta2: 2")
    refused = tracked.snakemake("--dry-run", check=False)
    assert "recipes.lora.adam_beta2: expected less than 1; found 2" in refused.stderr + refused.stdout


def test_a_stage_is_a_folder_a_rule_file_and_a_line(tracked: Repository) -> None:
    for block in blocks("A stage"):
        block.apply(tracked.folder)
    generate(tracked)
    folder = "workflow/scripts/sft_atlas/stages/diversity"
    files = [f"{folder}/{name}.py" for name in ("__init__", "cost", "run", "spec", "tables")]
    assert touched(tracked) == sorted(["Snakefile", "rules/diversity.smk", *files])
    assert "### diversity" in (tracked.folder / "docs/tables.md").read_text()
    planned = tracked.plan().jobs
    assert planned.pop("measure_diversity") == 3
    assert planned.keys() == {"collect_results", "audit_scores", "analyse_tables", "write_report"}
    tracked.snakemake()
    table = pl.read_parquet(tracked.folder / "results/trimmed/tables/diversity.parquet")
    assert table["sample"].to_list() == ["all", "knowledge-40", "math-40"]
    assert table["distinct"].is_between(0.01, 0.99).all()
    rows = pl.read_parquet(next((tracked.folder / "results/samples").glob("math-40-*/rows.parquet")))
    words = re.findall(r"\w+", " ".join(rows["prompt"] + rows["completion"]).lower().replace("_", " "))
    mine = table.filter(sample="math-40").row(0, named=True)
    assert mine["words"] == len(words)
    assert mine["distinct"] == pytest.approx(len(set(words)) / len(words))
    assert "Nothing to be done" in tracked.plan().text


@pytest.mark.parametrize(
    "stage", ["likelihoods", "weights", "similarity", "contamination", "embedding", "perplexity", "release", "restore"]
)
def test_a_stage_without_its_folder_rule_and_line_is_gone(finished: Repository, stage: str) -> None:
    subprocess.run(["rm", "-r", finished.folder / f"workflow/scripts/sft_atlas/stages/{stage}"], check=True)
    rule = finished.folder / f"rules/{stage}.smk"
    name = re.findall(r"^rule (\w+):", rule.read_text(), flags=re.MULTILINE)[0]
    rule.unlink()
    finished.edit("Snakefile", f'include: "rules/{stage}.smk"\n', "")
    planned = finished.snakemake("--dry-run", "--forceall").stdout
    assert "train_run" in planned and "evaluate_model" in planned
    assert name not in planned
    kept = finished.plan("train", "evaluate").jobs.keys()
    # the note that a sample was compared holds nothing then
    assert kept <= {"train", "evaluate"} | ({"note_comparison"} if stage == "contamination" else set()), kept
