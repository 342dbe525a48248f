-- Outbox 0001 for SQLite: tables and indexes.
--
-- Applications in any language open this file, so it uses old features only (SQLite 3.9, 2015: partial and expression
-- indexes; no STRICT, no JSON functions, no unixepoch()). Times are TEXT, UTC, 24 characters: 2026-03-01T09:30:00.000Z.
-- `outbox` also takes other spellings of a real date (`2026-03-01 10:30`, `2026-03-01T10:30:00+01:00`): they are
-- normalised into outbox_delivery, where everything compares and sorts. Every CHECK is named after what is wrong.

CREATE TABLE outbox_meta (
  key   TEXT NOT NULL PRIMARY KEY,
  value TEXT NOT NULL
);

-- The producer's table: one INSERT is one mail. Immutable, but for the erasure of finished mail (0002_triggers).
-- Four columns are enough: sender, recipients, subject, text_body. '' in an optional text column is the same as NULL.
CREATE TABLE outbox (
  id          INTEGER PRIMARY KEY
    CONSTRAINT outbox_id_positive CHECK (id > 0),
  token       TEXT NOT NULL DEFAULT (lower(hex(randomblob(16))))        -- Message-ID: <id.token@sender-domain>
    CONSTRAINT outbox_token_hex CHECK (length(token) BETWEEN 16 AND 64 AND token NOT GLOB '*[^0-9a-f]*'
                                       AND instr(token, char(0)) = 0),
  created_at  TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
    CONSTRAINT outbox_created_at_real CHECK (
      created_at GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*'
      AND date(substr(created_at, 1, 10), '+0 days') IS substr(created_at, 1, 10)
      AND coalesce(strftime('%Y-%m-%dT%H:%M:%fZ', created_at, '+0 seconds'), '') BETWEEN '1970' AND '9999-12-31'),
  erased_at   TEXT
    CONSTRAINT outbox_erased_at_real CHECK (erased_at IS NULL OR (
      erased_at GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*'
      AND date(substr(erased_at, 1, 10), '+0 days') IS substr(erased_at, 1, 10)
      AND coalesce(strftime('%Y-%m-%dT%H:%M:%fZ', erased_at, '+0 seconds'), '') BETWEEN '1970' AND '9999-12-31')),
  source      TEXT NOT NULL DEFAULT 'sql'                               -- the door it came through
    CONSTRAINT outbox_source_short CHECK (length(source) BETWEEN 1 AND 64),
  priority    INTEGER NOT NULL DEFAULT 5                                -- 0 most urgent … 9
    CONSTRAINT outbox_priority_0_to_9 CHECK (typeof(priority) = 'integer' AND priority BETWEEN 0 AND 9),
  on_doubt    TEXT NOT NULL DEFAULT 'retry'                             -- silence after the dot: send again, or hold
    CONSTRAINT outbox_on_doubt_retry_or_hold CHECK (on_doubt IN ('retry', 'hold')),
  due_at      TEXT                                                      -- not before; NULL: now
    CONSTRAINT outbox_due_at_real CHECK (due_at IS NULL OR due_at = '' OR (
      due_at GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*'
      AND date(substr(due_at, 1, 10), '+0 days') IS substr(due_at, 1, 10)
      AND coalesce(strftime('%Y-%m-%dT%H:%M:%fZ', due_at, '+0 seconds'), '') BETWEEN '1970' AND '9999-12-31')),
  expires_at  TEXT                                                      -- give up then; NULL: the runner's policy
    CONSTRAINT outbox_expires_at_real CHECK (expires_at IS NULL OR expires_at = '' OR (
      expires_at GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*'
      AND date(substr(expires_at, 1, 10), '+0 days') IS substr(expires_at, 1, 10)
      AND coalesce(strftime('%Y-%m-%dT%H:%M:%fZ', expires_at, '+0 seconds'), '') BETWEEN '1970' AND '9999-12-31')),
  dedup_key   TEXT                                                      -- unique: the second INSERT is refused
    CONSTRAINT outbox_dedup_key_short CHECK (length(dedup_key) BETWEEN 1 AND 500 AND instr(dedup_key, char(0)) = 0),
  tag         TEXT
    CONSTRAINT outbox_tag_short CHECK (length(tag) <= 255 AND instr(tag, char(0)) = 0),
  sender      TEXT NOT NULL                                             -- a bare address that is registered
    CONSTRAINT outbox_sender_bare_address CHECK (
      trim(sender) GLOB '?*@?*' AND instr(substr(sender, instr(sender, '@') + 1), '@') = 0
      AND trim(sender) NOT GLOB ('*[' || char(1) || '-' || char(32) || char(127) || '<>,;()]*')
      AND instr(sender, char(0)) = 0 AND length(sender) <= 320),
  sender_name TEXT
    CONSTRAINT outbox_sender_name_no_line_breaks CHECK (
      instr(sender_name, char(10)) = 0 AND instr(sender_name, char(13)) = 0 AND instr(sender_name, char(0)) = 0)
    CONSTRAINT outbox_sender_name_short CHECK (length(sender_name) <= 1000),
  return_path TEXT
    CONSTRAINT outbox_return_path_no_line_breaks CHECK (
      instr(return_path, char(10)) = 0 AND instr(return_path, char(13)) = 0 AND instr(return_path, char(0)) = 0)
    CONSTRAINT outbox_return_path_short CHECK (length(return_path) <= 320),
  recipients  TEXT                                                      -- To: an address list (RFC 5322 3.4)
    CONSTRAINT outbox_recipients_no_line_breaks CHECK (
      instr(recipients, char(10)) = 0 AND instr(recipients, char(13)) = 0 AND instr(recipients, char(0)) = 0)
    CONSTRAINT outbox_recipients_at_most_1_mib CHECK (length(CAST(recipients AS BLOB)) <= 1048576),
  cc          TEXT
    CONSTRAINT outbox_cc_no_line_breaks CHECK (
      instr(cc, char(10)) = 0 AND instr(cc, char(13)) = 0 AND instr(cc, char(0)) = 0)
    CONSTRAINT outbox_cc_at_most_1_mib CHECK (length(CAST(cc AS BLOB)) <= 1048576),
  bcc         TEXT
    CONSTRAINT outbox_bcc_no_line_breaks CHECK (
      instr(bcc, char(10)) = 0 AND instr(bcc, char(13)) = 0 AND instr(bcc, char(0)) = 0)
    CONSTRAINT outbox_bcc_at_most_1_mib CHECK (length(CAST(bcc AS BLOB)) <= 1048576),
  reply_to    TEXT
    CONSTRAINT outbox_reply_to_no_line_breaks CHECK (
      instr(reply_to, char(10)) = 0 AND instr(reply_to, char(13)) = 0 AND instr(reply_to, char(0)) = 0)
    CONSTRAINT outbox_reply_to_short CHECK (length(reply_to) <= 10000),
  subject     TEXT
    CONSTRAINT outbox_subject_no_line_breaks CHECK (
      instr(subject, char(10)) = 0 AND instr(subject, char(13)) = 0 AND instr(subject, char(0)) = 0)
    CONSTRAINT outbox_subject_short CHECK (length(subject) <= 2000),
  headers     TEXT                                                      -- a JSON object; the runner reads it in full
    CONSTRAINT outbox_headers_json_object CHECK (headers IS NULL OR headers = '' OR (
      trim(headers, ' ' || char(9) || char(10) || char(13)) GLOB '{*}' AND instr(headers, char(0)) = 0))
    CONSTRAINT outbox_headers_at_most_256_kib CHECK (length(CAST(headers AS BLOB)) <= 262144),
  text_body   TEXT
    CONSTRAINT outbox_text_body_at_most_25_mib CHECK (length(CAST(text_body AS BLOB)) <= 26214400),
  html_body   TEXT
    CONSTRAINT outbox_html_body_at_most_25_mib CHECK (length(CAST(html_body AS BLOB)) <= 26214400),
  raw         BLOB                                                      -- a complete message, instead of bodies
    CONSTRAINT outbox_raw_at_most_25_mib CHECK (length(CAST(raw AS BLOB)) <= 26214400),

  -- In a TEXT column a number becomes text by itself; only a BLOB stays one.
  CONSTRAINT outbox_columns_are_text CHECK (
    typeof(token) <> 'blob' AND typeof(created_at) <> 'blob' AND typeof(erased_at) <> 'blob'
    AND typeof(source) <> 'blob' AND typeof(on_doubt) <> 'blob' AND typeof(due_at) <> 'blob'
    AND typeof(expires_at) <> 'blob' AND typeof(dedup_key) <> 'blob' AND typeof(tag) <> 'blob'
    AND typeof(sender) <> 'blob' AND typeof(sender_name) <> 'blob' AND typeof(return_path) <> 'blob'
    AND typeof(recipients) <> 'blob' AND typeof(cc) <> 'blob' AND typeof(bcc) <> 'blob' AND typeof(reply_to) <> 'blob'
    AND typeof(subject) <> 'blob' AND typeof(headers) <> 'blob' AND typeof(text_body) <> 'blob'
    AND typeof(html_body) <> 'blob' AND typeof(raw) <> 'integer' AND typeof(raw) <> 'real'),
  CONSTRAINT outbox_body_present CHECK (
    erased_at IS NOT NULL OR coalesce(text_body, '') <> '' OR coalesce(html_body, '') <> ''
    OR coalesce(length(CAST(raw AS BLOB)), 0) > 0),
  CONSTRAINT outbox_raw_excludes_bodies CHECK (
    coalesce(length(CAST(raw AS BLOB)), 0) = 0 OR (coalesce(text_body, '') = '' AND coalesce(html_body, '') = '')),
  CONSTRAINT outbox_recipients_present CHECK (
    erased_at IS NOT NULL OR coalesce(length(CAST(raw AS BLOB)), 0) > 0 OR trim(coalesce(recipients, '')) <> ''
    OR trim(coalesce(cc, '')) <> '' OR trim(coalesce(bcc, '')) <> '')
);

