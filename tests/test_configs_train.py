"""Every shipped config trains an epoch from random weights and predicts from its checkpoint."""

from __future__ import annotations

from argparse import Namespace

import cv2
import numpy as np
import pytest
import yaml

import inference
import model
import train
from tests.conftest import ROOT
from utils import distributed
from utils.checkpoint import save_checkpoint, seed_everything
from utils.config import load_config
from utils.engine import train_one_epoch
from utils.loading import load_splits
from utils.synthetic.scene import draw_scene
from utils.training import build_training, weights_checkpoint

CONFIGS = sorted((ROOT / "config").glob("*.yaml"))
SIDE_PX = 32
SETTINGS = (
    "dataset_name=mini",
    f"image_size={SIDE_PX}",
    "epochs=1",
    "crops_per_image=1",
    "warm_up_step=0",
    "scheduler.CosineAnnealingLR_params.T_max=1",
    "num_workers=0",
    "device=cpu",
    "tile_overlap=0",
    "inference.batch_size=1",
)


@pytest.fixture(scope="module")
def one_batch(tmp_path_factory):
    """ROOT of the dataset `mini`: two procedural scenes of 32 px to train on, one to evaluate."""
    root = tmp_path_factory.mktemp("datasets")
    for index, name in enumerate(("train/{}/a.png", "train/{}/b.png", "val/{}/c.png")):
        scene = draw_scene(6, index, SIDE_PX)
        assert 0 < scene.label.mean() < 255
        for kind, pixels in (("image", scene.image[..., ::-1]), ("label", scene.label)):
            path = root / "mini" / name.format(kind)
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), pixels)
    return root


def small_run(path, root):
    """A shipped config, without its weight file, for one step on 32 px."""
    values = yaml.safe_load(path.read_text())
    cls = model.model_class(values["model_classname"])
    accepted = cls.__init__.__kwdefaults__
    off = {"pretrained": "false", "pretrained_weights_path": "null", "encoder_weights": "null"}
    assert off.keys() == model.PRETRAINED_ARGS.keys()
    args = [f"model_args.{key}={value}" for key, value in off.items() if key in accepted]
    if "model_size" in accepted:
        args.append("model_args.model_size=nano")
    # Batch norm at stride 32 needs two images, unless the network pads a small one much further.
    args.append(f"batch_size={1 if cls.stride > 2 * SIDE_PX else 2}")
    return load_config(
        path,
        [*SETTINGS, f"root_dir={root}", *args],
        model_names=model.list_models(),
        model_class=model.model_class,
        warn=pytest.fail,
    )


def test_every_model_has_a_config():
    named = {yaml.safe_load(path.read_text())["model_classname"] for path in CONFIGS}
    assert {model.ALIASES.get(name, name) for name in named} == set(model.MODELS)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_trains_an_epoch_and_predicts(path, one_batch, tmp_path):
    config = small_run(path, one_batch)
    ranks = distributed.init(config.device)
    batches, val = load_splits(config, ranks)
    seed_everything(config.random_seed)
    network = model.build_model(config.model_classname, config.model_args)
    state = build_training(config, ranks, network, batches_per_epoch=1)
    logits = []
    hook = network.register_forward_hook(lambda _, __, output: logits.append(output.detach()))
    losses = train_one_epoch(state, batches, remaining=len(batches.batch_sampler))
    hook.remove()
    assert 0 < losses["loss"] < 10
    assert ((logits[0] < 0) | (logits[0] > 1)).any(), "a sigmoid at the end?"
    for name, parameter in network.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
    scores, (sample,) = train.evaluate_epoch(state, val, Namespace(asked=lambda: False))
    file = tmp_path / "weights.pth"
    save_checkpoint(file, weights_checkpoint(state, scores))
    del state, network  # the largest take gigabytes

    arguments = Namespace(config=None, overrides=[], checkpoint=str(file))
    predictor = inference.load_predictor(arguments)
    probability = predictor.probability("c", val[0]["image"])
    np.testing.assert_allclose(probability, sample.probability, rtol=0, atol=1e-6)
    file.unlink()
