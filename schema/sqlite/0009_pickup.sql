-- Outbox 0009 for SQLite: pickup folders.

-- A folder that is watched for files, each a complete message.
CREATE TABLE outbox_pickup (
  name       TEXT NOT NULL PRIMARY KEY
    CONSTRAINT outbox_pickup_name CHECK (length(name) BETWEEN 1 AND 100 AND instr(name, char(0)) = 0),
  path       TEXT NOT NULL UNIQUE,
  badmail    TEXT NOT NULL,
  sentmail   TEXT,                                                      -- NULL: what was sent is deleted
  mode       TEXT NOT NULL DEFAULT 'pickup'
    CONSTRAINT outbox_pickup_mode CHECK (mode IN ('pickup', 'replay', 'mqd')),
  senders    TEXT,                                                      -- separated by ' '; NULL: all that are registered
  poll_ms    INTEGER NOT NULL DEFAULT 5000
    CONSTRAINT outbox_pickup_poll_ms CHECK (typeof(poll_ms) = 'integer' AND poll_ms BETWEEN 100 AND 86400000),
  settle_ms  INTEGER NOT NULL DEFAULT 2000
    CONSTRAINT outbox_pickup_settle_ms CHECK (typeof(settle_ms) = 'integer' AND settle_ms BETWEEN 0 AND 86400000),
  max_bytes  INTEGER NOT NULL DEFAULT 26214400
    CONSTRAINT outbox_pickup_max_bytes CHECK (typeof(max_bytes) = 'integer' AND max_bytes BETWEEN 1 AND 26214400),
  archive    TEXT NOT NULL DEFAULT 'on-outcome'
    CONSTRAINT outbox_pickup_archive CHECK (archive IN ('on-outcome', 'on-ingest')),
  created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);

-- Each file that was taken, once: `claim` is in its name while it is in the folder's .work. The row and its mail are one
-- transaction. done_at is NULL until it is where it belongs.
CREATE TABLE outbox_pickup_file (
  claim      TEXT NOT NULL PRIMARY KEY,
  folder     TEXT NOT NULL,
  name       TEXT NOT NULL,                                             -- as it was dropped
  message_id INTEGER,                                                   -- NULL: it became no mail
  octets     INTEGER,
  sha256     TEXT,
  owner      INTEGER,                                                   -- the uid of who dropped it
  taken_at   TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
  done_at    TEXT,
  result     TEXT
    CONSTRAINT outbox_pickup_file_result CHECK (result IN ('sent', 'partial', 'bad')),
  reason     TEXT,
  file       TEXT,                                                      -- where it lies now, if anywhere
  CONSTRAINT outbox_pickup_file_done_has_result CHECK ((done_at IS NULL) = (result IS NULL))
);

CREATE INDEX outbox_pickup_file_waiting ON outbox_pickup_file (folder, taken_at) WHERE done_at IS NULL;
CREATE INDEX outbox_pickup_file_message ON outbox_pickup_file (message_id) WHERE message_id IS NOT NULL;
