-- Outbox 0008 for PostgreSQL: a new mail is checked by the trigger that fills in its delivery.
--
-- PostgreSQL reads, plans and prepares every CHECK of a table anew for each statement: the 37 of outbox cost more than
-- the INSERT itself. A function keeps its plans. What is refused stays the same, and so does the error: check_violation
-- (23514) with the constraint's name. Only erased_at is ever set by
-- an UPDATE, and outbox_immutable looks at it; all other content stays or goes.

DO $$
DECLARE
  c name;
BEGIN
  FOR c IN SELECT conname FROM pg_constraint WHERE conrelid = 'outbox'::regclass AND contype = 'c'
           AND left(conname, 7) = 'outbox_' LOOP
    EXECUTE format('ALTER TABLE outbox DROP CONSTRAINT %I', c);
  END LOOP;
END $$;

-- 'queued', or the error that names what is wrong with the mail.
CREATE FUNCTION outbox_checked(mail outbox) RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
  violated text := CASE
    WHEN mail.id <= 0 THEN 'outbox_id_positive'
    WHEN mail.token !~ '^[0-9a-f]{16,64}$' THEN 'outbox_token_hex'
    WHEN mail.created_at < '1970-01-01Z' OR mail.created_at >= '9999-12-31Z' THEN 'outbox_created_at_real'
    WHEN length(mail.source) NOT BETWEEN 1 AND 64 THEN 'outbox_source_short'
    WHEN mail.priority NOT BETWEEN 0 AND 9 THEN 'outbox_priority_0_to_9'
    WHEN mail.on_doubt NOT IN ('retry', 'hold') THEN 'outbox_on_doubt_retry_or_hold'
    WHEN mail.due_at < '1970-01-01Z' OR mail.due_at >= '9999-12-31Z' THEN 'outbox_due_at_real'
    WHEN mail.expires_at < '1970-01-01Z' OR mail.expires_at >= '9999-12-31Z' THEN 'outbox_expires_at_real'
    WHEN length(mail.dedup_key) NOT BETWEEN 1 AND 500 THEN 'outbox_dedup_key_short'
    WHEN length(mail.tag) > 255 THEN 'outbox_tag_short'
    WHEN btrim(mail.sender) !~ '^[^\x01-\x20\x7f<>,;()@]+@[^\x01-\x20\x7f<>,;()@]+$' OR length(mail.sender) > 320
      THEN 'outbox_sender_bare_address'
    WHEN mail.sender_name ~ '[\r\n]' THEN 'outbox_sender_name_no_line_breaks'
    WHEN length(mail.sender_name) > 1000 THEN 'outbox_sender_name_short'
    WHEN mail.return_path ~ '[\r\n]' THEN 'outbox_return_path_no_line_breaks'
    WHEN length(mail.return_path) > 320 THEN 'outbox_return_path_short'
    WHEN mail.recipients ~ '[\r\n]' THEN 'outbox_recipients_no_line_breaks'
    WHEN octet_length(mail.recipients) > 1048576 THEN 'outbox_recipients_at_most_1_mib'
    WHEN mail.cc ~ '[\r\n]' THEN 'outbox_cc_no_line_breaks'
    WHEN octet_length(mail.cc) > 1048576 THEN 'outbox_cc_at_most_1_mib'
    WHEN mail.bcc ~ '[\r\n]' THEN 'outbox_bcc_no_line_breaks'
    WHEN octet_length(mail.bcc) > 1048576 THEN 'outbox_bcc_at_most_1_mib'
    WHEN mail.reply_to ~ '[\r\n]' THEN 'outbox_reply_to_no_line_breaks'
    WHEN length(mail.reply_to) > 10000 THEN 'outbox_reply_to_short'
    WHEN mail.subject ~ '[\r\n]' THEN 'outbox_subject_no_line_breaks'
    WHEN length(mail.subject) > 2000 THEN 'outbox_subject_short'
    WHEN jsonb_typeof(mail.headers) <> 'object' THEN 'outbox_headers_json_object'
    WHEN octet_length(mail.headers::text) > 262144 THEN 'outbox_headers_at_most_256_kib'
    WHEN octet_length(mail.text_body) > 26214400 THEN 'outbox_text_body_at_most_25_mib'
    WHEN octet_length(mail.html_body) > 26214400 THEN 'outbox_html_body_at_most_25_mib'
    WHEN octet_length(mail.raw) > 26214400 THEN 'outbox_raw_at_most_25_mib'
    WHEN mail.dsn_notify !~ '^(|never|(success|failure|delay)(,(success|failure|delay)){0,2})$'
      OR mail.dsn_notify ~ '(success|failure|delay).*\1' THEN 'outbox_dsn_notify'
    WHEN mail.dsn_ret NOT IN ('', 'full', 'hdrs') THEN 'outbox_dsn_ret'
    WHEN length(mail.dsn_envid) > 100 OR mail.dsn_envid ~ '[^ -~]' THEN 'outbox_dsn_envid'
    WHEN octet_length(mail.raw) > 0 THEN
      CASE WHEN mail.text_body <> '' OR mail.html_body <> '' THEN 'outbox_raw_excludes_bodies' END
    WHEN coalesce(mail.text_body, '') = '' AND coalesce(mail.html_body, '') = '' THEN 'outbox_body_present'
    WHEN btrim(coalesce(mail.recipients, '')) = '' AND btrim(coalesce(mail.cc, '')) = ''
      AND btrim(coalesce(mail.bcc, '')) = '' THEN 'outbox_recipients_present'
  END;
