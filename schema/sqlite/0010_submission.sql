-- Outbox 0010 for SQLite: who may hand over mail by SMTP.

CREATE TABLE outbox_user (
  name          TEXT NOT NULL PRIMARY KEY
    CONSTRAINT outbox_user_name CHECK (length(name) BETWEEN 1 AND 100 AND instr(name, char(0)) = 0),
  password_hash TEXT NOT NULL                                           -- scrypt$n$r$p$salt$hash, hex
    CONSTRAINT outbox_user_password_hash CHECK (password_hash GLOB 'scrypt$*'),
  senders       TEXT,                                                   -- separated by ' '; NULL: all that are registered
  created_at    TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
);
