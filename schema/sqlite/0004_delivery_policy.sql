-- Outbox 0004 for SQLite: the delivery policy. Pauses with probes, brakes, limits, reply rules, suppression, OAuth,
-- DKIM, DSN, events.

-- The two are made anew, because SQLite cannot change a CHECK: more mechanisms, one more TLS mode, and new columns.
CREATE TABLE outbox_account_before AS SELECT * FROM outbox_account;
CREATE TABLE outbox_sender_before AS SELECT * FROM outbox_sender;
DROP TABLE outbox_sender;
DROP TABLE outbox_account;

-- A relay, a login and its sealed secret. Paused: pause_reason is not NULL, until paused_until (NULL: until resumed).
-- When a pause with probes is over, one message at a time is tried until one shows that the fault is gone.
CREATE TABLE outbox_account (
  name               TEXT NOT NULL PRIMARY KEY
    CONSTRAINT outbox_account_name CHECK (length(name) BETWEEN 1 AND 100 AND instr(name, char(0)) = 0),
  relay_host         TEXT NOT NULL,
  relay_port         INTEGER NOT NULL
    CONSTRAINT outbox_account_relay_port CHECK (typeof(relay_port) = 'integer' AND relay_port BETWEEN 1 AND 65535),
  tls                TEXT NOT NULL
    CONSTRAINT outbox_account_tls CHECK (tls IN ('implicit', 'starttls', 'opportunistic', 'none')),
  mechanism          TEXT NOT NULL DEFAULT 'auto'
    CONSTRAINT outbox_account_mechanism CHECK (mechanism IN (
      'auto', 'plain', 'login', 'cram-md5', 'scram-sha-256', 'xoauth2', 'oauthbearer')),
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
  tls_pins           TEXT,                                              -- SHA-256 of certificates in hex, by ' '
  starttls_seen_at   TEXT
    CONSTRAINT outbox_account_starttls_seen_at_24 CHECK (starttls_seen_at GLOB '????-??-??T??:??:??.???Z'),
  probes             INTEGER NOT NULL DEFAULT 0                         -- pauses in a row, each after a failed probe
    CONSTRAINT outbox_account_probes CHECK (probes >= 0),
  probe_until        TEXT                                               -- somebody is probing, at most until then
    CONSTRAINT outbox_account_probe_until_24 CHECK (probe_until GLOB '????-??-??T??:??:??.???Z'),
  brake              TEXT,                                              -- the refusal that braked it: 'dot 554 5.7.1'
  brake_messages     TEXT,                                              -- ids that failed before that, separated by ' '
  CONSTRAINT outbox_account_pause_has_reason CHECK (paused_until IS NULL OR pause_reason IS NOT NULL)
);

-- Who may send, and through which account. An exact address wins over '*@domain'.
CREATE TABLE outbox_sender (
  address        TEXT NOT NULL PRIMARY KEY
    CONSTRAINT outbox_sender_lower_case CHECK (address = lower(address))
    CONSTRAINT outbox_sender_address CHECK (
      address GLOB '?*@?*' AND instr(substr(address, instr(address, '@') + 1), '@') = 0
      AND address NOT GLOB ('*[' || char(1) || '-' || char(32) || char(127) || '<>,;()]*')
      AND instr(address, char(0)) = 0),
  account        TEXT NOT NULL REFERENCES outbox_account (name) ON DELETE RESTRICT ON UPDATE CASCADE,
  display_name   TEXT,
  return_path    TEXT,
  paused_until   TEXT
    CONSTRAINT outbox_sender_paused_until_24 CHECK (paused_until GLOB '????-??-??T??:??:??.???Z'),
  pause_reason   TEXT,
  created_at     TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
  probes         INTEGER NOT NULL DEFAULT 0                             -- pauses in a row, each after a failed probe
    CONSTRAINT outbox_sender_probes CHECK (probes >= 0),
  probe_until    TEXT                                                   -- somebody is probing, at most until then
    CONSTRAINT outbox_sender_probe_until_24 CHECK (probe_until GLOB '????-??-??T??:??:??.???Z'),
  brake          TEXT,                                                  -- the refusal that braked it: 'dot 554 5.7.1'
  brake_messages TEXT,                                                  -- ids that failed before that, separated by ' '
  CONSTRAINT outbox_sender_pause_has_reason CHECK (paused_until IS NULL OR pause_reason IS NOT NULL)
);

