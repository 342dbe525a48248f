"""How the command line describes itself, and what it says of one that cannot be read: typer's work, in our words."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Any

from outbox.cli import output

_GLOBAL = {"--database": True, "--config": True, "--no-color": False, "-v": False, "-vv": False, "--verbose": False}
"""The options that go before the command, and whether each takes a value."""

_METAVARS = {"<str>": "TEXT", "<list[str]>": "TEXT", "<int>": "N", "<int range>": "N", "<float>": "N"}


def polish(command: Any) -> None:
    """No Python types in the help of a command, and no description that breaks off."""
    if command.help and not command.short_help:
        command.short_help = re.split(r"(?<=[.:;]) ", command.help.partition("\n\n")[0])[0].rstrip(".:;")
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            parameter.display_type_rich = lambda ctx: None
        elif getattr(parameter, "metavar", None) is None and hasattr(parameter, "display_type"):
            parameter.display_type_rich = _in_words(parameter.display_type)
        if getattr(parameter, "max", None) is not None:
            parameter._get_number_range_help_str = lambda limits=f"{parameter.min} to {parameter.max}": limits


def _in_words(display: Any) -> Any:
    def shown(ctx: Any) -> str:
        text = str(display(ctx))
        return _METAVARS.get(text, text.strip("<>"))

    return shown


def complain(error: Any, args: Sequence[str]) -> int:
    """Typer's own complaint about the command line `args`, in our form, and its exit code."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        output.say(context.get_help() if context is not None else str(error))
        return 2
    option = getattr(error, "option_name", "")
    if option in _GLOBAL and context is not None and context.parent is not None:
        output.note(f"error: {option} goes before the command: {_moved(option, args)}")
    else:
        output.note(f"error: {_words(error)}")
        if context is not None:
            output.note(f"hint: {context.command_path} --help")
    return int(getattr(error, "exit_code", 2))


def _moved(option: str, args: Sequence[str]) -> str:
    """The command line as it should be, from one with a global option behind its command."""
    rest = list(args)
    at = next((place for place, word in enumerate(rest) if word.partition("=")[0] == option), None)
    if at is None:
        return f"outbox {option} {'…' if _GLOBAL[option] else ''}".rstrip()
    count = 2 if _GLOBAL[option] and "=" not in rest[at] else 1
    moved = rest[at : at + count]
    return shlex.join(["outbox", *moved, *rest[:at], *rest[at + count :]])


_REWORDED = (
    (r"Input should be a valid integer.*", "must be a whole number"),
    (r"Input should be a valid number.*", "must be a number"),
    (r"Input should be greater than or equal to (\S+)", r"must be at least \1"),
    (r"Input should be less than or equal to (\S+)", r"must be at most \1"),
    (r"Value error, (.*?)\.?", r"\1"),
)


def _words(error: Any) -> str:
    """``--since: 'x' is not a duration`` for ``Invalid value for '--since': …``."""
    text = " ".join(str(error.format_message()).split()).removeprefix("Invalid value: ")
    match = re.fullmatch(r"Invalid value for (.+?): (.*)", text, flags=re.DOTALL)
    where, said = (match[1].replace("'", "").replace(" / ", " or "), match[2]) if match else ("", text)
    for pattern, words in _REWORDED:
        if found := re.fullmatch(pattern, said, flags=re.DOTALL):
            said = found.expand(words)
            break
    separator = " " if said.startswith(("must be", "needs ")) else ": "
    return where + separator + said if where else said
