"""Three synthetic scenes to try the page with; none of them is in the sample dataset."""

from __future__ import annotations

from functools import cache

import numpy as np

from utils.demo.picture import Picture, truth_of
from utils.synthetic.scene import draw_scene

SEED, SIZE_PX, PIXEL_SIZE_M = 2026, 512, 1.0
#: Numbers of scenes of this seed, by the words of the page.
SCENES = {"Suburb": 0, "Town": 1, "Country": 2}


@cache
def scene(title: str) -> tuple[Picture, np.ndarray]:
    """A scene and the truth about its roads. Raises ValueError for another title."""
    if title not in SCENES:
        raise ValueError(f"There is no scene {title!r}; there are {', '.join(SCENES)}.")
    drawn = draw_scene(SEED, SCENES[title], SIZE_PX)
    valid = np.ones(drawn.label.shape, bool)
    name = f"{title.lower()}_synthetic"
    picture = Picture(name, drawn.image, valid, pixel_size_m=PIXEL_SIZE_M)
    return picture, truth_of((drawn.label > 0).astype(np.uint8), name, picture)
