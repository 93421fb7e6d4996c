"""The report opens alone, says what the tables say, and is the same to the byte."""

import re
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest

from sft_atlas.analysis import tables
from sft_atlas.analysis.findings import analyse
from sft_atlas.report import interactive_factors, say, sentences
from sft_atlas.report.figures import QUESTIONS
from sft_atlas.report.page import build
from sft_atlas.report.results import Results
from sft_atlas.stages.audit.run import audit
from sft_atlas.study.analyses import AnalysisOptions
from tests.unit.synthetic import Study, tables_of

# figures that need what the invented study lacks
NOT_HERE = {"leave_one_out", "crosslingual"}
STUDY = {
    "name": "micro",
    "title": 'Tuning <b>& "more"</b>',
    "analyses": {"bootstrap_draws": 300, "permutations": 300},
    "benchmarks": {"nq": {"chance": 0.25}},
}
VERSIONS = {"torch": ["2.5", "2.6"], "python": "3.11"}
OPTIONS = AnalysisOptions(**STUDY["analyses"])  # type: ignore[arg-type]


def _write(study: Study, folder: Path) -> Path:
    for name, frame in tables_of(study).items():
        tables.write(frame, folder / "tables", name)
    audit(folder / "tables", folder / "tables", {})
    analyse(folder / "tables", folder / "tables", OPTIONS)
    return folder


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = _write(Study(), tmp_path_factory.mktemp("full"))
    build(folder / "tables", STUDY, VERSIONS, folder)
    return folder


