"""Stage *benchmark*: every benchmark on every kept epoch of a model, in one process, with lm-eval.

Items are scored one by one and kept, so that a gain is the mean of paired differences. Prompts come from the study's
template by the same function as in training. A (epoch, benchmark, shots) that was scored before is not scored again.
"""

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
from datasets import Dataset, DatasetDict
from lm_eval.api.task import ConfigurableTask
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM

from sft_atlas.data.examples import WorkedExamples
from sft_atlas.data.prompt import completion, prompt
from sft_atlas.errors import CellError
from sft_atlas.files import content_hash, read_json, recorded, write_record, write_table
from sft_atlas.hashing import digest
from sft_atlas.models.checkpoint import open_model, place, weights_identity
from sft_atlas.models.device import prepare
from sft_atlas.stages.benchmark.run import boxed
from sft_atlas.stages.evaluate.spec import Asked, Spec
from sft_atlas.study.identity import identity_of
from sft_atlas.study.model import Template

LOG = logging.getLogger(__name__)

SCHEMA = {
    "epoch": pl.Int64,
    "benchmark": pl.String,
    "shots": pl.Int64,
    "metric": pl.String,
    "score": pl.Float64,
    "stderr": pl.Float64,
    "n": pl.Int64,
    "items": pl.String,
}
ITEM_SCHEMA = {"item": pl.String, "score": pl.Float64, "response": pl.String}


def run(spec: Spec, root: Path) -> None:
    """Write a table with one row per epoch, benchmark and number of shots (schema `SCHEMA`; `items` is the file of
    its per-item results, relative to the table).

    Where items are among their own worked examples because the study says so, a second row, `NAME/without_leaks`, is
    the score of the others.
    """
    identity, output = spec.identity, root / spec.output
    manifest = root / spec.inputs.model
    benchmarks = {name: root / path for name, path in spec.inputs.benchmarks.items()}
    rows = []
    for epoch in identity.epochs:
        wanted = {}
        for name, shots in [(name, n) for name, asked in sorted(identity.benchmarks.items()) for n in asked.shots]:
            asked = identity.benchmarks[name]
            made_from = {
                "version": spec.version,
                "model": weights_identity(manifest, epoch),
                "benchmark": content_hash(benchmarks[name]),
                "template": identity_of(identity.template),
                "settings": identity_of(identity.settings),
                "threads": identity.threads,
                "shots": shots,
                **asked.model_dump(include={"items", "max_tokens", "stop"}),
                **asked.model_dump(include={"own_example"}, exclude_defaults=True),
            }
            piece = place(output, epoch, "scores") / f"{asked.items}-{shots}shot-{digest(made_from)}.parquet"
            if recorded(piece.with_suffix(".json"), made_from) is None:
                wanted[name, shots] = (piece, made_from)
            metric = metric_name(read_json(benchmarks[name]))
            rows.append((epoch, name, shots, metric, piece))
        if wanted:
            _score(spec, root, epoch, benchmarks, wanted)
    table = [
        (epoch, part, shots, metric, *score(pl.read_parquet(file)), file.relative_to(output.parent).as_posix())
        for epoch, name, shots, metric, piece in rows
        for part, file in ((name, piece), (f"{name}/without_leaks", without_leaks(piece)))
        if file.is_file()
    ]
    write_table(output, pl.DataFrame(table, schema=SCHEMA, orient="row"))


def metric_name(facts: dict[str, Any]) -> str:
    """What a benchmark's score is called: accuracy, exact_match, contains_answer or bleu."""
    if facts["kind"] == "multiple_choice":
        return "accuracy"
    return {"contains": "contains_answer", "bleu": "bleu"}.get(facts["compare"], "exact_match")


def score(items: pl.DataFrame) -> tuple[float | None, float | None, int]:
    """Mean of per-item scores, its standard error sd / sqrt(n) with n - 1 in sd, and n; unknown is None."""
    known = items["score"].drop_nulls()
    n = len(known)
    if n == 0:
        return None, None, 0
    deviation = known.std() if n > 1 else None
    return float(known.mean()), None if deviation is None else float(deviation) / n**0.5, n  # type: ignore[arg-type]


def _score(
    spec: Spec,
    root: Path,
    epoch: int,
    benchmarks: dict[str, Path],
    wanted: dict[tuple[str, int], tuple[Path, dict[str, Any]]],
) -> None:
    identity, settings = spec.identity, spec.identity.settings
    device = prepare(identity.threads)
    model, tokenizer = open_model(root / spec.inputs.model, root / spec.inputs.base, epoch, settings.precision, device)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    limit = min(settings.max_length, getattr(model.config, "max_position_embeddings", settings.max_length))
    if limit < settings.max_length:
        LOG.info(f"evaluation.max_length is {settings.max_length}, the model has {limit} positions: cut at {limit}")
    language_model = HFLM(
        pretrained=model.eval(),
        tokenizer=tokenizer,
        batch_size=settings.batch_size,
        max_length=limit,
        device=str(device),
    )
    tasks, names = {}, {}
    for name, shots in wanted:
        asked = identity.benchmarks[name]
        task = build_task(benchmarks[name], f"{name}@{shots}", shots, asked, identity.template)
        tasks[f"{name}@{shots}"], names[f"{name}@{shots}"] = task, (name, shots)
    try:
        results = evaluate(lm=language_model, task_dict=tasks, bootstrap_iters=0, log_samples=True)
    except (ValueError, AssertionError) as error:
        # lm-eval refuses what it cannot do with this model, such as prompts that leave no room to generate
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise CellError(f"epoch {epoch}: refused by evaluation: {said[0]}") from error
    for task_name, key in names.items():
        piece, made_from = wanted[key]
        facts = read_json(benchmarks[key[0]])
        table = _item_table(results["samples"][task_name], facts["kind"], facts["scored"])
        asked = identity.benchmarks[key[0]]
        leaked = [False] * table.height
        if asked.own_example == "keep":
            examples = worked_examples(benchmarks[key[0]], key[1], asked, identity.template)
            leaked = [examples.holds(sample["doc"]) for sample in in_order(results["samples"][task_name])]
        pieces = _write_items(piece, table, leaked)
        write_record(piece.with_suffix(".json"), made_from, pieces)
        shown = score(table)[0]
        LOG.info(f"epoch {epoch} {key[0]} {key[1]}-shot: {'not scored' if shown is None else f'{shown:.3f}'}")


