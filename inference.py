#!/usr/bin/env python
"""Predict roads with a trained model: score a split, or map any images.

python inference.py                                best checkpoint of the newest run, on test
python inference.py -c config/UNet.yaml tta.enable=true inference.save_prob_map=true
python inference.py -c config/UNet.yaml --sweep    put val's best threshold into the checkpoint
python inference.py --checkpoint logs_weights/RUN --input photos/ --output out/
python inference.py --checkpoint logs_weights/RUN --export onnx
python inference.py --checkpoint logs_weights/RUN --input scene.tif --gsd 1.0 --output out/
torchrun --nproc-per-node 4 inference.py -c config/UNet.yaml
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.arguments import ArgumentParser
from utils.command_line import end_at_signals, plain_end, set_up_logging, user_mistakes
from utils.export import KINDS

if TYPE_CHECKING:
    from utils.dataset import WholeImages
    from utils.predictor import Predictor
    from utils.results import ImageResult
    from utils.schema import Config, Inference

logger = logging.getLogger("inference")


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    parser.add_argument("-c", "--config", metavar="FILE", help="a YAML (default: the checkpoint's)")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings in place of the file's"
    )
    parser.add_argument(
        "--checkpoint", metavar="PATH", help="a file, or a run's folder (default: the newest run)"
    )
    task = parser.add_mutually_exclusive_group()
    task.add_argument(
        "--input", metavar="PATH", help="a photo, a scene of any size, or a folder of them"
    )
    task.add_argument("--sweep", action="store_true", help="choose the threshold on val")
    task.add_argument("--export", choices=KINDS, help="for other programs")
    parser.add_argument("--output", metavar="DIR", type=Path, help="default: results/RUN")
    parser.add_argument(
        "--gsd", metavar="METRES", type=ground_sample, help="pixel size the model was trained at"
    )
    parser.add_argument(
        "--bands", metavar="R,G,B", type=band_numbers, help="counted from 1 (default: 1,2,3)"
    )
    args = parser.read(argv)
    if not args.input and (args.gsd or args.bands):
        parser.error("--gsd and --bands go with --input")
    return args


def ground_sample(text: str) -> float:
    """'1.0' as metres above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a pixel size in metres, got {text!r}")
    return value


def band_numbers(text: str) -> tuple[int, ...]:
    """'4,3,2' as numbers; one of them is grey."""
    parts = text.split(",")
    if len(parts) not in (1, 3) or not all(part.isdecimal() and int(part) for part in parts):
        raise argparse.ArgumentTypeError(
            f"expected one or three band numbers such as 1,2,3, got {text!r}"
        )
    return tuple(int(part) for part in parts)


@plain_end()
def main(argv: list[str] | None = None) -> int:
    """Map, score, sweep or export, as the arguments say; the exit status.

    0: all was done; 1: an input could not be used, or a prediction is not finite; 2: a mistake in
    the arguments.
    """
    args = parse_args(argv)
    set_up_logging()
    end_at_signals()

    # torch takes seconds to import; a question for --help should not wait for it
    from utils import distributed
    from utils.predict import NonFinitePrediction
    from utils.scenes.prepare import find_rasters

    with user_mistakes():
        predictor = load_predictor(args)
        folder = output_folder(args, predictor)
        if args.export:
            task = partial(export, kind=args.export)
        elif args.input:
            refuse_empty_output(predictor.config.inference)
            asked = {"bands": args.bands, "gsd": args.gsd}
            task = partial(map_inputs, inputs=find_rasters(args.input), **asked)
        else:
            split = "val" if args.sweep else predictor.config.inference.split
            images = load_split(predictor, split)
            task = partial(sweep if args.sweep else score, images=images, split=split)
    try:
        return task(predictor, folder)
    except NonFinitePrediction as error:
        logger.error("%s", error)
        return 1
    finally:
        distributed.shut_down()


