"""Stage *prepare*, second half: a fixed subset of datasets, or a mixture of such, as prompts and completions."""

from pathlib import Path
from typing import Any

import polars as pl

from sft_atlas.data.draw import draw_rows
from sft_atlas.data.prompt import completion, holds_marker, markers, prompt
from sft_atlas.data.sources import refuse_twice
from sft_atlas.errors import DataError
from sft_atlas.files import content_hash, read_json, write_record, write_table
from sft_atlas.stages.sample.spec import Spec
from sft_atlas.study.model import Template

TEXTS = ("prompt", "completion")


def run(spec: Spec, root: Path) -> None:
    """Write `rows.parquet` (prompt, completion, dataset, row) and a manifest with counts and reasons.

    Raises:
        DataError: a dataset has fewer rows than the sample asks for, and `shortfall: error`; or two rows with one id.
    """
    output = root / spec.output
    parts = [root / part for part in spec.inputs.parts]
    rows, facts = _draw(spec, parts) if spec.identity.mix is None else _mix(parts)
    distinct = rows.unique(TEXTS, keep="first", maintain_order=True)
    dropped = {"duplicate_between_parts": rows.height - distinct.height}
    path = output.with_name("rows.parquet")
    write_table(path, distinct)
    made_from = {"spec": spec.hash, "parts": [content_hash(part) for part in parts]}
    write_record(output, made_from, [path], rows=distinct.height, dropped=dropped, **facts)


def _draw(spec: Spec, parts: list[Path]) -> tuple[pl.DataFrame, dict[str, Any]]:
    identity, asked = spec.identity, spec.labels.asked
    template = identity.template
    drawn, sources = [], {}
    for part in parts:
        manifest, name = read_json(part), part.parent.name.rpartition("-")[0]
        rows = pl.read_parquet(part.with_name("rows.parquet"))
        refuse_twice(rows["row"], str(part))
        fit = _without_markers(rows, template)
        marked = {"template_marker": rows.height - fit.height} if fit.height < rows.height else {}
        dropped = manifest["dropped"] | marked
        if asked is not None and fit.height < asked and spec.labels.shortfall == "error":
            raise DataError(
                f"{spec.output}: dataset {name} has {fit.height} rows after cleaning, the sample asks for "
                f"{asked}; lower `size`, or set `shortfall: take_all` (dropped: {dropped or 'none'})"
            )
        rows = draw_rows(fit, identity.size, identity.seed)
        drawn.append(_as_prompts(rows, template).with_columns(dataset=pl.lit(name)))
        facts = {"rows": rows.height, "available": fit.height, "dropped": dropped}
        sources[name] = facts | {"shortened": manifest.get("shortened", {})}
    return pl.concat(drawn), {"asked": asked, "sources": sources}


def _without_markers(rows: pl.DataFrame, template: Template) -> pl.DataFrame:
    """The rows without those that hold a marker of this study's template: such a row would read as several."""
    if not markers(template):
        return rows
    texts = rows.select("instruction", "input", "completion").iter_rows()
    return rows.filter(pl.Series([not holds_marker(template, *row) for row in texts], dtype=pl.Boolean))


def _as_prompts(rows: pl.DataFrame, template: Template) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "prompt": [prompt(template, *texts) for texts in rows.select("instruction", "input").iter_rows()],
            "completion": [completion(template, text) for text in rows["completion"]],
            "row": rows["row"],
        },
        schema={"prompt": pl.String, "completion": pl.String, "row": pl.String},
    )


def _mix(parts: list[Path]) -> tuple[pl.DataFrame, dict[str, Any]]:
    manifests = [read_json(part) for part in parts]
    sources: dict[str, Any] = {}
    for manifest in manifests:
        sources |= manifest["sources"]
    return pl.concat([pl.read_parquet(part.with_name("rows.parquet")) for part in parts]), {
        "asked": None,
        "sources": sources,
    }
