"""A transactional mail outbox."""
