"""Mails from templates: Jinja2, sandboxed, rendered when the mail is made, so that the row is what was sent.

    templates/order.subject   Order {{ number }}
    templates/order.txt       Thanks, {{ name }}.
    templates/order.html      <p>Thanks, {{ name }}.</p>          values are escaped

    Mail.from_template("order", {"number": 7, "name": "Ann"}, templates="templates", sender=…, to=…)

A name that a template says and nobody has given is an error, and so is whatever the sandbox forbids: templates may be
written by people who may not run code.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from outbox.errors import ConfigError, InvalidMail

if TYPE_CHECKING:
    import jinja2

Source: TypeAlias = "Templates | str | os.PathLike[str]"
"""Templates, or the folder that they are in."""

_PARTS = {"subject": "subject", "text": "txt", "html": "html"}
"""Field of a Mail → how the name of its template ends."""


class Templates:
    """The templates of a folder, and of those below it. Made once, and used by any thread.

    filters  functions for ``{{ value|name }}``
    globals  what every template may name

    Raises ConfigError without Jinja2, or without the folder.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        filters: Mapping[str, Callable[..., Any]] | None = None,
        globals: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise ConfigError(f"there is no folder {self.folder} with templates")
        self._environment = _environment(self.folder)
        self._environment.filters.update(filters or {})
        self._environment.globals.update(globals or {})

    def render(self, name: str, context: Mapping[str, Any]) -> dict[str, str]:
        """``subject``, ``text`` and ``html`` of a mail, as far as there are templates for them: at least one of the
        bodies. Raises InvalidMail (field ``template``) with the file and line of what is wrong.
        """
        rendered = {field: self._part(f"{name}.{end}", context) for field, end in _PARTS.items()}
        found = {field: text for field, text in rendered.items() if text is not None}
        if not found.keys() & {"text", "html"}:
            raise InvalidMail("template", f"there is no {name}.txt and no {name}.html in {self.folder}")
        if "subject" in found:
            found["subject"] = " ".join(found["subject"].split())
        return found

    def _part(self, file: str, context: Mapping[str, Any]) -> str | None:
        import jinja2

        try:
            return self._environment.get_template(file).render(context)
        except jinja2.TemplateNotFound as error:
            if error.name == file:
                return None
            raise InvalidMail("template", f"{file} includes {error.name}, which is not in {self.folder}") from None
        except jinja2.TemplateSyntaxError as error:
            raise InvalidMail("template", f"{error.name}, line {error.lineno}: {error.message}") from None
        except jinja2.TemplateError as error:  # an undefined name, or what the sandbox forbids
            raise InvalidMail("template", f"{file}: {error.message}") from None


def of_source(source: Source) -> Templates:
    """Templates, or those of a folder, which are kept."""
    return source if isinstance(source, Templates) else _of_folder(os.fspath(source))


@lru_cache(maxsize=32)
def _of_folder(folder: str) -> Templates:
    return Templates(folder)


def _environment(folder: Path) -> jinja2.Environment:
    try:
        import jinja2
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError:
        raise ConfigError("templates need Jinja2", hint='pip install "mail-outbox[templates]"') from None
    return ImmutableSandboxedEnvironment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=lambda name: name is None or name.endswith((".html", ".htm")),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
