"""The tables as peewee sees them. They map onto `schema/*.sql`, which is the authority, and never create anything.

No model is bound to a database: binding changes the class for the whole process, so every query says where it runs, as
in ``Account.select().execute(database)``. Rows are never written by `Model.save()`, which writes every loaded column
and so undoes what somebody else changed meanwhile: an UPDATE names its columns and its condition. For the same reason
there is no ForeignKeyField: it would fetch rows behind the reader's back. A join says its `on=`.

One set of models serves both dialects. Times are aware UTC datetimes in Python; booleans are bool; `raw` and `content`
are bytes and `headers` is JSON text, however the database holds them.
"""

from __future__ import annotations

from peewee import BigIntegerField, BooleanField, CompositeKey, IntegerField, Model, TextField

from outbox.store.fields import BytesField, JsonTextField, UtcDateTimeField
from outbox.store.tables_of_doors import Pickup as Pickup
from outbox.store.tables_of_doors import PickupFile as PickupFile
from outbox.store.tables_of_doors import User as User


class Outbox(Model):
    """The producer's table: one row per mail. Read here; written by applications only."""

    id = BigIntegerField(primary_key=True)
    token = TextField()
    created_at = UtcDateTimeField()
    erased_at = UtcDateTimeField(null=True)
    source = TextField()
    priority = IntegerField()
    on_doubt = TextField()
    due_at = TextField(null=True)  # as the application wrote it; the normalised moment is in outbox_delivery
    expires_at = TextField(null=True)
    dedup_key = TextField(null=True)
    tag = TextField(null=True)
    sender = TextField()
    sender_name = TextField(null=True)
    return_path = TextField(null=True)
    recipients = TextField(null=True)
    cc = TextField(null=True)
    bcc = TextField(null=True)
    reply_to = TextField(null=True)
    subject = TextField(null=True)
    headers = JsonTextField(null=True)
    text_body = TextField(null=True)
    html_body = TextField(null=True)
    raw = BytesField(null=True)
    dsn_notify = TextField(null=True)
    dsn_ret = TextField(null=True)
    dsn_envid = TextField(null=True)

    class Meta:
        table_name = "outbox"


class Attachment(Model):
    message_id = BigIntegerField()
    position = IntegerField()
    filename = TextField()
    content_type = TextField()
    content_id = TextField(null=True)
    content = BytesField()

    class Meta:
        table_name = "outbox_attachment"
        primary_key = CompositeKey("message_id", "position")


class Delivery(Model):
    """The status of a mail. `sender` is its lane: the ASCII-lower-cased bare address. `claim_no` is the fence of every
    write.
    """

    message_id = BigIntegerField(primary_key=True)
    state = TextField()
    sender = TextField()
    priority = IntegerField()
    due_at = UtcDateTimeField()
    expires_at = UtcDateTimeField(null=True)
    on_doubt = TextField()
    claim_no = IntegerField()
    failures = IntegerField()
    doubts = IntegerField()
    crashes = IntegerField()
    dot_at = UtcDateTimeField(null=True)
    dot_through = IntegerField(null=True)
    lease_owner = TextField(null=True)
    first_attempt_at = UtcDateTimeField(null=True)
    final_at = UtcDateTimeField(null=True)
    last_code = IntegerField(null=True)
    last_status = TextField(null=True)
    last_reply = TextField(null=True)
    hold_reason = TextField(null=True)

    class Meta:
        table_name = "outbox_delivery"


class Attempt(Model):
    """One claim of one message: opened with the claim, closed with its outcome (NULL while open)."""

    message_id = BigIntegerField()
    claim_no = IntegerField()
    runner_id = TextField()
    started_at = UtcDateTimeField()
    dot_at = UtcDateTimeField(null=True)
    ended_at = UtcDateTimeField(null=True)
    outcome = TextField(null=True)
    stage = TextField(null=True)
    code = IntegerField(null=True)
    status = TextField(null=True)
    reply = TextField(null=True)
    relay = TextField(null=True)
    tls = TextField(null=True)
    account = TextField(null=True)
    sha256 = TextField(null=True)
    rule = IntegerField(null=True)
    late_outcome = TextField(null=True)
    late_reply = TextField(null=True)
    late_at = UtcDateTimeField(null=True)

    class Meta:
        table_name = "outbox_attempt"
        primary_key = CompositeKey("message_id", "claim_no")


class Recipient(Model):
    """Append-only: what became of one recipient in one attempt. A recipient's fate is its row with the highest
    claim_no.
    """

    message_id = BigIntegerField()
    position = IntegerField()
    claim_no = IntegerField()
    address = TextField()
    kind = TextField()
    fate = TextField()
    code = IntegerField(null=True)
    status = TextField(null=True)
    reply = TextField(null=True)
    at = UtcDateTimeField()

    class Meta:
        table_name = "outbox_recipient"
        primary_key = CompositeKey("message_id", "position", "claim_no")


class Account(Model):
    """A relay and a login. `secret` is a Fernet token that only `outbox.vault` opens. Paused: `pause_reason` is not
    NULL.
    """

    name = TextField(primary_key=True)
    relay_host = TextField()
    relay_port = IntegerField()
    tls = TextField()
    mechanism = TextField()
    username = TextField(null=True)
    secret = TextField(null=True)
    key_id = TextField(null=True)
    credential_version = IntegerField()
    ca_file = TextField(null=True)
    tls_pins = TextField(null=True)
    starttls_seen_at = UtcDateTimeField(null=True)
    max_connections = IntegerField()
    max_messages = IntegerField()
    paused_until = UtcDateTimeField(null=True)
    pause_reason = TextField(null=True)
    probes = IntegerField()
    probe_until = UtcDateTimeField(null=True)
    brake = TextField(null=True)
    brake_messages = TextField(null=True)
    breaker_failures = IntegerField()
    breaker_until = UtcDateTimeField(null=True)
    breaker_reason = TextField(null=True)
    created_at = UtcDateTimeField()

    class Meta:
        table_name = "outbox_account"


