"""One scene: an image, its road mask and its road graph, from a seed and a number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from utils.synthetic.buildings import Builder
from utils.synthetic.canvas import rgb
from utils.synthetic.graph import road_graph
from utils.synthetic.network import Road, draw_network
from utils.synthetic.render import (
    Paving,
    draw_label,
    draw_roofs,
    draw_shadows,
    expose,
    shade,
    weather,
)
from utils.synthetic.style import KINDS, SceneStyle, draw_style
from utils.synthetic.terrain import draw_land, paint_ground
from utils.synthetic.trees import paint_crowns, plant

MARGIN_M = 64  # the world goes on beyond the view, so that nothing ends at the border


@dataclass(frozen=True)
class Scene:
    """`size` pixels of 1 m a side; roads are in world metres, the view starts at MARGIN_M."""

    image: np.ndarray  # (size, size, 3) uint8 RGB
    label: np.ndarray  # (size, size) uint8, 0 or 255
    graph: dict[str, list]
    roads: list[Road]
    crown: np.ndarray  # (size, size) float32 in 0..1, how opaque the trees are
    style: SceneStyle


def draw_scene(seed: int, index: int, size: int) -> Scene:
    """Scene number `index` of a seed: always the same, whatever else is drawn."""
    side = size + 2 * MARGIN_M
    view = (MARGIN_M, MARGIN_M + size)
    # A stream of its own for each step: a change in one leaves the others as they are.
    rngs = iter(np.random.default_rng([seed, index]).spawn(10))
    style = draw_style(next(rngs), KINDS[index % len(KINDS)])
    land = draw_land(next(rngs), side, style)
    roads = draw_network(next(rngs), side, view, style, land)
    settlement = Builder(next(rngs), land, style).settle(roads)

    image = paint_ground(next(rngs), land, style)
    paving = Paving(next(rngs), side, style).draw(roads, settlement)
    roofs = draw_roofs(next(rngs), settlement.buildings, side, style)
    rng = next(rngs)
    label = draw_label(roads, side)
    trees = plant(rng, land, style, roads, label > 0, roofs.cover > 0.5)
    crowns = paint_crowns(rng, side, trees, style)
    image = weather(next(rngs), paving.over(image), paving.cover)
    image = shade(image, draw_shadows(settlement.buildings, trees, crowns, side, style), style)
    image = roofs.over(image)
    image += (crowns.colour - image) * rgb(crowns.opacity)
    image = expose(next(rngs), image, style)

    seen = slice(*view)
    return Scene(
        image=image[seen, seen],
        label=label[seen, seen],
        graph=road_graph(roads, view),
        roads=roads,
        crown=crowns.opacity[seen, seen],
        style=style,
    )
