-- Outbox 0003 for SQLite: views for people who audit. Same columns and rows in both dialects.

-- A recipient's fate is its latest row. (No row at all: pending, never tried.)
CREATE VIEW outbox_fate AS
SELECT r.message_id, r.position, r.claim_no, r.address, r.kind, r.fate, r.code, r.status, r.reply, r.at
FROM outbox_recipient r
WHERE NOT EXISTS (SELECT 1 FROM outbox_recipient later
                  WHERE later.message_id = r.message_id AND later.position = r.position
                  AND later.claim_no > r.claim_no);

-- What holds a registered sender's mail back, by itself or by its account: the reason and until when (NULL: until
-- somebody resumes it). Every registration has a row; both are NULL where nothing is in the way.
CREATE VIEW outbox_pause AS
SELECT s.address, s.account,
  CASE
    WHEN s.pause_reason IS NOT NULL AND (s.paused_until IS NULL OR s.paused_until > clock.now) THEN s.pause_reason
    WHEN c.pause_reason IS NOT NULL AND (c.paused_until IS NULL OR c.paused_until > clock.now) THEN c.pause_reason
    WHEN c.breaker_until > clock.now THEN coalesce(c.breaker_reason, 'the breaker of its relay is open')
  END AS paused,
  CASE
    WHEN s.pause_reason IS NOT NULL AND (s.paused_until IS NULL OR s.paused_until > clock.now) THEN s.paused_until
    WHEN c.pause_reason IS NOT NULL AND (c.paused_until IS NULL OR c.paused_until > clock.now) THEN c.paused_until
    WHEN c.breaker_until > clock.now THEN c.breaker_until
  END AS paused_until
FROM outbox_sender s
JOIN outbox_account c ON c.name = s.account
CROSS JOIN (SELECT strftime('%Y-%m-%dT%H:%M:%fZ', 'now') AS now) clock;

-- One line a message, its state in words for people: besides the machine's own, `scheduled` is due later and never
-- tried, `deferred` is due later after a failure. `paused` says what a queued message waits for.
CREATE VIEW outbox_status AS
SELECT o.id,
  CASE
    WHEN d.state <> 'queued' OR d.due_at <= strftime('%Y-%m-%dT%H:%M:%fZ', 'now') THEN d.state
    WHEN d.failures = 0 AND d.doubts = 0 AND d.first_attempt_at IS NULL THEN 'scheduled'
    ELSE 'deferred'
  END AS state,
  d.sender, o.subject, strftime('%Y-%m-%dT%H:%M:%fZ', o.created_at) AS created_at, d.due_at, d.final_at,
  d.failures, d.doubts, d.last_code, d.last_status, d.last_reply, d.hold_reason,
  coalesce(CASE WHEN d.state NOT IN ('queued', 'held') THEN a.account END, e.account, w.account) AS account,
  CASE WHEN d.state = 'queued' THEN (
    SELECT p.paused FROM outbox_pause p WHERE p.address = coalesce(e.address, w.address)) END AS paused,
  o.tag, o.dedup_key
FROM outbox o
JOIN outbox_delivery d ON d.message_id = o.id
LEFT JOIN outbox_sender e ON e.address = d.sender
LEFT JOIN outbox_sender w ON w.address = '*' || substr(d.sender, instr(d.sender, '@')) AND e.address IS NULL
LEFT JOIN outbox_attempt a ON a.message_id = d.message_id AND a.claim_no = d.claim_no;

