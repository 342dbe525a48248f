-- Outbox 0007 for PostgreSQL: to record a recipient costs the same after any number of others.

-- An address that nobody has heard of belongs anywhere in an index on addresses: after millions of them, every
-- recipient changed a page that was in no cache, and whole pages went into the WAL. Now the addresses of each 16,384
-- messages stand together, and a recipient changes one of the few pages that its neighbours have just changed. Who is
-- looked for is looked for in each of these groups, by outbox_addressee. (Ten million recipients are sorted for it
-- once: a quarter of a minute, in which no recipient is recorded.)
DROP INDEX outbox_recipient_address;
CREATE INDEX outbox_recipient_address ON outbox_recipient ((message_id >> 14), lower(address));

-- outbox_fate, to be asked for an address (in lower case): `WHERE address = 'ann@example.net'` takes a seek for each
-- group of messages. The groups are counted down; every 64th looks where the next one is, because ids may have gaps.
CREATE VIEW outbox_addressee AS
WITH RECURSIVE bucket (number) AS (
  SELECT max(message_id) >> 14 FROM outbox_recipient
  UNION ALL
  SELECT CASE WHEN bucket.number & 63 <> 0 THEN bucket.number - 1 ELSE (
    SELECT max(r.message_id) >> 14 FROM outbox_recipient r WHERE r.message_id < bucket.number << 14) END
  FROM bucket WHERE bucket.number IS NOT NULL
)
SELECT lower(r.address) AS address, r.message_id, r.position, r.claim_no, r.kind, r.fate, r.code, r.status, r.reply,
  r.at
FROM bucket JOIN outbox_recipient r ON r.message_id >> 14 = bucket.number
WHERE NOT EXISTS (SELECT 1 FROM outbox_recipient later
                  WHERE later.message_id = r.message_id AND later.position = r.position
                  AND later.claim_no > r.claim_no);

-- As in 0006; but the doubts of a day are found by its day, and not among those of all days, each with its message.
CREATE OR REPLACE VIEW outbox_daily AS
WITH RECURSIVE
  ending (day) AS (
    SELECT date_trunc('day', max(final_at) AT TIME ZONE 'UTC') FROM outbox_delivery
    WHERE state IN ('sent', 'failed', 'expired', 'cancelled')
    UNION ALL
    SELECT (SELECT date_trunc('day', max(d.final_at) AT TIME ZONE 'UTC') FROM outbox_delivery d
            WHERE d.state IN ('sent', 'failed', 'expired', 'cancelled') AND d.final_at < ending.day AT TIME ZONE 'UTC')
    FROM ending WHERE ending.day IS NOT NULL
  ),
  doubting (day) AS (
    SELECT date_trunc('day', max(ended_at) AT TIME ZONE 'UTC') FROM outbox_attempt WHERE outcome = 'doubt'
    UNION ALL
    SELECT (SELECT date_trunc('day', max(a.ended_at) AT TIME ZONE 'UTC') FROM outbox_attempt a
            WHERE a.outcome = 'doubt' AND a.ended_at < doubting.day AT TIME ZONE 'UTC')
    FROM doubting WHERE doubting.day IS NOT NULL
  )
SELECT day, sender, sum(sent) AS sent, sum(failed) AS failed, sum(expired) AS expired, sum(doubts) AS doubts
FROM (
  SELECT to_char(ending.day, 'YYYY-MM-DD') AS day, d.sender,
    CASE WHEN d.state = 'sent' THEN 1 ELSE 0 END AS sent,
    CASE WHEN d.state = 'failed' THEN 1 ELSE 0 END AS failed,
    CASE WHEN d.state = 'expired' THEN 1 ELSE 0 END AS expired, 0 AS doubts
  FROM ending JOIN outbox_delivery d ON d.state IN ('sent', 'failed', 'expired')
    AND d.final_at >= ending.day AT TIME ZONE 'UTC' AND d.final_at < (ending.day + interval '1 day') AT TIME ZONE 'UTC'
  UNION ALL
  SELECT to_char(doubting.day, 'YYYY-MM-DD'), doubted.sender, 0, 0, 0, 1
  FROM doubting CROSS JOIN LATERAL (
    SELECT d.sender FROM outbox_attempt a JOIN outbox_delivery d ON d.message_id = a.message_id
    WHERE a.outcome = 'doubt' AND a.ended_at >= doubting.day AT TIME ZONE 'UTC'
      AND a.ended_at < (doubting.day + interval '1 day') AT TIME ZONE 'UTC'
    OFFSET 0  -- day by day
  ) AS doubted
) AS ends
GROUP BY day, sender;