-- ON CONFLICT DO NOTHING, bare: naming the column fails on a partial index.
CREATE UNIQUE INDEX outbox_dedup_key ON outbox (dedup_key) WHERE dedup_key IS NOT NULL;

-- Files of a mail, inserted in the mail's own transaction. With a content_id: an inline image the html refers to.
CREATE TABLE outbox_attachment (
  message_id   INTEGER NOT NULL REFERENCES outbox (id) ON DELETE CASCADE,
  position     INTEGER NOT NULL
    CONSTRAINT outbox_attachment_position CHECK (typeof(position) = 'integer' AND position >= 0),
  filename     TEXT NOT NULL
    CONSTRAINT outbox_attachment_filename_no_line_breaks CHECK (
      instr(filename, char(10)) = 0 AND instr(filename, char(13)) = 0 AND instr(filename, char(0)) = 0)
    CONSTRAINT outbox_attachment_filename_short CHECK (length(filename) <= 1000),
  content_type TEXT NOT NULL DEFAULT 'application/octet-stream'
    CONSTRAINT outbox_attachment_content_type CHECK (
      content_type GLOB '[a-zA-Z0-9]*/[a-zA-Z0-9]*' AND instr(content_type, char(10)) = 0
      AND instr(content_type, char(13)) = 0 AND instr(content_type, char(0)) = 0 AND length(content_type) <= 255),
  content_id   TEXT                                                     -- without angle brackets
    CONSTRAINT outbox_attachment_content_id CHECK (
      content_id NOT GLOB ('*[' || char(1) || '-' || char(32) || char(127) || '<>]*') AND instr(content_id, char(0)) = 0
      AND length(content_id) <= 255),
  content      BLOB NOT NULL
    CONSTRAINT outbox_attachment_at_most_25_mib CHECK (length(CAST(content AS BLOB)) <= 26214400),
  PRIMARY KEY (message_id, position),
  CONSTRAINT outbox_attachment_columns_are_text CHECK (
    typeof(filename) <> 'blob' AND typeof(content_type) <> 'blob' AND typeof(content_id) <> 'blob'
    AND typeof(content) <> 'integer' AND typeof(content) <> 'real')
);

