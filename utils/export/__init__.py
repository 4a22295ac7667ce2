"""A trained model for other programs: ONNX with what QGIS's Deepness asks for, and safetensors."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from utils.predictor import Predictor

logger = logging.getLogger(__name__)

KINDS = ("onnx", "safetensors")


def export_model(predictor: Predictor, folder: Path, kind: str) -> list[Path]:
    """Write the model under its checkpoint's name to `folder`; the files that were written.

    Raises ValueError, in one line, for a model that cannot be exported.
    """
    assert kind in KINDS, kind
    path = folder / f"{predictor.checkpoint.stem}.{kind}"
    if path.resolve() == predictor.checkpoint.resolve():
        raise ValueError(f"{path}: is the checkpoint itself, name another folder by --output")
    if predictor.config.tta.enable:
        logger.warning("tta.enable has no effect: a file holds the model alone")
    if kind == "onnx":
        from utils.export.onnx_file import export_onnx

        return export_onnx(predictor, path)
    from utils.export.model_card import export_safetensors

    return export_safetensors(predictor, path)
