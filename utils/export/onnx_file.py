"""The model as an ONNX file: normalised tiles of one size in, road probabilities out.

Its metadata are those that Deepness, a plugin of QGIS, reads (documented under "Adding metadata
to the model"): every value is JSON. The plugin divides by 255 and standardises, cuts and joins the
tiles, and keeps what reaches the threshold. It looks for `tile_size`, its documentation says
`tiles_size`: both are there.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime.capi import onnxruntime_pybind11_state as runtime_errors
from torch import Tensor, nn

from model.base import RoadModel
from model.ops.sampling import portable
from utils.files import atomic_path
from utils.predictor import Predictor

logger = logging.getLogger(__name__)

OPSET = 20
#: How far a probability may be from PyTorch's.
TOLERANCE = 1e-3
INPUT, OUTPUT = "image", "road"

_FAILURES = (
    torch.onnx.OnnxExporterError,
    RuntimeError,
    TypeError,
    onnx.checker.ValidationError,
    runtime_errors.Fail,
    runtime_errors.InvalidArgument,
    runtime_errors.InvalidGraph,
    runtime_errors.NotImplemented,
    runtime_errors.RuntimeException,
)


class RoadProbability(nn.Module):
    """Probabilities (B, 1, H, W) of a normalised image (B, 3, H, W)."""

    def __init__(self, model: RoadModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        return self.model(image).sigmoid()


def export_onnx(predictor: Predictor, path: Path) -> list[Path]:
    """Write the model for tiles of `image_size` and any number of them; ValueError if it cannot.

    Before the file gets its name, ONNX Runtime has to answer as PyTorch does, to TOLERANCE.
    """
    side = predictor.config.image_size
    network = RoadProbability(predictor.model.cpu().float()).eval()
    try:
        exported = _traced(network, side)
        for key, value in deepness_metadata(predictor).items():
            exported.metadata_props.add(key=key, value=json.dumps(value))
        onnx.checker.check_model(exported)
        with atomic_path(path) as temporary:
            onnx.save(exported, temporary)
            difference = _difference(network, temporary, side)
            if difference > TOLERANCE:
                raise RuntimeError(
                    f"ONNX Runtime's probabilities differ by {difference:.1e} from PyTorch's, more "
                    f"than {TOLERANCE:g}"
                )
    except _FAILURES as error:
        name = type(predictor.model).__name__
        raise ValueError(
            f"{name} cannot be exported to ONNX for tiles of {side} px: {_reason(error)}"
        ) from None
    logger.info("ONNX Runtime and PyTorch differ by %.1e at most", difference)
    return [path]


def deepness_metadata(predictor: Predictor) -> dict[str, object]:
    """What Deepness sets up its form with; the resolution only where the config knows it."""
    config, mean_std = predictor.config, predictor.model.normalisation
    metadata: dict[str, object] = {
        "model_type": "Segmentor",
        "class_names": {"0": "background", "1": "road"},
        "tiles_size": config.image_size,
        "tile_size": config.image_size,
        "tiles_overlap": round(100 * config.tile_overlap),  # per cent
        "seg_thresh": predictor.threshold,
        "standardization_mean": list(mean_std.mean),
        "standardization_std": list(mean_std.std),
        "model_classname": config.model_classname,
        "dataset_name": config.dataset_name,
    }
    if config.pixel_size is None:
        logger.warning("pixel_size is not set: the file does not say which resolution it expects")
    else:
        metadata["resolution"] = 100 * config.pixel_size  # centimetres a pixel
    return metadata


def _reason(error: Exception) -> str:
    """The first line, without PyTorch's advice to write to its authors."""
    line = str(error).strip().partition("\n")[0].partition(" Please ")[0]
    if " " not in line:  # the name of what broke inside the exporter
        return (
            f"it has operators that PyTorch's exporter cannot trace ({line or 'no reason given'})"
        )
    return line


@contextmanager
def _without_graph() -> Iterator[None]:
    """Nothing goes to the C library's stdout: of a model that it cannot express, PyTorch's
    exporter prints the whole graph there, thousands of lines."""
    sys.stdout.flush()
    kept, nothing = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nothing)


def _traced(network: nn.Module, side: int) -> onnx.ModelProto:
    """By tracing: of PyTorch's two exporters the one that keeps the batch free in every model."""
    buffer, batch = io.BytesIO(), {0: "batch"}
    image = torch.zeros(1, 3, side, side)
    with warnings.catch_warnings(), _without_graph(), portable(), torch.no_grad():
        # It says that it is the older one, and that sizes become constants, as they should.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (image,),
            buffer,
            dynamo=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: batch, OUTPUT: batch},
        )
    exported = onnx.load_from_string(buffer.getvalue())
    # Tracing loses the sides of the answer, by which Deepness tells that it is square.
    shape = exported.graph.output[0].type.tensor_type.shape
    for axis, length in ((1, 1), (2, side), (3, side)):
        shape.dim[axis].dim_value = length
    return exported


def _difference(network: nn.Module, path: Path, side: int) -> float:
    """The largest one between both programs' answers to two tiles of noise."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is raised as well
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    tiles = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    (found,) = session.run([OUTPUT], {INPUT: tiles.numpy()})
    with torch.inference_mode():
        expected = network(tiles).numpy()
    return float(np.abs(found - expected).max())
