"""SMP: the library's networks under the contract, its names, and weights from local files."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from segmentation_models_pytorch import MODEL_ARCHITECTURES_MAPPING

import model
from model.base import IMAGENET
from model.baselines.smp import PAPERS, SMP, _normalisation
from model.meta import on_meta
from tests.conftest import ROOT
from utils.config import ConfigError, load_config

VIT = "tu-vit_tiny_patch16_224"


@pytest.fixture(scope="module")
def resnet18() -> dict[str, torch.Tensor]:
    """A whole classifier, as torchvision publishes it."""
    torch.manual_seed(3)
    return torchvision.models.resnet18(weights=None).state_dict()


def outline(**args) -> SMP:
    with on_meta():
        return SMP(**args)


def test_every_architecture_has_a_paper():
    assert set(PAPERS) == set(MODEL_ARCHITECTURES_MAPPING)


@pytest.mark.parametrize("arch", MODEL_ARCHITECTURES_MAPPING)
def test_every_architecture_takes_any_size_bands_and_classes(arch):
    encoder = VIT if arch == "dpt" else "resnet18"
    network = outline(arch=arch, encoder_name=encoder, n_channels=4, n_classes=3)
    with torch.no_grad():
        for size, training in (((1, 1), True), ((50, 70), True), ((129, 40), False)):
            logits = network.train(training)(torch.empty(2, 4, *size, device="meta"))
            assert logits.shape == (2, 3, *size)


@pytest.mark.parametrize("arch", MODEL_ARCHITECTURES_MAPPING)
def test_a_single_image_trains_or_is_refused_with_a_sentence(arch):
    network = outline(arch=arch, encoder_name=VIT if arch == "dpt" else "resnet18").train()
    try:
        assert network(torch.empty(1, 3, 8, 8, device="meta")).shape == (1, 1, 8, 8)
    except ValueError as error:
        assert "trains on two images at a time or more" in str(error)
        assert arch in ("deeplabv3", "deeplabv3plus", "pan", "upernet")


@pytest.mark.parametrize("encoder", ["mit_b0", "tu-mobilenetv3_small_100", "vgg11", "densenet121"])
def test_encoders_of_every_kind(encoder):
    network = outline(arch="unet", encoder_name=encoder).eval()
    assert network(torch.empty(1, 3, 33, 65, device="meta")).shape == (1, 1, 33, 65)


@pytest.mark.parametrize(
    ("arch", "encoder", "message"),
    [
        ("unetpluplus", "resnet34", "'unetpluplus' is unknown, did you mean 'unetplusplus'"),
        ("unet", "resnet43", "'resnet43' is unknown, did you mean 'resnet34'"),
        ("unet", "tu-convnext_tny", "did you mean 'tu-convnext_tiny'"),
        ("UNET", "resnet34", "'UNET' is unknown, did you mean 'unet'"),
        ("unet", "ResNet34", "'ResNet34' is unknown, did you mean 'resnet34'"),
        ("unet", "resnet34.a1_in1k", "'resnet34.a1_in1k' is unknown"),
        ("unet", "tu-resnet34.none", r"Invalid pretrained tag \(none\)"),
        ("linknet", "mit_b0", "'mit_b0' does not go with linknet"),
        ("pan", "vgg11", "'vgg11' does not go with pan"),
        ("dpt", "resnet18", "'resnet18' does not go with dpt"),
        ("dpt", "tu-vit_small_patch14_dinov2", "a ViT with patches of 16 px, not of 14"),
    ],
)
def test_what_does_not_exist_or_fit_is_refused(arch, encoder, message):
    with pytest.raises(ValueError, match=message) as error:
        outline(arch=arch, encoder_name=encoder)
    assert "\n" not in str(error.value)


def test_encoders_of_one_image_size_are_told_otherwise_or_refused():
    with pytest.raises(ValueError, match="'tu-hiera_tiny_224' is made for images of 224 px"):
        outline(arch="unet", encoder_name="tu-hiera_tiny_224")
    outline(arch="fpn", encoder_name="tu-swin_tiny_patch4_window7_224")  # tries two sizes itself


@pytest.mark.parametrize(
    ("arch", "encoder"),
    [("pspnet", "resnet18"), ("dpt", VIT), ("fpn", "efficientnet-b0")],
)
def test_what_is_trained_gets_a_gradient(arch, encoder):
    """Training over several processes waits for the gradient of every trainable parameter."""
    network = outline(arch=arch, encoder_name=encoder).train()
    network(torch.empty(2, 3, 64, 64, device="meta")).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), name
    assert not all(parameter.requires_grad for parameter in network.parameters())


def test_a_config_lists_all_mistakes():
    with pytest.raises(ConfigError) as error:
        load_config(
            ROOT / "config" / "LinkNet.yaml",
            ["model_args.arch=likknet", "model_args.encoder_name=resnet33", "model_args.depth=5"],
            model_names=model.list_models(),
            model_class=model.model_class,
            warn=pytest.fail,
        )
    report = str(error.value)
    assert "3 problems" in report
    assert "model_args.arch: 'likknet' is unknown, did you mean 'linknet'?" in report
    assert "model_args.encoder_name: 'resnet33' is unknown, did you mean 'resnet34'?" in report
    assert "model_args.depth: unknown argument of SMP" in report


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_come_from_a_local_file(tmp_path, resnet18, suffix):
    path = tmp_path / f"encoder{suffix}"
    (torch.save if suffix == ".pth" else save_file)(resnet18, path)
    args = {"arch": "linknet", "encoder_name": "resnet18", "encoder_weights": str(path)}
    encoder = SMP(**args).network.encoder
    assert torch.equal(encoder.layer4[1].conv2.weight, resnet18["layer4.1.conv2.weight"])
    with_infrared = SMP(**args, n_channels=4).network.encoder
    rgb = resnet18["conv1.weight"]
    torch.testing.assert_close(with_infrared.conv1.weight[:, 3], rgb[:, 0] * 0.75)
    with pytest.raises(ValueError, match=r"encoder_weights: .* do not fit"):
        SMP(**args | {"encoder_name": "vgg11"})


@pytest.mark.parametrize(
    ("name", "arch"),
    [
        ("convnext_atto", "unet"),  # timm renames its stages, and leaves out its last norm
        ("vit_tiny_patch16_224", "dpt"),
    ],
)
def test_weights_of_timm_are_its_published_files(tmp_path, name, arch):
    torch.manual_seed(4)
    path = tmp_path / "model.safetensors"
    save_file(timm.create_model(name, num_classes=7).state_dict(), path)
    encoder = SMP(arch=arch, encoder_name=f"tu-{name}", encoder_weights=str(path)).network.encoder
    overlay = {"file": str(path), "num_classes": 7}
    args = {"dynamic_img_size": True} if arch == "dpt" else {"features_only": True}
    own_way = timm.create_model(
        name, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=7, **args
    )
    expected = own_way.state_dict()
    for key, tensor in encoder.model.state_dict().items():
        assert key.startswith("head.") or torch.equal(tensor, expected[key]), key
    with pytest.raises(ValueError, match=r"encoder_weights: .* do not fit ResNet"):
        SMP(encoder_name="tu-resnet18", encoder_weights=str(path))


def test_names_of_weights_are_never_downloaded():
    with pytest.raises(ValueError, match=r"encoder_weights: weights imagenet: no such file .*null"):
        SMP(encoder_weights="imagenet")


def test_normalisation_is_the_encoders():
    assert outline(encoder_name="resnet18").normalisation == IMAGENET
    assert outline(encoder_name="dpn68").normalisation.mean[0] == pytest.approx(124 / 255)
    assert _normalisation("timm-tf_efficientnet_lite0").mean == (0.5, 0.5, 0.5)
    assert outline(arch="dpt", encoder_name=VIT).normalisation.mean == (0.5, 0.5, 0.5)
