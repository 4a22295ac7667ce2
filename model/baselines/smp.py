"""SMP: every architecture of segmentation_models_pytorch, with every encoder of it.

Iakubovskii, "Segmentation Models Pytorch", 2019, github.com/qubvel-org/segmentation_models.pytorch.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import Annotated, ClassVar

import timm
import torch
from pydantic import AfterValidator, PositiveInt
from segmentation_models_pytorch import MODEL_ARCHITECTURES_MAPPING, create_model
from segmentation_models_pytorch.encoders import get_encoder_names
from torch import Tensor, nn

from model.base import IMAGENET, Normalisation, RoadModel
from model.meta import on_meta
from model.weights import load_weights

#: The library's prefix for encoders of timm: 'tu-convnext_tiny'.
TIMM = "tu-"
#: Where files of whole classifiers keep what an encoder does without.
CLASSIFIERS = ("fc.", "_fc.", "classifier.", "head.", "last_linear.", "linear.")
#: Side of the patches that DPT's four levels are made for, in pixels.
DPT_PATCH = 16
#: Architectures that do not use all levels of their encoder.
PARTIAL = ("pspnet", "dpt")
#: Where each architecture comes from.
PAPERS = {
    "unet": ("U-Net", "Ronneberger et al., MICCAI 2015", "arXiv:1505.04597"),
    "unetplusplus": ("U-Net++", "Zhou et al., DLMIA 2018", "arXiv:1807.10165"),
    "manet": ("MA-Net", "Fan et al., IEEE Access 2020", "doi 10.1109/ACCESS.2020.3025372"),
    "linknet": ("LinkNet", "Chaurasia and Culurciello, VCIP 2017", "arXiv:1707.03718"),
    "fpn": ("Panoptic FPN", "Kirillov et al., CVPR 2019", "arXiv:1901.02446"),
    "pspnet": ("PSPNet", "Zhao et al., CVPR 2017", "arXiv:1612.01105"),
    "deeplabv3": ("DeepLabV3", "Chen et al., 2017", "arXiv:1706.05587"),
    "deeplabv3plus": ("DeepLabV3+", "Chen et al., ECCV 2018", "arXiv:1802.02611"),
    "pan": ("PAN", "Li et al., BMVC 2018", "arXiv:1805.10180"),
    "upernet": ("UPerNet", "Xiao et al., ECCV 2018", "arXiv:1807.10221"),
    "segformer": ("SegFormer", "Xie et al., NeurIPS 2021", "arXiv:2105.15203"),
    "dpt": ("DPT", "Ranftl et al., ICCV 2021", "arXiv:2103.13413"),
}
#: Normalisation of the encoders that were not trained with ImageNet's mean and deviation.
CENTRED = Normalisation(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
DPN = Normalisation(mean=(124 / 255, 117 / 255, 104 / 255), std=(1 / (0.0167 * 255),) * 3)
NORMALISATIONS = {
    "inception": CENTRED,
    "xception": CENTRED,
    "timm-tf_efficientnet_lite": CENTRED,
    "dpn": DPN,
}


def known_arch(name: str) -> str:
    """`name`, if the library has this architecture. Raises ValueError with the nearest one."""
    return _known(name, MODEL_ARCHITECTURES_MAPPING)


def known_encoder(name: str) -> str:
    """`name`, if the library or timm has this encoder. Raises ValueError with the nearest one."""
    encoders = [*get_encoder_names(), *(TIMM + network for network in timm.list_models())]
    # A timm name may go on with the tag of its weights, which random encoders do not need.
    untagged = name.partition(".")[0] if name.startswith(TIMM) else name
    return name if untagged in encoders else _known(name, encoders)


class SMP(RoadModel):
    """A network of segmentation_models_pytorch.

    Args:
        arch: 'unet', 'unetplusplus', 'linknet', 'fpn', 'pspnet', 'pan', 'manet', 'deeplabv3',
            'deeplabv3plus', 'upernet', 'segformer' or 'dpt'; 'dpt' takes a ViT of timm.
        encoder_name: 'resnet34', 'mit_b2', ... or 'tu-NAME' for a network of timm.
        encoder_weights: the encoder's published file, .pth or .safetensors, with or without its
            classifier; None starts from random weights.
        n_channels: channels of the image.
        n_classes: channels of the logits.

    Layers that the library builds and never calls are frozen. Raises ValueError for an unknown
    name, for an encoder that the architecture does not take or that is made for images of one size,
    and for a weight file that is missing, damaged or of another encoder.
    """

    parts: ClassVar[dict[str, tuple[str, ...]]] = {"encoder": ("network.encoder",)}

    def __init__(
        self,
        *,
        arch: Annotated[str, AfterValidator(known_arch)] = "unetplusplus",
        encoder_name: Annotated[str, AfterValidator(known_encoder)] = "resnet34",
        encoder_weights: str | None = None,
        n_channels: PositiveInt = 3,
        n_classes: PositiveInt = 1,
    ) -> None:
        super().__init__()
        known_arch(arch)
        known_encoder(encoder_name)
        in_channels = n_channels if encoder_weights is None else 3
        self.network = _build(arch, encoder_name, in_channels, n_classes)
        encoder = self.network.encoder
        if encoder_weights is not None:
            _load(encoder, encoder_name, encoder_weights)
            _set_channels(encoder, n_channels)
        self.stride, self.min_size = _sides(arch, encoder.output_stride)
        self.normalisation = _normalisation(encoder_name)
        # Layers without a gradient would stop a training over several processes.
        if _side_px(encoder_name) or arch in PARTIAL or "efficientnet" in encoder_name:
            unused = _try_out(arch, encoder_name, self.min_size, self.stride)
            self.freeze(*(f"network.{name}" for name in unused))

    def forward_padded(self, image: Tensor) -> Tensor:
        """(B, n_channels, H, W) to logits (B, n_classes, H, W).

        Raises ValueError in training for a single image, where a batch norm would see one value.
        """
        if self.training and len(image) == 1 and self._pools_to_one_pixel():
            name = type(self.network).__name__
            raise ValueError(f"{name} trains on two images at a time or more: batch_size: 2")
        return self.network(image)

    def _pools_to_one_pixel(self) -> bool:
        """Whether a batch norm sees one value an image and channel."""
        return any(
            isinstance(module, nn.Sequential)
            and any(isinstance(m, nn.AdaptiveAvgPool2d) and m.output_size == 1 for m in module)
            and any(isinstance(m, nn.BatchNorm2d) for m in module.modules())
            for module in self.network.decoder.modules()
        )


def _known(name: str, names: Iterable[str]) -> str:
    names = list(names)
    if name in names:
        return name
    close = difflib.get_close_matches(name.lower(), names, n=1)
    others = f", did you mean {close[0]!r}?" if close else ""
    listed = f" (one of: {', '.join(names)})" if len(names) <= 12 else ""
    raise ValueError(f"{name!r} is unknown{others}{listed}")


def _build(arch: str, encoder_name: str, in_channels: int, classes: int) -> nn.Module:
    create = partial(
        create_model, arch, encoder_name, None, in_channels=in_channels, classes=classes
    )
    try:
        if _side_px(encoder_name):
            with suppress(TypeError):  # what some transformers need to be told, others do not know
                return create(dynamic_img_size=True)
        return create()
    except (ValueError, RuntimeError, TypeError, KeyError, AttributeError, AssertionError) as error:
        # What an encoder that does not fit raises differs from one to the next.
        raise ValueError(
            f"encoder_name: {encoder_name!r} does not go with {arch}: {error}"
        ) from None


def _side_px(encoder_name: str) -> int | None:
    """The side of the images that it is for, if timm says one; many take others all the same."""
    if not encoder_name.startswith(TIMM):
        return None
    settings = timm.get_pretrained_cfg(encoder_name.removeprefix(TIMM), allow_unregistered=True)
    return settings.input_size[-1] if settings and settings.fixed_input_size else None


def _try_out(arch: str, encoder_name: str, least: int, stride: int) -> list[str]:
    """The parameters that no gradient reaches, found without numbers, at two image sizes."""
    side_px = _side_px(encoder_name)
    with torch.inference_mode(False), torch.enable_grad(), on_meta():
        network = _build(arch, encoder_name, 3, 1).train()
        try:
            for sides in ((least, least + stride), (least + 2 * stride, least)):
                logits = network(torch.empty(2, 3, *sides))
        except (RuntimeError, AssertionError):
            if side_px is None:
                raise
            raise ValueError(
                f"encoder_name: {encoder_name!r} is made for images of {side_px} px and does not "
                "take others"
            ) from None
        logits.sum().backward()
    return [name for name, parameter in network.named_parameters() if parameter.grad is None]


def _sides(arch: str, stride: int) -> tuple[int, int]:
    """What sides are a multiple of, and the least one, for an encoder of this output stride."""
    if arch == "dpt":
        if stride != DPT_PATCH:
            raise ValueError(
                f"encoder_name: dpt takes a ViT with patches of {DPT_PATCH} px, not of {stride}"
            )
        stride *= 2  # its coarsest level is half the size of the encoder's
    # PAN halves its coarsest level three times; else batch norm needs more than one value there.
    return stride, 8 * stride if arch == "pan" else max(2 * stride, 64)


def _load(encoder: nn.Module, name: str, source: str) -> None:
    try:
        if name.startswith(TIMM):
            _load_from_timm(encoder.model, name.removeprefix(TIMM), source)
        else:
            own = encoder.state_dict()
            drop = tuple(c for c in CLASSIFIERS if not any(key.startswith(c) for key in own))
            load_weights(encoder, source, drop=drop)
    except ValueError as error:
        raise ValueError(
            f"encoder_weights: {error} (a local file of {name}'s tensors, or null)"
        ) from None


def _load_from_timm(features: nn.Module, name: str, source: str) -> None:
    """Load a file of the whole network into the part of it that gives features.

    timm leaves out what no feature needs, and names 'stages.0' there 'stages_0'.
    """
    whole = timm.create_model(name, num_classes=0)
    names = whole.default_cfg["classifier"]
    classifiers = tuple(f"{name}." for name in ((names,) if isinstance(names, str) else names))
    load_weights(whole, source, drop=classifiers)
    tensors = {key.replace("_", "."): tensor for key, tensor in whole.state_dict().items()}
    own = features.state_dict()
    for key in own:
        if not key.startswith(classifiers):  # which a ViT keeps, unused
            own[key] = tensors[key.replace("_", ".")]
    features.load_state_dict(own)


def _set_channels(encoder: nn.Module, n_channels: int) -> None:
    if n_channels == 3:
        return
    if not hasattr(encoder, "set_in_channels"):
        raise ValueError("n_channels: weights of an encoder of timm are for 3 channels")
    encoder.set_in_channels(n_channels, pretrained=True)


def _normalisation(encoder_name: str) -> Normalisation:
    if encoder_name.startswith(TIMM):
        settings = timm.get_pretrained_cfg(encoder_name.removeprefix(TIMM), allow_unregistered=True)
        return Normalisation(tuple(settings.mean), tuple(settings.std)) if settings else IMAGENET
    starts = (n for start, n in NORMALISATIONS.items() if encoder_name.startswith(start))
    return next(starts, IMAGENET)
