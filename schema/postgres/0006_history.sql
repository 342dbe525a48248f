-- Outbox 0006 for PostgreSQL: what people ask costs no more for the years that went before.

-- The last mail of a sender, and how much of theirs ended how. Its order also finds all senders, by a seek for each.
CREATE INDEX outbox_delivery_lane ON outbox_delivery_final (sender, state, message_id);
-- The last that failed (expired, was cancelled). outbox_delivery_bad is in the order of time, this in that of ids.
CREATE INDEX outbox_delivery_unsent ON outbox_delivery_final (state, message_id)
  WHERE state IN ('failed', 'expired', 'cancelled');
-- What failed without a relay's word: nobody it was for has been tried.
CREATE INDEX outbox_delivery_unheard ON outbox_delivery_final (message_id) WHERE state = 'failed' AND last_code IS NULL;
-- What a relay said, but for its thanks.
CREATE INDEX outbox_delivery_code ON outbox_delivery (last_code, message_id) WHERE last_code >= 300;
CREATE INDEX outbox_delivery_status ON outbox_delivery (last_status, message_id) WHERE substr(last_status, 1, 1) <> '2';
CREATE INDEX outbox_tag ON outbox (tag, id) WHERE tag IS NOT NULL;

-- Doubts of a time, instead of a message: those of a message are found by its attempts, which are few.
DROP INDEX outbox_attempt_doubt;
CREATE INDEX outbox_attempt_doubt ON outbox_attempt (ended_at, message_id) WHERE outcome = 'doubt';
DROP INDEX outbox_delivery_doubtful;
CREATE INDEX outbox_delivery_doubtful ON outbox_delivery (final_at) WHERE doubts > 0;

-- One line a sender, registered or not: where its mail stands, and what holds it back. Every number is counted only
-- where it is asked for: `sent`, `failed`, `expired` and `cancelled` are of all times, the others of what waits.
CREATE OR REPLACE VIEW outbox_sender_health AS
WITH RECURSIVE past (sender) AS (
  SELECT min(sender) FROM outbox_delivery WHERE state IN ('sent', 'failed', 'expired', 'cancelled')
  UNION ALL
  SELECT (SELECT min(d.sender) FROM outbox_delivery d
          WHERE d.state IN ('sent', 'failed', 'expired', 'cancelled') AND d.sender > past.sender)
  FROM past WHERE past.sender IS NOT NULL
)
SELECT n.sender, p.account,
  (SELECT count(*) FROM outbox_delivery d WHERE d.sender = n.sender AND d.state = 'queued') AS queued,
  (SELECT count(*) FROM outbox_delivery d WHERE d.sender = n.sender AND d.state = 'sending') AS sending,
  (SELECT count(*) FROM outbox_delivery d WHERE d.sender = n.sender AND d.state = 'sent') AS sent,
  (SELECT count(*) FROM outbox_delivery d WHERE d.sender = n.sender AND d.state = 'failed') AS failed,
  (SELECT count(*) FROM outbox_delivery d WHERE d.sender = n.sender AND d.state = 'expired') AS expired,
  (SELECT count(*) FROM outbox_delivery d WHERE d.sender = n.sender AND d.state = 'held') AS held,
  (SELECT count(*) FROM outbox_delivery d WHERE d.sender = n.sender AND d.state = 'cancelled') AS cancelled,
  coalesce((SELECT sum(d.doubts) FROM outbox_delivery d WHERE d.doubts > 0 AND d.sender = n.sender), 0) AS doubts,
  (SELECT min(d.due_at) FROM outbox_delivery d WHERE d.sender = n.sender AND d.state = 'queued') AS oldest_due_at,
  p.paused, p.paused_until
FROM (
  SELECT address AS sender FROM outbox_sender
  UNION SELECT sender FROM past WHERE sender IS NOT NULL
  UNION SELECT sender FROM outbox_delivery WHERE state IN ('queued', 'sending', 'held')
) n
LEFT JOIN outbox_sender e ON e.address = n.sender
LEFT JOIN outbox_sender w ON w.address = '*' || substr(n.sender, strpos(n.sender, '@')) AND e.address IS NULL
LEFT JOIN outbox_pause p ON p.address = coalesce(e.address, w.address);

-- What came to an end on each day (UTC), and the doubts that arose on it. A condition on `day` is one on the days, found
-- by a seek for each, before any message is read.
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
  SELECT to_char(doubting.day, 'YYYY-MM-DD'), d.sender, 0, 0, 0, 1
  FROM doubting JOIN outbox_attempt a ON a.outcome = 'doubt'
    AND a.ended_at >= doubting.day AT TIME ZONE 'UTC' AND a.ended_at < (doubting.day + interval '1 day') AT TIME ZONE 'UTC'
  JOIN outbox_delivery d ON d.message_id = a.message_id
) AS ends
GROUP BY day, sender;
