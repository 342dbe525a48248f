-- Outbox 0005 for SQLite: what is paused says so while it is probed, and what was tried is deferred.

DROP VIEW outbox_pause;

-- What holds a registered sender's mail back, by itself or by its account: the reason and until when (NULL: until
-- somebody resumes it). When a runner's pause is over, and one message at a time is tried until one shows that the fault
-- is gone, the reason begins with 'probing: ' and paused_until is past. Both are NULL where nothing is in the way.
CREATE VIEW outbox_pause AS
SELECT s.address, s.account,
  CASE
    WHEN s.pause_reason IS NOT NULL AND (s.paused_until IS NULL OR s.paused_until > clock.now) THEN s.pause_reason
    WHEN c.pause_reason IS NOT NULL AND (c.paused_until IS NULL OR c.paused_until > clock.now) THEN c.pause_reason
    WHEN c.breaker_until > clock.now THEN coalesce(c.breaker_reason, 'the breaker of its relay is open')
    WHEN substr(s.pause_reason, 1, 10) <> 'operator: ' THEN 'probing: ' || s.pause_reason
    WHEN substr(c.pause_reason, 1, 10) <> 'operator: ' THEN 'probing: ' || c.pause_reason
    WHEN c.breaker_until IS NOT NULL AND c.breaker_failures >= 5
      THEN 'probing: ' || coalesce(c.breaker_reason, 'the breaker of its relay was open')
  END AS paused,
  CASE
    WHEN s.pause_reason IS NOT NULL AND (s.paused_until IS NULL OR s.paused_until > clock.now) THEN s.paused_until
    WHEN c.pause_reason IS NOT NULL AND (c.paused_until IS NULL OR c.paused_until > clock.now) THEN c.paused_until
    WHEN c.breaker_until > clock.now THEN c.breaker_until
    WHEN substr(s.pause_reason, 1, 10) <> 'operator: ' THEN s.paused_until
    WHEN substr(c.pause_reason, 1, 10) <> 'operator: ' THEN c.paused_until
    WHEN c.breaker_failures >= 5 THEN c.breaker_until
  END AS paused_until
FROM outbox_sender s
JOIN outbox_account c ON c.name = s.account
CROSS JOIN (SELECT strftime('%Y-%m-%dT%H:%M:%fZ', 'now') AS now) clock;

-- As in 0003; but what was tried, and met a fault of its relay, account or sender, is deferred and not scheduled.
DROP VIEW outbox_status;

CREATE VIEW outbox_status AS
SELECT o.id,
  CASE
    WHEN d.state <> 'queued' OR d.due_at <= strftime('%Y-%m-%dT%H:%M:%fZ', 'now') THEN d.state
    WHEN d.failures = 0 AND d.doubts = 0 AND d.first_attempt_at IS NULL AND d.last_reply IS NULL
      THEN 'scheduled'
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
