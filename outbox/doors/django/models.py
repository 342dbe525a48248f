"""One message for each mail, as the view `outbox_status` has it: read it, join it, do not write it.

Unmanaged: the packaged schema has the tables. `Message.objects.filter(tag="welcome")` is what a view
for support staff needs; the bodies are in `outbox`, the attempts in `outbox_audit` (docs/audit.md).
"""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class Message(models.Model):
    id = models.BigIntegerField(primary_key=True)
    state = models.TextField()
    sender = models.TextField()
    subject = models.TextField(null=True)
    created_at = models.DateTimeField()
    due_at = models.DateTimeField()
    final_at = models.DateTimeField(null=True)
    failures = models.IntegerField()
    doubts = models.IntegerField()
    last_code = models.IntegerField(null=True)
    last_status = models.TextField(null=True)
    last_reply = models.TextField(null=True)
    hold_reason = models.TextField(null=True)
    account = models.TextField(null=True)
    paused = models.TextField(null=True)
    tag = models.TextField(null=True)
    dedup_key = models.TextField(null=True)

    class Meta:
        managed = False
        db_table = "outbox_status"
        default_permissions: ClassVar = ("view", "change")
        ordering: ClassVar = ["-id"]
        verbose_name = "message"

    def __str__(self) -> str:
        return f"{self.id}: {self.state}"
