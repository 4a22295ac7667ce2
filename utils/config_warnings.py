"""Settings of a config that are right but do nothing, or not what they seem to: a line each."""

from __future__ import annotations

from utils.schema import Config

_T_MAX = "scheduler.CosineAnnealingLR_params.T_max"


def general_warnings(config: Config) -> list[str]:
    """What everybody who reads the config should know."""
    sections = {"forward_args": config, "inference.forward_args": config.inference}
    lines = [
        f"{key} has no effect: every model takes the image alone"
        for key, section in sections.items()
        if section.forward_args
    ]
    in_metres = {"apls", "topo", "buffer"} & {*config.metrics, config.best_metric}
    if in_metres and config.pixel_size is None:
        names = ", ".join(sorted(in_metres))
        lines.append(f"pixel_size is null: a pixel counts as a metre in {names}")
    return lines


def training_warnings(config: Config) -> list[str]:
    """What concerns a training alone: its learning rate, and whether it can go on."""
    lines = []
    if config.scheduler.active_scheduler == "CosineAnnealingLR":
        lines += _half_wave_warnings(config)
    if not config.save_checkpoint:
        lines.append("save_checkpoint is false: the run cannot be resumed")
    return lines


def _half_wave_warnings(config: Config) -> list[str]:
    epochs = config.scheduler.CosineAnnealingLR_params.T_max
    if epochs is None:
        return []
    if config.max_minutes is not None:
        return [f"{_T_MAX} {epochs} has no effect: the rate follows max_minutes"]
    early = f"the rate is at its minimum from epoch {epochs + 1} on"
    if config.max_steps is not None:
        given = f"{_T_MAX} {epochs} is kept with max_steps {config.max_steps}"
        return [f"{given}: {early}, if there are as many; null lets it follow max_steps"]
    if epochs == config.epochs:
        return []
    if epochs < config.epochs:
        return [f"{_T_MAX} {epochs} is below epochs {config.epochs}: {early}; null takes epochs"]
    return [
        f"{_T_MAX} {epochs} exceeds epochs {config.epochs}: the rate does not reach its minimum; "
        "null takes epochs"
    ]
