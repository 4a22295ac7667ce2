"""A config's values before they are checked: overrides, nulls, and slips that YAML lets pass."""

from __future__ import annotations

import inspect
import typing
from typing import Any

import yaml
from pydantic import BaseModel


def apply_override(values: dict[str, Any], override: str, problems: list[str]) -> None:
    """Put `key=value` or `key.sub=value` into `values`, or a line into `problems`."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        problems.append(f"{override}: expected key=value")
        return
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        problems.append(f"{key}: not valid YAML: {text}")
        return
    *parents, last = key.split(".")
    for parent in parents:
        if values.get(parent) in (None, "", "null"):
            values[parent] = {}
        values = values[parent]
        if not isinstance(values, dict):
            problems.append(f"{key}: {parent} has no keys of its own")
            return
    if last == "evaluate_inteval":
        last = "evaluate_interval"
    if last == "evaluate_interval":
        values.pop("evaluate_inteval", None)
    values[last] = value


def add_spaces(values: dict[str, Any], problems: list[str], place: str = "") -> dict[str, Any]:
    """The values with `{bce:1}`, to YAML one long key without a value, read as `{bce: 1}`.

    Each mapping of that kind is a line in `problems`, which names it by its `place`.
    """
    meant, has_slip = {}, False
    for key, value in values.items():
        name, _, text = str(key).partition(":")
        if value is None and name and text:
            key, value, has_slip = name, text, True
        elif isinstance(value, dict):
            value = add_spaces(value, problems, f"{place}.{key}".lstrip("."))
        meant[key] = value
    if has_slip:
        inside = ", ".join(f"{key}: {value}" for key, value in meant.items())
        problems.append(f"{place or inside}: YAML wants a space: {{{inside}}}")
    return meant


def null_strings(value: Any) -> Any:
    """'null' and '' mean null wherever they stand."""
    if isinstance(value, dict):
        return {key: null_strings(sub) for key, sub in value.items()}
    if isinstance(value, list):
        return [null_strings(item) for item in value]
    return None if isinstance(value, str) and value in ("", "null") else value


def drop_nulls(values: dict[str, Any], schema: type[BaseModel]) -> dict[str, Any]:
    """Without the nulls of keys that cannot be null: there null means the default."""
    kept = {}
    for key, value in values.items():
        field = schema.model_fields.get(key)
        kind = field.annotation if field else None
        if value is None and field and type(None) not in typing.get_args(kind):
            continue
        if isinstance(value, dict) and inspect.isclass(kind) and issubclass(kind, BaseModel):
            value = drop_nulls(value, kind)
        kept[key] = value
    return kept


def pop(values: dict[str, Any], dotted: str) -> Any:
    """Take the value of `key.sub` out of `values`; None when it is not there."""
    *parents, last = dotted.split(".")
    for parent in parents:
        values = values.get(parent, {})
        if not isinstance(values, dict):
            return None
    return values.pop(last, None)
