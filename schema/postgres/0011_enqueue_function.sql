-- Outbox 0011 for PostgreSQL: one call that enqueues a mail with its files, for applications in any language.
--
--   SELECT outbox_enqueue(sender => 'shop@example.com', recipients => 'Ann <ann@example.net>, bob@example.net',
--                         subject => 'Order 7', text_body => 'Thanks', dedup_key => 'order-7');
--
-- The id of the message, or NULL if its dedup_key is there already. It may do what its caller may do, no more (SECURITY
-- INVOKER): the INSERTs of an application. The trigger function of 0002 is called outbox_enqueue too; it has no
-- arguments, and these need their sender, so the two are never confused.

-- NULL is as good as leaving an argument out. attachments: [{"filename": …, "content": base64, "content_type": …,
-- "content_id": …}, …], of which the first two are needed. In one call, hence in one transaction with their mail.
CREATE FUNCTION outbox_enqueue(
  sender text, recipients text DEFAULT NULL, subject text DEFAULT NULL, text_body text DEFAULT NULL,
  html_body text DEFAULT NULL, dedup_key text DEFAULT NULL, attachments jsonb DEFAULT NULL,
  sender_name text DEFAULT NULL, cc text DEFAULT NULL, bcc text DEFAULT NULL, reply_to text DEFAULT NULL,
  return_path text DEFAULT NULL, headers jsonb DEFAULT NULL, raw bytea DEFAULT NULL,
  due_at timestamptz DEFAULT NULL, expires_at timestamptz DEFAULT NULL, priority integer DEFAULT NULL,
  on_doubt text DEFAULT NULL, tag text DEFAULT NULL, source text DEFAULT NULL, dsn_notify text DEFAULT NULL,
  dsn_ret text DEFAULT NULL, dsn_envid text DEFAULT NULL
) RETURNS bigint LANGUAGE plpgsql SECURITY INVOKER AS $$
#variable_conflict use_column
DECLARE
  message bigint;
  unknown text;
BEGIN
  INSERT INTO outbox (
    sender, recipients, subject, text_body, html_body, dedup_key, sender_name, cc, bcc, reply_to, return_path, headers,
    raw, due_at, expires_at, priority, on_doubt, tag, source, dsn_notify, dsn_ret, dsn_envid)
  VALUES (
    outbox_enqueue.sender, outbox_enqueue.recipients, outbox_enqueue.subject, outbox_enqueue.text_body,
    outbox_enqueue.html_body, outbox_enqueue.dedup_key, outbox_enqueue.sender_name, outbox_enqueue.cc,
    outbox_enqueue.bcc, outbox_enqueue.reply_to, outbox_enqueue.return_path, outbox_enqueue.headers,
    outbox_enqueue.raw, outbox_enqueue.due_at, outbox_enqueue.expires_at, coalesce(outbox_enqueue.priority, 5),
    coalesce(outbox_enqueue.on_doubt, 'retry'), outbox_enqueue.tag, coalesce(outbox_enqueue.source, 'sql'),
    outbox_enqueue.dsn_notify, outbox_enqueue.dsn_ret, outbox_enqueue.dsn_envid)
  ON CONFLICT DO NOTHING
  RETURNING id INTO message;
  IF message IS NULL OR attachments IS NULL THEN
    RETURN message;
  END IF;
  SELECT key INTO unknown FROM jsonb_array_elements(attachments) AS file, jsonb_object_keys(file) AS key
  WHERE key NOT IN ('filename', 'content', 'content_type', 'content_id');
  IF FOUND THEN
    RAISE invalid_parameter_value USING
      MESSAGE = format('outbox_enqueue: an attachment has filename, content, content_type and content_id, not "%s"',
                       unknown);
  END IF;
  INSERT INTO outbox_attachment (message_id, position, filename, content_type, content_id, content)
  SELECT message, place - 1, file ->> 'filename', coalesce(file ->> 'content_type', 'application/octet-stream'),
         file ->> 'content_id', decode(file ->> 'content', 'base64')
  FROM jsonb_array_elements(attachments) WITH ORDINALITY AS given (file, place);
  RETURN message;
END $$;

-- The same with lists: each item of recipients, cc and bcc is one address, so that a name or an address that a stranger
-- typed cannot bring in another one. recipients has no default, or a call without any list would fit both functions.
CREATE FUNCTION outbox_enqueue(
  sender text, recipients text[], subject text DEFAULT NULL, text_body text DEFAULT NULL,
  html_body text DEFAULT NULL, dedup_key text DEFAULT NULL, attachments jsonb DEFAULT NULL,
  sender_name text DEFAULT NULL, cc text[] DEFAULT NULL, bcc text[] DEFAULT NULL, reply_to text DEFAULT NULL,
  return_path text DEFAULT NULL, headers jsonb DEFAULT NULL, raw bytea DEFAULT NULL,
  due_at timestamptz DEFAULT NULL, expires_at timestamptz DEFAULT NULL, priority integer DEFAULT NULL,
  on_doubt text DEFAULT NULL, tag text DEFAULT NULL, source text DEFAULT NULL, dsn_notify text DEFAULT NULL,
  dsn_ret text DEFAULT NULL, dsn_envid text DEFAULT NULL
) RETURNS bigint LANGUAGE plpgsql SECURITY INVOKER AS $$
DECLARE
  item text;
BEGIN
  FOR item IN SELECT unnest(recipients || cc || bcc) LOOP
    -- Outside of quoted strings there is no comma, no semicolon and no quote.
    IF btrim(coalesce(item, '')) = '' OR regexp_replace(item, '"(\\.|[^"\\])*"', '', 'g') ~ '[",;]' THEN
      RAISE check_violation USING
        MESSAGE = format('outbox_enqueue: each item of a list is one address, not %s', quote_nullable(left(item, 100))),
        HINT = 'A display name with a comma in it belongs in double quotes.',
        CONSTRAINT = 'outbox_enqueue_one_address_each';
    END IF;
  END LOOP;
  RETURN outbox_enqueue(
    sender, array_to_string(recipients, ', '), subject, text_body, html_body, dedup_key, attachments, sender_name,
    array_to_string(cc, ', '), array_to_string(bcc, ', '), reply_to, return_path, headers, raw, due_at, expires_at,
    priority, on_doubt, tag, source, dsn_notify, dsn_ret, dsn_envid);
END $$;

-- As all functions: a fixed search_path, and not for PUBLIC (roles.sql grants).
DO $$
DECLARE
  f regprocedure;
BEGIN
  FOR f IN
    SELECT oid FROM pg_proc WHERE pronamespace = quote_ident(current_schema())::regnamespace
      AND proname = 'outbox_enqueue' AND pronargs > 0
  LOOP
    EXECUTE format('ALTER FUNCTION %s SET search_path = pg_catalog, %I, pg_temp', f, current_schema());
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f);
  END LOOP;
END $$;