CREATE INDEX outbox_sender_account ON outbox_sender (account);

INSERT INTO outbox_account (
  name, relay_host, relay_port, tls, mechanism, username, secret, key_id, credential_version, ca_file,
  max_connections, max_messages, paused_until, pause_reason, breaker_failures, breaker_until, breaker_reason,
  created_at)
SELECT
  name, relay_host, relay_port, tls, mechanism, username, secret, key_id, credential_version, ca_file,
  max_connections, max_messages, paused_until, pause_reason, breaker_failures, breaker_until, breaker_reason,
  created_at
FROM outbox_account_before;
INSERT INTO outbox_sender (
  address, account, display_name, return_path, paused_until, pause_reason, created_at)
SELECT
  address, account, display_name, return_path, paused_until, pause_reason, created_at
FROM outbox_sender_before;
DROP TABLE outbox_sender_before;
DROP TABLE outbox_account_before;

-- DSN parameters of a mail (RFC 3461), passed on where the relay offers DSN.
ALTER TABLE outbox ADD COLUMN dsn_notify TEXT                           -- 'never', or of success,failure,delay
  CONSTRAINT outbox_dsn_notify CHECK (dsn_notify IS NULL OR dsn_notify = '' OR dsn_notify = 'never' OR (
    ',' || dsn_notify || ',' NOT GLOB '*,,*' AND typeof(dsn_notify) = 'text' AND instr(dsn_notify, char(0)) = 0
    AND replace(replace(replace(',' || dsn_notify || ',', ',success,', ','), ',failure,', ','), ',delay,', ',') = ','));
ALTER TABLE outbox ADD COLUMN dsn_ret TEXT
  CONSTRAINT outbox_dsn_ret CHECK (dsn_ret IS NULL OR dsn_ret = '' OR dsn_ret = 'full' OR dsn_ret = 'hdrs');
ALTER TABLE outbox ADD COLUMN dsn_envid TEXT                            -- as the application knows it; NULL: our id
  CONSTRAINT outbox_dsn_envid CHECK (dsn_envid IS NULL OR (
    length(dsn_envid) <= 100 AND typeof(dsn_envid) = 'text' AND dsn_envid NOT GLOB ('*[^' || char(32) || '-~]*')
    AND instr(dsn_envid, char(0)) = 0));

-- Which reply rule decided, if one did.
ALTER TABLE outbox_attempt ADD COLUMN rule INTEGER;

-- What an account, a sender or a recipient domain may send: at a time, and in a minute, an hour, a day (NULL: no
-- limit). Limits delay, and never hold.
CREATE TABLE outbox_limit (
  scope       TEXT NOT NULL
    CONSTRAINT outbox_limit_scope CHECK (scope IN ('account', 'sender', 'domain')),
  name        TEXT NOT NULL
    CONSTRAINT outbox_limit_lower_case CHECK (scope = 'account' OR name = lower(name)),
  connections INTEGER
    CONSTRAINT outbox_limit_connections CHECK (connections >= 1),
  per_minute  INTEGER
    CONSTRAINT outbox_limit_per_minute CHECK (per_minute >= 1),
  per_hour    INTEGER
    CONSTRAINT outbox_limit_per_hour CHECK (per_hour >= 1),
  per_day     INTEGER
    CONSTRAINT outbox_limit_per_day CHECK (per_day >= 1),
  PRIMARY KEY (scope, name)
);

-- How much of each limit is used, by all runners: a window that slides over the present span and the one before it.
CREATE TABLE outbox_usage (
  scope    TEXT NOT NULL,
  name     TEXT NOT NULL,
  span     TEXT NOT NULL
    CONSTRAINT outbox_usage_span CHECK (span IN ('minute', 'hour', 'day')),
  began_at TEXT NOT NULL
    CONSTRAINT outbox_usage_began_at_24 CHECK (began_at GLOB '????-??-??T??:??:??.???Z'),
  used     INTEGER NOT NULL,
  before   INTEGER NOT NULL,
  PRIMARY KEY (scope, name, span)
);

