-- Outbox 0006 for SQLite: what people ask costs no more for the years that went before.

-- The last mail of a sender, and how much of theirs ended how. Its order also finds all senders, by a seek for each.
CREATE INDEX outbox_delivery_lane ON outbox_delivery (sender, state) WHERE final_at IS NOT NULL;
-- The last that failed (expired, was cancelled). outbox_delivery_bad is in the order of time, this in that of ids.
CREATE INDEX outbox_delivery_unsent ON outbox_delivery (state)
  WHERE state = 'failed' OR state = 'expired' OR state = 'cancelled';
-- What failed without a relay's word: nobody it was for has been tried.
CREATE INDEX outbox_delivery_unheard ON outbox_delivery (state) WHERE state = 'failed' AND last_code IS NULL;
-- What a relay said, but for its thanks.
CREATE INDEX outbox_delivery_code ON outbox_delivery (last_code) WHERE last_code >= 300;
CREATE INDEX outbox_delivery_status ON outbox_delivery (last_status) WHERE substr(last_status, 1, 1) <> '2';
CREATE INDEX outbox_tag ON outbox (tag) WHERE tag IS NOT NULL;

-- Doubts of a time, instead of a message: those of a message are found by its attempts, which are few.
DROP INDEX outbox_attempt_doubt;
CREATE INDEX outbox_attempt_doubt ON outbox_attempt (ended_at, message_id) WHERE outcome = 'doubt';
DROP INDEX outbox_delivery_doubtful;
CREATE INDEX outbox_delivery_doubtful ON outbox_delivery (final_at) WHERE doubts > 0;

DROP VIEW outbox_sender_health;

-- One line a sender, registered or not: where its mail stands, and what holds it back. Every number is counted only
-- where it is asked for: `sent`, `failed`, `expired` and `cancelled` are of all times, the others of what waits.
CREATE VIEW outbox_sender_health AS
WITH RECURSIVE past (sender) AS (
  SELECT min(sender) FROM outbox_delivery WHERE final_at IS NOT NULL
  UNION ALL
  SELECT (SELECT min(d.sender) FROM outbox_delivery d WHERE d.final_at IS NOT NULL AND d.sender > past.sender)
  FROM past WHERE past.sender IS NOT NULL
)
SELECT n.sender, p.account,
  (SELECT count(*) FROM outbox_delivery d WHERE d.sender = n.sender AND d.state = 'queued') AS queued,
  (SELECT count(*) FROM outbox_delivery d WHERE +d.sender = n.sender AND d.state = 'sending') AS sending,
  (SELECT count(*) FROM outbox_delivery d
   WHERE d.sender = n.sender AND d.state = 'sent' AND d.final_at IS NOT NULL) AS sent,
  (SELECT count(*) FROM outbox_delivery d
   WHERE d.sender = n.sender AND d.state = 'failed' AND d.final_at IS NOT NULL) AS failed,
  (SELECT count(*) FROM outbox_delivery d
   WHERE d.sender = n.sender AND d.state = 'expired' AND d.final_at IS NOT NULL) AS expired,
  (SELECT count(*) FROM outbox_delivery d WHERE +d.sender = n.sender AND d.state = 'held') AS held,
  (SELECT count(*) FROM outbox_delivery d
   WHERE d.sender = n.sender AND d.state = 'cancelled' AND d.final_at IS NOT NULL) AS cancelled,
  coalesce((SELECT sum(d.doubts) FROM outbox_delivery d WHERE d.doubts > 0 AND +d.sender = n.sender), 0) AS doubts,
  (SELECT min(d.due_at) FROM outbox_delivery d WHERE d.sender = n.sender AND d.state = 'queued') AS oldest_due_at,
  p.paused, p.paused_until
FROM (
  SELECT address AS sender FROM outbox_sender
  UNION SELECT sender FROM past WHERE sender IS NOT NULL
  UNION SELECT sender FROM outbox_delivery WHERE state = 'queued'
  UNION SELECT sender FROM outbox_delivery WHERE state = 'sending'
  UNION SELECT sender FROM outbox_delivery WHERE state = 'held'
) n
LEFT JOIN outbox_sender e ON e.address = n.sender
LEFT JOIN outbox_sender w ON w.address = '*' || substr(n.sender, instr(n.sender, '@')) AND e.address IS NULL
LEFT JOIN outbox_pause p ON p.address = coalesce(e.address, w.address);

DROP VIEW outbox_daily;

-- What came to an end on each day (UTC), and the doubts that arose on it. A condition on `day` is one on the days, found
-- by a seek for each, before any message is read. (Not so of a sum over a UNION of both: SQLite would read all first.)
CREATE VIEW outbox_daily AS
WITH RECURSIVE
  ending (day) AS (
    SELECT substr(max(final_at), 1, 10) FROM outbox_delivery WHERE final_at IS NOT NULL
    UNION ALL
    SELECT (SELECT substr(max(d.final_at), 1, 10) FROM outbox_delivery d WHERE d.final_at < ending.day)
    FROM ending WHERE ending.day IS NOT NULL
  ),
  doubting (day) AS (
    SELECT substr(max(ended_at), 1, 10) FROM outbox_attempt WHERE outcome = 'doubt'
    UNION ALL
    SELECT (SELECT substr(max(a.ended_at), 1, 10) FROM outbox_attempt a
            WHERE a.outcome = 'doubt' AND a.ended_at < doubting.day)
    FROM doubting WHERE doubting.day IS NOT NULL
  )
SELECT days.day AS day, d.sender AS sender,
  sum(CASE WHEN d.state = 'sent' AND d.final_at >= days.day AND d.final_at < days.day || 'U' THEN 1 ELSE 0 END) AS sent,
  sum(CASE WHEN d.state = 'failed' AND d.final_at >= days.day AND d.final_at < days.day || 'U' THEN 1 ELSE 0 END)
    AS failed,
  sum(CASE WHEN d.state = 'expired' AND d.final_at >= days.day AND d.final_at < days.day || 'U' THEN 1 ELSE 0 END)
    AS expired,
  sum(CASE WHEN d.doubts = 0 THEN 0 ELSE (
    SELECT count(*) FROM outbox_attempt a
    WHERE a.message_id = d.message_id AND a.outcome = 'doubt' AND a.ended_at >= days.day AND a.ended_at < days.day || 'U'
  ) END) AS doubts
FROM (SELECT day FROM ending WHERE day IS NOT NULL UNION SELECT day FROM doubting WHERE day IS NOT NULL) days
CROSS JOIN outbox_delivery d
  ON (d.final_at >= days.day AND d.final_at < days.day || 'U' AND d.state <> 'cancelled')
  OR d.message_id IN (SELECT a.message_id FROM outbox_attempt a INDEXED BY outbox_attempt_doubt
                      WHERE a.outcome = 'doubt' AND a.ended_at >= days.day AND a.ended_at < days.day || 'U')
GROUP BY days.day, d.sender;
