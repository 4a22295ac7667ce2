"""The pictures of a result: road over image, heat map, graph, errors, all at one scale."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import matplotlib
import numpy as np

from utils.demo.picture import Picture
from utils.demo.roads import Roads
from utils.plots import PROBABILITY_COLOURS, error_map

VIEW_PX = 1024  # the longer side on the page
MAX_ENLARGEMENT = 4
ROAD = np.array((255, 64, 129), np.float32)  # stands out from grey, green and brown alike
LINE, CASING, JUNCTION = (255, 235, 59), (20, 20, 20), (229, 57, 53)
#: The kinds of view, by the words of the page.
OVERLAY, SLIDER, HEAT, GRAPH, ERRORS = (
    "Roads", "Before / after", "Probability", "Road graph", "Errors",
)  # fmt: skip


@dataclass(frozen=True)
class Canvas:
    """A picture enlarged or reduced so that its longer side has `side_px`."""

    picture: Picture
    side_px: int = VIEW_PX

    @cached_property
    def scale(self) -> float:
        return min(self.side_px / max(self.picture.shape), MAX_ENLARGEMENT)

    @cached_property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        H, W = self.picture.shape
        return max(1, round(W * self.scale)), max(1, round(H * self.scale))

    @cached_property
    def image(self) -> np.ndarray:
        return self.fit(self.picture.image)

    def fit(self, values: np.ndarray) -> np.ndarray:
        """A map of the picture's size (H W or H W C; uint8 or float32) at the canvas's."""
        how = cv2.INTER_AREA if self.scale < 1 else cv2.INTER_LINEAR
        return cv2.resize(values, self.size, interpolation=how)

    def to_picture(self, x: float, y: float) -> tuple[int, int]:
        """The picture's pixel under a place on the canvas."""
        H, W = self.picture.shape
        width, height = self.size
        column, row = int(x * W / width), int(y * H / height)
        return min(max(column, 0), W - 1), min(max(row, 0), H - 1)


def draw(
    view: str, canvas: Canvas, roads: Roads, opacity: float, truth: np.ndarray | None = None
) -> np.ndarray:
    """RGB uint8 (H, W, 3) of one of the kinds of view. `opacity` in [0, 1] is that of what lies
    over the image. Raises ValueError for an unknown kind, and for errors without a truth."""
    if view in (OVERLAY, SLIDER):
        cover = canvas.fit(roads.mask.astype(np.float32))
        return _blend(canvas.image, ROAD, opacity * cover)
    if view == HEAT:
        heat = matplotlib.colormaps[PROBABILITY_COLOURS](roads.probability, bytes=True)[..., :3]
        return _blend(canvas.image, canvas.fit(np.ascontiguousarray(heat)), opacity)
    if view == GRAPH:
        return _blend(canvas.image, _draw_graph(canvas, roads), opacity)
    if view == ERRORS:
        if truth is None:
            raise ValueError("Errors can be shown when a mask of the true roads is loaded.")
        return _blend(canvas.image, canvas.fit(error_map(roads.mask, truth)), opacity)
    raise ValueError(f"There is no view called {view!r}.")


def _draw_graph(canvas: Canvas, roads: Roads) -> np.ndarray:
    """Roads as lines with a dark casing, junctions as dots."""
    drawn = canvas.image.copy()
    # OpenCV takes whole numbers with fractional bits; the centre of a pixel is a whole number.
    bits = 4
    width, height = canvas.size
    H, W = canvas.picture.shape
    factor = np.array((width / W, height / H))

    def whole(points_px: np.ndarray) -> np.ndarray:
        return np.rint((points_px * factor - 0.5) * 2**bits).astype(np.int32)

    lines = [whole(line) for line in roads.lines_px]
    for colour, thickness in ((CASING, 6), (LINE, 3)):
        cv2.polylines(drawn, lines, False, colour, thickness, cv2.LINE_AA, shift=bits)
    for place in whole(roads.junctions_px).tolist():
        cv2.circle(drawn, place, 7 * 2**bits, CASING, -1, cv2.LINE_AA, shift=bits)
        cv2.circle(drawn, place, 5 * 2**bits, JUNCTION, -1, cv2.LINE_AA, shift=bits)
    return drawn


def _blend(image: np.ndarray, over: np.ndarray, opacity: float | np.ndarray) -> np.ndarray:
    """`over` (a picture or a colour) on `image`; `opacity` one number or a map (H, W)."""
    share = np.asarray(opacity, np.float32)
    if share.ndim == 2:
        share = share[..., None]
    mixed = image + share * (over.astype(np.float32) - image)
    return np.rint(mixed).clip(0, 255).astype(np.uint8)