class Sender(Model):
    """A registered address, lower-cased, or ``*@domain``."""

    address = TextField(primary_key=True)
    account = TextField()
    display_name = TextField(null=True)
    return_path = TextField(null=True)
    paused_until = UtcDateTimeField(null=True)
    pause_reason = TextField(null=True)
    probes = IntegerField()
    probe_until = UtcDateTimeField(null=True)
    brake = TextField(null=True)
    brake_messages = TextField(null=True)
    created_at = UtcDateTimeField()

    class Meta:
        table_name = "outbox_sender"


class Limit(Model):
    """What an account, a sender or a recipient domain may send, at a time and in a span of time. None: no limit."""

    scope = TextField()
    name = TextField()
    connections = IntegerField(null=True)
    per_minute = IntegerField(null=True)
    per_hour = IntegerField(null=True)
    per_day = IntegerField(null=True)

    class Meta:
        table_name = "outbox_limit"
        primary_key = CompositeKey("scope", "name")


class Usage(Model):
    """How much of a limit is used: in the span that began at `began_at`, and in the one before it."""

    scope = TextField()
    name = TextField()
    span = TextField()
    began_at = UtcDateTimeField()
    used = IntegerField()
    before = IntegerField()

    class Meta:
        table_name = "outbox_usage"
        primary_key = CompositeKey("scope", "name", "span")


class ReplyRule(Model):
    """An operator's own meaning for a relay's refusal. `delay` in seconds."""

    id = BigIntegerField(primary_key=True)
    relay = TextField()
    pattern = TextField()
    verdict = TextField()
    scope = TextField()
    delay = IntegerField(null=True)
    note = TextField(null=True)
    created_at = UtcDateTimeField()

    class Meta:
        table_name = "outbox_reply_rule"


class Suppression(Model):
    """An address in lower case, or ``*@domain``, that nothing is sent to."""

    address = TextField(primary_key=True)
    reason = TextField()
    until = UtcDateTimeField(null=True)
    created_at = UtcDateTimeField()

    class Meta:
        table_name = "outbox_suppression"


class OAuth(Model):
    """How an account gets its tokens. `setup` and `token` are sealed, and only `outbox.vault` opens them."""

    account = TextField(primary_key=True)
    setup = TextField()
    token = TextField(null=True)
    key_id = TextField()
    version = IntegerField()
    refresh_at = UtcDateTimeField(null=True)
    expires_at = UtcDateTimeField(null=True)
    refreshing_by = TextField(null=True)
    refreshing_until = UtcDateTimeField(null=True)

    class Meta:
        table_name = "outbox_oauth"


class Dkim(Model):
    """A key that signs a sender's mail. `secret` is the sealed private key."""

    sender = TextField()
    selector = TextField()
    domain = TextField()
    algorithm = TextField()
    secret = TextField()
    key_id = TextField()
    created_at = UtcDateTimeField()

    class Meta:
        table_name = "outbox_dkim"
        primary_key = CompositeKey("sender", "selector")


class Event(Model):
    """Something that an application may want to hear of. `subject` where it is about an account or a sender."""

    id = BigIntegerField(primary_key=True)
    at = UtcDateTimeField()
    kind = TextField()
    message_id = BigIntegerField(null=True)
    claim_no = IntegerField(null=True)
    subject = TextField(null=True)
    code = IntegerField(null=True)
    status = TextField(null=True)
    reply = TextField(null=True)
    webhook_due = BooleanField()
    notice_due = BooleanField()

    class Meta:
        table_name = "outbox_event"


class Lease(Model):
    """Who does what only one runner may do at a time."""

    name = TextField(primary_key=True)
    owner = TextField()
    until = UtcDateTimeField()

    class Meta:
        table_name = "outbox_lease"


class Runner(Model):
    id = TextField(primary_key=True)
    host = TextField()
    pid = IntegerField()
    version = TextField()
    started_at = UtcDateTimeField()
    lease_until = UtcDateTimeField()
    dead_at = UtcDateTimeField(null=True)
    asleep = BooleanField()

    class Meta:
        table_name = "outbox_runner"


class Journal(Model):
    """What people did. `matching` (the column `filter`) says to what, `count` to how many."""

    id = BigIntegerField(primary_key=True)
    at = UtcDateTimeField()
    who = TextField()
    verb = TextField()
    matching = TextField(null=True, column_name="filter")  # Model.filter is peewee's
    count = IntegerField(null=True)
    detail = TextField(null=True)

    class Meta:
        table_name = "outbox_journal"


class Meta(Model):
    """Facts about the database itself: `schema_version`, `database_uuid`."""

    key = TextField(primary_key=True)
    value = TextField()

    class Meta:
        table_name = "outbox_meta"


TABLES: tuple[type[Model], ...] = (
    Outbox,
    Attachment,
    Delivery,
    Attempt,
    Recipient,
    Account,
    Sender,
    Limit,
    Usage,
    ReplyRule,
    Suppression,
    OAuth,
    Dkim,
    Event,
    Lease,
    Runner,
    Pickup,
    PickupFile,
    User,
    Journal,
    Meta,
)
