-- Outbox 0002 for PostgreSQL: triggers, and the two functions that applications may call.
--
-- All functions are SECURITY DEFINER: an application has no rights on the tables they read and write. The last
-- statement fixes their search_path to pg_catalog, this schema, pg_temp, in this order.
-- Refusals are integrity_constraint_violation (23000), an IntegrityError in most drivers, as on SQLite.

-- One statement trigger with a transition table: it serves INSERT, ON CONFLICT and COPY alike. The notification is sent
-- only when a runner sleeps: an unconditional one makes all committing transactions queue for one lock.
CREATE FUNCTION outbox_enqueue() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  IF EXISTS (SELECT FROM inserted WHERE erased_at IS NOT NULL) THEN
    RAISE integrity_constraint_violation USING MESSAGE = 'outbox: a new row cannot be erased; leave erased_at out';
  END IF;
  INSERT INTO outbox_delivery (message_id, state, sender, priority, due_at, expires_at, on_doubt)
  SELECT id, 'queued', lower(btrim(sender) COLLATE "C"), priority,
         coalesce(due_at, created_at)::timestamptz(3), expires_at::timestamptz(3), on_doubt
  FROM inserted;
  IF FOUND AND EXISTS (SELECT FROM outbox_runner WHERE asleep AND dead_at IS NULL) THEN
    PERFORM pg_notify('outbox', '');
  END IF;
  RETURN NULL;
END $$;

CREATE TRIGGER outbox_enqueue AFTER INSERT ON outbox
REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION outbox_enqueue();

-- One kind of UPDATE passes: erased_at set, bodies cleared, other content cleared or kept, the delivery being final.
CREATE FUNCTION outbox_immutable() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  IF NEW.erased_at IS NOT NULL AND (OLD.erased_at IS NULL OR NEW.erased_at = OLD.erased_at)
     AND NEW.text_body IS NULL AND NEW.html_body IS NULL AND NEW.raw IS NULL
     AND (NEW.sender_name IS NULL OR NEW.sender_name = OLD.sender_name)
     AND (NEW.return_path IS NULL OR NEW.return_path = OLD.return_path)
     AND (NEW.recipients IS NULL OR NEW.recipients = OLD.recipients)
     AND (NEW.cc IS NULL OR NEW.cc = OLD.cc)
     AND (NEW.bcc IS NULL OR NEW.bcc = OLD.bcc)
     AND (NEW.reply_to IS NULL OR NEW.reply_to = OLD.reply_to)
     AND (NEW.subject IS NULL OR NEW.subject = OLD.subject)
     AND (NEW.headers IS NULL OR NEW.headers = OLD.headers)
     AND (NEW.id, NEW.token, NEW.created_at, NEW.source, NEW.priority, NEW.on_doubt, NEW.sender)
         = (OLD.id, OLD.token, OLD.created_at, OLD.source, OLD.priority, OLD.on_doubt, OLD.sender)
     AND (NEW.due_at, NEW.expires_at, NEW.dedup_key, NEW.tag)
         IS NOT DISTINCT FROM (OLD.due_at, OLD.expires_at, OLD.dedup_key, OLD.tag)
     AND EXISTS (SELECT FROM outbox_delivery
                 WHERE message_id = OLD.id AND state IN ('sent', 'failed', 'expired', 'cancelled')
                 FOR SHARE)  -- so that nobody retries it meanwhile
  THEN
    RETURN NEW;
  END IF;
  RAISE integrity_constraint_violation USING
    MESSAGE = 'outbox: rows are immutable; only finished mail can be erased (set erased_at, clear the bodies)';
END $$;

CREATE TRIGGER outbox_immutable BEFORE UPDATE ON outbox FOR EACH ROW EXECUTE FUNCTION outbox_immutable();

CREATE FUNCTION outbox_erase() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  DELETE FROM outbox_attachment WHERE message_id = NEW.id;
  RETURN NULL;
END $$;

CREATE TRIGGER outbox_erase AFTER UPDATE ON outbox FOR EACH ROW EXECUTE FUNCTION outbox_erase();

