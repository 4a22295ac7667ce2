"""Anti-aliased drawing in world metres, by drawing larger and averaging."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

SCALE = 3  # canvas pixels per metre, along a side
_SHIFT = 6  # OpenCV's fixed-point bits of a coordinate


@dataclass(frozen=True)
class Layer:
    """Colour (side, side, 3) float32, already times its opacity `cover` (side, side) in 0..1."""

    colour: np.ndarray
    cover: np.ndarray

    def over(self, image: np.ndarray) -> np.ndarray:
        """`image` (side, side, 3) float32 with this layer on top."""
        return image * rgb(1 - self.cover) + self.colour


class Canvas:
    """A transparent sheet of `side` metres on which opaque shapes are drawn."""

    def __init__(self, side: int, channels: int = 3) -> None:
        self.side = side
        self.colour = np.zeros((side * SCALE, side * SCALE, channels), np.uint8)
        self.cover = np.zeros((side * SCALE, side * SCALE), np.uint8) if channels == 3 else None

    def polygon(self, points: np.ndarray, colour: tuple[float, ...] = (255,)) -> None:
        """Fill a convex polygon (N, 2)."""
        corners = _fixed(points)
        for layer, value in self._layers(colour):
            cv2.fillConvexPoly(layer, corners, value, cv2.LINE_8, _SHIFT)

    def line(self, points: np.ndarray, width_m: float, colour: tuple[float, ...] = (255,)) -> None:
        """Draw a polyline (N, 2) with round joints and ends."""
        # OpenCV fills both outlines as well, so that an even thickness t covers t + 1 pixels.
        thickness = max(round(drawable_width(width_m) * SCALE) - 1, 1)
        vertices = [_fixed(points)]
        for layer, value in self._layers(colour):
            cv2.polylines(layer, vertices, False, value, thickness, cv2.LINE_8, _SHIFT)

    def coverage(self) -> np.ndarray:
        """The share of each pixel that is drawn on: (side, side) float32 in 0..1."""
        return self._reduced(self.colour if self.cover is None else self.cover) / 255

    def layer(self) -> Layer:
        return Layer(self._reduced(self.colour), self.coverage())

    def _layers(self, colour: tuple[float, ...]) -> list[tuple[np.ndarray, tuple]]:
        value = tuple(float(min(max(round(c), 0), 255)) for c in colour)
        return [(self.colour, value), *([] if self.cover is None else [(self.cover, (255,))])]

    def _reduced(self, layer: np.ndarray) -> np.ndarray:
        small = cv2.resize(layer, (self.side, self.side), interpolation=cv2.INTER_AREA)
        return small.astype(np.float32)


def drawable_width(width_m: float) -> float:
    """The nearest width that `Canvas.line` draws exactly: an odd number of canvas pixels."""
    return (2 * round((width_m * SCALE - 1) / 2) + 1) / SCALE


def rgb(plane: np.ndarray) -> np.ndarray:
    """A plane (H, W) as (H, W, 3): NumPy broadcasts a last axis of 1 an order slower."""
    return cv2.merge((plane, plane, plane))


def rectangle(centre: np.ndarray, along: np.ndarray, length_m: float, depth_m: float) -> np.ndarray:
    """Corners (4, 2) of a rectangle whose side of `length_m` points to the unit vector `along`."""
    across = np.array([-along[1], along[0]])
    signs = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) / 2
    return centre + signs[:, :1] * length_m * along + signs[:, 1:] * depth_m * across


def _fixed(points: np.ndarray) -> np.ndarray:
    # Pixel (0, 0) of the canvas has its centre, not its corner, at OpenCV's origin.
    return np.round((np.asarray(points) * SCALE - 0.5) * (1 << _SHIFT)).astype(np.int32)
