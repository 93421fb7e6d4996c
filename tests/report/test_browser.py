"""The page in a real browser: it draws without an error, filters work, and nothing leaves it."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import polars as pl
import pytest

from sft_atlas.analysis import tables
from sft_atlas.analysis.findings import analyse
from sft_atlas.report.figures import AUDIT, QUESTIONS
from sft_atlas.report.page import build
from sft_atlas.stages.audit.run import audit
from sft_atlas.study.analyses import AnalysisOptions
from tests.unit.synthetic import Study, tables_of

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed (apt-get install chromium)")
OPTIONS = {"bootstrap_draws": 200, "permutations": 200}
LABELS = {"bases": {"olmo": {"family": "a"}, "llama": {"family": "a"}, "mistral": {"family": "b"}}, "benchmarks": {}}
# run after the page's script, in the page: what a reader does, and what he then sees
READER = """
<script>
const seen = {errors: []};
window.addEventListener("error", (event) => seen.errors.push(event.message));
const rows = () => Object.fromEntries([...document.querySelectorAll(".chart .canvas")].map((node) =>
  [node.parentElement.dataset.figure, Number(node.dataset.rows)]));
seen.start = rows();
document.querySelector('[data-filter="base"] [data-none]').click();
seen.one = rows();
seen.address = location.hash;
document.querySelector('[data-filter="base"] [data-all]').click();
seen.again = rows();
const box = document.querySelector('[data-filter="method"] input[value="lora"]');
box.click();
seen.full = rows();
box.click();
const select = document.querySelector('[data-figure="predictors"] select');
select.value = "nq";
select.dispatchEvent(new Event("change"));
seen.nq = rows();
const plot = document.querySelector('[data-figure="gains_mean"] .canvas');
plot.focus();
plot.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowRight"}));
seen.tip = document.getElementById("tip").innerText;
seen.said = document.querySelector('[data-figure="gains_mean"] [aria-live]').textContent;
const saved = [];
const click = HTMLAnchorElement.prototype.click;
HTMLAnchorElement.prototype.click = function () {
  if (this.download) saved.push(this.download); else click.call(this);
};
const buttons = [...document.querySelectorAll('[data-figure="gains_mean"] .exports button')];
buttons.slice(0, 2).forEach((node) => node.click()); seen.saved = saved;
seen.wide = document.documentElement.scrollWidth > window.innerWidth;
const note = document.createElement("script");
note.type = "application/json";
note.id = "seen";
note.textContent = JSON.stringify(seen);
document.body.appendChild(note);
</script>
</body>"""


def _browse(page: Path, folder: Path, width: int = 1200, address: str = "") -> tuple[str, str, set[str]]:
    """The page's content after its scripts, what the console said, and the addresses that were asked for."""
    log = folder / "net.json"
    command = [str(BROWSER), "--headless=new", "--no-sandbox", "--disable-gpu", f"--window-size={width},900"]
    command += [f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=3000", "--enable-logging=stderr"]
    command += ["--disable-background-networking", "--disable-component-update", "--no-first-run"]
    command += ["--disable-dev-shm-usage", f"--log-net-log={log}", "--dump-dom", f"file://{page}{address}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    console = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    asked = set(re.findall(r'"url":"((?:https?|wss?|ftp)://[^"]*)"', log.read_text(errors="replace")))
    return done.stdout, console, asked


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    for name, frame in tables_of(Study(bases=5)).items():
        tables.write(frame, folder / "tables", name)
    audit(folder / "tables", folder / "tables", LABELS)
    analyse(folder / "tables", folder / "tables", AnalysisOptions(**OPTIONS), LABELS)  # type: ignore[arg-type]
    build(folder / "tables", {"name": "shown", "title": "a page", "analyses": OPTIONS}, {}, folder)
    text = (folder / "report.html").read_text()
    assert text.count("</body>") == 1
    (folder / "read.html").write_text(text.replace("</body>", READER))
    return folder / "read.html"


@pytest.fixture(scope="module")
def browsed(page: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, set[str], dict]:
    found = _browse(page, tmp_path_factory.mktemp("browser"))
    seen = re.search(r'<script type="application/json" id="seen">(.*?)</script>', found[0], flags=re.S)
    assert seen, found[1]
    return *found, json.loads(html.unescape(seen[1]))


def test_it_draws_every_figure_without_an_error(browsed: tuple[str, str, set[str], dict]) -> None:
    _, console, _, seen = browsed
    assert console == ""
    assert seen["errors"] == []
    shown = {plan.name for part in (*QUESTIONS.values(), AUDIT) for plan in part if plan.spec}
    assert set(seen["start"]) == shown - {"leave_one_out", "crosslingual", "sensitivity"}
    assert all(rows > 0 for rows in seen["start"].values())


def test_no_request_leaves_the_page(browsed: tuple[str, str, set[str], dict]) -> None:
    # the browser asks its maker for dictionaries and updates by itself; the page knows no address at all
    page, _, asked, _ = browsed
    assert {address for address in asked if not re.search(r"//[^/]*(google|gstatic|gvt1)", address)} == set()
    assert not re.search(r'(src|href)="(https?:)?//', page)
    # and the page forbids itself to ask; what it tried would stand on the console
    assert "default-src 'none'" in page


def test_filters_narrow_every_figure_that_has_the_column(browsed: tuple[str, str, set[str], dict], page: Path) -> None:
    seen = browsed[3]
    cells = tables.read(page.parent / "tables", "effects").filter(scope="cell")
    assert seen["start"]["gains_mean"] == cells.height
    assert seen["one"]["gains_mean"] == cells.filter(base="gemma").height
    assert "base=gemma" in seen["address"]
    assert seen["again"] == seen["start"]
    assert seen["full"]["gains_mean"] == cells.filter(method="full").height
    assert seen["full"]["pca"] == seen["start"]["pca"]


def test_a_choice_of_one_figure_changes_that_one_only(browsed: tuple[str, str, set[str], dict], page: Path) -> None:
    seen = browsed[3]
    rows = tables.read(page.parent / "tables", "correlations")
    expected = rows.filter(pl.col("method").is_null(), pl.col("size").is_null(), pl.col("coefficient").is_not_null())
    assert seen["nq"]["predictors"] == expected.filter(benchmark="nq").height
    assert {name for name in seen["start"] if seen["nq"][name] != seen["start"][name]} == {"predictors"}


def test_marks_are_read_by_keyboard(browsed: tuple[str, str, set[str], dict]) -> None:
    seen = browsed[3]
    assert "gain (points):" in seen["tip"]
    assert "gain (points):" in seen["said"]


def test_figures_are_saved_with_their_data(browsed: tuple[str, str, set[str], dict]) -> None:
    assert browsed[3]["saved"] == ["gains_mean.csv", "gains_mean.svg"]


def test_a_view_can_be_linked_and_fits_a_phone(page: Path, tmp_path: Path) -> None:
    text, console, _ = _browse(page, tmp_path, width=500, address="#base=olmo%7Cllama")
    assert console == ""
    seen = json.loads(html.unescape(re.search(r'id="seen">(.*?)</script>', text, flags=re.S)[1]))  # type: ignore[index]
    cells = tables.read(page.parent / "tables", "effects").filter(scope="cell")
    assert seen["start"]["gains_mean"] == cells.filter(pl.col("base").is_in(["olmo", "llama"])).height
    assert not seen["wide"]