-- Finished mail goes with everything about it; mail in flight cannot go.
CREATE FUNCTION outbox_delete() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  DELETE FROM outbox_delivery d USING removed
  WHERE d.message_id = removed.id AND d.state IN ('sent', 'failed', 'expired', 'cancelled');
  IF EXISTS (SELECT FROM outbox_delivery d JOIN removed ON d.message_id = removed.id) THEN
    RAISE integrity_constraint_violation USING MESSAGE = 'outbox: mail in flight cannot be deleted; cancel it';
  END IF;
  DELETE FROM outbox_attachment a USING removed WHERE a.message_id = removed.id;
  DELETE FROM outbox_attempt a USING removed WHERE a.message_id = removed.id;
  DELETE FROM outbox_recipient r USING removed WHERE r.message_id = removed.id;
  RETURN NULL;
END $$;

CREATE TRIGGER outbox_delete AFTER DELETE ON outbox
REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION outbox_delete();

CREATE FUNCTION outbox_truncate() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  RAISE integrity_constraint_violation USING
    MESSAGE = 'outbox: TRUNCATE would lose mail in flight; DELETE finished mail';
END $$;

CREATE TRIGGER outbox_truncate BEFORE TRUNCATE ON outbox FOR EACH STATEMENT EXECUTE FUNCTION outbox_truncate();

-- The row lock keeps a runner from claiming the mail before the attachment is committed (it skips locked rows).
CREATE FUNCTION outbox_attachment_insert() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  PERFORM FROM outbox_delivery
  WHERE message_id = NEW.message_id AND claim_no = 0 AND state IN ('queued', 'held') FOR SHARE;
  IF NOT FOUND THEN
    RAISE integrity_constraint_violation USING MESSAGE =
      'outbox_attachment: too late, or no such message; insert attachments in the transaction of their mail';
  END IF;
  RETURN NEW;
END $$;

CREATE TRIGGER outbox_attachment_insert BEFORE INSERT ON outbox_attachment
FOR EACH ROW EXECUTE FUNCTION outbox_attachment_insert();

-- No UPDATE at all, and a DELETE only after that of the message, or with its erasure.
CREATE FUNCTION outbox_attachment_immutable() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  IF TG_OP = 'DELETE' AND NOT EXISTS (SELECT FROM outbox WHERE id = OLD.message_id AND erased_at IS NULL) THEN
    RETURN OLD;
  END IF;
  RAISE integrity_constraint_violation USING MESSAGE =
    'outbox_attachment: rows are immutable; they go when their message is erased or deleted';
END $$;

CREATE TRIGGER outbox_attachment_immutable BEFORE UPDATE OR DELETE ON outbox_attachment
FOR EACH ROW EXECUTE FUNCTION outbox_attachment_immutable();

-- What no writer may do, stale or mistaken: leave a final state (an operator may retry failed and expired mail), retry
-- what has been erased, or turn the fence back. On the final partition only: a BEFORE trigger on the live one would
-- lock every row once more before each of its updates.
CREATE FUNCTION outbox_delivery_guard() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  IF NEW.claim_no < OLD.claim_no THEN
    RAISE integrity_constraint_violation USING MESSAGE = 'outbox_delivery: claim_no only grows';
  ELSIF NEW.message_id <> OLD.message_id THEN
    RAISE integrity_constraint_violation USING MESSAGE = 'outbox_delivery: message_id is immutable';
  ELSIF OLD.state IN ('sent', 'cancelled') OR NEW.state <> 'queued' THEN
    RAISE integrity_constraint_violation USING
      MESSAGE = 'outbox_delivery: this state is final; only failed and expired mail can be queued again';
  ELSIF EXISTS (SELECT FROM outbox WHERE id = OLD.message_id AND erased_at IS NOT NULL) THEN
    RAISE integrity_constraint_violation USING MESSAGE = 'outbox_delivery: an erased message cannot be retried';
  END IF;
  RETURN NEW;
END $$;

CREATE TRIGGER outbox_delivery_guard BEFORE UPDATE OF message_id, state, claim_no ON outbox_delivery_final FOR EACH ROW
WHEN (NEW.claim_no < OLD.claim_no OR NEW.message_id <> OLD.message_id OR NEW.state <> OLD.state)
EXECUTE FUNCTION outbox_delivery_guard();

