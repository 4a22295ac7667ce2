"""report.html: tables, pictures and how they came about, in one file that needs no network."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.comparison.tables import DASH, label, score_table, significance_table, to_html
from utils.files import atomic_path

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1c; --paper: #fff; --line: #ddd; --soft: #f4f4f4; }
@media (prefers-color-scheme: dark) { :root:not([data-theme=light]) {
  --ink: #e4e4e4; --paper: #191b1f; --line: #3a3d44; --soft: #23262c; } }
:root[data-theme=dark] {
  color-scheme: dark; --ink: #e4e4e4; --paper: #191b1f; --line: #3a3d44; --soft: #23262c; }
:root[data-theme=light] { color-scheme: light; }
body { color: var(--ink); background: var(--paper); font: 15px/1.5 system-ui, sans-serif;
  max-width: 96rem; margin: 2rem auto; padding: 0 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.8rem; }
th, td { padding: 0.25rem 0.4rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
thead th { background: var(--soft); }
td.text { text-align: left; white-space: normal; }
u { text-underline-offset: 3px; }
img { max-width: 100%; height: auto; }
button { float: right; font: inherit; padding: 0.2rem 0.8rem; color: inherit;
  background: var(--soft); border: 1px solid var(--line); border-radius: 4px; cursor: pointer; }
.failed { border-left: 4px solid #d55e00; padding-left: 0.8rem; }
.dark-only { display: none; }
@media (prefers-color-scheme: dark) {
  :root:not([data-theme=light]) .dark-only { display: inline; }
  :root:not([data-theme=light]) .light-only { display: none; } }
:root[data-theme=dark] .dark-only { display: inline; }
:root[data-theme=dark] .light-only { display: none; }
"""
_SCRIPT = """
document.querySelector('button').onclick = () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === 'dark'
    : matchMedia('(prefers-color-scheme: dark)').matches;
  root.dataset.theme = dark ? 'light' : 'dark';
};
"""


def write_report(
    summary: Mapping[str, Any],
    charts: Mapping[str, Mapping[str, Path]],
    pictures: Mapping[str, Path],
    path: Path,
) -> None:
    """Write the report. `charts` are titles with a PNG for 'light' and one for 'dark' ground,
    `pictures` titles with a PNG for both; all are put into the file."""
    about = summary["about"]
    title = f"Comparison on {about['dataset']}"
    sections = [
        "<button>light / dark</button>",
        f"<h1>{html.escape(title)}</h1>",
        *_failures(summary["failures"]),
        "<h2>Scores</h2>",
        to_html(score_table(summary)),
    ]
    for name, grounds in charts.items():
        images = (_image(file, name, f"{ground}-only") for ground, file in grounds.items())
        sections += [f"<h2>{html.escape(name)}</h2>", *images]
    for name, file in pictures.items():
        sections += [f"<h2>{html.escape(name)}</h2>", _image(file, name, "")]
    if summary["significance"]["differences"]:
        sections += ["<h2>Significance</h2>", to_html(significance_table(summary))]
    sections += _conditions(summary)
    body = "\n".join(sections)
    with atomic_path(path) as temporary:
        temporary.write_text(
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<link rel="icon" href="data:,">\n'  # or a browser would ask for one
            f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style></head>\n"
            f"<body>\n{body}\n<script>{_SCRIPT}</script></body></html>\n",
            encoding="utf-8",
        )


def _failures(failures: Mapping[str, str]) -> list[str]:
    if not failures:
        return []
    lines = (f"<li>{html.escape(f'{key}: {reason}')}</li>" for key, reason in failures.items())
    return [f'<div class="failed"><b>Not in the tables</b><ul>{"".join(lines)}</ul></div>']


def _image(file: Path, name: str, css_class: str) -> str:
    data = base64.b64encode(file.read_bytes()).decode()
    alt = html.escape(name, quote=True)
    return f'<img class="{css_class}" alt="{alt}" src="data:image/png;base64,{data}">'


def _conditions(summary: Mapping[str, Any]) -> list[str]:
    about = summary["about"]
    facts = {
        "data": about["data"],
        "budget of every training": about["budget"],
        "processes a training": about["ranks"],
        "cost measured on": about["processor"],
    }
    facts |= {f"scoring: {key}": value for key, value in summary["scoring"].items() if value != {}}
    lines = ["<h2>Conditions</h2>", _two_columns(facts)]
    if about["differing_settings"]:
        lines += ["<h2>Settings that differ between the models</h2>"]
        lines.append(_by_model([m["name"] for m in summary["models"]], about["differing_settings"]))
    problems = {m["name"]: "; ".join(m["cost_problems"]) for m in summary["models"]}
    problems = {name: text for name, text in problems.items() if text}
    if problems:
        lines += ["<h2>Costs that could not be measured</h2>", _two_columns(problems)]
    seeds = {m["name"]: ", ".join(map(str, m["seeds"])) for m in summary["models"]}
    return [*lines, "<h2>Seeds</h2>", _two_columns(seeds)]


def _by_model(models: Sequence[str], settings: Mapping[str, Mapping[str, Any]]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in models)
    rows = "".join(
        f"<tr><td>{html.escape(key)}</td>"
        + "".join(f"<td>{html.escape(_text(values.get(name)))}</td>" for name in models)
        + "</tr>\n"
        for key, values in settings.items()
    )
    return (
        f'<div class="wide"><table><thead><tr><th>setting</th>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _two_columns(facts: Mapping[str, Any]) -> str:
    cells = ((html.escape(label(key)), html.escape(_text(facts[key]))) for key in facts)
    rows = "".join(f'<tr><td>{key}</td><td class="text">{text}</td></tr>\n' for key, text in cells)
    return f"<table><tbody>{rows}</tbody></table>"


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if value is None:
        return DASH
    return json.dumps(value) if isinstance(value, dict) else str(value)