-- Where each message stands. One narrow row a message, filled by the trigger of outbox; all updates happen here. From
-- here on lists are written with OR: SQLite builds a table of every IN list whenever it is evaluated (3 µs a list).
--   queued → sending → sent | failed | expired | queued        queued ⇄ held        queued, held → cancelled
--   failed, expired, held → queued (an operator)               held → sent (a late 2xx, or an operator)
CREATE TABLE outbox_delivery (
  message_id       INTEGER PRIMARY KEY REFERENCES outbox (id) ON DELETE CASCADE,
  state            TEXT NOT NULL DEFAULT 'queued'
    CONSTRAINT outbox_delivery_state
    CHECK (state = 'queued' OR state = 'sending' OR state = 'sent' OR state = 'failed' OR state = 'expired'
           OR state = 'held' OR state = 'cancelled'),
  sender           TEXT NOT NULL,                                       -- the lane: the address in lower case (ASCII)
  priority         INTEGER NOT NULL
    CONSTRAINT outbox_delivery_priority CHECK (typeof(priority) = 'integer' AND priority BETWEEN 0 AND 9),
  due_at           TEXT NOT NULL
    CONSTRAINT outbox_delivery_due_at_real CHECK (due_at GLOB '????-??-??T??:??:??.???Z'),
  expires_at       TEXT
    CONSTRAINT outbox_delivery_expires_at_real CHECK (expires_at GLOB '????-??-??T??:??:??.???Z'),
  on_doubt         TEXT NOT NULL
    CONSTRAINT outbox_delivery_on_doubt CHECK (on_doubt IN ('retry', 'hold')),
  claim_no         INTEGER NOT NULL DEFAULT 0                           -- the fence: it only grows
    CONSTRAINT outbox_delivery_claim_no CHECK (claim_no >= 0),
  failures         INTEGER NOT NULL DEFAULT 0
    CONSTRAINT outbox_delivery_failures CHECK (failures >= 0),
  doubts           INTEGER NOT NULL DEFAULT 0                           -- copies ≤ 1 + doubts, for each recipient
    CONSTRAINT outbox_delivery_doubts CHECK (doubts >= 0),
  crashes          INTEGER NOT NULL DEFAULT 0
    CONSTRAINT outbox_delivery_crashes CHECK (crashes >= 0),
  dot_at           TEXT                                                 -- the dot mark: from here on it may have left
    CONSTRAINT outbox_delivery_dot_at_real CHECK (dot_at GLOB '????-??-??T??:??:??.???Z'),
  dot_through      INTEGER,                                             -- highest position it covers; NULL: all
  lease_owner      TEXT,                                                -- outbox_runner.id
  first_attempt_at TEXT
    CONSTRAINT outbox_delivery_first_attempt_at_real CHECK (first_attempt_at GLOB '????-??-??T??:??:??.???Z'),
  final_at         TEXT
    CONSTRAINT outbox_delivery_final_at_real CHECK (final_at GLOB '????-??-??T??:??:??.???Z'),
  last_code        INTEGER,
  last_status      TEXT,
  last_reply       TEXT,
  hold_reason      TEXT,
  CONSTRAINT outbox_delivery_sending_has_owner CHECK ((state = 'sending') = (lease_owner IS NOT NULL)),
  CONSTRAINT outbox_delivery_sending_is_claimed CHECK (state <> 'sending' OR claim_no > 0),
  CONSTRAINT outbox_delivery_final_has_time CHECK (
    (state = 'sent' OR state = 'failed' OR state = 'expired' OR state = 'cancelled') = (final_at IS NOT NULL))
);

