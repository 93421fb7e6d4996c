"""The report: one HTML page that opens without network, with its data and script inside, and figures as files."""

import json
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import polars as pl
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from sft_atlas.analysis import tables as schemas
from sft_atlas.report import figures, interactive, text, words
from sft_atlas.report.costs import by_stage
from sft_atlas.report.figures_gains import explain_gains, explain_matched
from sft_atlas.report.figures_selection import html_table as selection_table
from sft_atlas.report.html_tables import page_tables
from sft_atlas.report.results import Results
from sft_atlas.units import hours

FINDINGS = (
    "selection",
    "base_similarity",
    "variance",
    "predictors",
    "prediction",
    "layer_correlations",
    "map",
    "contrasts",
    "epochs",
    "seeds",
)
"""Figures whose sentences stand in the summary."""
TEMPLATES = Path(__file__).with_name("templates")


def build(tables: Path, study: Mapping[str, Any], versions: Mapping[str, Any], out: Path) -> None:
    """Write `out/report.html` and `out/figures/NAME.svg` and `.png` from the tables in folder `tables`.

    `study` is the study file as a dictionary; of its keys `name`, `title`, `analyses`, the order of `bases`, `datasets`
    and `benchmarks`, a benchmark's optional `chance` (score of guessing, 0..1), and `part` (study/plan.py) are used.
    `versions` maps what was used to its version, or to a list of versions when runs differ. Links to tables are
    relative: `tables/NAME.csv`. The same input gives the same bytes. Raises tables.TableError for a table that
    breaks its schema.
    """
    results = Results(tables, dict(study))
    questions = figures.draw(results)
    folder = out / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    for drawn in (figure for part in questions.values() for figure in part if figure.svg):
        (folder / f"{drawn.name}.svg").write_text(drawn.svg, encoding="utf-8")
        (folder / f"{drawn.name}.png").write_bytes(drawn.png)
    (out / "report.html").write_text(render(results, questions, versions), encoding="utf-8")


