"""Anchor-SAM's encoder: bit for bit SAM 2.1's own, and strict about its checkpoints."""

from __future__ import annotations

import logging
from importlib import resources
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from sam2.modeling.backbones.image_encoder import ImageEncoder
from torch import Tensor

from model.anchor_sam.encoder import HieraEncoder
from model.anchor_sam.net import AnchorSAM
from model.meta import on_meta

FILES = {"tiny": "t", "small": "s", "base_plus": "b+", "large": "l"}


def sam2_encoder(model_size: str) -> ImageEncoder:
    """The encoder as the `sam2` package itself builds it from its configuration file."""
    name = f"sam2.1_hiera_{FILES[model_size]}.yaml"
    with resources.as_file(resources.files("sam2") / "configs" / "sam2.1" / name) as path:
        config = OmegaConf.load(path).model.image_encoder
    config.scalp = 0
    return instantiate(config).eval()


@pytest.fixture(scope="module")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor]]:
    """A file laid out like the published ones: the encoder's tensors among others."""
    torch.manual_seed(0)
    tensors = {f"image_encoder.{k}": v for k, v in sam2_encoder("tiny").state_dict().items()}
    tensors["sam_mask_decoder.iou_token.weight"] = torch.randn(1, 256)
    path = tmp_path_factory.mktemp("weights") / "official.pt"
    torch.save({"model": tensors}, path)
    return path, tensors


@pytest.mark.parametrize("model_size", FILES)
def test_features_are_those_of_sam2_bit_for_bit(model_size):
    torch.manual_seed(0)
    reference = sam2_encoder(model_size)
    for embedding in (reference.trunk.pos_embed, reference.trunk.pos_embed_window):
        torch.nn.init.normal_(embedding)  # zero at first
    image = torch.randn(1, 3, 128, 160)
    with torch.no_grad():
        stages = reference.trunk(image)
        for top_down in (None, [2, 3]):
            reference.neck.fpn_top_down_levels = [0, 1, 2, 3] if top_down is None else top_down
            expected, _ = reference.neck(stages)
            with on_meta():
                encoder = HieraEncoder(model_size, top_down).eval()
            encoder.load_state_dict(reference.state_dict(), assign=True)
            last_stage, levels = encoder(image)
            assert torch.equal(last_stage, stages[-1])
            assert [level.shape[-1] for level in levels] == [40, 20, 10, 5]
            for level, other in zip(levels, expected, strict=True):
                assert torch.equal(level, other)


def test_top_down_levels_decide_where_coarse_features_arrive():
    torch.manual_seed(0)
    full, partial = HieraEncoder("nano"), HieraEncoder("nano", [2, 3])
    partial.load_state_dict(full.state_dict())
    image = torch.randn(1, 3, 64, 64)
    same = [torch.equal(a, b) for a, b in zip(full(image)[1], partial(image)[1], strict=True)]
    assert same == [False, False, True, True]


def test_an_official_checkpoint_gives_every_tensor(tiny_checkpoint, caplog):
    path, tensors = tiny_checkpoint
    with caplog.at_level(logging.WARNING):
        net = AnchorSAM(model_size="tiny", pretrained_weights_path=str(path))
    assert not caplog.records
    own = net.encoder.state_dict()
    assert len(own) == len(tensors) - 1
    for name, tensor in own.items():
        assert torch.equal(tensor, tensors[f"image_encoder.{name}"]), name


def damaged(tensors: dict[str, Tensor], how: str) -> object:
    bias = "image_encoder.trunk.blocks.3.norm1.bias"
    if how == "missing":
        return {"model": {k: v for k, v in tensors.items() if k != bias}}
    if how == "shape":
        return {"model": tensors | {bias: torch.zeros(7)}}
    if how == "unknown":
        return {"model": tensors | {"image_encoder.trunk.blocks.12.norm1.bias": torch.zeros(7)}}
    return {"model": {k.removeprefix("image_encoder."): v for k, v in tensors.items()}}


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", r"1 missing \(trunk.blocks.3.norm1.bias\)"),
        ("shape", r"trunk.blocks.3.norm1.bias \(7,\) for \(192,\)"),
        ("unknown", r"1 unknown \(trunk.blocks.12.norm1.bias\)"),
        ("foreign", r"missing \(trunk.pos_embed, trunk.pos_embed_window, trunk.patch_embed"),
    ],
)
def test_a_checkpoint_that_does_not_fit_names_the_tensors(tmp_path, tiny_checkpoint, how, message):
    path = tmp_path / "other.pt"
    torch.save(damaged(tiny_checkpoint[1], how), path)
    with pytest.raises(ValueError, match=message) as error:
        HieraEncoder("tiny").load_pretrained(str(path))
    assert "\n" not in str(error.value)
    assert "model_size 'tiny'" in str(error.value)


def test_a_checkpoint_of_another_size_is_refused(tiny_checkpoint):
    message = r"model_size 'small': .* missing .*blocks\.1[12].*download\.bash sam2\.1_hiera_small"
    with pytest.raises(ValueError, match=message):
        HieraEncoder("small").load_pretrained(str(tiny_checkpoint[0]))


def test_a_missing_file_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("ANCHOR_SAM_WEIGHTS", str(tmp_path))
    for absent in ("pretrain_weight/sam2.1_hiera_tiny.pt", "other.pt"):
        with pytest.raises(ValueError, match=r"download\.bash sam2\.1_hiera_tiny\.pt") as error:
            HieraEncoder("tiny").load_pretrained(absent)
        assert str(error.value).count("download.bash") == 1
        assert str(error.value).endswith(", or set pretrained_weights_path: null")


def test_a_truncated_file_is_refused(tmp_path, tiny_checkpoint):
    path = tmp_path / "half.pt"
    whole = tiny_checkpoint[0].read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        ValueError, match=r"truncated.* damaged.*download\.bash sam2\.1_hiera_tiny\.pt"
    ):
        HieraEncoder("tiny").load_pretrained(str(path))


def test_nano_has_no_checkpoint(tiny_checkpoint):
    with pytest.raises(ValueError, match="'nano' has no published weights"):
        AnchorSAM(model_size="nano", pretrained_weights_path=str(tiny_checkpoint[0]))


def test_unknown_sizes_and_levels_are_listed():
    with pytest.raises(ValueError, match="'huge', one of: nano, tiny, small, base, base_plus"):
        AnchorSAM(model_size="huge")
    with pytest.raises(ValueError, match=r"\[2, 4\] has a level outside 0 .* to 3"):
        AnchorSAM(model_size="nano", fpn_top_down_levels=[2, 4])


def test_the_reported_channels_are_those_of_the_features():
    encoder = HieraEncoder("nano")
    last_stage, levels = encoder(torch.randn(1, 3, 32, 64))
    assert last_stage.shape == (1, encoder.trunk_channels, 1, 2)
    assert {level.shape[1] for level in levels} == {encoder.neck_channels}
