"""A DeepSpeed configuration is hardware: a wrong one stops planning, a right one changes no job."""

import json
from collections.abc import Callable

from tests.conftest import Repository


def test_a_wrong_configuration_stops_planning_and_a_right_one_changes_no_identity(
    project: Callable[[str], Repository],
) -> None:
    repository = project("tests/studies/trimmed.yaml")
    before = repository.plan("train").text
    repository.edit("config.yaml", "device: auto", "device: auto\ndeepspeed: zero.json")
    zero = repository.folder / "zero.json"
    zero.write_text(json.dumps({"zero_optimization": {"stage": 2}, "train_batch_size": 32}))
    done = repository.snakemake("--dry-run", check=False)
    assert done.returncode
    assert "config.yaml: deepspeed: zero.json: train_batch_size: recipes decide this" in done.stdout + done.stderr
    zero.write_text(json.dumps({"zero_optimization": {"stage": 2}}))
    after = repository.plan("train").text

    def outputs(text: str) -> list[str]:
        return sorted(line for line in text.splitlines() if line.strip().startswith("output:"))

    assert outputs(after) == outputs(before)
    assert outputs(after)
