"""The admin: messages to read, with their recipients and attempts, and what operators do to them.

Whoever has the permission *view* sees them, whoever has *change* may retry, hold, release and cancel. Nothing is
edited: a mail is immutable. The journal of Outbox says who did what.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, router
from django.utils import timezone
from django.utils.formats import localize
from django.utils.html import format_html, format_html_join

from outbox.core.lifecycle import State, Verb
from outbox.doors.django.database import opened
from outbox.doors.django.models import Message
from outbox.errors import OutboxError

_STATES = (*(str(state) for state in State), "scheduled", "deferred")


class StateFilter(admin.SimpleListFilter):
    """The states that there are, without asking the database which of them occur."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return [(state, state) for state in _STATES]

    def queryset(self, request: Any, queryset: Any) -> Any:
        return queryset.filter(state=self.value()) if self.value() else queryset


@admin.register(Message)
class MessageAdmin(admin.ModelAdmin):
    list_display = ("id", "state", "sender", "subject", "created_at", "due_at", "failures", "last_reply", "tag")
    list_filter = (StateFilter,)
    list_per_page = 50
    search_fields = ("=dedup_key", "=tag", "=sender", "subject")
    search_help_text = "A subject, or exactly: a sender, a tag, a dedup_key"
    show_full_result_count = False
    actions = ("retry", "hold", "release", "cancel")
    readonly_fields = ("recipients", "attempts")
    fieldsets: ClassVar = (
        (None, {"fields": ("state", "sender", "subject", "tag", "dedup_key", "recipients", "attempts")}),
        ("Times", {"fields": ("created_at", "due_at", "final_at")}),
        (
            "Delivery",
            {
                "fields": (
                    ("last_code", "last_status"),
                    "last_reply",
                    ("failures", "doubts"),
                    "hold_reason",
                    "account",
                    "paused",
                )
            },
        ),
    )

    def has_add_permission(self, request: Any) -> bool:
        return False

    def has_change_permission(self, request: Any, obj: Any = None) -> bool:
        return False  # of fields

    def has_delete_permission(self, request: Any, obj: Any = None) -> bool:
        return False

    def has_operate_permission(self, request: Any) -> bool:
        return bool(request.user.has_perm("outbox.change_message"))

    def has_view_permission(self, request: Any, obj: Any = None) -> bool:
        return super().has_view_permission(request, obj) or self.has_operate_permission(request)

    @admin.display(description="recipients")
    def recipients(self, message: Any) -> Any:
        found = _record(message)
        if isinstance(found, str):
            return found
        rows = [(each.kind, each.address, each.fate, *_reply(each), _time(each.at)) for each in found.recipients]
        return _table(("", "address", "fate", "code", "status", "reply", "at"), rows)

    @admin.display(description="attempts")
    def attempts(self, message: Any) -> Any:
        found = _record(message)
        if isinstance(found, str) or not found.attempts:
            return "-"
        rows = [
            (each.claim_no, _time(each.started_at), _time(each.ended_at), each.outcome, each.relay, *_reply(each))
            for each in found.attempts
        ]
        return _table(("", "started", "ended", "outcome", "relay", "code", "status", "reply"), rows)

    @admin.action(description="Retry: send again, now, to those who do not have it", permissions=["operate"])
    def retry(self, request: Any, queryset: Any) -> None:
        self._operate(request, queryset, Verb.RETRY)

    @admin.action(description="Hold: keep from being sent until released", permissions=["operate"])
    def hold(self, request: Any, queryset: Any) -> None:
        self._operate(request, queryset, Verb.HOLD)

    @admin.action(description="Release: let held messages go", permissions=["operate"])
    def release(self, request: Any, queryset: Any) -> None:
        self._operate(request, queryset, Verb.RELEASE)

    @admin.action(description="Cancel: withdraw for good", permissions=["operate"])
    def cancel(self, request: Any, queryset: Any) -> None:
        self._operate(request, queryset, Verb.CANCEL)

    def _operate(self, request: Any, queryset: Any, verb: Verb) -> None:
        from outbox.store import operate

        calls: Any = {
            Verb.RETRY: operate.retry,
            Verb.HOLD: operate.hold,
            Verb.RELEASE: operate.release,
            Verb.CANCEL: operate.cancel,
        }
        ids = list(queryset.values_list("id", flat=True))
        try:
            with opened(connections[router.db_for_write(Message)]) as db:
                answers = calls[verb](db, ids, who=f"{request.user.get_username()} (Django admin)")
        except (OutboxError, ImproperlyConfigured) as error:
            self.message_user(request, _trouble(error), messages.ERROR)
            return
        done = sum(answer.done for answer in answers)
        if done:
            self.message_user(request, f"{done} of {len(answers)} messages: {_PAST[verb]}", messages.SUCCESS)
        for answer in [answer for answer in answers if not answer.done][:_REFUSALS]:
            self.message_user(request, f"Message {answer.message_id} {answer.words}", messages.WARNING)


_PAST = {Verb.RETRY: "queued again", Verb.HOLD: "held", Verb.RELEASE: "released", Verb.CANCEL: "cancelled"}
_REFUSALS = 20
"""Refusals that are listed one by one."""


def _record(message: Any) -> Any:
    """Everything about it, read once for a page; or, as text, why that cannot be read."""
    if not hasattr(message, "_outbox_record"):
        from outbox.store import audit

        try:
            with opened(connections[message._state.db]) as db:
                message._outbox_record = audit.show(db, message.pk)
        except (OutboxError, ImproperlyConfigured) as error:
            message._outbox_record = _trouble(error)
    return message._outbox_record


def _trouble(error: OutboxError | ImproperlyConfigured) -> str:
    hint = error.hint if isinstance(error, OutboxError) else ""
    return f"{error} ({hint})" if hint else str(error)


def _reply(line: Any) -> tuple[Any, Any, Any]:
    return line.code, line.status, line.reply


def _time(moment: datetime | None) -> str:
    return localize(timezone.localtime(moment)) if moment else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> Any:
    def line(tag: str, cells: Sequence[Any]) -> Any:
        texts = (("" if cell is None else cell,) for cell in cells)
        return format_html("<tr>{}</tr>", format_html_join("", f"<{tag}>{{}}</{tag}>", texts))

    return format_html(
        "<table>{}{}</table>", line("th", head), format_html_join("", "{}", ((line("td", row),) for row in rows))
    )
