"""The runner: a separate process that turns rows into mail.

    claiming/ ──► sending/ ──► writing/        which messages next; one message; all that is written
    waking/  telling/                          what wakes a runner; what applications hear of their mail

service.py     one runner's life: starts, handles signals, drains; assembly.py, how its parts fit together
registrar.py   what is known of accounts and senders, and their opened secrets; snapshot.py, read at once
duties.py      what is done again and again, and how often; schedule.py, APScheduler: when, never what
upkeep.py      leases, reclaim, expiry
steady.py      whether the wall clock can be believed
pickups.py     the pickup folders, scanned in their rhythm
aside.py       threads that nobody waits for
rescue.py      results that could not be written before the end
supervise.py   several processes
"""
