"""All that is known of the weight of one config's model."""

from __future__ import annotations

from dataclasses import dataclass

from model import build_model
from model.base import RoadModel
from model.meta import on_meta
from utils.profiling.timing import Conditions, MeasuringFailed, Timing, measure
from utils.profiling.weigh import Weight, weigh
from utils.schema import Config


@dataclass(frozen=True)
class ModelProfile:
    """A row of the table. `problems` tell why something is not known."""

    name: str
    model: str
    weight: Weight | None = None
    forward: Timing | None = None
    train: Timing | None = None
    problems: tuple[str, ...] = ()


def profile_model(
    name: str, config: Config, conditions: Conditions, *, latency: bool, train: bool
) -> ModelProfile:
    """Weigh a config's model and, where asked for, time it; what fails becomes a problem."""
    problems: list[str] = []

    def build() -> RoadModel:
        with on_meta():
            return build_model(config.model_classname, config.model_args, load_pretrained=False)

    def timing(train: bool) -> Timing | None:
        try:
            return measure(config, conditions, train=train)
        except MeasuringFailed as error:
            problems.append(f"{'training step' if train else 'forward'}: {error}")
            return None

    try:
        mode = config.training_strategy.mode
        weight = weigh(build, batch=conditions.batch, size=conditions.size, mode=mode)
    except Exception as error:  # whatever a model may raise is a row of the table
        reason = str(error).partition("\n")[0] or type(error).__name__
        return ModelProfile(name, config.model_classname, problems=(reason,))
    forward = timing(train=False) if latency else None
    step = timing(train=True) if train else None
    return ModelProfile(name, config.model_classname, weight, forward, step, tuple(problems))
