"""Stage *price*: a plan's numbers as text, as a table of all jobs, and as a page with two figures."""

import html
from pathlib import Path
from typing import Any

import polars as pl

from sft_atlas.files import whole, write_table
from sft_atlas.stages.estimate.spec import Spec
from sft_atlas.units import duration, hours, size

SCHEMA = {
    "stage": pl.String,
    "output": pl.String,
    "done": pl.Boolean,
    "seconds": pl.Float64,
    "device": pl.String,
    "threads": pl.Int64,
    "mem_mb": pl.Float64,
    "gpu_mem_mb": pl.Float64,
    "disk": pl.Float64,
    "weights": pl.Float64,
    "exact": pl.Boolean,
    "files": pl.Int64,
}
KEPT = {
    "merged": "every model whole, adapters merged",
    "all": "all weights, as they were trained",
    "deltas": "differences to the base, and adapters",
    "adapters": "adapters only",
    "none": "measurements only",
}
HEADER = ("stage", "jobs", "done", "GPU-hours", "CPU-hours", "memory", "GPU memory", "disk", "estimated")


def run(spec: Spec, root: Path) -> None:
    """Write `plan.html` and, beside it, `plan.txt` and `plan.parquet` (one row per job, schema `SCHEMA`)."""
    facts, output = spec.identity, root / spec.output
    now = disk_now(root, facts["jobs"]["output"])
    shared = overlaps(root, facts["jobs"]["output"])
    write_table(output.with_suffix(".parquet"), pl.DataFrame(facts["jobs"], schema=SCHEMA, strict=False))
    with whole(output.with_suffix(".txt")) as temporary:
        temporary.write_text(text(facts, now, shared), encoding="utf-8")
    with whole(output) as temporary:
        temporary.write_text(page(facts, now, shared), encoding="utf-8")


def disk_now(root: Path, outputs: list[str]) -> int:
    """Bytes that lie in the folders of these outputs, whatever made them."""
    folders = sorted({(root / output).parent for output in outputs})
    tops = [folder for folder in folders if not any(parent in folders for parent in folder.parents)]
    return sum(file.stat().st_size for top in tops if top.is_dir() for file in top.rglob("*") if file.is_file())


def overlaps(root: Path, outputs: list[str]) -> list[str]:
    """What is known so far of training rows that hold a benchmark's items, one sentence per sample that has any."""
    tables = [root / output for output in outputs if Path(output).name.startswith("contamination-")]
    known = [path for path in tables if path.exists()]
    lines = [f"Compared with the benchmarks: {len(known)} of {len(tables)} samples."]
    for path in known:
        counts = (
            pl.read_parquet(path).group_by("benchmark").agg(pl.struct("dataset", "row").n_unique()).sort("benchmark")
        )
        if counts.height:
            held = ", ".join(f"{benchmark} {rows}" for benchmark, rows in counts.iter_rows())
            lines.append(f"  {path.parent.name}: rows that hold an item: {held}")
    return lines


def stage_rows(facts: dict[str, Any]) -> list[tuple[str, ...]]:
    """A line of figures for each stage, and for all."""
    rows: list[tuple[str, ...]] = []
    for sums in [*facts["stages"], {"stage": "all", **facts["total"]}]:
        needs = (_gigabytes(sums["mem_mb"]), _gigabytes(sums["gpu_mem_mb"]))
        counts = (str(sums["jobs"]), str(sums["done"]), hours(sums["gpu_hours"]), hours(sums["cpu_hours"]))
        rows.append((sums["stage"], *counts, *needs, size(sums["disk"]), str(sums["estimated"])))
    return rows