CREATE INDEX outbox_delivery_due ON outbox_delivery (sender, priority, due_at, message_id) WHERE state = 'queued';
CREATE INDEX outbox_delivery_crashed ON outbox_delivery (message_id) WHERE state = 'queued' AND crashes > 0;
CREATE INDEX outbox_delivery_leased ON outbox_delivery (lease_owner) WHERE state = 'sending';
CREATE INDEX outbox_delivery_expiring ON outbox_delivery (expires_at) WHERE state = 'queued' AND expires_at IS NOT NULL;
CREATE INDEX outbox_delivery_held ON outbox_delivery (message_id) WHERE state = 'held';
CREATE INDEX outbox_delivery_ended ON outbox_delivery (final_at) WHERE final_at IS NOT NULL;
-- Written with OR, so that SQLite also uses it for `state = 'failed'` alone.
CREATE INDEX outbox_delivery_bad ON outbox_delivery (state, final_at) WHERE state = 'failed' OR state = 'expired';
CREATE INDEX outbox_delivery_doubtful ON outbox_delivery (message_id) WHERE doubts > 0;

-- One row a claim, opened in the claim's transaction and closed with the outcome. The late columns take what a stale
-- runner reports after its claim was lost.
CREATE TABLE outbox_attempt (
  message_id   INTEGER NOT NULL REFERENCES outbox (id) ON DELETE CASCADE,
  claim_no     INTEGER NOT NULL,
  runner_id    TEXT NOT NULL,
  started_at   TEXT NOT NULL,
  dot_at       TEXT,
  ended_at     TEXT,
  outcome      TEXT
    CONSTRAINT outbox_attempt_outcome
    CHECK (outcome = 'accepted' OR outcome = 'deferred' OR outcome = 'bounced' OR outcome = 'doubt' OR outcome = 'lost'
           OR outcome = 'relinquished' OR outcome = 'paused'),
  stage        TEXT,
  code         INTEGER,
  status       TEXT,
  reply        TEXT,
  relay        TEXT,
  tls          TEXT,
  account      TEXT,
  sha256       TEXT,
  late_outcome TEXT,
  late_reply   TEXT,
  late_at      TEXT,
  PRIMARY KEY (message_id, claim_no),
  CONSTRAINT outbox_attempt_closed_has_time CHECK ((outcome IS NULL) = (ended_at IS NULL))
);