class _Links(HTMLParser):
    """Everything a page would load or link to, its scripts, and whether tags close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.scripts = 0
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        for name, value in attributes:
            if name in ("src", "href", "xlink:href", "data", "action") and value:
                self.targets.append(value)
            if name == "id" and value:
                self.ids.append(value)


def _parse(page: str) -> _Links:
    links = _Links()
    links.feed(page)
    return links


def _outside(page: str) -> list[str]:
    links = _parse(page)
    loads = re.findall(r"url\(([^)]*)\)|@import ([^;]*)", page)
    found = links.targets + [a or b for a, b in loads]
    return [t for t in found if not t.startswith(("#", "tables/", "figures/", "data:"))]


def test_the_page_needs_no_network_and_no_file_beside_it(full: Path) -> None:
    page = (full / "report.html").read_text()
    assert _outside(page) == []
    assert "<script src" not in page
    assert _parse(page).scripts == 2
    assert len(page) < 3_000_000


def test_ids_are_unique_and_links_lead_somewhere(full: Path) -> None:
    page = (full / "report.html").read_text()
    links = _parse(page)
    assert len(links.ids) == len(set(links.ids))
    inside = {target[1:] for target in links.targets if target.startswith("#")}
    assert inside <= set(links.ids)
    for target in links.targets:
        if target.startswith(("tables/", "figures/")):
            assert (full / target).exists(), target


def test_names_are_escaped(full: Path) -> None:
    page = (full / "report.html").read_text()
    assert "Tuning &lt;b&gt;&amp; &#34;more&#34;&lt;/b&gt;" in page
    assert "out of memory &lt;while loading&gt; &amp; stopped" in page
    assert "<b>" not in page


def test_every_figure_is_drawn_and_explained_with_numbers(full: Path) -> None:
    page = (full / "report.html").read_text()
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    plans = [plan for part in QUESTIONS.values() for plan in part]
    assert len(captions) == len(plans) - len(NOT_HERE)
    printed = [plan for plan in plans if plan.draw]
    for suffix in ("svg", "png"):
        assert len(list((full / "figures").glob(f"*.{suffix}"))) == len(printed) == 10
    assert all("n =" in caption or " of " in caption for caption in captions)
    assert page.count("Not shown") == len(NOT_HERE)
    assert "Matching data helps" in page
    assert "borderline" in page or "gain falls with perplexity" in page
    assert "Results of different versions are mixed here: torch" in page


def test_rows_that_were_left_out_stand_on_the_page_with_their_reasons(full: Path) -> None:
    page = (full / "report.html").read_text()
    shown = pl.read_parquet(full / "tables/samples.parquet").height
    assert (
        page.count("duplicate 2, empty 1") == page.count("later_turns 5") == min(shown, page.count("later_turns 5")) > 0
    )


def test_the_same_tables_give_the_same_bytes(full: Path, tmp_path: Path) -> None:
    build(full / "tables", STUDY, VERSIONS, tmp_path)
    made = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert len(made) == 21
    for path in made:
        assert (tmp_path / path).read_bytes() == (full / path).read_bytes(), path


def test_a_null_is_reported_as_no_clear_relation(tmp_path: Path) -> None:
    study = Study(slope=0, matched=0, lora=0, layer_effect=0, sizes=(300,), seeds=(0,), seed=3, benchmarks=5)
    results = Results(_write(study, tmp_path) / "tables", STUDY)
    plans = [plan for part in QUESTIONS.values() for plan in part if plan.name != "seeds"]
    said = "\n".join(plan.explain(results) for plan in plans if all(results[name].height for name in plan.tables))
    assert "No clear difference: where the data trains what is tested" in said
    assert "No property is clearly related to gain" in said
    assert "No clear difference between lora and full" in said
    assert "no clear relation at any depth" in said
    assert "clear at" not in said


def test_empty_tables_give_a_page_that_says_so(tmp_path: Path) -> None:
    build(tmp_path / "tables", {}, {}, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "There are no scores yet" in page
    assert page.count("Not shown: these results hold no rows") == sum(len(part) for part in QUESTIONS.values())
    assert _outside(page) == []


@pytest.mark.parametrize(
    "study",
    [
        Study(bases=1, datasets=1, benchmarks=1, recipes=("full",), sizes=(300,), seeds=(0,), mixture=False),
        Study(
            bases=2, datasets=2, benchmarks=2, recipes=("full",), sizes=(300,), seeds=(0, 1), mixture=False, layers=2
        ),
    ],
)
def test_nearly_empty_tables_are_reported(study: Study, tmp_path: Path) -> None:
    _write(study, tmp_path)
    build(tmp_path / "tables", {"name": "tiny"}, {}, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert (tmp_path / "figures/gains_mean.svg").exists()
    assert "(table contrasts)" in page
    assert "No versions were recorded." in page
    assert "nan" not in re.sub(r"<script.*?</script>|<style.*?</style>", "", page, flags=re.S).lower()


def test_a_report_over_part_of_a_study_says_which_part(full: Path, tmp_path: Path) -> None:
    part = {"only": "base=<olmo>*", "cells": 1200, "left_out": 1060}
    build(full / "tables", STUDY | {"part": part}, VERSIONS, tmp_path)
    page = " ".join((tmp_path / "report.html").read_text().split())
    assert "<code>only: base=&lt;olmo&gt;*</code> leaves out 1,060 of its 1,200 cells" in page
    assert "Part of the study" not in (full / "report.html").read_text()


def test_what_a_dataset_adds_is_told_mixture_by_mixture(full: Path) -> None:
    about = {"base": "olmo", "method": "full", "schedule": "cosine", "seed": 0, "epoch": 3, "n_benchmarks": 1}
    rows = [
        about | {"mixture": mixture, "held_out": out, "recipe": recipe, "contribution": value} | measure
        for mixture, out, recipe, value in (
            ("small", "x", "lr1", 0.1),
            ("small", "x", "lr2", 0.3),
            ("large", "x", "lr1", 0),
        )
        for measure in ({}, {"benchmark": "nq", "shots": 0, "metric": "exact_match"})
    ]
    results = Results(full / "tables", STUDY)
    results.frames["leave_one_out"] = tables.build("leave_one_out", rows)
    said = "X adds most to small (+20.0 points over all benchmarks), x least to large (0.0), n = 3 mixtures"
    assert sentences.leave_one_out(results).startswith(said)
    spec = interactive_factors.leave_one_out(results)
    assert spec and [choice["name"] for choice in spec["choices"]] == ["mixture", "recipe", "epoch"]


def test_only_base_scores_are_reported(tmp_path: Path) -> None:
    frames = tables_of(Study(bases=2, datasets=2, benchmarks=2))
    tables.write(frames["scores"].filter(pl.col("sample").is_null()), tmp_path / "tables", "scores")
    build(tmp_path / "tables", {}, {}, tmp_path)
    assert "Not shown: no row has the values that this figure needs." in (tmp_path / "report.html").read_text()


def test_numbers_are_written_for_people() -> None:
    assert say.points(0.1234) == "+12.3"
    assert say.points(-0.0001) == "0.0"
    assert say.number(-0.5) == "−0.50"
    assert say.number(None) == "–"
    assert say.probability(0.0004) == "< 0.001"
    assert say.count(1, "run") == "1 run"
    assert say.count(1000, "cell") == "1,000 cells"
    assert say.interval(None, 1.0) == "[no interval: too few]"
