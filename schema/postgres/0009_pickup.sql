-- Outbox 0009 for PostgreSQL: pickup folders.

-- A folder that is watched for files, each a complete message.
CREATE TABLE outbox_pickup (
  name       text NOT NULL PRIMARY KEY
    CONSTRAINT outbox_pickup_name CHECK (length(name) BETWEEN 1 AND 100),
  path       text NOT NULL UNIQUE,
  badmail    text NOT NULL,
  sentmail   text,                                      -- NULL: what was sent is deleted
  mode       text NOT NULL DEFAULT 'pickup'
    CONSTRAINT outbox_pickup_mode CHECK (mode IN ('pickup', 'replay', 'mqd')),
  senders    text,                                      -- separated by ' '; NULL: all that are registered
  poll_ms    integer NOT NULL DEFAULT 5000
    CONSTRAINT outbox_pickup_poll_ms CHECK (poll_ms BETWEEN 100 AND 86400000),
  settle_ms  integer NOT NULL DEFAULT 2000
    CONSTRAINT outbox_pickup_settle_ms CHECK (settle_ms BETWEEN 0 AND 86400000),
  max_bytes  integer NOT NULL DEFAULT 26214400
    CONSTRAINT outbox_pickup_max_bytes CHECK (max_bytes BETWEEN 1 AND 26214400),
  archive    text NOT NULL DEFAULT 'on-outcome'
    CONSTRAINT outbox_pickup_archive CHECK (archive IN ('on-outcome', 'on-ingest')),
  created_at timestamptz NOT NULL DEFAULT now()
);

-- Each file that was taken, once: `claim` is in its name while it is in the folder's .work. The row and its mail are one
-- transaction. done_at is NULL until it is where it belongs.
CREATE TABLE outbox_pickup_file (
  claim      text NOT NULL PRIMARY KEY,
  folder     text NOT NULL,
  name       text NOT NULL,                             -- as it was dropped
  message_id bigint,                                    -- NULL: it became no mail
  octets     integer,
  sha256     text,
  owner      bigint,                                    -- the uid of who dropped it
  taken_at   timestamptz NOT NULL DEFAULT now(),
  done_at    timestamptz,
  result     text
    CONSTRAINT outbox_pickup_file_result CHECK (result IN ('sent', 'partial', 'bad')),
  reason     text,
  file       text,                                      -- where it lies now, if anywhere
  CONSTRAINT outbox_pickup_file_done_has_result CHECK ((done_at IS NULL) = (result IS NULL))
);

CREATE INDEX outbox_pickup_file_waiting ON outbox_pickup_file (folder, taken_at) WHERE done_at IS NULL;
CREATE INDEX outbox_pickup_file_message ON outbox_pickup_file (message_id) WHERE message_id IS NOT NULL;
