"""What one scene is like: settlement, street pattern, season, light and sensor, drawn at random."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

Colour = tuple[int, int, int]  # RGB, 0..255

#: Consecutive scenes take these in turn, so that every split holds every kind.
KINDS = ("suburban", "urban", "rural", "mixed")


@dataclass(frozen=True)
class Palette:
    """Colours of one season and region."""

    grass: Colour
    meadow: Colour
    floor: Colour  # under trees
    soil: Colour
    water: Colour
    crops: tuple[Colour, ...]
    trees: tuple[Colour, ...]  # drawn with equal odds
    tree_opacity: float  # of broad-leaved crowns: bare branches let the ground through


PALETTES = {
    "summer": Palette(
        (96, 116, 66), (112, 120, 76), (52, 62, 42), (140, 122, 98), (44, 58, 58),
        ((124, 142, 74), (164, 152, 98), (92, 116, 62), (138, 116, 88), (176, 164, 120)),
        ((44, 62, 40), (62, 84, 46), (70, 92, 52), (52, 74, 44)), 1.0,
    ),
    "leafless": Palette(
        (112, 120, 82), (134, 124, 98), (112, 98, 86), (146, 124, 100), (26, 34, 30),
        ((110, 128, 78), (170, 152, 118), (150, 130, 104), (128, 110, 92), (186, 170, 138)),
        ((42, 64, 44), (112, 98, 88), (126, 106, 96), (104, 92, 80)), 0.66,
    ),
    "autumn": Palette(
        (110, 112, 68), (136, 122, 80), (86, 70, 50), (138, 114, 90), (38, 48, 52),
        ((132, 128, 76), (160, 136, 92), (118, 96, 74), (104, 120, 66), (178, 158, 112)),
        ((46, 62, 40), (134, 102, 62), (116, 86, 54), (106, 98, 60)), 0.95,
    ),
    "dry": Palette(
        (124, 126, 84), (164, 148, 120), (132, 118, 92), (176, 156, 128), (60, 78, 80),
        ((150, 142, 96), (182, 164, 128), (168, 146, 112), (118, 126, 80), (196, 180, 146)),
        ((74, 86, 58), (86, 98, 66), (64, 78, 52), (96, 102, 74)), 0.95,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class SceneStyle:
    """The random choices that hold for a whole scene. Lengths in metres, angles in radians."""

    kind: str
    season: str
    palette: Palette
    # Streets
    angle: float  # of the street pattern
    bend: float  # how far streets turn away from it
    block_m: tuple[float, float]  # distance of parallel streets, for either direction
    jitter: float  # of that distance
    cross_rate: float  # share of streets that go on where they meet another
    dead_end_rate: float  # per metre
    crescent_rate: float  # share of side streets that turn back
    local_width_m: tuple[float, float]
    main_width_m: tuple[float, float]
    surface: str  # of most streets
    # Land
    settled_share: float
    wood_share: float
    water: str  # none, lake or river
    # Light
    shadow_direction: tuple[float, float]  # image axes, unit vector
    shadow_length: float  # metres per metre of height
    shadow_strength: float
    # Sensor
    gain: tuple[float, float, float]
    haze: float
    gamma: float
    blur_px: float
    noise: float  # standard deviation on 0..255


def draw_style(rng: np.random.Generator, kind: str) -> SceneStyle:
    """The style of one scene of this kind (one of `KINDS`)."""
    season = str(rng.choice(list(PALETTES), p=[0.35, 0.3, 0.15, 0.2]))
    azimuth = rng.uniform(math.radians(-160), math.radians(-20))  # the sun stands in the south
    warmth = rng.normal(0, 0.035)
    return SceneStyle(
        kind=kind,
        season=season,
        palette=PALETTES[season],
        angle=rng.uniform(0, math.pi / 2),
        shadow_direction=(math.cos(azimuth), math.sin(azimuth)),
        shadow_length=rng.uniform(0.35, 1.1),
        shadow_strength=rng.uniform(0.4, 0.68),
        gain=(1 + warmth, 1 + rng.normal(0, 0.015), 1 - warmth + rng.normal(0, 0.02)),
        haze=rng.uniform(0, 0.14),
        gamma=math.exp(rng.normal(0, 0.13)),
        blur_px=rng.uniform(0.35, 0.75),
        noise=rng.uniform(2.0, 5.0),
        **_streets(rng, kind),
        **_land(rng, kind),
    )


def _streets(rng: np.random.Generator, kind: str) -> dict:
    if kind == "urban":
        block = (rng.uniform(76, 105), rng.uniform(130, 190))
        return {
            "bend": rng.choice([0.0, 0.0, rng.uniform(0.1, 0.4)]),
            "block_m": block,
            "jitter": 0.06,
            "cross_rate": 0.9,
            "dead_end_rate": 0.0005,
            "crescent_rate": 0.02,
            "local_width_m": (7.0, 9.5),
            "main_width_m": (11.0, 15.0),
            "surface": str(rng.choice(["asphalt", "worn", "concrete"], p=[0.45, 0.4, 0.15])),
        }
    block = (rng.uniform(65, 95), rng.uniform(105, 160))
    return {
        "bend": rng.uniform(0.6, 1.2),
        "block_m": block,
        "jitter": 0.2,
        "cross_rate": 0.4,
        "dead_end_rate": 0.003 if kind != "rural" else 0.0015,
        "crescent_rate": 0.25 if kind != "rural" else 0.05,
        "local_width_m": (6.5, 8.5) if kind != "rural" else (6.0, 7.5),
        "main_width_m": (8.5, 12.0),
        "surface": str(rng.choice(["asphalt", "worn", "concrete"], p=[0.5, 0.4, 0.1])),
    }


def _land(rng: np.random.Generator, kind: str) -> dict:
    settled = {"urban": 1.0, "suburban": 0.9, "rural": 0.08, "mixed": 0.5}[kind]
    wooded = {"urban": 0.04, "suburban": 0.18, "rural": 0.3, "mixed": 0.28}[kind]
    dry_share = {"urban": 0.8, "suburban": 0.6, "rural": 0.5, "mixed": 0.4}[kind]
    rest = (1 - dry_share) / 2
    return {
        "settled_share": settled,
        "wood_share": wooded * rng.uniform(0.4, 1.6),
        "water": str(rng.choice(["none", "lake", "river"], p=[dry_share, rest, rest])),
    }
