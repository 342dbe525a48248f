-- Outbox 0002 for SQLite: triggers. They hold for every program that opens the file, whatever its pragmas.

-- INSERT OR REPLACE would delete the old row in silence. By id it is refused here; by dedup_key below.
CREATE TRIGGER outbox_insert BEFORE INSERT ON outbox
BEGIN
  SELECT RAISE(ABORT, 'outbox: this id already has a delivery; rows are immutable, INSERT OR REPLACE is refused')
  WHERE EXISTS (SELECT 1 FROM outbox_delivery WHERE message_id = NEW.id);
  SELECT RAISE(ABORT, 'outbox: a new row cannot be erased; leave erased_at out')
  WHERE NEW.erased_at IS NOT NULL;
END;

-- A statement's own conflict clause replaces those inside its triggers. So this INSERT OR IGNORE of a key that exists
-- changes nothing under a plain INSERT, ON CONFLICT DO NOTHING or INSERT OR IGNORE, but overwrites it under
-- INSERT OR REPLACE; RAISE(ABORT) then undoes both.
CREATE TRIGGER outbox_insert_duplicate BEFORE INSERT ON outbox
WHEN NEW.dedup_key IS NOT NULL AND EXISTS (SELECT 1 FROM outbox WHERE dedup_key = NEW.dedup_key)
BEGIN
  INSERT OR IGNORE INTO outbox_meta (key, value)
  SELECT key, 'replaced' FROM outbox_meta WHERE key = 'schema_version';
  SELECT RAISE(ABORT, 'outbox: this dedup_key has a message; rows are immutable, INSERT OR REPLACE is refused')
  WHERE EXISTS (SELECT 1 FROM outbox_meta WHERE key = 'schema_version' AND value = 'replaced');
END;

CREATE TRIGGER outbox_enqueue AFTER INSERT ON outbox
BEGIN
  INSERT INTO outbox_delivery (message_id, state, sender, priority, due_at, expires_at, on_doubt)
  VALUES (
    NEW.id, 'queued', lower(trim(NEW.sender)), NEW.priority,
    strftime('%Y-%m-%dT%H:%M:%fZ', coalesce(nullif(NEW.due_at, ''), NEW.created_at), '+0 seconds'),
    strftime('%Y-%m-%dT%H:%M:%fZ', nullif(NEW.expires_at, ''), '+0 seconds'),
    NEW.on_doubt);
END;

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
  AND NEW.sender IS OLD.sender
  AND EXISTS (SELECT 1 FROM outbox_delivery
              WHERE message_id = OLD.id AND state IN ('sent', 'failed', 'expired', 'cancelled'))
)
BEGIN
  SELECT RAISE(ABORT, 'outbox: rows are immutable; only finished mail can be erased (set erased_at, clear the bodies)');
END;

CREATE TRIGGER outbox_erase AFTER UPDATE ON outbox
BEGIN
  DELETE FROM outbox_attachment WHERE message_id = NEW.id;
END;

CREATE TRIGGER outbox_delete BEFORE DELETE ON outbox
WHEN EXISTS (SELECT 1 FROM outbox_delivery WHERE message_id = OLD.id AND state IN ('queued', 'sending', 'held'))
BEGIN
  SELECT RAISE(ABORT, 'outbox: mail in flight cannot be deleted; cancel it');
END;

-- For connections without PRAGMA foreign_keys; with it, the cascade has been here already.
CREATE TRIGGER outbox_deleted AFTER DELETE ON outbox
BEGIN
  DELETE FROM outbox_delivery WHERE message_id = OLD.id;
  DELETE FROM outbox_attachment WHERE message_id = OLD.id;
  DELETE FROM outbox_attempt WHERE message_id = OLD.id;
  DELETE FROM outbox_recipient WHERE message_id = OLD.id;
END;

