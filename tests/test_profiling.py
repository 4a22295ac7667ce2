"""The profiler: counts against arithmetic by hand, parts against wholes, and its script."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import openpyxl
import pytest
import torch
from torch import nn

import model
import model_profiler
from model.base import PARTS, RoadModel
from model.meta import on_meta
from model.ops.flops import FLOP_FORMULAS
from tests.conftest import ROOT
from tests.model_targets import contract_args
from tests.tiny_net import TinyNet
from utils.config import load_config
from utils.profiling import timing
from utils.profiling.parts import Meter, parameters_by_part
from utils.profiling.weigh import weigh


class Attending(RoadModel):
    """A convolution and an attention without modules, whose cost is known by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Conv2d(8, 1, 1)

    def forward_padded(self, image):
        x = self.norm(self.encoder(image))
        q = x.flatten(2).mT  # B (HW) 8
        x = nn.functional.scaled_dot_product_attention(q, q, q).mT.view_as(x)
        return self.head(x)


def test_flops_are_those_of_the_formulas_by_hand():
    weight = weigh(on_meta()(Attending), batch=2, size=16, mode="train_all")
    pixels = 2 * 16 * 16
    convolutions = {"encoder": 2 * pixels * 8 * 27, "head": 2 * pixels * 8}
    attention = 2 * 2 * pixels * 256 * 8  # queries by keys, then weights by values
    assert weight.flops == sum(convolutions.values()) + attention
    assert weight.flops_by_part == {
        "encoder": convolutions["encoder"],
        "decoder": convolutions["head"] + attention,
    }
    assert weight.parameters == 3 * 8 * 9 + 8 + 2 * 8 + 8 + 1
    assert weight.parameters_by_part == {"encoder": 224, "decoder": 25}
    norms = 4 * pixels * 8  # thop takes four operations a value for a norm with weights
    assert weight.thop_macs == sum(convolutions.values()) // 2 + norms
    assert f"misses {attention / 2e9:.3g} GMACs: attention" in weight.thop_note
    assert set(weight.uncounted) == {"normalisation", "softmax"}


@pytest.mark.parametrize("name", model.MODELS)
def test_parts_are_declared_by_names_that_exist(name):
    with on_meta():
        network = model.build_model(name, contract_args(name))
    names = [key for key, _ in network.named_parameters()]
    for part, prefixes in network.parts.items():
        assert part in PARTS
        for prefix in prefixes:
            assert any(network.part_of(key) == part and key.startswith(prefix) for key in names)
    found = parameters_by_part(network)
    assert sum(found.values()) == sum(p.numel() for p in network.parameters())
    assert {"encoder", "decoder"} <= set(found)


def test_what_has_no_formula_is_named_and_our_operators_are_counted():
    with_formula = weigh(
        on_meta()(lambda: model.build_model("AnchorSAM", contract_args("AnchorSAM"))),
        batch=1,
        size=64,
        mode="adapter_only",
    )
    own = {str(operator).split(".")[-1] for operator in FLOP_FORMULAS}
    counted = own & set(with_formula.flops_by_operator)
    assert counted and all(with_formula.flops_by_operator[name] > 0 for name in counted)
    assert with_formula.uncounted["interpolation"] == {"upsample_bicubic2d": 1}  # of positions
    assert "native_layer_norm" in with_formula.uncounted["normalisation"]
    assert not own & {name for names in with_formula.uncounted.values() for name in names}
    trunk = with_formula.parameters - with_formula.trainable
    assert 0 < trunk < with_formula.parameters_by_part["encoder"] + 1


def test_a_meter_shares_time_out_to_the_innermost_group():
    inner, outer = nn.Identity(), nn.Sequential()
    now = [0.0]

    class Slow(nn.Module):
        def __init__(self, seconds, child=None):
            super().__init__()
            self.seconds, self.child = seconds, child

        def forward(self, x):
            now[0] += self.seconds
            if self.child is not None:
                x = self.child(x)
                now[0] += 10 * self.seconds
            return x

    inner = Slow(1)
    outer = nn.Sequential(Slow(2, inner), Slow(100))
    groups = {id(inner): "inner", id(outer[1]): "last"}
    with Meter(outer, lambda name, module: groups.get(id(module), "rest"), lambda: now[0]) as meter:
        outer(torch.zeros(1))
    assert meter.total == {"rest": 22, "inner": 1, "last": 100}
    assert not any(module._forward_hooks for module in outer.modules())


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(model.MODELS, "TinyNet", "tests.tiny_net")
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # pytest's own handlers stay
    (tmp_path / "tiny.yaml").write_text("model_classname: TinyNet\ndataset_name: none\n")
    return load_config(
        "tiny.yaml", model_names=model.list_models(), model_class=model.model_class, warn=print
    )


