"""Centre-line Dice of two masks (clDice). Shit et al., CVPR 2021 (arXiv 2003.07311)."""

from __future__ import annotations

import numpy as np
from skimage.morphology import skeletonize


def cldice(prediction: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """Topology precision and sensitivity of H x W bool masks, and their harmonic mean.

    tprec is the share of the predicted skeleton inside the true mask, tsens the share of the
    true skeleton inside the predicted mask. Both masks empty: 1; one of them: 0.
    """
    if not prediction.any() and not target.any():
        return {"cldice": 1.0, "cldice_tprec": 1.0, "cldice_tsens": 1.0}
    tprec = _share_inside(skeletonize(prediction), target)
    tsens = _share_inside(skeletonize(target), prediction)
    both = tprec + tsens
    value = 2 * tprec * tsens / both if both else 0.0
    return {"cldice": value, "cldice_tprec": tprec, "cldice_tsens": tsens}


def _share_inside(skeleton: np.ndarray, mask: np.ndarray) -> float:
    total = int(skeleton.sum())
    return int((skeleton & mask).sum()) / total if total else 0.0