def load_predictor(args: argparse.Namespace) -> Predictor:
    """Find the checkpoint, settle the config, rebuild the model. ValueError for user mistakes."""
    import model
    from utils import distributed
    from utils.checkpoint import load_checkpoint
    from utils.config import check_config, load_config
    from utils.predictor import restore_predictor
    from utils.runs import find_checkpoint

    models = {"model_names": model.list_models(), "model_class": model.model_class}
    config = None
    if args.config:
        config = load_config(args.config, args.overrides, **models, warn=logger.warning)
    path = find_checkpoint(named_checkpoint(args, config), config)
    checkpoint = load_checkpoint(path)
    values, source = checkpoint["config"], f"config in {path}"
    trained = check_config(values, source, **models, warn=logger.debug)
    if config is None:
        config = check_config(values, source, args.overrides, **models, warn=logger.warning)
    warn_of_other_model(config, trained, path)

    ranks = distributed.init(config.device)
    return restore_predictor(checkpoint, path, trained=trained, config=config, ranks=ranks)


def named_checkpoint(args: argparse.Namespace, config: Config | None) -> str | None:
    """What --checkpoint or `inference.model_path` says; the latter without -c, too."""
    if args.checkpoint or config:
        return args.checkpoint or config.inference.model_path
    key = "inference.model_path="
    given = [text.removeprefix(key) for text in args.overrides if text.startswith(key)]
    return given[-1] if given and given[-1] != "null" else None


def warn_of_other_model(config: Config, trained: Config, path: Path) -> None:
    """Say so when the config describes another model than the checkpoint, which decides."""
    from model import PRETRAINED_ARGS

    def description(settings: Config) -> dict[str, Any]:
        args = {k: v for k, v in settings.model_args.items() if k not in PRETRAINED_ARGS}
        return {"model_classname": settings.model_classname, "model_args": args}

    ours, asked = description(trained), description(config)
    for key in ours:
        if asked[key] != ours[key]:
            logger.warning("%s: %s has no effect, %s has %s", key, asked[key], path, ours[key])


def load_split(predictor: Predictor, split: str) -> WholeImages:
    """The labelled images. Raises ValueError with everything that is wrong with the folder."""
    from utils.dataset import WholeImages, find_pairs
    from utils.dataset_check import dataset_problems
    from utils.distributed import barrier

    config = predictor.config
    if predictor.ranks.is_main:
        dataset_problems(config.root_dir, config.dataset_name, (split,))
    barrier()
    pairs = find_pairs(config.root_dir, config.dataset_name, split)
    return WholeImages(pairs, config.ignore_nodata)


def output_folder(args: argparse.Namespace, predictor: Predictor) -> Path:
    """Where results go, made now."""
    from utils.files import make_results_folder
    from utils.runs import results_folder

    folder = args.output or results_folder(predictor.checkpoint)
    make_results_folder(folder)
    return folder


def refuse_empty_output(settings: Inference) -> None:
    """ValueError when the settings leave nothing to write of images without labels."""
    from utils.results import map_folders

    if not map_folders(settings, labelled=False) and not settings.writes_roads:
        raise ValueError(
            "--input would write nothing: set inference.save_outputs=true and "
            "inference.save_binary_mask=true, inference.save_prob_map=true or "
            "inference.save_roads=true"
        )


def map_inputs(
    predictor: Predictor,
    folder: Path,
    *,
    inputs: Sequence[tuple[str, str]],
    bands: tuple[int, ...] | None,
    gsd: float | None,
) -> int:
    """Map photos and scenes without labels; what is unusable costs a line, and the status 1."""
    from utils.scenes.prepare import Asked
    from utils.scenes.run import map_rasters

    return map_rasters(predictor, Asked(folder, bands, gsd), inputs)


