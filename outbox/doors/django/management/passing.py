"""Commands of `outbox` as commands of manage.py, on the database of this project."""

from __future__ import annotations

import os
import runpy
import sys
from functools import partial
from typing import Any, ClassVar

from django.core.management.base import BaseCommand, CommandParser
from django.db import connections

from outbox.doors.django.backend import default_alias
from outbox.doors.django.database import url_of


class Passing(BaseCommand):
    """What manage.py does not know itself (--settings, --database ALIAS, --verbosity …) is for `outbox VERB`."""

    verb: ClassVar[tuple[str, ...]] = ()
    requires_system_checks: ClassVar[tuple[str, ...]] = ()

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        parser = super().create_parser(prog_name, subcommand, add_help=False, allow_abbrev=False, **kwargs)
        parser.parse_args = partial(_all, parser)
        return parser

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--database", metavar="ALIAS", help="Of DATABASES; else as the routers say.")

    def handle(self, *_: Any, **options: Any) -> None:
        url = url_of(connections[options["database"] or default_alias()])
        os.environ["OUTBOX_DATABASE"] = url  # not an argument: `ps` shows those, and it has a password in it
        connections.close_all()
        given, sys.argv = sys.argv, ["outbox", *self.verb, *options["passed"]]
        try:
            runpy.run_module("outbox", run_name="__main__")
        except SystemExit as end:
            if end.code:
                raise
        finally:
            sys.argv = given


def _all(parser: CommandParser, args: Any = None, namespace: Any = None) -> Any:
    options, options.passed = parser.parse_known_args(args, namespace)
    return options
