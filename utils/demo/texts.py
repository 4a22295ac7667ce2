"""What the page says, as HTML: sentences, tables, legends. Names of files are escaped here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import matplotlib
import numpy as np

from utils.demo import views
from utils.demo.anchors import COLUMNS, HORIZONTAL, PIXEL, VERTICAL, Level
from utils.plots import ERROR_LEGEND, PROBABILITY_COLOURS

NO_MODEL = (
    "There is no trained model in `logs_weights/` yet. Type `make demo` in the project's folder: "
    "it trains a small one, the quick start, on synthetic scenes in some minutes. Then load this "
    "page again. `train.py` trains on imagery of your own."
)
SYNTHETIC = (
    "{names} learned from synthetic scenes only, as the quick start does: "
    "on real imagery expect mistakes."
)


def said(sentence: str) -> str:
    return f'<p class="said">{escape(sentence)}</p>'


def wrong(sentence: str) -> str:
    """An error; never more than its first 400 characters, and no line breaks."""
    return f'<p class="wrong" role="alert">{escape(" ".join(sentence.split())[:400])}</p>'


def synthetic_notice(names: Sequence[str]) -> str:
    """Markdown on models that have seen no real imagery."""
    return SYNTHETIC.format(names=" and ".join(f"**{n}**" for n in names)) if names else ""


def facts_table(columns: Mapping[str, Mapping[str, str]]) -> str:
    """The facts of each model, a column each."""
    head = "".join(f"<th scope='col'>{escape(name)}</th>" for name in columns)
    rows = "".join(
        f"<tr><th scope='row'>{escape(title)}</th>"
        + "".join(f"<td>{escape(facts[title])}</td>" for facts in columns.values())
        + "</tr>"
        for title in next(iter(columns.values()), {})
    )
    return f"<div class='scroll'><table><tr><td></td>{head}</tr>{rows}</table></div>"


def before_after(before: str, after: str, left: str, right: str) -> str:
    """Two pictures (URLs) of one size over each other, and a slider between them.

    `left` and `right` say what they show.
    """
    words = f"Left: {escape(left)}. Right: {escape(right)}."
    return (
        '<div class="before_after"><div class="frame">'
        f'<img src="{escape(before)}" alt="{escape(left)}">'
        f'<img class="after" src="{escape(after)}" alt="{escape(right)}">'
        f'<div class="edge"></div></div><label>{words}<input type="range" min="0" max="100" '
        'value="50" oninput="this.closest(\'.before_after\')'
        ".style.setProperty('--cut', this.value + '%')\"></label></div>"
    )


def legend(view: str) -> str:
    """What the colours of a view mean."""
    if view == views.HEAT:
        colours = matplotlib.colormaps[PROBABILITY_COLOURS](np.linspace(0, 1, 9), bytes=True)
        steps = ", ".join(_css(colour) for colour in colours)
        scale = f'<i class="scale" style="background: linear-gradient(90deg, {steps})"></i>'
        return f'<div class="legend"><span>0 {scale} 1: probability of road</span></div>'
    if view == views.GRAPH:
        return _swatches({"road": views.LINE, "junction": views.JUNCTION})
    if view == views.ERRORS:
        return _swatches(ERROR_LEGEND)
    return _swatches({"road found": views.ROAD})


def anchor_facts(levels: Sequence[Level]) -> str:
    """A legend of the sampling points, and a row for each level."""
    colours = {
        "the horizontal strip reads here": HORIZONTAL,
        "the vertical strip reads here": VERTICAL,
        "the pixel": PIXEL,
    }
    head = "".join(f"<th scope='col'>{escape(title)}</th>" for title in COLUMNS)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(value)}</td>" for value in level.row()) + "</tr>"
        for level in levels
    )
    return f"{_swatches(colours)}<div class='scroll'><table><tr>{head}</tr>{rows}</table></div>"


def _swatches(colours: Mapping[str, Sequence[int]]) -> str:
    items = (
        f'<span><i style="background: {_css(colour)}"></i>{escape(word)}</span>'
        for word, colour in colours.items()
    )
    return f'<div class="legend">{"".join(items)}</div>'


def _css(colour: Sequence[int]) -> str:
    return f"rgb({', '.join(str(int(part)) for part in colour[:3])})"