def score(predictor: Predictor, folder: Path, *, images: WholeImages, split: str) -> int:
    """Predict labelled images, write their maps and the reports, print the scores."""
    from utils.checkpoint import weights_sha256
    from utils.distributed import all_gather_objects, barrier, gather_in_order
    from utils.map_list import OVERVIEW, replace_maps
    from utils.metrics import CURVE_THRESHOLDS, ThresholdCounts
    from utils.reports import score_table, write_scores
    from utils.results import image_result, map_folders, write_maps

    settings, own = predictor.config.inference, {}
    if predictor.ranks.is_main:
        with user_mistakes():
            replace_maps(folder, [pair.name for pair in images.pairs], settings)
    barrier()  # before another rank's new maps are there
    own_curve = ThresholdCounts(CURVE_THRESHOLDS)
    for index in predictor.share(len(images), split):
        item = images[index]
        target = item["target"].numpy()
        probability = predictor.probability(item["name"], item["image"])
        own[index] = image_result(item["name"], probability, predictor.scoring, target)
        own_curve.update(probability, target)
        write_maps(folder, own[index], probability, target, settings)
    results = gather_in_order(own)
    curve = sum(all_gather_objects(own_curve), ThresholdCounts(CURVE_THRESHOLDS))
    if predictor.ranks.is_main:
        conditions = predictor.conditions(split)
        own_weights = weights_sha256(predictor.model.state_dict())
        write_scores(folder, conditions, results, curve, own_weights)
        print(conditions)
        print(score_table(results, predictor.config.metrics))
        print(f"{folder}/: metrics.json, metrics.xlsx")
        if settings.save_outputs:
            draw_overview(images, results, folder / OVERVIEW)
            print(f"pictures: {folder}/: {OVERVIEW}, {', '.join(map_folders(settings))}")
    return 0


def draw_overview(images: WholeImages, results: Sequence[ImageResult], path: Path) -> None:
    """The worst, the median and the best image, with truth, prediction and errors."""
    from utils.plots import error_map, overview
    from utils.results import worst_median_best

    rows = []
    for role, index in worst_median_best(results):
        item, result = images[index], results[index]
        image, target = item["image"].permute(1, 2, 0).numpy(), item["target"].numpy()  # CHW -> HWC
        errors = error_map(result.mask, target)
        rows.append((f"{role}: {result.name}", image, target, result.mask, errors))
    if rows:
        overview(rows, path)


def sweep(predictor: Predictor, folder: Path, *, images: WholeImages, split: str) -> int:
    """Score many thresholds in one pass; the best one goes into the checkpoint.

    Best by `best_metric` where the sweep has it, else by F1.
    """
    from utils.checkpoint import load_checkpoint, save_checkpoint
    from utils.distributed import gather_in_order
    from utils.sweep import sweep_image, sweep_over

    own = {}
    for index in predictor.share(len(images), f"{split}, sweep"):
        item = images[index]
        probability = predictor.probability(item["name"], item["image"])
        own[index] = sweep_image(probability, item["target"].numpy(), predictor.swept_scoring)
    swept = gather_in_order(own)
    if predictor.ranks.is_main:
        found = sweep_over(swept)
        conditions = predictor.conditions(split, sweep=True)
        found.write(folder, conditions)
        metric = predictor.config.best_metric
        metric = metric if metric in found.metrics else "f1"
        threshold = found.best(metric)["threshold"]
        checkpoint = load_checkpoint(predictor.checkpoint) | {"threshold": threshold}
        with user_mistakes():  # the folder may be another user's
            save_checkpoint(predictor.checkpoint, checkpoint)
        print(conditions)
        print(found.table())
        if "apls" not in predictor.swept_scoring.topology:
            print("APLS peaks at another threshold; pixel_size=METRES adds it")
        print(f"threshold {threshold:g}, the best for {metric}, is kept in {predictor.checkpoint}")
        if predictor.config.inference.threshold is not None:
            fixed = f"{predictor.config.inference.threshold:g}"
            logger.warning("inference.threshold=%s hides it: set that to null to use it", fixed)
        print(f"{folder}/sweep.json")
    return 0


def export(predictor: Predictor, folder: Path, *, kind: str) -> int:
    """Write the model itself, as ONNX or safetensors."""
    from utils.export import export_model

    if predictor.ranks.is_main:
        with user_mistakes():
            for path in export_model(predictor, folder, kind):
                print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