-- One line a recipient and attempt. An attempt that reached no recipient has one line without an address; a recipient's
-- row that belongs to no attempt (an operator's retry, a late reply) has one without the attempt's columns.
CREATE VIEW outbox_audit AS
SELECT a.message_id, a.claim_no, a.started_at, a.dot_at, a.ended_at, a.outcome, a.stage, a.relay, a.tls, a.account,
  a.runner_id, r.position, r.address, r.kind, r.fate,
  CASE WHEN r.message_id IS NULL THEN a.code ELSE r.code END AS code,
  CASE WHEN r.message_id IS NULL THEN a.status ELSE r.status END AS status,
  CASE WHEN r.message_id IS NULL THEN a.reply ELSE r.reply END AS reply,
  coalesce(r.at, a.ended_at, a.started_at) AS at, a.late_outcome, a.late_reply, a.late_at
FROM outbox_attempt a
LEFT JOIN outbox_recipient r ON r.message_id = a.message_id AND r.claim_no = a.claim_no
UNION ALL
SELECT r.message_id, r.claim_no, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
  NULL, r.position, r.address, r.kind, r.fate, r.code, r.status, r.reply, r.at, NULL, NULL, NULL
FROM outbox_recipient r
WHERE NOT EXISTS (SELECT 1 FROM outbox_attempt a WHERE a.message_id = r.message_id AND a.claim_no = r.claim_no);

-- What an application may know of its mail: no bodies, no addresses.
CREATE VIEW outbox_receipt AS
SELECT o.id, o.dedup_key, o.tag, d.state, d.last_code AS code, d.last_status AS status, d.doubts, d.final_at
FROM outbox o JOIN outbox_delivery d ON d.message_id = o.id;

-- Every message of which a recipient may get more than one copy: at most 1 + doubts. recipients_in_doubt counts those
-- of whom we still do not know whether they got it.
CREATE VIEW outbox_doubtful AS
SELECT o.id, d.state, d.sender, o.subject, d.on_doubt, d.doubts,
  (SELECT count(*) FROM outbox_fate f WHERE f.message_id = d.message_id AND f.fate = 'doubt') AS recipients_in_doubt,
  (SELECT max(a.ended_at) FROM outbox_attempt a
   WHERE a.message_id = d.message_id AND a.outcome = 'doubt') AS last_doubt_at,
  d.hold_reason, d.final_at
FROM outbox_delivery d JOIN outbox o ON o.id = d.message_id
WHERE d.doubts > 0;

-- Dead letters: what failed or expired, when and why.
CREATE VIEW outbox_dead AS
SELECT o.id, d.state, d.sender, o.subject, strftime('%Y-%m-%dT%H:%M:%fZ', o.created_at) AS created_at, d.final_at,
  d.failures, d.doubts, d.last_code AS code, d.last_status AS status,
  CASE d.state
    WHEN 'expired' THEN 'expired' || coalesce('; the last reply was: ' || d.last_reply, '')
    ELSE coalesce(d.last_reply, 'no reason was recorded')
  END AS reason,
  o.tag, o.dedup_key
FROM outbox_delivery d JOIN outbox o ON o.id = d.message_id
WHERE d.state = 'failed' OR d.state = 'expired';

-- What should be moving and is not.
CREATE VIEW outbox_stuck AS
SELECT o.id, d.state, d.sender, o.subject, coalesce(r.dead_at, r.lease_until, a.started_at) AS since,
  d.lease_owner AS runner_id,
  CASE
    WHEN r.id IS NULL THEN 'its runner is unknown'
    WHEN r.dead_at IS NOT NULL THEN 'its runner is dead'
    ELSE 'its runner''s lease is over'
  END AS reason
FROM outbox_delivery d
JOIN outbox o ON o.id = d.message_id
LEFT JOIN outbox_runner r ON r.id = d.lease_owner
LEFT JOIN outbox_attempt a ON a.message_id = d.message_id AND a.claim_no = d.claim_no
WHERE d.state = 'sending'
  AND (r.id IS NULL OR r.dead_at IS NOT NULL OR r.lease_until < strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
UNION ALL
SELECT s.id, s.state, s.sender, s.subject, s.due_at, NULL, 'due for more than 10 minutes, and no runner claims it'
FROM outbox_delivery d JOIN outbox_status s ON s.id = d.message_id
WHERE d.state = 'queued' AND d.due_at < strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-10 minutes') AND s.paused IS NULL;

-- One line a sender, registered or not: where its mail stands, and what holds it back.
CREATE VIEW outbox_sender_health AS
SELECT n.sender, p.account, coalesce(m.queued, 0) AS queued, coalesce(m.sending, 0) AS sending,
  coalesce(m.sent, 0) AS sent, coalesce(m.failed, 0) AS failed, coalesce(m.expired, 0) AS expired,
  coalesce(m.held, 0) AS held, coalesce(m.cancelled, 0) AS cancelled, coalesce(m.doubts, 0) AS doubts,
  m.oldest_due_at, p.paused, p.paused_until
FROM (SELECT address AS sender FROM outbox_sender UNION SELECT sender FROM outbox_delivery) n
LEFT JOIN outbox_sender e ON e.address = n.sender
LEFT JOIN outbox_sender w ON w.address = '*' || substr(n.sender, instr(n.sender, '@')) AND e.address IS NULL
LEFT JOIN outbox_pause p ON p.address = coalesce(e.address, w.address)
LEFT JOIN (
  SELECT sender,
    sum(CASE WHEN state = 'queued' THEN 1 ELSE 0 END) AS queued,
    sum(CASE WHEN state = 'sending' THEN 1 ELSE 0 END) AS sending,
    sum(CASE WHEN state = 'sent' THEN 1 ELSE 0 END) AS sent,
    sum(CASE WHEN state = 'failed' THEN 1 ELSE 0 END) AS failed,
    sum(CASE WHEN state = 'expired' THEN 1 ELSE 0 END) AS expired,
    sum(CASE WHEN state = 'held' THEN 1 ELSE 0 END) AS held,
    sum(CASE WHEN state = 'cancelled' THEN 1 ELSE 0 END) AS cancelled,
    sum(doubts) AS doubts,
    min(CASE WHEN state = 'queued' THEN due_at END) AS oldest_due_at
  FROM outbox_delivery GROUP BY sender
) m ON m.sender = n.sender;

-- What came to an end on each day (UTC), and the doubts that arose on it.
CREATE VIEW outbox_daily AS
SELECT day, sender, sum(sent) AS sent, sum(failed) AS failed, sum(expired) AS expired, sum(doubts) AS doubts
FROM (
  SELECT substr(final_at, 1, 10) AS day, sender,
    CASE WHEN state = 'sent' THEN 1 ELSE 0 END AS sent,
    CASE WHEN state = 'failed' THEN 1 ELSE 0 END AS failed,
    CASE WHEN state = 'expired' THEN 1 ELSE 0 END AS expired, 0 AS doubts
  FROM outbox_delivery WHERE state IN ('sent', 'failed', 'expired')
  UNION ALL
  SELECT substr(a.ended_at, 1, 10), d.sender, 0, 0, 0, 1
  FROM outbox_attempt a JOIN outbox_delivery d ON d.message_id = a.message_id WHERE a.outcome = 'doubt'
) AS ends
GROUP BY day, sender;
