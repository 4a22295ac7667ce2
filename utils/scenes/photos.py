"""Photos, which are no scenes: a JPEG or PNG without georeference, predicted at once."""

from __future__ import annotations

import numpy as np
import torch

from utils.imageio import read_image_and_valid
from utils.predict import NonFinitePrediction
from utils.predictor import Predictor
from utils.results import image_result, write_maps
from utils.scenes.prepare import Photo


def map_photo(predictor: Predictor, photo: Photo) -> None:
    """Write the maps of a photo. One that cannot be read or predicted costs a line."""
    settings = predictor.config.inference
    try:
        pixels, valid = read_image_and_valid(photo.path)
        image = torch.from_numpy(pixels).permute(2, 0, 1)  # HWC -> CHW
        probability = predictor.probability(photo.name, image)
    except (ValueError, OSError, NonFinitePrediction) as error:
        photo.fail(str(error))
        return
    if predictor.config.ignore_nodata:
        probability = np.where(valid, probability, 0)
    result = image_result(photo.name, probability, predictor.scoring, None)
    files = write_maps(photo.output, result, probability, None, settings)
    photo.finish(road_share=result.road_share, files=photo.listed(files))
