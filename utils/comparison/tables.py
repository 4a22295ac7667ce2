"""The comparison's two tables, and each way to write them: console, Markdown, LaTeX, HTML, CSV."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from prettytable import PrettyTable

from utils.metric_names import left_out_lines

Mark = Literal["", "best", "second"]
DASH = "-"
#: Below which a difference is told from chance.
LEVEL = 0.05
#: Of fewer, a bootstrap knows too little of how images vary.
FEW_IMAGES = 20
LABELS = {"f1": "F1", "iou": "IoU", "mean_iou": "mIoU", "iou_per_image": "IoU per image",
          "apls": "APLS", "topo_f1": "TOPO F1", "cldice": "clDice",
          "betti0_error": "Betti-0 error", "relaxed_f1": "relaxed F1"}  # fmt: skip
_LATEX = {"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
          "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}",
          "±": r"$\pm$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "<": r"$<$"}  # fmt: skip


class Cell(NamedTuple):
    """A field of a table, and how it stands out."""

    text: str
    mark: Mark = ""


class Table(NamedTuple):
    """`caption` says what the numbers are; the first column is the model's name."""

    caption: str
    header: list[str]
    rows: list[list[Cell]]


def label(key: str) -> str:
    """A metric's name as readers know it."""
    return LABELS.get(key, key.replace("_", " "))


def score_table(summary: Mapping[str, Any]) -> Table:
    """A row a model: every metric as mean and standard deviation over the seeds, and its cost."""
    metrics = summary["metrics"]
    arrows = ("↑" if metric["more_is_better"] else "↓" for metric in metrics)
    names = [f"{label(m['key'])} {arrow}" for m, arrow in zip(metrics, arrows, strict=True)]
    header = ["model", "seeds", *names, "mean rank", "params M", "GFLOPs", "latency ms"]
    rows = []
    for model in summary["models"]:
        scores = [model["scores"][metric["key"]] for metric in metrics]
        latency = (model["latency"] or {}).get("median_s")
        costs = ((model["parameters"], 1e6), (model["flops"], 1e9), (latency, 1e-3))
        rows.append(
            [
                Cell(model["name"]),
                Cell(str(len(model["seeds"]))),
                *(Cell(spread(score), _mark(score["rank"])) for score in scores),
                Cell(f"{model['mean_rank']:.2f}"),
                *(Cell(DASH if value is None else f"{value / unit:.2f}") for value, unit in costs),
            ]
        )
    return Table(_caption(summary), header, rows)


def significance_table(summary: Mapping[str, Any]) -> Table:
    """A row for every model but the first and every metric."""
    found = summary["significance"]
    header = ["model", "metric", "difference", "95 % interval", "p", "p (Holm)"]
    rows = [
        [
            Cell(entry["model"]),
            Cell(label(entry["metric"])),
            Cell(f"{entry['difference']:+.4f}"),
            Cell(f"{entry['low']:+.4f} to {entry['high']:+.4f}"),
            Cell(_p_value(entry["p"])),
            Cell(_p_value(entry["p_holm"]), "best" if entry["p_holm"] < LEVEL else ""),
        ]
        for entry in found["differences"]
    ]
    num_images = summary["about"]["num_images"]
    caption = (
        f"Difference to {found['baseline']}: paired bootstrap over {num_images} images, "
        f"{found['resamples']} resamples, each scored by all seeds and averaged over them; "
        "two-sided p, adjusted by Holm over the models of each metric, bold below 0.05."
    )
    if num_images < FEW_IMAGES:
        caption += " Of so few images the intervals are too narrow."
    return Table(caption, header, rows)


def spread(score: Mapping[str, Any]) -> str:
    """0.6412 ± 0.0031; the mean alone where there is one seed."""
    mean = f"{score['mean']:.4f}"
    return mean if score["std"] is None else f"{mean} ± {score['std']:.4f}"


def to_console(table: Table) -> str:
    """Best as *0.64*, second as _0.63_."""
    signs = {"": "", "best": "*", "second": "_"}
    grid = PrettyTable(table.header)
    grid.align, grid.align[table.header[0]] = "r", "l"
    for row in table.rows:
        grid.add_row([f"{signs[c.mark]}{c.text}{signs[c.mark]}" for c in row])
    return grid.get_string()


