"""What a training leaves to read: metrics.jsonl, training_metrics.xlsx, curves.png and samples."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any

from openpyxl import Workbook
from prettytable import PrettyTable

from utils.comet import CometTracker
from utils.config import dump_config
from utils.engine import Sample
from utils.files import atomic_path
from utils.metric_names import main_value
from utils.plots import sample_sheet, training_curves
from utils.reports import flat_items, pixel_size_text
from utils.runs import CONFIG_FILE
from utils.schema import Config

logger = logging.getLogger(__name__)

#: Val is scored, and its samples are drawn, at this probability.
VAL_THRESHOLD = 0.5
#: Drawing the curves takes a second, which would show in runs of short epochs.
CURVES_EVERY_S = 30


class Tracker:
    """The files of one run, rewritten whole at each epoch from its rows.

    `rows` is the run's history: a resumed run gets it from the checkpoint, so that epochs which
    were done after that checkpoint, and are done again, do not stand twice in the files.
    """

    def __init__(self, run: Path, config: Config, rows: list[dict[str, Any]]) -> None:
        self.run, self.config, self.rows = run, config, rows
        run.mkdir(parents=True, exist_ok=True)
        with atomic_path(run / CONFIG_FILE) as path:
            path.write_text(dump_config(config), encoding="utf-8")
        self.comet = CometTracker(config, run.name)
        self._curves_drawn = time.monotonic()

    def log(self, split: str, epoch: int, values: dict[str, float]) -> None:
        """Add a row: the mean losses and scores of a split after an epoch."""
        row = {"epoch": epoch, "split": split, **values}
        self.rows.append(row)
        self.comet.log(row)

    def write(self) -> None:
        """Bring the files up to date."""
        with atomic_path(self.run / "metrics.jsonl") as path:
            path.write_text("".join(json.dumps(row) + "\n" for row in self.rows))
        with atomic_path(self.run / "training_metrics.xlsx") as path:
            self._workbook().save(path)
        if time.monotonic() - self._curves_drawn > CURVES_EVERY_S:
            self._draw_curves()

    def write_samples(self, epoch: int, samples: list[Sample]) -> None:
        """Pictures of the first val images: what the network sees, should see and says."""
        sample_sheet(
            [sample.image for sample in samples],
            [sample.target for sample in samples],
            [sample.probability for sample in samples],
            self.run / "samples" / f"{epoch:04d}.png",
            VAL_THRESHOLD,
            [sample.name for sample in samples],
        )

    def say(self, epoch: int, seconds: float, share_done: float | None = None) -> None:
        """A line on the console for the epoch that the last rows tell of.

        `share_done` is that of `max_minutes`, where they end the training.
        """
        rows = {row["split"]: row for row in self.rows if row["epoch"] == epoch}
        left = (self.config.epochs - epoch) * seconds
        if share_done is not None:
            left = min(left, (1 - share_done) * 60 * (self.config.max_minutes or 0))
        line = f"epoch {epoch}/{self.config.epochs}  loss {rows['train']['loss']:.4f}"
        if "val" in rows:
            val = rows["val"]
            line += f"  val loss {val['loss']:.4f}  F1 {val['f1']:.4f}  IoU {val['iou']:.4f}"
            if self.config.best_metric not in ("f1", "iou"):
                key = main_value(self.config.best_metric).key
                line += f"  {key} {val[key]:.4f}"
        logger.info("%s  lr %.2e  %.1f s, %s left", line, rows["train"]["lr"], seconds, _span(left))

    def report(self, best_epoch: int, scores: dict[str, float]) -> None:
        """At the end: the scores of the best epoch, and where the files are."""
        judge = self.config.best_metric
        shown = [main_value(metric).key for metric in dict.fromkeys([*self.config.metrics, judge])]
        table = PrettyTable([f"best epoch (val {judge})", *shown, "loss"])
        if scores:
            table.add_row([best_epoch, *(f"{scores[name]:.4f}" for name in [*shown, "loss"])])
        files = sorted(path.name for path in self.run.iterdir() if path.is_file())
        tiles = f"tiles of {self.config.image_size} px, overlap {self.config.tile_overlap:g}"
        pixel_size = pixel_size_text(self.config.pixel_size)
        print(f"val, threshold {VAL_THRESHOLD}, {tiles}, {pixel_size}")
        print(table)
        # in full: compare.py trains in a folder that its user is not in
        print(f"{self.run.absolute()}/: {', '.join(files)}, samples/")

    def end(self) -> None:
        """Leave everything up to date."""
        self.comet.end()
        if self.rows:
            self._draw_curves()

    def _draw_curves(self) -> None:
        training_curves(self.rows, self.run / "curves.png")
        self._curves_drawn = time.monotonic()

    def _workbook(self) -> Workbook:
        book = Workbook()
        book.remove(book.active)
        for split in ("train", "val"):
            sheet = book.create_sheet(split)
            rows = [row for row in self.rows if row["split"] == split]
            columns = [c for c in dict.fromkeys(k for row in rows for k in row) if c != "split"]
            sheet.append(columns)
            for row in rows:
                sheet.append([row.get(column) for column in columns])
        sheet = book.create_sheet("config")
        for key, value in flat_items(self.config.model_dump(mode="json")):
            sheet.append(
                [key, value if isinstance(value, (int, float, str)) else json.dumps(value)]
            )
        return book


def _span(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
