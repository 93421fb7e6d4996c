"""Profiles: the commands of the README work from the repository's root, and a site's template is read after them."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.conftest import ENVIRONMENT, ROOT, Repository

PROFILES = sorted(path for path in (ROOT / "profiles").glob("*/config.yaml") if path.parent.name != "default")
# of rules: what the plan prices; everything else is a site's
GPU_RULES = {"train_run", "evaluate_model", "measure_perplexity", "measure_likelihoods"}


def read(name: str) -> dict[str, object]:
    content: dict[str, object] = yaml.safe_load((ROOT / "profiles" / name / "config.yaml").read_text())
    return content


@pytest.mark.parametrize("name", ["slurm", "local"])
def test_a_link_at_the_top_makes_the_short_name_work(name: str) -> None:
    assert (ROOT / name).is_symlink() and (ROOT / name).resolve() == ROOT / "profiles" / name


def test_the_profile_avoids_the_traps_of_the_plugin() -> None:
    profile = read("slurm")
    assert profile["executor"] == "slurm"
    assert profile["slurm-status-command"] == "squeue"
    assert profile["slurm-status-attempts"] == 600 and profile["max-status-checks-per-second"] == 1
    assert "slurm-array-jobs" not in profile and "groups" not in profile
    assert profile["keep-going"] and profile["rerun-incomplete"] and profile["retries"]
    assert "--signal=TERM@300" in str(profile["default-resources"])


def test_retries_live_in_the_profile_alone_and_rules_name_nothing_of_a_site() -> None:
    for path in [ROOT / "Snakefile", *(ROOT / "rules").glob("*.smk")]:
        for line in path.read_text().splitlines():
            for word in ("retries:", "group:", "slurm_", "gres", "constraint=", "qos="):
                assert not line.strip().startswith(word), f"{path.name}: {line}"


def test_the_template_knows_every_rule_that_may_use_a_gpu() -> None:
    assert set(read("template")["set-resources"]) == GPU_RULES  # type: ignore[call-overload]


def test_a_site_fills_the_template_in_and_types_the_same_command(project: Callable[[str], Repository]) -> None:
    repository = project("tests/studies/trimmed.yaml")
    shutil.copytree(ROOT / "profiles/template", repository.folder / "profiles/default")
    filled = repository.folder / "profiles/default/config.yaml"
    filled.write_text(filled.read_text().replace("GPU_PARTITION", "a100").replace("CPU_PARTITION", "short"))
    text = repository.snakemake("--profile", "slurm", "--dry-run", "--quiet", "host").stdout
    assert "slurm_partition=a100" in text and "slurm_partition=short" in text
    assert "constraint=GPU_FEATURE" in text
    assert text.count("slurm_extra=--signal=TERM@300") > 5
    # what the plan asks for is kept beside it
    assert "mem_mb=" in text and "runtime=10" in text


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda path: path.name
)
def test_a_documented_command_that_runs_jobs_says_where(path: Path) -> None:
    """Without a profile, or a number of cores, Snakemake refuses to run a job."""
    commands = re.findall(r"(?:^    |`)(snakemake .*?)(?:`|  |#|$)", path.read_text(), flags=re.MULTILINE)
    dry = re.compile(r"(^| )(-n|--dry-run|--lint|--report|--unlock)( |$)")
    assert [line for line in commands if not re.search("--profile|--cores", line) and not dry.search(line)] == []


def test_profiles_are_explained() -> None:
    text = (ROOT / "profiles/README.md").read_text()
    for path in PROFILES:
        assert f"`{path.parent.name}/`" in text


def test_what_runs_on_the_log_in_node_does_without_the_scratch_of_compute_nodes(
    project: Callable[[str], Repository], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # SLURM has nothing to say: the plan is made by the process itself
    for command in ("squeue", "sbatch", "sinfo", "scontrol", "sacctmgr"):
        (tmp_path / command).write_text("#!/bin/sh\n")
        (tmp_path / command).chmod(0o755)
    monkeypatch.setitem(ENVIRONMENT, "PATH", f"{tmp_path}:{ENVIRONMENT['PATH']}")
    repository = project("tests/studies/trimmed.yaml")
    with (repository.folder / "config.yaml").open("a") as file:
        file.write("scratch: /proc/on-compute-nodes-only\n")
    repository.snakemake("plan", "--profile", "slurm")
    assert list(repository.folder.glob("results/*/plan.html"))