-- A statement trigger: a move between the partitions is a DELETE to row triggers.
CREATE FUNCTION outbox_delivery_delete() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  IF EXISTS (SELECT FROM removed JOIN outbox ON outbox.id = removed.message_id) THEN
    RAISE integrity_constraint_violation USING MESSAGE = 'outbox_delivery: rows go with their message; delete that';
  END IF;
  RETURN NULL;
END $$;

CREATE TRIGGER outbox_delivery_delete AFTER DELETE ON outbox_delivery
REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION outbox_delivery_delete();

-- Append-only, but that a doubt or a pending row may still be resolved, and an erased message's words may be cleared.
CREATE FUNCTION outbox_recipient_append_only() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  IF TG_OP = 'DELETE' THEN
    IF NOT EXISTS (SELECT FROM outbox WHERE id = OLD.message_id) THEN
      RETURN OLD;
    END IF;
  ELSIF (NEW.message_id, NEW.position, NEW.claim_no, NEW.kind) = (OLD.message_id, OLD.position, OLD.claim_no, OLD.kind)
        AND ((NEW.address = OLD.address AND OLD.fate IN ('pending', 'doubt'))
             OR (NEW.fate = OLD.fate
                 AND EXISTS (SELECT FROM outbox WHERE id = OLD.message_id AND erased_at IS NOT NULL))) THEN
    RETURN NEW;
  END IF;
  RAISE integrity_constraint_violation USING
    MESSAGE = 'outbox_recipient: rows are append-only; they go with their message';
END $$;

CREATE TRIGGER outbox_recipient_append_only BEFORE UPDATE OR DELETE ON outbox_recipient
FOR EACH ROW EXECUTE FUNCTION outbox_recipient_append_only();

-- Cancel a message that nobody is sending. True: it is cancelled now, by this call.
CREATE FUNCTION outbox_cancel(id bigint) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  FOR try IN 1..5 LOOP
    BEGIN
      UPDATE outbox_delivery SET state = 'cancelled', final_at = date_trunc('milliseconds', clock_timestamp())
      WHERE message_id = outbox_cancel.id AND state IN ('queued', 'held');
      RETURN FOUND;
    EXCEPTION WHEN serialization_failure OR deadlock_detected THEN
      NULL;  -- it raced a move between the partitions; look again
    END;
  END LOOP;
  RETURN false;
END $$;

-- Let a message that nobody is sending come due at another time; NULL is now. True: it will.
CREATE FUNCTION outbox_reschedule(id bigint, due_at timestamptz) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
  moment timestamptz(3) := coalesce(due_at, clock_timestamp());
BEGIN
  FOR try IN 1..5 LOOP
    BEGIN
      UPDATE outbox_delivery d SET due_at = moment
      WHERE d.message_id = outbox_reschedule.id AND d.state IN ('queued', 'held');
      IF NOT FOUND THEN
        RETURN false;
      END IF;
      IF EXISTS (SELECT FROM outbox_runner WHERE asleep AND dead_at IS NULL) THEN
        PERFORM pg_notify('outbox', '');
      END IF;
      RETURN true;
    EXCEPTION WHEN serialization_failure OR deadlock_detected THEN
      NULL;
    END;
  END LOOP;
  RETURN false;
END $$;

-- Fix the search_path of all of these, in whatever schema this is, and take them from PUBLIC (roles.sql grants).
DO $$
DECLARE
  f regprocedure;
BEGIN
  FOR f IN
    SELECT oid FROM pg_proc WHERE pronamespace = quote_ident(current_schema())::regnamespace AND proname IN (
      'outbox_enqueue', 'outbox_immutable', 'outbox_erase', 'outbox_delete', 'outbox_truncate',
      'outbox_attachment_insert', 'outbox_attachment_immutable', 'outbox_delivery_guard', 'outbox_delivery_delete',
      'outbox_recipient_append_only', 'outbox_cancel', 'outbox_reschedule')
  LOOP
    EXECUTE format('ALTER FUNCTION %s SET search_path = pg_catalog, %I, pg_temp', f, current_schema());
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f);
  END LOOP;
END $$;
