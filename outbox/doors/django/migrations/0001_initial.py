"""The tables of Outbox, and the model over them. What newer versions bring comes at the end of a `migrate`."""

from typing import ClassVar

from django.db import migrations, models

from outbox.doors.django.schema import InstallSchema


class Migration(migrations.Migration):
    initial = True
    dependencies: ClassVar[list[tuple[str, str]]] = []
    operations: ClassVar = [
        InstallSchema(),
        migrations.CreateModel(
            name="Message",
            fields=[
                ("id", models.BigIntegerField(primary_key=True, serialize=False)),
                ("state", models.TextField()),
                ("sender", models.TextField()),
                ("subject", models.TextField(null=True)),
                ("created_at", models.DateTimeField()),
                ("due_at", models.DateTimeField()),
                ("final_at", models.DateTimeField(null=True)),
                ("failures", models.IntegerField()),
                ("doubts", models.IntegerField()),
                ("last_code", models.IntegerField(null=True)),
                ("last_status", models.TextField(null=True)),
                ("last_reply", models.TextField(null=True)),
                ("hold_reason", models.TextField(null=True)),
                ("account", models.TextField(null=True)),
                ("paused", models.TextField(null=True)),
                ("tag", models.TextField(null=True)),
                ("dedup_key", models.TextField(null=True)),
            ],
            options={
                "verbose_name": "message",
                "db_table": "outbox_status",
                "ordering": ["-id"],
                "managed": False,
                "default_permissions": ("view", "change"),
            },
        ),
    ]