CREATE INDEX outbox_attempt_doubt ON outbox_attempt (message_id, ended_at) WHERE outcome = 'doubt';

-- What became of each recipient in each attempt. Append-only: a recipient's fate is its latest row; none is pending.
CREATE TABLE outbox_recipient (
  message_id INTEGER NOT NULL REFERENCES outbox (id) ON DELETE CASCADE,
  position   INTEGER NOT NULL,
  claim_no   INTEGER NOT NULL,
  address    TEXT NOT NULL,
  kind       TEXT NOT NULL
    CONSTRAINT outbox_recipient_kind CHECK (kind = 'to' OR kind = 'cc' OR kind = 'bcc'),
  fate       TEXT NOT NULL
    CONSTRAINT outbox_recipient_fate CHECK (
      fate = 'accepted' OR fate = 'deferred' OR fate = 'bounced' OR fate = 'doubt' OR fate = 'pending'),
  code       INTEGER,
  status     TEXT,
  reply      TEXT,
  at         TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
  PRIMARY KEY (message_id, position, claim_no)
);

CREATE INDEX outbox_recipient_address ON outbox_recipient (lower(address));

-- A relay, a login and its sealed secret. Paused: pause_reason is not NULL, until paused_until (NULL: until resumed).
CREATE TABLE outbox_account (
  name               TEXT NOT NULL PRIMARY KEY
    CONSTRAINT outbox_account_name CHECK (length(name) BETWEEN 1 AND 100 AND instr(name, char(0)) = 0),
  relay_host         TEXT NOT NULL,
  relay_port         INTEGER NOT NULL
    CONSTRAINT outbox_account_relay_port CHECK (typeof(relay_port) = 'integer' AND relay_port BETWEEN 1 AND 65535),
  tls                TEXT NOT NULL
    CONSTRAINT outbox_account_tls CHECK (tls IN ('implicit', 'starttls', 'none')),
  mechanism          TEXT NOT NULL DEFAULT 'auto'
    CONSTRAINT outbox_account_mechanism CHECK (mechanism IN ('auto', 'plain', 'login')),
  username           TEXT,
  secret             TEXT,                                              -- a Fernet token, never a password
  key_id             TEXT,
  credential_version INTEGER NOT NULL DEFAULT 1,
  ca_file            TEXT,
  max_connections    INTEGER NOT NULL DEFAULT 3
    CONSTRAINT outbox_account_max_connections CHECK (max_connections >= 1),
  max_messages       INTEGER NOT NULL DEFAULT 100                       -- per connection
    CONSTRAINT outbox_account_max_messages CHECK (max_messages >= 1),
  paused_until       TEXT
    CONSTRAINT outbox_account_paused_until_24 CHECK (paused_until GLOB '????-??-??T??:??:??.???Z'),
  pause_reason       TEXT,
  breaker_failures   INTEGER NOT NULL DEFAULT 0,
  breaker_until      TEXT
    CONSTRAINT outbox_account_breaker_until_24 CHECK (breaker_until GLOB '????-??-??T??:??:??.???Z'),
  breaker_reason     TEXT,
  created_at         TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
  CONSTRAINT outbox_account_pause_has_reason CHECK (paused_until IS NULL OR pause_reason IS NOT NULL)
);