BEGIN
  IF mail.erased_at IS NOT NULL THEN
    RAISE integrity_constraint_violation USING MESSAGE = 'outbox: a new row cannot be erased; leave erased_at out';
  ELSIF violated IS NULL THEN
    RETURN 'queued';
  END IF;
  RAISE check_violation USING
    MESSAGE = format('new row for relation "outbox" violates check constraint "%s"', violated),
    DETAIL = format('Failing mail: from %s to %s, subject %s.', left(mail.sender, 100),
                    coalesce(left(mail.recipients, 100), 'nobody'),
                    coalesce(quote_literal(left(mail.subject, 100)), 'none')),
    SCHEMA = (SELECT relnamespace::regnamespace FROM pg_class WHERE oid = 'outbox'::regclass), TABLE = 'outbox',
    CONSTRAINT = violated;
END $$;

-- As in 0002, with the checks. What an ordinary mail is takes fewer steps to say than what each column may hold, and
-- every step of an expression is prepared anew for each statement; all else has outbox_checked look.
CREATE OR REPLACE FUNCTION outbox_enqueue() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  INSERT INTO outbox_delivery (message_id, state, sender, priority, due_at, expires_at, on_doubt)
  SELECT id,
    CASE
      WHEN erased_at IS NULL AND headers IS NULL AND raw IS NULL
        AND dsn_notify IS NULL AND dsn_ret IS NULL AND dsn_envid IS NULL
        AND id > 0 AND length(token) BETWEEN 16 AND 64 AND token !~ '[^0-9a-f]'
        AND priority BETWEEN 0 AND 9 AND on_doubt IN ('retry', 'hold')
        AND least(created_at, due_at, expires_at) >= '1970-01-01Z'
        AND greatest(created_at, due_at, expires_at) < '9999-12-31Z'
        AND length(source) BETWEEN 1 AND 64 AND (dedup_key IS NULL OR dedup_key <> '')
        AND btrim(sender) ~ '^[^\x01-\x20\x7f<>,;()@]+@[^\x01-\x20\x7f<>,;()@]+$' AND btrim(recipients) <> ''
        AND octet_length(concat(sender, sender_name, return_path, recipients, cc, bcc, reply_to, subject, tag,
                                dedup_key)) < 256
        AND concat(sender_name, return_path, recipients, cc, bcc, reply_to, subject) !~ '[\r\n]'
        AND coalesce(octet_length(text_body), 0) + coalesce(octet_length(html_body), 0) BETWEEN 1 AND 26214400
      THEN 'queued'
      ELSE outbox_checked(inserted)
    END,
    lower(btrim(sender) COLLATE "C"), priority,
    coalesce(due_at, created_at)::timestamptz(3), expires_at::timestamptz(3), on_doubt
  FROM inserted;
  IF FOUND AND EXISTS (SELECT FROM outbox_runner WHERE asleep AND dead_at IS NULL) THEN
    PERFORM pg_notify('outbox', '');
  END IF;
  RETURN NULL;
END $$;

-- As in 0004, with the check of erased_at.
CREATE OR REPLACE FUNCTION outbox_immutable() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  IF NEW.erased_at < '1970-01-01Z' OR NEW.erased_at >= '9999-12-31Z' THEN
    RAISE check_violation USING
      MESSAGE = 'new row for relation "outbox" violates check constraint "outbox_erased_at_real"',
      SCHEMA = TG_TABLE_SCHEMA, TABLE = 'outbox', CONSTRAINT = 'outbox_erased_at_real';
  ELSIF NEW.erased_at IS NOT NULL AND (OLD.erased_at IS NULL OR NEW.erased_at = OLD.erased_at)
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
     AND (NEW.due_at, NEW.expires_at, NEW.dedup_key, NEW.tag, NEW.dsn_notify, NEW.dsn_ret, NEW.dsn_envid)
         IS NOT DISTINCT FROM
         (OLD.due_at, OLD.expires_at, OLD.dedup_key, OLD.tag, OLD.dsn_notify, OLD.dsn_ret, OLD.dsn_envid)
     AND EXISTS (SELECT FROM outbox_delivery
                 WHERE message_id = OLD.id AND state IN ('sent', 'failed', 'expired', 'cancelled')
                 FOR SHARE)  -- so that nobody retries it meanwhile
  THEN
    RETURN NEW;
  END IF;
  RAISE integrity_constraint_violation USING
    MESSAGE = 'outbox: rows are immutable; only finished mail can be erased (set erased_at, clear the bodies)';
END $$;

-- Replacing a function takes its search_path away.
DO $$
DECLARE
  f regprocedure;
BEGIN
  FOR f IN
    SELECT oid FROM pg_proc WHERE pronamespace = quote_ident(current_schema())::regnamespace
      AND proname IN ('outbox_checked', 'outbox_enqueue', 'outbox_immutable')
  LOOP
    EXECUTE format('ALTER FUNCTION %s SET search_path = pg_catalog, %I, pg_temp', f, current_schema());
  END LOOP;
  REVOKE ALL ON FUNCTION outbox_checked(outbox) FROM PUBLIC;
END $$;
