"""Stage *tokenise*: token ids and labels of a sample, once per tokenizer and length, with an audit of the label mask.

Training, perplexity and cost all read this one table, so that they speak of the same tokens.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl
from transformers import PreTrainedTokenizerBase

from sft_atlas.errors import DataError
from sft_atlas.files import content_hash, read_json, whole, write_record, write_table
from sft_atlas.models.tokenizer import IGNORED, control_ids, load_tokenizer
from sft_atlas.stages.tokens.spec import Spec

SHORTENED = {"system_prompt": "their system prompt", "later_turns": "their later turns"}
SCHEMA: dict[str, Any] = {
    "row": pl.String,
    "input_ids": pl.List(pl.Int32),
    "labels": pl.List(pl.Int32),
    "truncated": pl.Boolean,
}


def run(spec: Spec, root: Path) -> None:
    """Write `tokens.parquet` (schema `SCHEMA`), the data card and a manifest with the audit's counts.

    Raises:
        DataError: the tokenizer has no EOS, every row is too long, or the audit finds a fault.
    """
    output, sample = root / spec.output, root / spec.inputs.sample
    tokenizer_manifest = root / spec.inputs.tokenizer
    tokenizer = load_tokenizer(tokenizer_manifest)
    rows = pl.read_parquet(sample.with_name("rows.parquet"))
    made_from = {"spec": spec.hash, "sample": content_hash(sample), "tokenizer": content_hash(tokenizer_manifest)}
    drawn = rows.height
    if spec.inputs.contamination:
        contamination = root / spec.inputs.contamination
        made_from["contamination"] = content_hash(contamination)
        rows = rows.join(pl.read_parquet(contamination), on=["dataset", "row"], how="anti", maintain_order="left")
    table, dropped = tokenise(rows, tokenizer, spec.identity.max_length)
    audit(table, tokenizer)
    facts = measure(table) | {"dropped": dropped | {"holds_a_benchmark_item": drawn - rows.height}}
    origin = read_json(sample)
    facts["left_out"] = left_out(origin, facts["dropped"])
    facts["shortened"] = _summed(source.get("shortened", {}) for source in origin["sources"].values())
    path, card = output.with_name("tokens.parquet"), output.with_name("card.md")
    write_table(path, table)
    with whole(card) as temporary:
        temporary.write_text(_card(spec, origin, facts), encoding="utf-8")
    write_record(output, made_from, [path, card], eos=tokenizer.eos_token_id, **facts)


def left_out(sample: dict[str, Any], dropped: dict[str, int]) -> dict[str, int]:
    """Rows by the reason why they are not trained on: of all sources before the draw, of the sample after it."""
    before = [source["dropped"] for source in sample["sources"].values()]
    return {reason: count for reason, count in _summed([*before, sample["dropped"], dropped]).items() if count}


def _summed(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(sorted(total.items()))


def tokenise(
    rows: pl.DataFrame, tokenizer: PreTrainedTokenizerBase, max_length: int
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Ids of prompt + completion + EOS, with the prompt's labels ignored; too long rows are cut at the end.

    Prompt and whole text are tokenised separately and compared: where a tokenizer merges across the border, the first
    token that differs belongs to the completion, as in TRL. A cut row has no EOS; one without any completion left is
    dropped.
    """
    # cut below, at a length that the recipe says; a length in the tokenizer's own file would only warn
    tokenizer.model_max_length = 1 << 30
    prompts = tokenizer(rows["prompt"].to_list())["input_ids"]
    texts = tokenizer((rows["prompt"] + rows["completion"]).to_list())["input_ids"]
    out, dropped = [], 0
    for row, head, ids in zip(rows["row"], prompts, texts, strict=True):
        start = next((i for i, (a, b) in enumerate(zip(head, ids, strict=False)) if a != b), min(len(head), len(ids)))
        full = ids if ids and ids[-1] == tokenizer.eos_token_id else [*ids, tokenizer.eos_token_id]
        kept = full[:max_length]
        if start >= len(kept):
            dropped += 1
            continue
        out.append((row, kept, [IGNORED] * start + kept[start:], len(full) > max_length))
    if not out:
        raise DataError(f"all {rows.height} rows are longer than max_length {max_length}; raise it in the recipe")
    return pl.DataFrame(out, schema=SCHEMA, orient="row"), {"prompt_fills_max_length": dropped}