-- Who may send, and through which account. An exact address wins over '*@domain'.
CREATE TABLE outbox_sender (
  address      TEXT NOT NULL PRIMARY KEY
    CONSTRAINT outbox_sender_lower_case CHECK (address = lower(address))
    CONSTRAINT outbox_sender_address CHECK (
      address GLOB '?*@?*' AND instr(substr(address, instr(address, '@') + 1), '@') = 0
      AND address NOT GLOB ('*[' || char(1) || '-' || char(32) || char(127) || '<>,;()]*')
      AND instr(address, char(0)) = 0),
  account      TEXT NOT NULL REFERENCES outbox_account (name) ON DELETE RESTRICT ON UPDATE CASCADE,
  display_name TEXT,
  return_path  TEXT,
  paused_until TEXT
    CONSTRAINT outbox_sender_paused_until_24 CHECK (paused_until GLOB '????-??-??T??:??:??.???Z'),
  pause_reason TEXT,
  created_at   TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
  CONSTRAINT outbox_sender_pause_has_reason CHECK (paused_until IS NULL OR pause_reason IS NOT NULL)
);

CREATE INDEX outbox_sender_account ON outbox_sender (account);

-- A running `outbox run`. Its lease covers everything it is sending.
CREATE TABLE outbox_runner (
  id          TEXT NOT NULL PRIMARY KEY,
  host        TEXT NOT NULL,
  pid         INTEGER NOT NULL,
  version     TEXT NOT NULL,
  started_at  TEXT NOT NULL,
  lease_until TEXT NOT NULL,
  dead_at     TEXT,
  asleep      INTEGER NOT NULL DEFAULT 0
    CONSTRAINT outbox_runner_asleep CHECK (asleep IN (0, 1))
);

-- What people did.
CREATE TABLE outbox_journal (
  id     INTEGER PRIMARY KEY,
  at     TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
  who    TEXT NOT NULL,
  verb   TEXT NOT NULL,
  filter TEXT,
  count  INTEGER,
  detail TEXT
);
