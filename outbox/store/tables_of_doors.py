"""The tables of the ways in, as peewee sees them: like `outbox.store.tables`, which has all of them."""

from __future__ import annotations

from peewee import BigIntegerField, IntegerField, Model, TextField

from outbox.store.fields import UtcDateTimeField


class Pickup(Model):
    """A pickup folder. `senders` None: all that are registered."""

    name = TextField(primary_key=True)
    path = TextField()
    badmail = TextField()
    sentmail = TextField(null=True)
    mode = TextField()
    senders = TextField(null=True)
    poll_ms = IntegerField()
    settle_ms = IntegerField()
    max_bytes = IntegerField()
    archive = TextField()
    created_at = UtcDateTimeField()

    class Meta:
        table_name = "outbox_pickup"


class PickupFile(Model):
    """A file that was taken from a pickup folder. `done_at` is set when it is where it belongs."""

    claim = TextField(primary_key=True)
    folder = TextField()
    name = TextField()
    message_id = BigIntegerField(null=True)
    octets = IntegerField(null=True)
    sha256 = TextField(null=True)
    owner = BigIntegerField(null=True)
    taken_at = UtcDateTimeField()
    done_at = UtcDateTimeField(null=True)
    result = TextField(null=True)
    reason = TextField(null=True)
    file = TextField(null=True)

    class Meta:
        table_name = "outbox_pickup_file"


class User(Model):
    """Who may hand over mail by SMTP. `senders` None: from all that are registered."""

    name = TextField(primary_key=True)
    password_hash = TextField()
    senders = TextField(null=True)
    created_at = UtcDateTimeField()

    class Meta:
        table_name = "outbox_user"
