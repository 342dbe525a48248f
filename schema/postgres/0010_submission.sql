-- Outbox 0010 for PostgreSQL: who may hand over mail by SMTP.

CREATE TABLE outbox_user (
  name          text NOT NULL PRIMARY KEY
    CONSTRAINT outbox_user_name CHECK (length(name) BETWEEN 1 AND 100),
  password_hash text NOT NULL                           -- scrypt$n$r$p$salt$hash, hex
    CONSTRAINT outbox_user_password_hash CHECK (password_hash LIKE 'scrypt$%'),
  senders       text,                                   -- separated by ' '; NULL: all that are registered
  created_at    timestamptz NOT NULL DEFAULT now()
);