def audit(table: pl.DataFrame, tokenizer: PreTrainedTokenizerBase) -> None:
    """Check the label mask of every row.

    Raises:
        DataError: a row trains nothing, an uncut row does not train EOS, or a row holds a control token anywhere but
            BOS in front and EOS at its end.
    """
    bos, eos, control = tokenizer.bos_token_id, tokenizer.eos_token_id, control_ids(tokenizer)
    for row, ids, labels, truncated in table.iter_rows():
        if all(label == IGNORED for label in labels):
            raise DataError(f"row {row}: no token is trained")
        if any(label not in (IGNORED, token) for token, label in zip(ids, labels, strict=True)):
            raise DataError(f"row {row}: a label differs from its token")
        if not truncated and labels[-1] != eos:
            raise DataError(f"row {row}: EOS is not trained, so the model would not learn to stop")
        inner = list(ids[1 if ids[0] == bos else 0 : len(ids) if truncated else -1])
        if found := control.intersection(inner):
            token, place = min(found), min(map(inner.index, found)) + (ids[0] == bos) + 1
            raise DataError(
                f"row {row}: token {place} is the control token {tokenizer.convert_ids_to_tokens(token)!r}, which the "
                "text itself holds; a model would learn to steer by it"
            )


def measure(table: pl.DataFrame) -> dict[str, Any]:
    """Exact counts: rows, tokens, trained tokens, longest row, cut rows."""
    lengths = table["input_ids"].list.len()
    trained = table["labels"].list.eval((pl.element() != IGNORED).cast(pl.Int64)).list.sum()
    return {
        "rows": table.height,
        "tokens": int(lengths.sum()),
        "trained_tokens": int(trained.sum()),
        "longest": int(lengths.max()),  # type: ignore[arg-type]
        "median_tokens": float(lengths.median()),  # type: ignore[arg-type]
        "truncated": int(table["truncated"].sum()),
    }


def _card(spec: Spec, sample: dict[str, Any], facts: dict[str, Any]) -> str:
    lines = [
        f"# Data card of {Path(spec.inputs.sample).parent.name}",
        "",
        f"- rows: {facts['rows']}" + (f" (asked for {sample['asked']} of each dataset)" if sample["asked"] else ""),
        f"- tokens in one epoch: {facts['tokens']}, of which {facts['trained_tokens']} carry loss",
        f"- tokens per row: median {facts['median_tokens']:g}, longest {facts['longest']}",
        f"- cut at {spec.identity.max_length} tokens: {facts['truncated']} rows",
        f"- dropped because the prompt alone fills that: {facts['dropped']['prompt_fills_max_length']} rows",
        f"- dropped because they hold an item of a benchmark: {facts['dropped']['holds_a_benchmark_item']} rows",
        f"- dropped as duplicates between datasets: {sample['dropped']['duplicate_between_parts']} rows",
        *(
            f"- {count} rows of the sources are used without their {SHORTENED[part]}"
            for part, count in facts["shortened"].items()
        ),
        "",
        "| dataset | rows used | rows available | dropped before the draw |",
        "| --- | --- | --- | --- |",
    ]
    for name, source in sorted(sample["sources"].items()):
        dropped = ", ".join(f"{reason} {count}" for reason, count in source["dropped"].items()) or "none"
        lines.append(f"| {name} | {source['rows']} | {source['available']} | {dropped} |")
    return "\n".join(lines) + "\n"