-- What operators know better than the built-in table: a regex on 'code status text' of a relay's refusal.
CREATE TABLE outbox_reply_rule (
  id         INTEGER PRIMARY KEY,
  relay      TEXT NOT NULL DEFAULT '*',                                 -- a host, with * and ?
  pattern    TEXT NOT NULL
    CONSTRAINT outbox_reply_rule_pattern CHECK (length(pattern) BETWEEN 1 AND 500),
  verdict    TEXT NOT NULL
    CONSTRAINT outbox_reply_rule_verdict CHECK (verdict IN ('defer', 'bounce')),
  scope      TEXT NOT NULL
    CONSTRAINT outbox_reply_rule_scope CHECK (scope IN ('relay', 'account', 'sender', 'message', 'recipient')),
  delay      INTEGER                                                    -- seconds, at least
    CONSTRAINT outbox_reply_rule_delay CHECK (delay BETWEEN 1 AND 604800),
  note       TEXT,
  created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);

-- Whom nobody writes to any more: an address in lower case, or '*@domain'.
CREATE TABLE outbox_suppression (
  address    TEXT NOT NULL PRIMARY KEY
    CONSTRAINT outbox_suppression_lower_case CHECK (address = lower(address))
    CONSTRAINT outbox_suppression_address CHECK (address GLOB '?*@?*' AND instr(address, char(0)) = 0),
  reason     TEXT NOT NULL,
  until      TEXT                                                       -- NULL: for good
    CONSTRAINT outbox_suppression_until_24 CHECK (until GLOB '????-??-??T??:??:??.???Z'),
  created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);

-- How an account gets its OAuth tokens. `setup` (endpoint, client, grant, refresh token) and `token` (the access
-- token) are sealed like passwords. One runner at a time refreshes.
CREATE TABLE outbox_oauth (
  account          TEXT NOT NULL PRIMARY KEY REFERENCES outbox_account (name) ON DELETE CASCADE ON UPDATE CASCADE,
  setup            TEXT NOT NULL,
  token            TEXT,
  key_id           TEXT NOT NULL,
  version          INTEGER NOT NULL DEFAULT 1,                          -- grows with every new token
  refresh_at       TEXT
    CONSTRAINT outbox_oauth_refresh_at_24 CHECK (refresh_at GLOB '????-??-??T??:??:??.???Z'),
  expires_at       TEXT
    CONSTRAINT outbox_oauth_expires_at_24 CHECK (expires_at GLOB '????-??-??T??:??:??.???Z'),
  refreshing_by    TEXT,
  refreshing_until TEXT
    CONSTRAINT outbox_oauth_refreshing_until_24 CHECK (refreshing_until GLOB '????-??-??T??:??:??.???Z')
);

-- Keys that sign a sender's mail (RFC 6376, RFC 8463); each adds a signature. `secret` is the sealed private key.
CREATE TABLE outbox_dkim (
  sender     TEXT NOT NULL REFERENCES outbox_sender (address) ON DELETE CASCADE ON UPDATE CASCADE,
  selector   TEXT NOT NULL
    CONSTRAINT outbox_dkim_selector CHECK (selector GLOB '[a-z0-9]*' AND selector NOT GLOB '*[^a-z0-9.-]*'
                                           AND length(selector) <= 63),
  domain     TEXT NOT NULL,
  algorithm  TEXT NOT NULL
    CONSTRAINT outbox_dkim_algorithm CHECK (algorithm IN ('rsa-sha256', 'ed25519-sha256')),
  secret     TEXT NOT NULL,
  key_id     TEXT NOT NULL,
  created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
  PRIMARY KEY (sender, selector)
);

