"""Anti-aliased drawing in world metres, by drawing larger and averaging."""

from __future__ import annotations

import cv2
import numpy as np

SCALE = 3  # canvas pixels per metre, along a side
_SHIFT = 6  # OpenCV's fixed-point bits of a coordinate


class Canvas:
    """A transparent layer of `side` metres on which opaque shapes are drawn."""

    def __init__(self, side: int, channels: int = 3) -> None:
        self.side = side
        self.colour = np.zeros((side * SCALE, side * SCALE, channels), np.uint8)
        self.cover = np.zeros((side * SCALE, side * SCALE), np.uint8) if channels == 3 else None

    def polygon(self, points: np.ndarray, colour: tuple[float, ...] = (255,)) -> None:
        """Fill a convex polygon (N, 2)."""
        for layer, value in self._layers(colour):
            cv2.fillConvexPoly(layer, _fixed(points), value, cv2.LINE_8, _SHIFT)

    def line(self, points: np.ndarray, width_m: float, colour: tuple[float, ...] = (255,)) -> None:
        """Draw a polyline (N, 2) with round joints and ends."""
        thickness = max(round(width_m * SCALE), 1)
        for layer, value in self._layers(colour):
            cv2.polylines(layer, [_fixed(points)], False, value, thickness, cv2.LINE_8, _SHIFT)

    def coverage(self) -> np.ndarray:
        """The share of each pixel that is drawn on: (side, side) float32 in 0..1."""
        return self._reduced(self.colour if self.cover is None else self.cover) / 255

    def over(self, image: np.ndarray) -> np.ndarray:
        """`image` (side, side, 3) float32 with this layer on top."""
        free = 1 - self.coverage()[..., None]
        return image * free + self._reduced(self.colour)

    def _layers(self, colour: tuple[float, ...]) -> list[tuple[np.ndarray, tuple]]:
        value = tuple(float(np.clip(round(c), 0, 255)) for c in colour)
        return [(self.colour, value), *([] if self.cover is None else [(self.cover, (255,))])]

    def _reduced(self, layer: np.ndarray) -> np.ndarray:
        small = cv2.resize(layer, (self.side, self.side), interpolation=cv2.INTER_AREA)
        return small.astype(np.float32)


def rectangle(centre: np.ndarray, along: np.ndarray, length_m: float, depth_m: float) -> np.ndarray:
    """Corners (4, 2) of a rectangle whose side of `length_m` points to the unit vector `along`."""
    across = np.array([-along[1], along[0]])
    signs = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) / 2
    return centre + signs[:, :1] * length_m * along + signs[:, 1:] * depth_m * across


def _fixed(points: np.ndarray) -> np.ndarray:
    # Pixel (0, 0) of the canvas has its centre, not its corner, at OpenCV's origin.
    return np.round((np.asarray(points) * SCALE - 0.5) * (1 << _SHIFT)).astype(np.int32)
