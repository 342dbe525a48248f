-- The three roles of Outbox on PostgreSQL, and what each may do. Plain SQL; may be run again. Run it as the owner of
-- the tables (with CREATEROLE, unless the roles are there already), their schema first in search_path.
--
--   outbox_app      an application: enqueue (also by outbox_enqueue), look up the receipts, outbox_cancel and
--                   outbox_reschedule. It reads no mail, and changes a state by these two functions only.
--   outbox_runner   `outbox run` and the commands. Not even it inserts into or deletes from outbox_delivery: only the
--                   trigger of outbox does.
--   outbox_auditor  reads what happened: everything but bodies, raw messages, attachments and secrets.
--
-- They are NOLOGIN groups: GRANT outbox_app TO shop; Give nobody but the owner CREATE on the schema.

DO $$
DECLARE
  r text;
BEGIN
  FOREACH r IN ARRAY ARRAY['outbox_app', 'outbox_runner', 'outbox_auditor'] LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = r) THEN
      BEGIN
        EXECUTE format('CREATE ROLE %I NOLOGIN', r);
      EXCEPTION WHEN duplicate_object OR unique_violation THEN
        NULL;  -- somebody else created it just now
      END;
    END IF;
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), r);
  END LOOP;
END $$;

-- The application. INSERT … RETURNING id and a bare ON CONFLICT DO NOTHING need SELECT (id) and nothing more.
GRANT INSERT (source, priority, on_doubt, due_at, expires_at, dedup_key, tag, sender, sender_name, return_path,
              recipients, cc, bcc, reply_to, subject, headers, text_body, html_body, raw, dsn_notify, dsn_ret,
              dsn_envid) ON outbox TO outbox_app;
GRANT SELECT (id, dedup_key) ON outbox TO outbox_app;
GRANT INSERT (message_id, position, filename, content_type, content_id, content) ON outbox_attachment TO outbox_app;
GRANT SELECT ON outbox_receipt TO outbox_app;
GRANT SELECT (id, at, kind, message_id, claim_no, code, status) ON outbox_event TO outbox_app;
GRANT EXECUTE ON FUNCTION outbox_cancel(bigint), outbox_reschedule(bigint, timestamptz) TO outbox_app;

-- The runner and the commands: they send, look, act, enqueue (`outbox enqueue`) and register accounts and senders.
GRANT SELECT ON outbox, outbox_attachment, outbox_delivery, outbox_attempt, outbox_recipient, outbox_account,
  outbox_sender, outbox_runner, outbox_journal, outbox_meta, outbox_limit, outbox_usage, outbox_reply_rule,
  outbox_suppression, outbox_oauth, outbox_dkim, outbox_event, outbox_lease, outbox_pickup,
  outbox_pickup_file, outbox_user, outbox_status, outbox_audit, outbox_fate, outbox_addressee, outbox_receipt,
  outbox_doubtful, outbox_dead, outbox_stuck, outbox_pause, outbox_sender_health, outbox_daily TO outbox_runner;
GRANT INSERT (source, priority, on_doubt, due_at, expires_at, dedup_key, tag, sender, sender_name, return_path,
              recipients, cc, bcc, reply_to, subject, headers, text_body, html_body, raw, dsn_notify, dsn_ret,
              dsn_envid) ON outbox TO outbox_runner;
GRANT UPDATE (erased_at, sender_name, return_path, recipients, cc, bcc, reply_to, subject, headers, text_body,
              html_body, raw) ON outbox TO outbox_runner;
GRANT DELETE ON outbox TO outbox_runner;
GRANT INSERT ON outbox_attachment TO outbox_runner;
GRANT UPDATE ON outbox_delivery TO outbox_runner;
GRANT INSERT, UPDATE ON outbox_attempt TO outbox_runner;
GRANT INSERT ON outbox_recipient TO outbox_runner;
GRANT UPDATE (address, fate, code, status, reply, at) ON outbox_recipient TO outbox_runner;
GRANT INSERT, UPDATE, DELETE ON outbox_account, outbox_sender, outbox_runner, outbox_limit, outbox_usage,
  outbox_reply_rule, outbox_suppression, outbox_oauth, outbox_dkim, outbox_event, outbox_lease, outbox_pickup,
  outbox_pickup_file, outbox_user TO outbox_runner;
GRANT INSERT ON outbox_journal TO outbox_runner;
GRANT UPDATE (count) ON outbox_journal TO outbox_runner;
GRANT EXECUTE ON FUNCTION outbox_cancel(bigint), outbox_reschedule(bigint, timestamptz) TO outbox_runner;

-- For both: outbox_enqueue, with recipients as text and as a list. It does what they may do by INSERT, and no more.
DO $$
DECLARE
  f regprocedure;
BEGIN
  FOR f IN
    SELECT oid FROM pg_proc WHERE pronamespace = quote_ident(current_schema())::regnamespace
      AND proname = 'outbox_enqueue' AND pronargs > 0
  LOOP
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO outbox_app, outbox_runner', f);
  END LOOP;
END $$;

-- So that it can VACUUM what it works on. Before PostgreSQL 17 only the owner may, and autovacuum does it alone.
DO $$
BEGIN
  IF current_setting('server_version_num')::integer >= 170000 THEN
    EXECUTE 'GRANT MAINTAIN ON outbox_delivery_live TO outbox_runner';
  END IF;
END $$;

-- The auditor.
GRANT SELECT (id, token, created_at, erased_at, source, priority, on_doubt, due_at, expires_at, dedup_key, tag, sender,
              sender_name, return_path, recipients, cc, bcc, reply_to, subject, dsn_notify, dsn_ret, dsn_envid)
  ON outbox TO outbox_auditor;
GRANT SELECT (message_id, position, filename, content_type, content_id) ON outbox_attachment TO outbox_auditor;
GRANT SELECT (name, relay_host, relay_port, tls, mechanism, username, key_id, credential_version, ca_file,
              max_connections, max_messages, paused_until, pause_reason, breaker_failures, breaker_until,
              breaker_reason, created_at, tls_pins, starttls_seen_at, probes, probe_until, brake, brake_messages)
  ON outbox_account TO outbox_auditor;
GRANT SELECT (account, key_id, version, refresh_at, expires_at, refreshing_by, refreshing_until)
  ON outbox_oauth TO outbox_auditor;
GRANT SELECT (name, senders, created_at) ON outbox_user TO outbox_auditor;
GRANT SELECT (sender, selector, domain, algorithm, key_id, created_at) ON outbox_dkim TO outbox_auditor;
GRANT SELECT ON outbox_delivery, outbox_attempt, outbox_recipient, outbox_sender, outbox_runner, outbox_journal,
  outbox_meta, outbox_limit, outbox_usage, outbox_reply_rule, outbox_suppression, outbox_event, outbox_lease,
  outbox_pickup, outbox_pickup_file, outbox_status, outbox_audit, outbox_fate, outbox_addressee, outbox_receipt,
  outbox_doubtful, outbox_dead, outbox_stuck, outbox_pause, outbox_sender_health, outbox_daily TO outbox_auditor;