def without_leaks(piece: Path) -> Path:
    """The file of those items that are not among their own worked examples, beside that of all; absent if all are."""
    return piece.with_name(f"{piece.stem}-without-leaks.parquet")


def _write_items(piece: Path, table: pl.DataFrame, leaked: list[bool]) -> list[Path]:
    """Write per-item results; where some items were leaked, with a flag, and beside them those that were not."""
    if not any(leaked):
        write_table(piece, table)
        return [piece]
    flagged = table.with_columns(leaked=pl.Series(leaked))
    write_table(piece, flagged)
    write_table(without_leaks(piece), flagged.filter(~pl.col("leaked")).select(table.columns))
    return [piece, without_leaks(piece)]


def build_task(manifest: Path, name: str, shots: int, asked: Asked, template: Template) -> ConfigurableTask:
    """An lm-eval task over a prepared benchmark, in memory: no task index, no files, no network."""
    facts = read_json(manifest)
    items = pl.read_parquet(manifest.with_name("items.parquet"))
    examples = worked_examples(manifest, shots, asked, template)
    config: dict[str, Any] = {
        "task": name,
        "custom_dataset": lambda **_: DatasetDict({"test": Dataset(items.to_arrow())}),
        "test_split": "test",
        "output_type": "multiple_choice" if facts["kind"] == "multiple_choice" else "generate_until",
        "doc_to_text": lambda doc: examples.text(doc) + prompt(template, doc["instruction"]),
        "target_delimiter": "",
        "num_fewshot": 0,
        "metadata": {"version": 1},
    }
    if facts["kind"] == "multiple_choice":
        config |= {
            "doc_to_choice": lambda doc: [completion(template, choice) for choice in doc["choices"]],
            "doc_to_target": lambda doc: doc["gold"],
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        }
    else:
        right = COMPARISONS[facts["compare"]]
        config |= {
            "doc_to_target": lambda doc: completion(template, doc["example"]),
            "process_results": lambda doc, responses: {
                "exact_match": float(right(extract(responses[0], facts["pattern"]), doc["answers"] or []))
            },
            "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
            "generation_kwargs": {
                "until": list(asked.stop),
                "do_sample": False,
                "max_gen_toks": asked.max_tokens,
            },
        }
    return ConfigurableTask(config=config)


def worked_examples(manifest: Path, shots: int, asked: Asked, template: Template) -> WorkedExamples:
    """The worked examples of a prepared benchmark."""
    needed = ["instruction", "example", "group"]
    rows = pl.read_parquet(manifest.with_name("examples.parquet"), columns=needed).to_dicts() if shots else []
    return WorkedExamples(template, rows, shots, asked.own_example == "keep")


def extract(response: str, pattern: str | None) -> str:
    """The answer in a generation: the last match of the pattern, or all of it, stripped."""
    if pattern is None:
        return response.strip()
    found = re.findall(pattern, response)
    return found[-1] if found else ""


def _number(answer: str, accepted: list[str]) -> bool:
    try:
        return any(float(answer.replace(",", "")) == float(other) for other in accepted)
    except ValueError:
        return False


def _boxed(answer: str, accepted: list[str]) -> bool:
    def plain(text: str) -> str:
        return re.sub(
            r"\\left|\\right|\\!|\\,|\\ |\s|\$|\.$", "", text.replace("dfrac", "frac").replace("tfrac", "frac")
        )

    return plain(boxed(answer) or answer) in {plain(other) for other in accepted}


def _contains(answer: str, accepted: list[str]) -> bool:
    return any(other.strip().lower() in answer.lower() for other in accepted)


def _bleu(answer: str, accepted: list[str]) -> float:
    """Sentence BLEU against the nearest accepted answer, 0..1."""
    from sacrebleu import sentence_bleu

    return max(sentence_bleu(answer, [other]).score for other in accepted) / 100


COMPARISONS: dict[str, Callable[[str, list[str]], float]] = {
    "equal": lambda answer, accepted: answer in accepted,
    "number": _number,
    "boxed": _boxed,
    "contains": _contains,
    "bleu": _bleu,
}


def in_order(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What lm-eval returns of a task, in the benchmark's order."""
    return sorted(samples, key=lambda sample: sample["doc_id"])


def _item_table(samples: list[dict[str, Any]], kind: str, scored: bool) -> pl.DataFrame:
    """One row per item, in the benchmark's order; the response is the generation, or the choice that was preferred."""
    rows = []
    for sample in in_order(samples):
        doc = sample["doc"]
        if kind == "multiple_choice":
            likelihoods = [float(answer[0]) for answer in sample["filtered_resps"]]
            response, value = doc["choices"][likelihoods.index(max(likelihoods))], float(sample["acc"])
        else:
            response, value = str(sample["filtered_resps"][0]), float(sample["exact_match"])
        rows.append((doc["item"], value if scored else None, response))
    return pl.DataFrame(rows, schema=ITEM_SCHEMA, orient="row")