CONDITIONS = timing.Conditions(
    size=32, batch=2, device="cpu", dtype="fp32", compiled=False, warm_up=1, repeats=4, limit_s=60
)


def test_forward_and_training_step_are_timed_as_often_as_is_said(tiny, monkeypatch):
    calls = []
    real = TinyNet.forward
    monkeypatch.setattr(TinyNet, "forward", lambda self, x: calls.append(1) or real(self, x))
    forward = timing.time_forward(tiny, CONDITIONS)
    assert len(calls) == 1 + 1 + 4 + timing.PART_PASSES  # the first is a small one
    assert forward.repeats == 4 and forward.p90_s >= forward.median_s > 0
    assert forward.fps == pytest.approx(2 / forward.median_s)
    assert set(forward.by_part_s) == {"decoder"} and forward.peak_bytes > 0
    step = timing.time_training_step(tiny, CONDITIONS)
    assert step.repeats == 4 and step.by_part_s is None


def test_a_limit_ends_the_timing_early(tiny):
    hurried = CONDITIONS._replace(limit_s=0, repeats=50)
    assert timing.time_forward(tiny, hurried).repeats == timing.FEWEST
    assert timing.time_training_step(tiny, hurried).repeats == timing.FEWEST


def test_the_script_tells_of_the_model_that_fails_and_measures_the_others(tiny, capsys):
    shipped = str(ROOT / "config" / "CGCNet.yaml")
    failing = "model_classname: CGCNet\ndataset_name: none\nmodel_args: {input_size: 3}\n"
    Path("fails.yaml").write_text(failing)
    options = ["--size", "64", "--repeats", "3", "--warm-up", "1", "--output", "out"]
    assert model_profiler.main(["-c", shipped, "fails.yaml", *options]) == 1
    out = capsys.readouterr().out
    assert "fails: FAILED: input_size: 3 is less than the stride 16" in out
    report = json.loads(Path("out/profile.json").read_text())
    measured, failed = report["models"]
    assert measured["forward"]["repeats"] == 3 and not measured["problems"]
    assert set(measured["forward"]["by_part_s"]) == {"encoder", "neck", "decoder"}
    assert failed["problems"] and failed["weight"] is None
    book = openpyxl.load_workbook("out/profile.xlsx")
    titles, first, *_ = book["models"].iter_rows(values_only=True)
    cells = dict(zip(titles, first, strict=True))
    assert cells["params M"] * 1e6 == pytest.approx(measured["weight"]["parameters"])
    assert cells["adapter M"] is None  # it has none
    assert cells["median ms"] / 1e3 == pytest.approx(measured["forward"]["median_s"])
    assert Path("out/profile.png").read_bytes()[:4] == b"\x89PNG"


def test_mistakes_are_told_at_once_with_status_2(tiny, capsys):
    Path("wrong.yaml").write_text("model_classname: UNett\ndataset_name: none\nepoch: 3\n")
    for argv, messages in (
        (["-c", "wrong.yaml", "tiny.yaml", "tiny.yaml"], ["'UNet'", "'epochs'", "called tiny"]),
        (["-c", "absent.yaml", "wrong.yaml"], ["absent.yaml: 1 problem", "No such file", "'UNet'"]),
        (
            ["-c", "absent.yaml", "--batch", "0", "--size", "0"],
            ["--batch: 0 is less than 1", "--size: 0 is less than 1", "No such file"],
        ),
        (["-c", "tiny.yaml", "--output", "wrong.yaml"], ["wrong.yaml: File exists"]),
    ):
        with pytest.raises(SystemExit) as stop:
            model_profiler.main(argv)
        assert stop.value.code == 2
        err = capsys.readouterr().err
        assert all(message in err for message in messages), err
