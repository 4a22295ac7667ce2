"""The latent anchors of a pixel: where the strips read, and the gate that they yield there."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import matplotlib
import numpy as np

from utils.demo.models import Spot
from utils.plots import PROBABILITY_COLOURS

WINDOW_PX = 256  # of the image, around the pixel
PICTURE_PX = 768
HORIZONTAL, VERTICAL, PIXEL = (255, 152, 0), (0, 229, 255), (255, 255, 255)
DARK = (20, 20, 20)


@dataclass(frozen=True)
class Level:
    """What one level of the adapter does at a pixel; places are pixels (x, y) of the tile."""

    stride: int
    horizontal: np.ndarray  # (G * K, 2)
    vertical: np.ndarray  # (G * K, 2)
    gate: np.ndarray  # (rows, columns): root mean square over the channels, one a cell
    cell: tuple[int, int]  # row and column of the pixel's cell

    def row(self) -> list[str]:
        """Stride, how far the strips reach, the gate here and how it ranks within the tile."""
        here = self.gate[self.cell]
        rank = 100 * float((self.gate <= here).mean())
        reach = (np.ptp(self.horizontal[:, 0]), np.ptp(self.vertical[:, 1]))
        return [
            str(self.stride),
            f"{reach[0]:.1f} px",
            f"{reach[1]:.1f} px",
            f"{here:.3g}",
            f"{rank:.0f} %",
        ]


#: The titles of `Level.row`.
COLUMNS = ("Stride", "Horizontal reach", "Vertical reach", "Gate here", "Rank in its tile")


def levels_at(anchors: list, spot: Spot) -> list[Level]:
    """The levels of `AnchorSAM.anchors` on a spot's tile, at its pixel, finest first."""
    levels = []
    for level in anchors:
        row, column = spot.y // level.stride, spot.x // level.stride
        horizontal, vertical = (
            strip[0, row, column].reshape(-1, 2).numpy()
            for strip in (level.horizontal, level.vertical)
        )
        gate = level.gate[0].square().mean(0).sqrt().numpy()
        levels.append(Level(level.stride, horizontal, vertical, gate, (row, column)))
    return levels


def draw_points(spot: Spot, level: Level) -> np.ndarray:
    """The surroundings of a pixel with the sampling points of both strips: RGB uint8."""
    window = _Window(spot)
    drawn = window.cut(np.ascontiguousarray(spot.image.permute(1, 2, 0)))  # CHW -> HWC
    for points, colour in ((level.horizontal, HORIZONTAL), (level.vertical, VERTICAL)):
        for point in window.whole(points):
            cv2.circle(drawn, point, 7, DARK, -1, cv2.LINE_AA)
            cv2.circle(drawn, point, 5, colour, -1, cv2.LINE_AA)
    return window.mark(drawn)


def draw_gate(spot: Spot, level: Level) -> np.ndarray:
    """The gate of the same surroundings as a heat map, from the least to the largest: RGB uint8."""
    low, high = level.gate.min(), level.gate.max()
    shares = (level.gate - low) / max(high - low, 1e-12)
    heat = matplotlib.colormaps[PROBABILITY_COLOURS](shares, bytes=True)[..., :3]
    H, W = spot.image.shape[1:]
    per_pixel = heat.repeat(level.stride, 0).repeat(level.stride, 1)[:H, :W]
    window = _Window(spot)
    return window.mark(window.cut(np.ascontiguousarray(per_pixel)))


class _Window:
    """The part of a tile around the pixel that is drawn, enlarged."""

    def __init__(self, spot: Spot) -> None:
        H, W = spot.image.shape[1:]
        self.spot = spot
        self.height, self.width = min(H, WINDOW_PX), min(W, WINDOW_PX)
        self.top = min(max(spot.y - self.height // 2, 0), H - self.height)
        self.left = min(max(spot.x - self.width // 2, 0), W - self.width)
        self.scale = PICTURE_PX / max(self.height, self.width)

    def cut(self, image: np.ndarray) -> np.ndarray:
        rows = slice(self.top, self.top + self.height)
        part = image[rows, self.left : self.left + self.width]
        size = round(self.width * self.scale), round(self.height * self.scale)
        return cv2.resize(part, size, interpolation=cv2.INTER_NEAREST)

    def whole(self, points_px: np.ndarray) -> list[tuple[int, int]]:
        """Places of the tile, whose pixel centres are whole numbers, on the enlarged picture."""
        shifted = (points_px + 0.5 - (self.left, self.top)) * self.scale
        return [(int(x), int(y)) for x, y in shifted]

    def mark(self, drawn: np.ndarray) -> np.ndarray:
        """A ring around the pixel that was asked for."""
        (centre,) = self.whole(np.array([(self.spot.x, self.spot.y)], float))
        for colour, thickness in ((DARK, 5), (PIXEL, 2)):
            cv2.circle(drawn, centre, 14, colour, thickness, cv2.LINE_AA)
        return drawn
