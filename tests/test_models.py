"""The contract of every model in the registry, and its published size and cost."""

from __future__ import annotations

import inspect
import sys
import sysconfig
import typing
from pathlib import Path

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from model import MODELS, PRETRAINED_ARGS, RECORDS, build_model, model_class
from model.meta import on_meta
from model.weights import known_weights
from tests.conftest import ROOT
from tests.model_targets import TARGETS, Target, contract_args

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
H, W = 40, 30  # no multiple of any stride, and less than one


def without_numbers(name: str, args: dict) -> nn.Module:
    with on_meta():
        return build_model(name, args)


def test_every_model_has_a_target_and_a_record():
    assert {target.model for target in TARGETS} == set(MODELS) == set(RECORDS)


@pytest.mark.parametrize("name", [name for name, record in RECORDS.items() if record.weights])
def test_records_name_the_weights_that_pretrained_loads(name, tmp_path, monkeypatch):
    monkeypatch.setenv("ANCHOR_SAM_WEIGHTS", str(tmp_path))
    (network,) = RECORDS[name].weights
    message = rf"^{network}-\w+\.pth is not in .*download\.bash.*, or set pretrained: false$"
    with pytest.raises(ValueError, match=message), on_meta():
        model_class(name)(pretrained=True)


@pytest.fixture(scope="class", params=MODELS)
def name(request) -> str:
    return request.param


@pytest.fixture(scope="class")
def network(name):
    torch.manual_seed(0)
    return build_model(name, contract_args(name))


@pytest.fixture(scope="class")
def outline(name):
    """What shapes are checked on: the network without numbers."""
    return without_numbers(name, contract_args(name))


@pytest.fixture(scope="class")
def images() -> torch.Tensor:
    return torch.randn(2, 3, H, W, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="class")
def logits(network, images) -> torch.Tensor:
    with torch.inference_mode():
        return network.eval()(images)


class TestContract:
    def test_logits_have_the_sides_of_the_image(self, logits):
        assert logits.shape == (2, 1, H, W)
        assert logits.dtype == torch.float32
        assert logits.isfinite().all()

    def test_images_of_a_batch_do_not_mix(self, network, images, logits):
        with torch.inference_mode():
            alone = network.eval()(images[1:])
        rounding = 1e-4 * logits.abs().max().item()
        torch.testing.assert_close(alone, logits[1:], rtol=0, atol=rounding)

    def test_bfloat16_autocast_gives_finite_float32(self, network, images):
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            logits = network.eval()(images[:1])
        assert logits.dtype == torch.float32
        assert logits.isfinite().all()

    @pytest.mark.parametrize("training", [False, True])
    @pytest.mark.parametrize("size", [(256, 256), (256, 320), (250, 300), (1, 1)])
    def test_any_size(self, outline, size, training):
        with torch.no_grad():
            logits = outline.train(training)(torch.empty(2, 3, *size, device="meta"))
        assert logits.shape == (2, 1, *size)

    def test_groups_hold_each_trainable_parameter_once(self, network):
        groups = network.parameter_groups(1e-3, 1e-2)
        grouped = [id(p) for group in groups for p in group["params"]]
        assert sorted(grouped) == sorted(id(p) for p in network.parameters())
        decayed = {id(p) for g in groups if g["weight_decay"] for p in g["params"]}
        for module in network.modules():
            exempt = list(module.parameters(recurse=False)) if isinstance(module, NORMS) else []
            bias = getattr(module, "bias", None)
            exempt += [bias] if isinstance(bias, nn.Parameter) and bias.ndim == 1 else []
            assert not decayed & {id(p) for p in exempt}, module

    def test_a_frozen_part_stays_in_eval(self, name):
        network = without_numbers(name, contract_args(name))
        prefix, part = next(
            (key, child) for key, child in network.named_children() if list(child.parameters())
        )
        network.freeze(prefix)
        network.train()
        assert not any(module.training for module in part.modules())
        assert not any(p.requires_grad for p in part.parameters())
        kept = sum(len(g["params"]) for g in network.parameter_groups(1e-3, 0.0))
        assert kept == sum(1 for _ in network.parameters()) - sum(1 for _ in part.parameters())
        with pytest.raises(ValueError, match="no parameters under"):
            network.freeze("no_such_part")

    def test_arguments_are_keyword_only_and_annotated(self, name):
        constructor = model_class(name).__init__
        _, *parameters = inspect.signature(constructor).parameters.values()
        hints = typing.get_type_hints(constructor, include_extras=True)
        for parameter in parameters:
            assert parameter.kind is inspect.Parameter.KEYWORD_ONLY, parameter.name
            assert parameter.name in hints
            if parameter.name in ("n_channels", "in_chans", "n_classes", "num_classes"):
                with pytest.raises(ValidationError):
                    TypeAdapter(hints[parameter.name]).validate_python(0)

    def test_unpretrained_opens_no_file_and_no_socket(self, name, tmp_path, monkeypatch):
        for weights in known_weights():
            (tmp_path / weights.file).write_bytes(b"no weights")
        monkeypatch.setenv("ANCHOR_SAM_WEIGHTS", str(tmp_path))
        accepted = inspect.signature(model_class(name)).parameters
        asked = {key: "x.pth" if off is None else True for key, off in PRETRAINED_ARGS.items()}
        asked = {key: value for key, value in asked.items() if key in accepted}
        with Watch() as watch, on_meta():
            build_model(name, contract_args(name))
            build_model(name, contract_args(name) | asked, load_pretrained=False)
        assert watch.seen == []