def to_markdown(table: Table) -> str:
    """A table of pipes, the caption below it."""
    wraps = {"": "{}", "best": "**{}**", "second": "<u>{}</u>"}

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"

    rule = [":--", *["--:"] * (len(table.header) - 1)]
    rows = ([wraps[c.mark].format(c.text) for c in row] for row in table.rows)
    return "\n".join([line(table.header), line(rule), *map(line, rows), "", table.caption, ""])


def to_latex(table: Table, name: str) -> str:
    """A table for \\input, with \\label{tab:NAME}; needs booktabs and graphicx."""
    wraps = {"": "{}", "best": r"\textbf{{{}}}", "second": r"\underline{{{}}}"}
    lines = [
        r"\begin{table*}[t]",
        r"  \centering",
        rf"  \caption{{{_escape(table.caption)}}}",
        rf"  \label{{tab:{name}}}",
        r"  \resizebox{\linewidth}{!}{%",
        rf"  \begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}",
        r"    \toprule",
        "    " + " & ".join(map(_escape, table.header)) + r" \\",
        r"    \midrule",
    ]
    for row in table.rows:
        cells = (wraps[cell.mark].format(_escape(cell.text)) for cell in row)
        lines.append("    " + " & ".join(cells) + r" \\")
    return "\n".join([*lines, r"    \bottomrule", r"  \end{tabular}}", r"\end{table*}", ""])


def latex_document(tables: Sequence[str]) -> str:
    """A document of nothing but the tables, to look at them."""
    head = [r"\documentclass{article}", r"\usepackage[margin=1cm,landscape]{geometry}"]
    packages = [r"\usepackage{booktabs}", r"\usepackage{graphicx}"]
    inputs = [rf"\input{{{name}}}" for name in tables]
    lines = [*head, *packages, r"\begin{document}", *inputs, r"\end{document}", ""]
    return "\n".join(lines)


def to_html(table: Table) -> str:
    """A table element with its caption."""
    tags = {"": "{}", "best": "<b>{}</b>", "second": "<u>{}</u>"}
    head = "".join(f"<th>{html.escape(text)}</th>" for text in table.header)
    body = "".join(
        "<tr>" + "".join(f"<td>{tags[c.mark].format(html.escape(c.text))}</td>" for c in row)
        + "</tr>\n" for row in table.rows
    )  # fmt: skip
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody>'
        f"</table></div>\n<p>{html.escape(table.caption)}</p>"
    )


def flat_columns(summary: Mapping[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """Header and rows of the unrounded numbers, for CSV and sheets."""
    keys = [metric["key"] for metric in summary["metrics"]]
    parts = ("mean", "std", "rank")
    header = ["model", "class", "seeds", *(f"{key}_{part}" for key in keys for part in parts),
              "mean_rank", "parameters", "flops", "latency_median_s", "latency_p90_s"]  # fmt: skip
    rows = []
    for model in summary["models"]:
        latency = model["latency"] or {}
        rows.append(
            [
                model["name"],
                model["classname"],
                " ".join(map(str, model["seeds"])),
                *(model["scores"][key][part] for key in keys for part in parts),
                *(model[key] for key in ("mean_rank", "parameters", "flops")),
                *(latency.get(key) for key in ("median_s", "p90_s")),
            ]
        )
    return header, rows


def to_csv(summary: Mapping[str, Any]) -> str:
    text = io.StringIO()
    header, rows = flat_columns(summary)
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue()


def _caption(summary: Mapping[str, Any]) -> str:
    about, scoring = summary["about"], summary["scoring"]
    threshold = scoring.get("threshold")
    at = "each run's own threshold" if threshold is None else f"threshold {threshold:g}"
    return (
        f"{about['dataset']}, {scoring.get('split')}, {about['num_images']} images, {at}, "
        f"budget {about['budget']}. Mean ± standard deviation over the seeds; best bold, second "
        f"underlined. FLOPs and latency of one image of {about['image_size']} px."
        + "".join(f" {line}." for line in left_out_lines(about))
    )


def _mark(rank: int) -> Mark:
    return {1: "best", 2: "second"}.get(rank, "")  # type: ignore[return-value]


def _p_value(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _escape(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)
