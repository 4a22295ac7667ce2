"""The scripts' arguments: argparse's parser, but with all mistakes of a command line at once."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn


class ArgumentParser(argparse.ArgumentParser):
    """Tells every unknown option, with the nearest name, every wrong value and what is missing.

    argparse itself ends with the first. Its two methods that look at a value are the only ones
    that are changed.
    """

    def __init__(self, description: str | None = None, prog: str | None = None) -> None:
        super().__init__(
            prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        self._mistakes: list[str] = []

    def read(self, argv: Sequence[str] | None) -> argparse.Namespace:
        """The arguments, options and others in any order; mistakes end the program (status 2)."""
        self.usage = self.format_usage().removeprefix("usage: ").rstrip()  # while they are required
        required = [action for action in self._actions if action.required]
        for action in required:  # or argparse would tell of them alone
            action.required = False
        found, rest = self.parse_known_intermixed_args(argv)
        unknown = [text for text in rest if text.startswith("-")]
        self._mistakes += map(self._unknown, unknown)
        if not unknown:  # else they may be the values of those
            self._mistakes += [f"{text}: expected no such argument" for text in rest]
        missing = [action for action in required if getattr(found, action.dest, None) is None]
        self._mistakes += [f"{_name(action)}: is missing" for action in missing]
        if self._mistakes:
            self.error("")
        return found

    def read_command(self, argv: Sequence[str] | None) -> argparse.Namespace:
        """As `read`, of a parser with `add_subparsers`: the command's name, then its arguments."""
        argv = sys.argv[1:] if argv is None else argv
        commands = next(action for action in self._actions if action.nargs == argparse.PARSER)
        known = ", ".join(commands.choices)
        if not argv:
            self.error(f"a command is missing, one of: {known}")
        name, rest = argv[0], argv[1:]
        if name in self._option_string_actions:
            self.parse_args([name])  # --help, which ends here
        if name.startswith("-"):
            self.error(f"{name}: the command stands first, one of: {known}")
        if name not in commands.choices:
            near = _nearest(name, commands.choices)
            if near is None:
                self.error(f"{name}: unknown command, one of: {known}")
            mistake = f"{name}: unknown command, did you mean {near}?"
            name = near  # whose arguments the others were meant to be
            commands.choices[name]._mistakes.append(mistake)
        found = commands.choices[name].read(rest)
        setattr(found, commands.dest, name)
        return found

    def error(self, message: str) -> NoReturn:
        """End with what was found before, and this."""
        found = [*self._mistakes, *filter(None, [message.removeprefix("argument ")])]
        mistakes = list(dict.fromkeys(found))
        if len(mistakes) > 1:
            mistakes = [f"{len(mistakes)} mistakes", *(f"  {text}" for text in mistakes)]
        super().error("\n".join(mistakes))

    def _unknown(self, text: str) -> str:
        name, _, value = text.partition("=")
        near = _nearest(name, self._option_string_actions)
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


def _name(action: argparse.Action) -> str:
    return "/".join(action.option_strings) or action.dest


def _nearest(name: str, known: Iterable[str]) -> str | None:
    from utils.config import nearest  # a moment that nobody need wait for without a mistake

    return nearest(name, known)
