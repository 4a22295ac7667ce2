"""Parameters and FLOPs of a network, from its outline on the meta device.

FLOPs are counted on the operators that run, two a multiply-add, by PyTorch's FlopCounterMode with
the formulas of our own operators. thop's MACs, counted on modules, stand beside them.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import thop
import torch
from thop.profile import register_hooks
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from model.base import RoadModel
from model.ops.flops import FLOP_FORMULAS
from model.ops.pointwise import Pointwise
from utils.profiling.parts import Meter, parameters_by_part, part_meter

#: Operators that compute nothing: they make, move, order or look up.
MOVEMENT = {
    *("_to_copy", "clone", "copy_", "cat", "stack", "repeat", "roll", "flip", "constant_pad_nd"),
    *("replication_pad2d", "reflection_pad2d", "pixel_shuffle", "pixel_unshuffle"),
    *("index", "_unsafe_index", "index_select", "index_put", "_unsafe_index_put", "gather"),
    *("scatter", "embedding", "sort", "_unsafe_view", "_reshape_copy", "unfold", "im2col"),
    *("arange", "empty", "empty_like", "new_empty", "zeros", "zeros_like", "new_zeros", "ones"),
    *("ones_like", "new_ones", "full", "full_like", "new_full", "scalar_tensor", "lift_fresh"),
    *("fill_", "zero_", "fill", "linspace", "eye", "tril", "triu", "_assert_async"),
}  # fmt: skip
#: Parts of operator names, and what a report calls their kind.
KINDS = {
    "norm": "normalisation",
    "softmax": "softmax",
    "pool": "pooling",
    "upsample": "interpolation",
    "grid_sampler": "sampling",
    "scan": "scans",
    "cumsum": "scans",
    "cumprod": "scans",
}
#: Of the element-wise operators, which are left out as well, those that torch does not tag so.
ELEMENT_WISE = {"_prelu_kernel"}
REDUCTIONS = {"sum", "mean", "amax", "amin", "max", "min", "argmax", "argmin", "var", "var_mean"}
#: As in attention. They are no modules, and thop counts modules.
PRODUCTS = ("bmm", "baddbmm")
#: Layers of ours that thop can count by rules of its own.
THOP_RULES = {Pointwise: register_hooks[nn.Linear]}


@dataclass(frozen=True)
class Weight:
    """What a network weighs for one input; nothing here depends on a machine."""

    parameters: int
    trainable: int
    parameters_by_part: dict[str, int]
    flops: int  # two a multiply-add
    flops_by_part: dict[str, int]
    flops_by_operator: dict[str, int]
    uncounted: dict[str, dict[str, int]]  # kind -> operator -> calls
    thop_macs: int
    thop_note: str


def weigh(build: Callable[[], RoadModel], *, batch: int, size: int, mode: str) -> Weight:
    """Weigh what `build` makes on the meta device for images (batch, 3, size, size) in eval mode.

    `mode` is the config's training_strategy.mode, which says what is trainable. Raises ValueError
    for a mode that the model does not offer.
    """
    model = build()
    model.set_training_mode(mode)
    model.eval()
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    image = torch.empty(batch, 3, size, size, device="meta")
    calls = _Calls()
    counter = FlopCounterMode(display=False, custom_mapping=FLOP_FORMULAS)
    with torch.no_grad(), calls, counter:
        read = counter.get_total_flops
        with part_meter(model, read) as parts, Meter(model, _known_to_thop, read) as modules:
            model(image)
    by_operator = {_short(op): flops for op, flops in counter.flop_counts["Global"].items()}
    return Weight(
        parameters=sum(p.numel() for p in model.parameters()),
        trainable=trainable,
        parameters_by_part=parameters_by_part(model),
        flops=counter.get_total_flops(),
        flops_by_part={part: int(flops) for part, flops in parts.total.items()},
        flops_by_operator=by_operator,
        uncounted=_without_formula(calls.of_operator, counter.flop_registry),
        thop_macs=_thop_macs(build(), image),
        thop_note=_thop_note(modules.total.get("unknown", 0), by_operator),
    )


class _Calls(TorchDispatchMode):
    """Counts the calls of every operator that runs, by its packet."""

    def __init__(self) -> None:
        super().__init__()
        self.of_operator: Counter[Any] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if torch.Tag.pointwise not in func.tags and not func.is_view:
            self.of_operator[func.overloadpacket] += 1
        return func(*args, **(kwargs or {}))


def _without_formula(calls: Counter[Any], known: Any) -> dict[str, dict[str, int]]:
    """Kind -> operator -> calls, of those that compute; one of no known kind is 'other'."""
    found: dict[str, dict[str, int]] = {}
    for operator, number in calls.items():
        name = _short(operator)
        if operator in known or name in MOVEMENT | ELEMENT_WISE:
            continue
        kinds = (kind for part, kind in KINDS.items() if part in name)
        kind = "reductions" if name in REDUCTIONS else next(kinds, "other")
        found.setdefault(kind, {})[name] = number
    return dict(sorted(found.items()))


def _short(operator: Any) -> str:
    return str(operator).removeprefix("aten.").removeprefix("anchor_sam.").removesuffix(".default")


def _thop_macs(model: RoadModel, image: torch.Tensor) -> int:
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # its version check is of another time
        macs, _ = thop.profile(model, (image,), custom_ops=THOP_RULES, verbose=False)
    return int(macs)


def _known_to_thop(name: str, module: nn.Module) -> str:
    return "known" if type(module) in register_hooks | THOP_RULES else "unknown"


def _thop_note(outside: float, by_operator: dict[str, int]) -> str:
    """What runs outside the modules that thop knows: attention, layers as functions, our own."""
    if not outside:
        return "thop misses nothing that has a formula here"
    products = sum(by_operator.get(name, 0) for name in PRODUCTS)
    own = sum(by_operator.get(_short(op), 0) for op in FLOP_FORMULAS)
    kinds = {
        "attention and other batched products": products,
        "operators of our own": own,
        "layers called as functions": outside - products - own,
    }
    listed = (f"{what} {flops / 2e9:.3g}" for what, flops in kinds.items() if flops > 0)
    return f"thop misses {outside / 2e9:.3g} GMACs: {', '.join(listed)}"
