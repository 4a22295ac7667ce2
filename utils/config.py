"""Reading a config: YAML and overrides in, a checked `Config` or one report of every mistake out.

Nothing here imports torch, so that a typing mistake is answered at once.
"""

from __future__ import annotations

import copy
import difflib
import inspect
import os
import typing
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from utils.config_values import add_spaces, apply_override, drop_nulls, null_strings, pop
from utils.config_warnings import general_warnings
from utils.schema import Config

#: Keys of published configs that nothing needs any more, and what to say when one is met.
RETIRED_KEYS = {
    "model_filename": "not needed, model_classname alone names the model",
    "model_args.verbose": "no longer an argument of any model",
    "scheduler.ReduceLROnPlateau_params.verbose": "dropped by torch; the rate is in every log line",
    "comet_ml.api_key": "keys do not belong in a config: set COMET_API_KEY in the environment",
}
#: Model arguments that the data decides: images are RGB, masks know one class.
DATA_ARGS = {"n_channels": 3, "in_chans": 3, "n_classes": 1, "num_classes": 1}
#: What is expected where pydantic's name of a mistake begins so.
_EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "dict": "{key}.NAME=value",
    "model": "{key}.NAME=value",
}


class ConfigError(ValueError):
    """Every mistake of one config; its text is the report that the user sees."""

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        count = f"{len(problems)} problem" + ("s" if len(problems) > 1 else "")
        super().__init__("\n".join([f"{source}: {count}", *(f"  {p}" for p in problems)]))
        self.problems = list(problems)


def load_config(
    path: str | os.PathLike[str],
    overrides: Sequence[str] = (),
    *,
    model_names: Sequence[str],
    model_class: Callable[[str], type],
    warn: Callable[[str], None],
) -> Config:
    """The checked config of a YAML file with `key=value` or `key.sub=value` overrides.

    `model_names` is the closed list for model_classname; `model_class` gives the class whose
    constructor checks model_args; `warn` receives a line for each setting without effect, the
    trainings' own apart (`utils.config_warnings.training_warnings`).
    Raises ConfigError with every mistake at once.
    """
    return check_config(
        _read_yaml(Path(path)),
        str(path),
        overrides,
        model_names=model_names,
        model_class=model_class,
        warn=warn,
    )


def load_configs(
    paths: Sequence[str | os.PathLike[str]],
    overrides: Sequence[str] = (),
    *,
    model_names: Sequence[str],
    model_class: Callable[[str], type],
    warn: Callable[[str], None],
) -> dict[str, Config]:
    """Several configs by their files' names without suffix, in the given order.

    Raises ConfigError with every mistake of every file at once, and for files of one name.
    """
    configs: dict[str, Config] = {}
    reports: list[ConfigError] = []
    for path in map(Path, paths):
        if path.stem in configs:
            twice = f"another file is called {path.stem}, and rows go by that name"
            reports.append(ConfigError(str(path), [twice]))
            continue
        try:
            configs[path.stem] = load_config(
                path, overrides, model_names=model_names, model_class=model_class, warn=warn
            )
        except ConfigError as report:
            reports.append(report)
    if reports:
        raise ValueError("\n".join(str(report) for report in reports))
    return configs


def check_config(
    values: dict[str, Any],
    source: str,
    overrides: Sequence[str] = (),
    *,
    model_names: Sequence[str],
    model_class: Callable[[str], type],
    warn: Callable[[str], None],
) -> Config:
    """`load_config` for values that are already a mapping, as those in a checkpoint."""
    problems: list[str] = []
    values = copy.deepcopy(values)
    for override in overrides:
        apply_override(values, override, problems)
    values = drop_nulls(null_strings(add_spaces(values, problems)), Config)
    for key, reason in RETIRED_KEYS.items():
        if pop(values, key) is not None:
            warn(f"{source}: {key} is ignored: {reason}")
    if {"evaluate_interval", "evaluate_inteval"} <= values.keys():
        problems.append("evaluate_inteval: the same as evaluate_interval, name one of them")
        del values["evaluate_inteval"]
    config = None
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        problems += describe(error, Config)
    name = values.get("model_classname")
    if isinstance(name, str):
        if name not in model_names:
            problems.append(f"model_classname: unknown model {name!r}{_hint(name, model_names)}")
        elif isinstance(values.get("model_args", {}), dict):
            cls = model_class(name)
            values["model_classname"] = cls.__name__  # an alias gives way to the class's own name
            problems += _check_model_args(values, cls)
    if problems:
        raise ConfigError(source, problems)
    assert config is not None
    checked = {key: values.get(key, {}) for key in ("model_classname", "model_args")}
    config = config.model_copy(update=checked)
    for line in general_warnings(config):
        warn(f"{source}: {line}")
    return config


