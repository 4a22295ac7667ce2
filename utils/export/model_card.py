"""Weights as safetensors, and a page that says what they are: data, split, threshold, scores."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from utils.checkpoint import is_resumable, load_checkpoint, weights_sha256
from utils.files import atomic_path, sha256
from utils.predictor import Predictor
from utils.safetensors_file import write_safetensors

#: Of a last.pth: what only a continued training needs.
_INFERENCE = (
    "format",
    "model_classname",
    "config",
    "epoch",
    "model",
    "ema",
    "threshold",
    "scores",
)


def export_safetensors(predictor: Predictor, path: Path) -> list[Path]:
    """Write NAME.safetensors, which `--checkpoint` takes, and its card NAME.md."""
    checkpoint = load_checkpoint(predictor.checkpoint)
    write_safetensors(path, {key: checkpoint[key] for key in _INFERENCE})
    card = path.with_suffix(".md")
    lines = _card(predictor, checkpoint, path)
    with atomic_path(card) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [path, card]


def _card(predictor: Predictor, checkpoint: dict[str, Any], weights: Path) -> Iterator[str]:
    config, trained = predictor.config, checkpoint["config"]
    yield f"# {trained['model_classname']}, trained on {trained['dataset_name']}"
    yield ""
    yield "| | |"
    yield "|---|---|"
    pixel = trained.get("pixel_size")
    rows = {
        "model": f"{trained['model_classname']}, `{json.dumps(trained['model_args'])}`",
        "data": f"{trained['dataset_name']}, crops of {trained['image_size']} px, "
        f"{f'{pixel:g} m a pixel' if pixel else 'pixel size not stated'}",
        "split": _split(checkpoint),
        "threshold": f"{predictor.threshold:g} ({predictor.threshold_from})",
        "weights": f"{weights.name}{', averaged' if checkpoint['ema'] else ''}",
        "SHA-256 of the weights": f"`{sha256(weights)}`",
        "made of": predictor.checkpoint.name,
        "SHA-256 of that": f"`{sha256(predictor.checkpoint)}`",
        "normalisation": f"mean {predictor.model.normalisation.mean}, "
        f"std {predictor.model.normalisation.std}, RGB in [0, 1]",
    }
    yield from (f"| {name} | {value} |" for name, value in rows.items())
    yield from _scores("val, which chose the checkpoint", checkpoint["scores"])
    yield from _test_scores(predictor, weights.parent)
    yield ""
    yield f"Use: `python inference.py --checkpoint {weights.name} --input IMAGES --output OUT`,"
    yield f"in tiles of {config.image_size} px that share {config.tile_overlap:g} of their side."


def _split(checkpoint: dict[str, Any]) -> str:
    chosen = "the last epoch" if is_resumable(checkpoint) else "chosen on val"
    return f"trained on train for {checkpoint['epoch']} epochs, {chosen}"


def _scores(split: str, scores: dict[str, Any]) -> Iterator[str]:
    numbers = {name: value for name, value in scores.items() if isinstance(value, int | float)}
    if numbers:
        yield from ("", f"Scores on {split}:", "", "| metric | value |", "|---|---|")
        yield from (f"| {name} | {value:.4f} |" for name, value in numbers.items())


def _test_scores(predictor: Predictor, folder: Path) -> Iterator[str]:
    """Those that inference.py left in the same folder, when they are of these weights."""
    path = folder / "metrics.json"
    if not path.is_file():
        return
    report = json.loads(path.read_text(encoding="utf-8"))
    if report.get("weights_sha256") == weights_sha256(predictor.model.state_dict()):
        conditions = f"{report['split']} at threshold {report['threshold']:g}"
        yield from _scores(conditions, report["overall"])
