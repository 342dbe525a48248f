-- Outbox 0005 for SQLite: what is paused says so while it is probed.

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