CREATE TRIGGER outbox_attachment_insert BEFORE INSERT ON outbox_attachment
BEGIN
  SELECT RAISE(ABORT,
    'outbox_attachment: too late, or no such message; insert attachments in the transaction of their mail')
  WHERE NOT EXISTS (SELECT 1 FROM outbox_delivery
                    WHERE message_id = NEW.message_id AND claim_no = 0 AND state IN ('queued', 'held'));
  SELECT RAISE(ABORT, 'outbox_attachment: this position is taken; rows are immutable')
  WHERE EXISTS (SELECT 1 FROM outbox_attachment WHERE message_id = NEW.message_id AND position = NEW.position);
END;

CREATE TRIGGER outbox_attachment_immutable BEFORE UPDATE ON outbox_attachment
BEGIN
  SELECT RAISE(ABORT, 'outbox_attachment: rows are immutable');
END;

CREATE TRIGGER outbox_attachment_delete BEFORE DELETE ON outbox_attachment
WHEN EXISTS (SELECT 1 FROM outbox WHERE id = OLD.message_id AND erased_at IS NULL)
BEGIN
  SELECT RAISE(ABORT, 'outbox_attachment: rows are immutable; they go when their message is erased or deleted');
END;

-- What no writer may do, stale or mistaken: turn the fence back, leave a final state (an operator may retry failed and
-- expired mail), or retry what has been erased.
CREATE TRIGGER outbox_delivery_guard BEFORE UPDATE OF message_id, state, claim_no ON outbox_delivery
WHEN NEW.claim_no < OLD.claim_no OR NEW.message_id <> OLD.message_id
  OR (OLD.final_at IS NOT NULL AND NEW.state <> OLD.state
      AND (NEW.state <> 'queued' OR OLD.state = 'sent' OR OLD.state = 'cancelled'
           OR EXISTS (SELECT 1 FROM outbox WHERE id = OLD.message_id AND erased_at IS NOT NULL)))
BEGIN
  SELECT RAISE(ABORT, 'outbox_delivery: claim_no only grows') WHERE NEW.claim_no < OLD.claim_no;
  SELECT RAISE(ABORT, 'outbox_delivery: message_id is immutable') WHERE NEW.message_id <> OLD.message_id;
  SELECT RAISE(ABORT, 'outbox_delivery: an erased message cannot be retried')
  WHERE NEW.state = 'queued' AND OLD.state IN ('failed', 'expired');
  SELECT RAISE(ABORT, 'outbox_delivery: this state is final; only failed and expired mail can be queued again');
END;

CREATE TRIGGER outbox_delivery_delete BEFORE DELETE ON outbox_delivery
WHEN EXISTS (SELECT 1 FROM outbox WHERE id = OLD.message_id)
BEGIN
  SELECT RAISE(ABORT, 'outbox_delivery: rows go with their message; delete that');
END;

-- Append-only, but that a doubt or a pending row may still be resolved, and an erased message's words may be cleared.
CREATE TRIGGER outbox_recipient_append_only BEFORE UPDATE ON outbox_recipient
WHEN NOT (
  NEW.message_id = OLD.message_id AND NEW.position = OLD.position AND NEW.claim_no = OLD.claim_no
  AND NEW.kind = OLD.kind
  AND ((NEW.address = OLD.address AND OLD.fate IN ('pending', 'doubt'))
       OR (NEW.fate = OLD.fate
           AND EXISTS (SELECT 1 FROM outbox WHERE id = OLD.message_id AND erased_at IS NOT NULL))))
BEGIN
  SELECT RAISE(ABORT, 'outbox_recipient: rows are append-only');
END;

CREATE TRIGGER outbox_recipient_delete BEFORE DELETE ON outbox_recipient
WHEN EXISTS (SELECT 1 FROM outbox WHERE id = OLD.message_id)
BEGIN
  SELECT RAISE(ABORT, 'outbox_recipient: rows are append-only; they go with their message');
END;
