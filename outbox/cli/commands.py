"""Commands that are imported and built when they are asked for: typer needs 2 ms for each, and there are sixty."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import typer
from typer.core import TyperGroup
from typer.models import CommandInfo

from outbox.cli import usage


class Commands(Mapping[str, Any]):
    """The commands of a group by name. What is only listed or looked for is not built."""

    def __init__(self, builders: Mapping[str, Callable[[], Any]]) -> None:
        self._builders = dict(builders)
        self._built: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        builder = self._builders[name]
        if name not in self._built:
            self._built[name] = builder()
        return self._built[name]

    def __contains__(self, name: object) -> bool:
        return name in self._builders

    def __iter__(self) -> Iterator[str]:
        return iter(self._builders)

    def __len__(self) -> int:
        return len(self._builders)


class Group(TyperGroup):
    """A group whose `commands` are `Commands`."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)


def of_module(app: typer.Typer, name: str) -> Any:
    """What `name` stands for in a module that has this `app`: one of its commands, else the group of all of them."""
    builders = {_name(each): partial(_command, each) for each in _registered(app)}
    if name in builders:
        return builders[name]()
    group = Group(name=name, help=app.info.help, no_args_is_help=True, rich_markup_mode=None)
    usage.polish(group)
    group.commands = Commands(builders)  # type: ignore[assignment]  # nobody changes them
    return group


def _registered(app: typer.Typer) -> Sequence[CommandInfo]:
    """The commands of an app and of those that were added to it."""
    added = [each.typer_instance for each in app.registered_groups if each.typer_instance]
    return [*app.registered_commands, *(each for other in added for each in _registered(other))]


def _name(registered: CommandInfo) -> str:
    if registered.name:
        return registered.name
    assert registered.callback is not None
    return registered.callback.__name__.replace("_", "-")


def _command(registered: CommandInfo) -> Any:
    alone = typer.Typer(add_completion=False, rich_markup_mode=None)
    alone.registered_commands.append(registered)
    command = typer.main.get_command(alone)
    usage.polish(command)
    return command
