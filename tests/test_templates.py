"""Mails from templates: what is rendered, what is escaped, and what the sandbox keeps out."""

from __future__ import annotations

from pathlib import Path

import pytest

from outbox.errors import ConfigError, InvalidMail
from outbox.mail import Mail
from outbox.templates import Templates

WHO = {"sender": "shop@example.com", "to": "ann@example.net"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in {
        "order.subject": "Order {{ number }}\n",
        "order.txt": "Thanks, {{ name }}.\n{% include 'sign.txt' %}",
        "order.html": "<p>Thanks, {{ name }}.</p>",
        "sign.txt": "The shop\n",
        "plain.txt": "{{ name }}",
        "broken.txt": "one\n{% if %}",
        "nosy.txt": "{{ ''.__class__.__mro__ }}",
        "lost.txt": "{% include 'nowhere.txt' %}",
    }.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_subject_and_bodies_are_rendered(folder: Path) -> None:
    mail = Mail.from_template("order", {"number": 7, "name": "Ann & Bo"}, templates=folder, **WHO)
    assert mail.subject == "Order 7"
    assert mail.text == "Thanks, Ann & Bo.\nThe shop\n"
    assert mail.html == "<p>Thanks, Ann &amp; Bo.</p>"


def test_fields_win_over_templates(folder: Path) -> None:
    mail = Mail.from_template("plain", {"name": "Ann"}, templates=folder, subject="Hello", **WHO)
    assert (mail.subject, mail.text, mail.html) == ("Hello", "Ann", None)


def test_a_value_with_a_line_break_adds_no_header(folder: Path) -> None:
    mail = Mail.from_template("order", {"number": "7\r\nBcc: x@example.org", "name": "a"}, templates=folder, **WHO)
    assert mail.subject == "Order 7 Bcc: x@example.org"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("order", "'number' is undefined"),
        ("broken", "broken.txt, line 2"),
        ("nosy", "unsafe"),
        ("lost", "nowhere.txt"),
        ("missing", "no missing.txt"),
        ("../order", "no ../order.txt"),
    ],
)
def test_what_is_wrong_with_a_template_is_said(folder: Path, name: str, words: str) -> None:
    with pytest.raises(InvalidMail, match=words) as raised:
        Mail.from_template(name, {}, templates=folder, **WHO)
    assert raised.value.field == "template"


def test_filters_and_globals_are_the_applications(folder: Path) -> None:
    (folder / "loud.txt").write_text("{{ name|shout }} {{ shop }}")
    templates = Templates(folder, filters={"shout": str.upper}, globals={"shop": "Shop"})
    assert Mail.from_template("loud", {"name": "ann"}, templates=templates, **WHO).text == "ANN Shop"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no folder"):
        Templates(tmp_path / "nowhere")
