"""The roads of a probability map at a threshold: mask, graph, and what can be counted of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import networkx as nx
import numpy as np

from utils.demo.picture import Place
from utils.metrics import PixelCounts
from utils.topology.export import graph_to_networkx
from utils.topology.from_mask import mask_to_graph
from utils.topology.graph import RoadGraph
from utils.topology.grid import PixelGrid

#: What stands for a pixel's side when nobody knows it: lengths are then in pixels.
UNKNOWN_SIZE_M = 1.0


@dataclass(frozen=True)
class Roads:
    """Where a probability (H, W) reaches a threshold.

    `place` is that of the image; without one, `pixel_size_m` may be known from elsewhere.
    """

    probability: np.ndarray
    threshold: float
    place: Place | None = None
    pixel_size_m: float | None = None

    @cached_property
    def mask(self) -> np.ndarray:
        """Bool (H, W)."""
        return self.probability >= np.float32(self.threshold)

    @cached_property
    def graph(self) -> RoadGraph:
        """In metres; in pixels when the pixel size is not known."""
        where = {"transform": self.place.transform, "crs": self.place.crs} if self.place else {}
        return mask_to_graph(self.mask, self.pixel_size_m or UNKNOWN_SIZE_M, **where)

    @cached_property
    def lines_px(self) -> list[np.ndarray]:
        """The graph's polylines (K x 2: x, y) in pixels; 0, 0 is the image's corner."""
        return [self._grid.to_pixels(edge.line) for edge in self.graph.edges]

    @cached_property
    def junctions_px(self) -> np.ndarray:
        """J x 2: where three or more roads meet, in pixels."""
        places = (
            self.graph.nodes[self.graph.degrees() >= 3] if self.graph.edges else np.empty((0, 2))
        )
        return self._grid.to_pixels(places) if len(places) else places

    @property
    def num_components(self) -> int:
        return nx.number_connected_components(graph_to_networkx(self.graph))

    @property
    def length_text(self) -> str:
        """Kilometres, or pixels and the word that the scale is not known."""
        length = self.graph.total_length_m
        if self.pixel_size_m is None and self.place is None:
            return f"{length:,.0f} px (unknown scale)"
        return f"{length / 1000:.2f} km"

    def facts(self, truth: np.ndarray | None = None) -> dict[str, str]:
        """What a person may want to know, by its name; with a truth (0, 1, 255) scores, too."""
        facts = {
            "Road length": self.length_text,
            "Junctions": str(len(self.junctions_px)),
            "Connected parts": str(self.num_components),
            "Road share": f"{100 * self.mask.mean():.1f} %",
        }
        if truth is not None:
            counts = PixelCounts.from_masks(self.mask, truth)
            scores = counts.metrics()
            names = {"f1": "F1", "iou": "IoU", "precision": "Precision", "recall": "Recall"}
            facts |= {
                title: f"{scores[key]:.3f}" if counts.has_data else "no valid pixel"
                for key, title in names.items()
            }
        return facts

    @cached_property
    def _grid(self) -> PixelGrid:
        size_m = self.pixel_size_m or UNKNOWN_SIZE_M
        transform, crs = (self.place.transform, self.place.crs) if self.place else (None, None)
        return PixelGrid.of(self.mask.shape, size_m, transform, crs)
