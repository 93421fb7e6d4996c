"""How figures look, and how they become bytes that never differ between runs."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

INK, SOFT, RULE = "#1f2933", "#66727f", "#dfe4ea"
COLOURS = (
    "#1971a8",
    "#e07b1a",
    "#2b9348",
    "#a03fb8",
    "#d6336c",
    "#0c9aa3",
    "#a67c00",
    "#5b4bc4",
    "#7a8591",
    "#8a3b12",
    "#6aa121",
    "#16324f",
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h", "p", "*", "d")
LOSS_TO_GAIN = LinearSegmentedColormap.from_list(
    "loss_to_gain", ["#8f3b1b", "#d9824f", "#f4cfb4", "#ffffff", "#b5dbe3", "#3f93ad", "#0f4c68"]
)
"""Diverging, white at 0, told apart by people who do not see red and green."""

RC: Any = {
    "svg.hashsalt": "sft-atlas",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.labelcolor": INK,
    "axes.edgecolor": SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.linewidth": 0.8,
    "axes.unicode_minus": True,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


def colour(names: list[str], name: str) -> str:
    """The colour of one of `names`."""
    return COLOURS[names.index(name) % len(COLOURS)]


def marker(names: list[str], name: str) -> str:
    """The marker of one of `names`."""
    return MARKERS[names.index(name) % len(MARKERS)]


def figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches, laid out so that nothing is cut off."""
    return Figure(figsize=(width, height), layout="constrained")


def zero_line(axes: Axes, horizontal: bool = True) -> None:
    """A thin line at 0, behind the data."""
    line = axes.axhline if horizontal else axes.axvline
    line(0, color=SOFT, linewidth=0.8, zorder=0)


def svg(drawing: Figure) -> str:
    """The figure as SVG text, without a date."""
    buffer = io.StringIO()
    drawing.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def png(drawing: Figure) -> bytes:
    """The figure as PNG, without the name of its software, laid out as it was last drawn."""
    drawing.set_layout_engine("none")
    buffer = io.BytesIO()
    drawing.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()


@contextmanager
def context() -> Iterator[None]:
    """Matplotlib's settings for everything drawn and saved inside; a user's own settings do not count."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(RC)
        yield
