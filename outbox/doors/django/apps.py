"""The Django app: label ``outbox``."""

from __future__ import annotations

from django.apps import AppConfig
from django.db.models.signals import post_migrate

from outbox.doors.django.driver import register


class OutboxConfig(AppConfig):
    name = "outbox.doors.django"
    label = "outbox"
    verbose_name = "Outbox"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from outbox.doors.django import checks, schema

        register()
        checks.register()
        post_migrate.connect(schema.bring_up_to_date, sender=self)