def render(results: Results, questions: dict[str, list[figures.Drawn]], versions: Mapping[str, Any]) -> str:
    """The page. All names are escaped by the template; only figures, script and data are inserted as they are."""
    questions = dict(questions)
    checks = questions.pop("audit", [])
    drawn = [figure for part in [*questions.values(), checks] for figure in part]
    data: dict[str, Any] = {
        "figures": [figure.spec for figure in drawn if figure.spec],
        "order": interactive.order(results),
    }
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    study = results.study
    return environment.get_template("report.html.j2").render(
        title=study.get("title") or study.get("name") or "Supervised fine-tuning",
        name=study.get("name") or "",
        style=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        part=study.get("part"),
        counts=_counts(results),
        findings=findings(results, questions),
        questions=[
            {"id": f"question-{i}", "title": title, "figures": [_inline(drawn) for drawn in part]}
            for i, (title, part) in enumerate(questions.items(), 1)
        ],
        checks=[_inline(figure) for figure in checks],
        claims=[_claim(row) for row in results["claims"].iter_rows(named=True)],
        audit=results["audit"].to_dicts(),
        audit_summary=words.audit(results),
        claims_summary=words.claims(results) if results["claims"].height else "",
        filters=[name for name in ("base", "dataset", "method") if len(data["order"][name]) > 1],
        script=Markup((TEMPLATES / "atlas.js").read_text(encoding="utf-8")),
        # "<" would end the script element early
        data=Markup(json.dumps(data, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")),
        cost=by_stage(results["cost"]),
        hours=hours,
        tables=([selection_table(results)] if results["selection"].height else []) + page_tables(results),
        schemas=schemas.TABLES,
        versions={name: _version(value) for name, value in sorted(versions.items())},
        mixed=sorted(name for name, value in versions.items() if isinstance(value, list) and len(value) > 1),
        coverage=coverage(),
        options=results.options,
        percent=f"{100 * results.options.confidence:g}",
        clear_q=text.CLEAR_Q,
    )


def _claim(row: dict[str, Any]) -> dict[str, Any]:
    """A claim for the template: numbers as text."""
    numbers = {
        f"said{suffix}": f"{text.number(row[f'number{suffix}'], 3)} "
        f"{text.interval(row[f'ci_low{suffix}'], row[f'ci_high{suffix}'], lambda v: text.number(v, 3))}"
        for suffix in ("", "_all")
        if row[f"number{suffix}"] is not None
    }
    too_few = (row["decides"] or "").startswith("too few")
    return row | {"said": "", "said_all": "", "too_few": too_few} | numbers


def coverage() -> dict[str, Any]:
    """What benchmarks/coverage.py measured: its columns (size and mix), and a row of shares per table and scope."""
    path = files("sft_atlas.analysis").joinpath("coverage.csv")
    frame = pl.read_csv(path.read_bytes())
    columns = sorted(set(frame.select("size", "mix").iter_rows()))
    share = {(r["table"], r["scope"], r["size"], r["mix"]): r["share"] for r in frame.iter_rows(named=True)}
    rows = dict.fromkeys(frame.select("table", "scope").iter_rows())
    return {
        "columns": [f"{size}: {mix}" for size, mix in columns],
        "rows": [(" ".join(filter(None, row)), [share.get((*row, *column)) for column in columns]) for row in rows],
        "draws": {
            size: int(part["draws"].to_numpy().min())
            for (size,), part in frame.sort("size").group_by("size", maintain_order=True)
        },
    }


def _version(value: Any) -> str:
    """A version, or several."""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _inline(drawn: figures.Drawn) -> dict[str, Any]:
    """A figure for the template: its SVG without XML header, ids made unique on the page."""
    drawing = drawn.svg[drawn.svg.find("<svg") :]
    drawing = re.sub(r'\bid="', f'id="figure-{drawn.name}-', drawing)
    drawing = re.sub(r'(href="#|url\(#)', rf"\g<1>figure-{drawn.name}-", drawing)
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing, flags=re.S)
    width = re.search(r'<svg[^>]*? width="([\d.]+)pt"', drawing)
    return {
        "name": drawn.name,
        "title": drawn.title,
        "sentence": drawn.sentence,
        "tables": drawn.tables,
        "interactive": drawn.spec is not None,
        "printed": bool(drawn.svg),
        "svg": Markup(drawing),
        "width": round(float(width[1]) * 4 / 3) if width else 0,
    }


def _counts(results: Results) -> list[tuple[str, str]]:
    """The size of the study, as label and number."""
    training, scores = results["training"], results["scores"]
    tuned = scores.filter(pl.col("sample").is_not_null())
    return [
        ("base models", f"{len(results.bases):,}"),
        ("datasets and mixtures", f"{len(results.datasets):,}"),
        ("benchmarks", f"{len({measure[0] for measure in results.measures}):,}"),
        ("training runs", f"{training.height:,}"),
        ("checkpoints scored", f"{tuned.select('base', 'sample', 'recipe', 'seed', 'epoch').n_unique():,}"),
        ("scores", f"{scores['score'].count():,}"),
        ("missing cells", f"{results['missing'].height:,}"),
    ]


def findings(results: Results, questions: dict[str, list[figures.Drawn]]) -> list[str]:
    """The study in plain words: a sentence per question, as the tables have it."""
    said = {drawn.name: drawn.sentence for part in questions.values() for drawn in part if drawn.shown}
    found = [words.audit(results)] if results["audit"].height else []
    if "gains_mean" in said:
        found += [explain_matched(results), explain_gains(results)]
    found += [said[name] for name in FINDINGS if name in said]
    found += [words.claims(results)] if words.decides_claims(results) else []
    return [sentence for sentence in found if sentence] or ["There are no scores yet, so there is nothing to report."]
