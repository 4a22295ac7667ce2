"""The LaTeX of compare.py's tables: escaped, and taken by LaTeX where there is one."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from utils.comparison.tables import Cell, Table, latex_document, to_latex

HOSTILE = Table(
    "100 % of a_b",
    ["model", "x"],
    [[Cell("a_b&c#{}~^\\"), Cell("1 ± 2", "best")], [Cell("second ↑", "second"), Cell("0")]],
)


def test_latex_escapes_what_is_special():
    text = to_latex(HOSTILE, "t")
    assert r"a\_b\&c\#\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}" in text
    assert r"100 \% of a\_b" in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles(tmp_path):
    (tmp_path / "t.tex").write_text(to_latex(HOSTILE, "t"), encoding="utf-8")
    (tmp_path / "comparison.tex").write_text(latex_document(["t"]), encoding="utf-8")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "comparison.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "comparison.pdf").stat().st_size > 1000
