"""SMTP in: for software that speaks nothing else. `250` is said when the row is committed, and not before.

It is not transactional with anybody's data: the client's transaction and ours are two.
"""
