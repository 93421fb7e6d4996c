"""What several unit tests share: a valid study to edit, and small results folders made by hand."""

import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from sft_atlas.files import write_record, write_table
from sft_atlas.runtime.settings import VARIABLE, Runtime
from sft_atlas.spec import parse
from sft_atlas.stage import stages
from sft_atlas.study.build import build_plan
from sft_atlas.study.load import load_study
from sft_atlas.study.matrix import Matrix, expand
from sft_atlas.study.plan import Plan, Spec

STUDY = """\
title: a study that is right
bases:
  calculator:
    micro: {architecture: llama, mixture: {math: 3, web: 1}, seed: 1, steps: 60, positions: 2048}
    family: llama
  reader:
    micro: {architecture: qwen3, seed: 2, steps: 60, positions: 2048}
  fetched:
    hub: {id: owner/model, revision: 0123abc}
datasets:
  math: {micro: {topic: math, rows: 60}}
  knowledge: {micro: {topic: knowledge, rows: 60}}
  chats: {path: chats.jsonl, format: messages, turns: first, keep: {lang: [en]}}
samples:
  "{dataset}-40": {datasets: "*", size: 40}
  all: {mix: "*-40"}
  without-{dataset}: {mix: ["*-40"], leave_out: [math, chats]}
recipes:
  full: {method: full, learning_rate: 1e-3, schedule: constant, batch_size: 16, epochs: 4, keep: [1, 2, 4]}
  decay: {method: full, learning_rate: 1e-3, schedule: cosine, epochs: 4}
  lora: {method: lora, learning_rate: 5e-3, epochs: 2, lora: {rank: 4, targets: all-linear}}
seeds: [0, 1]
blocks:
  main: {bases: "*", samples: "*-40", recipes: full}
  schedules: {bases: [calculator], samples: math-40, recipes: [decay], seeds: [0], epochs: [4]}
  mixtures:
    bases: reader
    samples: [all, without-*]
    recipes: lora
    exclude:
      - {sample: without-math, seed: [1]}
    include:
      - {bases: calculator, samples: all, recipes: lora, seeds: [0]}
    expected_missing:
      - {sample: all, seed: [1], reason: out of memory}
benchmarks:
  sums: {micro: {topic: math, items: 20}, matches: [math]}
  facts: {path: facts.jsonl, format: items, shots: [0, 2], shots_path: facts.jsonl, stop: ["\\n"], max_tokens: 8}
evaluation: {batch_size: 8, max_length: 256}
analyses: {bootstrap_draws: 200}
"""


def write_study(folder: Path, *edits: tuple[str, str], text: str = STUDY) -> Path:
    """The study, after edits of texts that stand in it exactly once, with the files it refers to."""
    for old, new in edits:
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in the study"
        text = text.replace(old, new)
    for name in ("chats.jsonl", "facts.jsonl"):
        if not (folder / name).exists():
            (folder / name).write_text(f"{name}\n")
        text = re.sub(rf"(?<=: ){name}", str(folder / name), text)
    path = folder / "study.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def matrix_of(path: Path) -> Matrix:
    """The cells of a study file."""
    return expand(load_study(path), path)


def plan_of(path: Path) -> Plan:
    """The jobs of a study file."""
    study = load_study(path)
    return build_plan(study, expand(study, path), path.stem)


def content(
    stage: str, output: str, identity: dict[str, Any], inputs: Any = None, sources: Any = (), labels: Any = None
) -> dict[str, Any]:
    """A frozen specification as a job reads it from its file."""
    spec = Spec(stage, output, identity, inputs or {}, tuple(map(str, sources)), labels or {}, stages()[stage].version)
    return spec.content()


def do(spec: dict[str, Any], root: Path) -> Any:
    """Run the job of a frozen specification in a results folder; returns what the stage returns."""
    stage = stages()[spec["stage"]]
    return stage.module("run").run(parse(stage.module("spec").Spec, spec), root)


def runtime(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
    """Set how jobs run, for the rest of a test: these settings, and no other."""
    monkeypatch.setenv(VARIABLE, Runtime(**settings).model_dump_json())


def stand_in(root: Path, place: str, table: pl.DataFrame, name: str, **facts: Any) -> str:
    """What an earlier stage would have left: a table beside its manifest; returns the manifest's place."""
    manifest = root / place / "manifest.json"
    write_table(manifest.with_name(name), table)
    write_record(manifest, {"spec": place}, [manifest.with_name(name)], **facts)
    return f"{place}/manifest.json"


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Bytes and time of change of every file below a folder."""
    return {
        str(file.relative_to(folder)): (file.read_bytes(), file.stat().st_mtime_ns)
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
