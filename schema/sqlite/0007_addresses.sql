-- Outbox 0007 for SQLite: to record a recipient costs the same after any number of others.

-- An address that nobody has heard of belongs anywhere in an index on addresses: after millions of them, every
-- recipient changed a page that was in no cache. Now the addresses of each 16,384 messages stand together, and a
-- recipient changes one of the few pages that its neighbours have just changed. Who is looked for is looked for in each
-- of these groups, by outbox_addressee. (Ten million recipients are sorted for it once: half a minute, in which nobody
-- else writes.)
DROP INDEX outbox_recipient_address;
CREATE INDEX outbox_recipient_address ON outbox_recipient (message_id >> 14, lower(address));

-- outbox_fate, to be asked for an address (in lower case): `WHERE address = 'ann@example.net'` takes a seek for each
-- group of messages. The groups are counted down; every 64th looks where the next one is, because ids may have gaps.
CREATE VIEW outbox_addressee AS
WITH RECURSIVE bucket (number) AS (
  SELECT max(message_id) >> 14 FROM outbox_recipient
  UNION ALL
  SELECT CASE WHEN bucket.number & 63 THEN bucket.number - 1 ELSE (
    SELECT max(r.message_id) >> 14 FROM outbox_recipient r WHERE r.message_id < bucket.number << 14) END
  FROM bucket WHERE bucket.number IS NOT NULL
)
SELECT lower(r.address) AS address, r.message_id, r.position, r.claim_no, r.kind, r.fate, r.code, r.status, r.reply,
  r.at
FROM bucket CROSS JOIN outbox_recipient r ON r.message_id >> 14 = bucket.number
WHERE NOT EXISTS (SELECT 1 FROM outbox_recipient later
                  WHERE later.message_id = r.message_id AND later.position = r.position
                  AND later.claim_no > r.claim_no);