-- What an application may want to hear of, in the order in which it happened. `webhook_due` and `notice_due`: it is
-- still to be posted, or to be told to the return path.
CREATE TABLE outbox_event (
  id          INTEGER PRIMARY KEY,
  at          TEXT NOT NULL
    CONSTRAINT outbox_event_at_24 CHECK (at GLOB '????-??-??T??:??:??.???Z'),
  kind        TEXT NOT NULL
    CONSTRAINT outbox_event_kind CHECK (kind IN ('accepted', 'delayed', 'bounced', 'expired', 'doubt', 'paused')),
  message_id  INTEGER,                                                  -- NULL: an account or a sender was paused
  claim_no    INTEGER,
  subject     TEXT,                                                     -- whom it is about: 'account=main'
  code        INTEGER,
  status      TEXT,
  reply       TEXT,
  webhook_due INTEGER NOT NULL DEFAULT 0
    CONSTRAINT outbox_event_webhook_due CHECK (webhook_due IN (0, 1)),
  notice_due  INTEGER NOT NULL DEFAULT 0
    CONSTRAINT outbox_event_notice_due CHECK (notice_due IN (0, 1)),
  CONSTRAINT outbox_event_about_something CHECK (message_id IS NOT NULL OR subject IS NOT NULL)
);

CREATE INDEX outbox_event_message ON outbox_event (message_id) WHERE message_id IS NOT NULL;
CREATE INDEX outbox_event_at ON outbox_event (at);
CREATE INDEX outbox_event_webhook ON outbox_event (id) WHERE webhook_due = 1;
CREATE INDEX outbox_event_notice ON outbox_event (id) WHERE notice_due = 1;

-- Who does what only one runner may do at a time ('webhook', 'notices'), and until when.
CREATE TABLE outbox_lease (
  name  TEXT NOT NULL PRIMARY KEY,
  owner TEXT NOT NULL,
  until TEXT NOT NULL
    CONSTRAINT outbox_lease_until_24 CHECK (until GLOB '????-??-??T??:??:??.???Z')
);

-- As in 0002, with the DSN parameters.
DROP TRIGGER outbox_immutable;

-- One kind of UPDATE passes: erased_at set, bodies cleared, other content cleared or kept, the delivery being final.
CREATE TRIGGER outbox_immutable BEFORE UPDATE ON outbox
WHEN NOT (
  NEW.erased_at IS NOT NULL AND (OLD.erased_at IS NULL OR NEW.erased_at IS OLD.erased_at)
  AND NEW.text_body IS NULL AND NEW.html_body IS NULL AND NEW.raw IS NULL
  AND (NEW.sender_name IS NULL OR NEW.sender_name IS OLD.sender_name)
  AND (NEW.return_path IS NULL OR NEW.return_path IS OLD.return_path)
  AND (NEW.recipients IS NULL OR NEW.recipients IS OLD.recipients)
  AND (NEW.cc IS NULL OR NEW.cc IS OLD.cc)
  AND (NEW.bcc IS NULL OR NEW.bcc IS OLD.bcc)
  AND (NEW.reply_to IS NULL OR NEW.reply_to IS OLD.reply_to)
  AND (NEW.subject IS NULL OR NEW.subject IS OLD.subject)
  AND (NEW.headers IS NULL OR NEW.headers IS OLD.headers)
  AND NEW.id IS OLD.id AND NEW.token IS OLD.token AND NEW.created_at IS OLD.created_at AND NEW.source IS OLD.source
  AND NEW.priority IS OLD.priority AND NEW.on_doubt IS OLD.on_doubt AND NEW.due_at IS OLD.due_at
  AND NEW.expires_at IS OLD.expires_at AND NEW.dedup_key IS OLD.dedup_key AND NEW.tag IS OLD.tag
  AND NEW.sender IS OLD.sender AND NEW.dsn_notify IS OLD.dsn_notify AND NEW.dsn_ret IS OLD.dsn_ret
  AND NEW.dsn_envid IS OLD.dsn_envid
  AND EXISTS (SELECT 1 FROM outbox_delivery
              WHERE message_id = OLD.id AND state IN ('sent', 'failed', 'expired', 'cancelled'))
)
BEGIN
  SELECT RAISE(ABORT, 'outbox: rows are immutable; only finished mail can be erased (set erased_at, clear the bodies)');
END;

-- What happened to a message goes with it; of the newest event only its words, because its id must not come again.
CREATE TRIGGER outbox_event_delete AFTER DELETE ON outbox
BEGIN
  DELETE FROM outbox_event WHERE message_id = OLD.id AND id < (SELECT max(id) FROM outbox_event);
  UPDATE outbox_event SET reply = NULL, webhook_due = 0, notice_due = 0 WHERE message_id = OLD.id;
END;