def statements(facts: dict[str, Any], now: int) -> list[str]:
    """What is to be known beside the table, one sentence each."""
    workers = "GPUs" if facts["on_gpu"] else "jobs at a time"
    wall = ", ".join(f"{duration(played['seconds'])} with {played['workers']}" for played in facts["wall"])
    lines = [
        f"Wall time of what is left, by number of {workers}, without queues and failures: {wall}.",
        f"Disk now: {size(now)}. At the end, and at peak with {facts['gpus']} {workers}, by the weights kept:",
        *(f"  {_disk(found, facts['keep_weights'])}" for found in facts["disk"]),
    ]
    lines.append(
        f"Files below the results folder, without weights that are released: about {facts['total']['files']:,}."
    )
    for found in facts["several_gpus"]:
        lines.append(
            f"{found['jobs']} jobs of {found['stage']} need more than the {facts['gpu_memory_gb']:g} GB of one GPU, "
            f"even with one row in memory: each asks for {found['gpus']} GPUs."
        )
    estimated, jobs = facts["total"]["estimated"], facts["total"]["jobs"]
    lines.append(
        f"Prices of {estimated} of {jobs} jobs rest on estimated sizes (the study's expected_ and parameters fields, "
        "or cost/throughput.yaml), the others on counted ones; all of them on that table's speeds."
    )
    for found in facts["corrections"]:
        lines.append(
            f"Seconds of {found['stage']} on {found['device']} are corrected by {found['seconds']:.2g}, the median of "
            f"{found['records']} finished jobs."
        )
    return lines


def text(facts: dict[str, Any], now: int, shared: list[str]) -> str:
    """The plan for a terminal."""
    rows = [HEADER, *stage_rows(facts)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    table = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    return "\n".join([_title(facts), "", *table, "", *statements(facts, now), *shared]) + "\n"


def page(facts: dict[str, Any], now: int, shared: list[str]) -> str:
    """The plan as one HTML file that needs nothing beside it."""
    head = "".join(f"<th>{cell}</th>" for cell in HEADER)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in stage_rows(facts)
    )
    notes = "".join(f"<p>{html.escape(line)}</p>" for line in [*statements(facts, now), *shared])
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Plan of {html.escape(facts['study'])}</title>"
        "<style>body{font:15px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1f2933}"
        "table{border-collapse:collapse;font-variant-numeric:tabular-nums}"
        "td,th{padding:.2rem .7rem;text-align:right;border-bottom:1px solid #dfe4ea;white-space:nowrap}"
        "td:first-child,th:first-child{text-align:left}svg{max-width:100%;height:auto}</style>"
        f"<h1>Plan of {html.escape(facts['study'])}</h1><p>{html.escape(_title(facts))}</p>"
        f'<div style="overflow-x:auto"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{notes}'
        f"{figures(facts)}</html>\n"
    )


def figures(facts: dict[str, Any]) -> str:
    """Hours by stage, and wall time by number of workers, as one SVG."""
    import io

    import matplotlib as mpl
    from matplotlib.figure import Figure

    unit = "gpu_hours" if facts["on_gpu"] else "cpu_hours"
    label = unit.replace("_", "-").upper().replace("HOURS", "hours")
    stages = [(sums["stage"], sums[unit]) for sums in facts["stages"] if sums[unit]]
    with mpl.rc_context({"svg.hashsalt": "sft-atlas", "svg.fonttype": "path", "font.size": 9}):
        figure = Figure(figsize=(9, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        bars = left.barh([name for name, _ in stages][::-1], [value for _, value in stages][::-1], color="#1971a8")
        left.bar_label(bars, [hours(value) for _, value in stages][::-1], padding=3)
        left.set(xlabel=label, title="Where the hours go", xmargin=0.15)
        counts = [played["workers"] for played in facts["wall"]]
        right.plot(counts, [played["seconds"] / 86400 for played in facts["wall"]], marker="o", color="#e07b1a")
        right.set(
            xscale="log",
            yscale="log",
            xlabel="GPUs" if facts["on_gpu"] else "jobs at a time",
            ylabel="days of wall time",
        )
        right.set_xticks(counts, [str(n) for n in counts])
        right.minorticks_off()
        right.set_title("Wall time of what is left")
        for axes in (left, right):
            axes.spines[["top", "right"]].set_visible(False)
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    return drawn.getvalue()[drawn.getvalue().index("<svg") :]


def _disk(found: dict[str, Any], keep: str) -> str:
    mark = " (this study's keep_weights)" if found["kept"] == keep else ""
    return f"{KEPT[found['kept']]}: {size(found['end'])}, at peak {size(found['peak'])}{mark}"


def _title(facts: dict[str, Any]) -> str:
    return (
        f"{facts['models']:,} fine-tuned models from {facts['runs']:,} runs of {facts['bases']} bases, "
        f"{facts['benchmarks']} benchmarks: about {hours(facts['total']['gpu_hours'])} GPU-hours and "
        f"{hours(facts['total']['cpu_hours'])} CPU-hours"
    )


def _gigabytes(number: float) -> str:
    return f"{number / 1000:.0f} GB" if number else "–"