NUMBERED = [target for target in TARGETS if target.parameters is not None]


@pytest.fixture(
    scope="class", params=NUMBERED, ids=lambda target: f"{target.model}-{target.gflops}"
)
def target(request) -> Target:
    return request.param


@pytest.fixture(scope="class")
def target_outline(target) -> nn.Module:
    return without_numbers(target.model, target.args).eval()


class TestPublishedNumbers:
    def test_parameters(self, target, target_outline):
        assert count(target_outline) == target.parameters

    def test_parameters_of_three_classes(self, target):
        accepted = inspect.signature(model_class(target.model)).parameters
        key = "n_classes" if "n_classes" in accepted else "num_classes"
        network = without_numbers(target.model, target.args | {key: 3})
        assert count(network) == target.parameters + 2 * target.per_class
        assert network.eval()(torch.empty(1, 3, 64, 64, device="meta")).shape == (1, 3, 64, 64)

    @pytest.mark.parametrize("side", [256, 1024])
    def test_gflops(self, target, target_outline, side):
        published = target.gflops if side == 256 else target.gflops_1024
        if published is None:
            return
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            target_outline(torch.empty(1, 3, side, side, device="meta"))
        tolerance = target.tolerance if side == 256 else 0.005
        assert counter.get_total_flops() / 1e9 == pytest.approx(published, rel=tolerance)


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


class Watch:
    """Records the sockets and the files, other than Python's own, that are opened meanwhile."""

    active: Watch | None = None
    libraries = tuple({sysconfig.get_path(key) for key in ("stdlib", "purelib", "platlib")})

    def __enter__(self) -> Watch:
        self.seen: list[str] = []
        Watch.active = self
        return self

    def __exit__(self, *_) -> None:
        Watch.active = None

    @staticmethod
    def hook(event: str, args: tuple) -> None:
        watch = Watch.active
        if watch is None:
            return
        if event.startswith("socket."):
            watch.seen.append(event)
        elif event == "open" and isinstance(args[0], (str, bytes)):
            path = str(Path(args[0].decode() if isinstance(args[0], bytes) else args[0]).resolve())
            code = path.startswith(str(ROOT)) and path.endswith((".py", ".pyc"))
            if not code and not path.startswith(Watch.libraries):
                watch.seen.append(path)


sys.addaudithook(Watch.hook)
