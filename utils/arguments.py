"""The scripts' arguments: argparse's parser, but with all mistakes of a command line at once."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn


class ArgumentParser(argparse.ArgumentParser):
    """Tells every unknown option, with the nearest name, every wrong value and what is missing.

    argparse itself ends with the first. Its two methods that look at a value are the only ones
    that are changed.
    """

    def __init__(self, description: str | None) -> None:
        super().__init__(
            description=description, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        self._mistakes: list[str] = []

    def read(self, argv: Sequence[str] | None) -> argparse.Namespace:
        """The arguments, options and others in any order; mistakes end the program (status 2)."""
        required = [action for action in self._actions if action.required]
        for action in required:  # or argparse would tell of them alone
            action.required = False
        found, rest = self.parse_known_intermixed_args(argv)
        unknown = [text for text in rest if text.startswith("-")]
        self._mistakes += map(self._unknown, unknown)
        if not unknown:  # else they may be the values of those
            self._mistakes += [f"{text}: expected no such argument" for text in rest]
        missing = [action for action in required if getattr(found, action.dest, None) is None]
        self._mistakes += [f"{'/'.join(action.option_strings)}: is missing" for action in missing]
        if self._mistakes:
            self.error("")
        return found

    def error(self, message: str) -> NoReturn:
        """End with what was found before, and this."""
        found = [*self._mistakes, *filter(None, [message.removeprefix("argument ")])]
        mistakes = list(dict.fromkeys(found))
        if len(mistakes) > 1:
            mistakes = [f"{len(mistakes)} mistakes", *(f"  {text}" for text in mistakes)]
        super().error("\n".join(mistakes))

    def _unknown(self, text: str) -> str:
        from utils.config import nearest  # a moment that nobody need wait for without a mistake

        name, _, value = text.partition("=")
        near = nearest(name, list(self._option_string_actions))
        if near:
            return f"{name}: unknown option, did you mean {near}?"
        takes_settings = any(action.dest == "overrides" for action in self._actions)
        if value and takes_settings:
            return f"{text}: settings stand without dashes, {text.lstrip('-')}"
        return f"{name}: unknown option"

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        try:
            return super()._get_value(action, arg_string)
        except argparse.ArgumentError as mistake:
            self._mistakes.append(str(mistake).removeprefix("argument "))
            return None

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            if value is not None:  # None: told of already
                super()._check_value(action, value)
        except argparse.ArgumentError as mistake:
            self._mistakes.append(str(mistake).removeprefix("argument "))