def dump_config(config: Config) -> str:
    """The resolved config as YAML that `load_config` reads back to an equal `Config`."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def describe(error: ValidationError, schema: type[BaseModel]) -> list[str]:
    """A line for each mistake: the key as typed, what is wrong, and the nearest right name."""
    lines = []
    for item in error.errors():
        *parents, last = item["loc"] or ("",)
        key = ".".join(str(part) for part in item["loc"] if not _is_union_branch(part))
        if item["type"] == "extra_forbidden":
            known = _keys_at(schema, parents)
            lines.append(f"{key}: unknown key{_hint(str(last), known)}")
        elif item["type"] == "missing":
            lines.append(f"{key}: missing")
        elif item["type"] == "literal_error":
            allowed = [
                a.strip(" '") for a in item["ctx"]["expected"].replace(" or ", ",").split(",")
            ]
            key = key.removesuffix(".[key]")
            lines.append(f"{key}: {item['input']!r} is unknown{_hint(str(item['input']), allowed)}")
        elif item["type"] == "value_error":
            lines.append(f"{key}: {item['ctx']['error']}".removeprefix(": "))  # of no single key
        elif expected := _EXPECTED.get(item["type"].partition("_")[0]):
            lines.append(f"{key}: expected {expected.format(key=key)}, got {item['input']!r}")
        else:
            message = item["msg"][0].lower() + item["msg"][1:]
            message = f"{message.replace('input should', 'should')}, got {item['input']!r}"
            is_loss = parents == ["loss"] and item["type"] == "greater_than"
            advice = "; leave a loss out: loss='{bce: 1}'" if is_loss else ""
            lines.append(f"{key}: {message}{advice}")
    return list(dict.fromkeys(lines))


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that a mistyped one most likely meant, None when nothing is near."""
    by_fold = {k.casefold(): k for k in known}
    close = difflib.get_close_matches(name.casefold(), by_fold, n=1, cutoff=0.6)
    return by_fold[close[0]] if close else None


def _hint(name: str, known: Iterable[str]) -> str:
    known = list(known)
    match = nearest(name, known)
    if match:
        meant = f", did you mean {match!r}?"
        return meant if len(known) > 12 else f"{meant} (one of: {', '.join(known)})"
    return f", one of: {', '.join(known)}" if known else ""


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(str(path), [f"not valid YAML{where}: {problem}"]) from None
    except UnicodeDecodeError:
        raise ConfigError(str(path), ["not a text file in UTF-8"]) from None
    except OSError as error:
        raise ConfigError(str(path), [f"cannot be read: {error.strerror}"]) from None
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise ConfigError(str(path), ["expected `key: value` lines"])
    return values


class _UniqueKeyLoader(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping, of which YAML would drop the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"{key!r} stands twice", problem_mark=key_node.start_mark
                )
            if isinstance(key, Hashable):  # else it is refused below
                seen.add(key)
        return super().construct_mapping(node, deep)


def _check_model_args(values: dict[str, Any], cls: type) -> list[str]:
    """Check model_args against the constructor and put the converted values in their place."""
    hints = typing.get_type_hints(cls.__init__, include_extras=True)
    fields = {
        name: (hints[name], ... if p.default is p.empty else p.default)
        for name, p in inspect.signature(cls).parameters.items()
    }
    schema = create_model(
        cls.__name__,
        __config__=ConfigDict(extra="forbid", protected_namespaces=(), allow_inf_nan=False),
        **fields,
    )
    given = values.get("model_args", {})
    try:
        checked = schema.model_validate(given)
    except ValidationError as error:
        lines = describe(error, schema)
        unknown = f"unknown argument of {cls.__name__}"
        return [f"model_args.{line.replace('unknown key', unknown, 1)}" for line in lines]
    values["model_args"] = {name: getattr(checked, name) for name in given}
    return [
        f"model_args.{name}: must be {value} for RGB images and road masks, got {given[name]!r}"
        for name, value in DATA_ARGS.items()
        if name in given and getattr(checked, name) != value
    ]


def _keys_at(schema: type[BaseModel], parents: Sequence[Any]) -> list[str]:
    for parent in parents:
        field = schema.model_fields.get(str(parent))
        if field is None or not isinstance(field.annotation, type):
            return []
        schema = field.annotation
    return list(schema.model_fields)


def _is_union_branch(part: Any) -> bool:
    """pydantic adds the tried type of a union to the place of a mistake, as in `amp.bool`."""
    return isinstance(part, str) and (
        part in ("bool", "int", "float", "str") or part.startswith("constrained-") or "[" in part
    )
