"""The runner: a separate process that turns rows into mail.

service.py     one runner's life: starts, handles signals, drains; assembly.py, how its parts fit together
dispatch.py    which messages to claim next, fairly
delivery.py    one message from claim to settlement (the heart); journey.py, what it has come to so far
carriers.py    a task for each place of an account, that takes one message after the other
conversation.py   the part of it that the relay takes part in; brakes.py, the refusals met in a row
login.py       connections and tokens.py for them; signing.py, DKIM; screen.py, who is suppressed
clerk.py       the only thread that writes; request.py, what it is asked; gather.py, what shares a COMMIT
patience.py    how it meets a fault of the database that passes
others.py      what others do with SQLite's file: looks.py, have they committed; courtesy.py, the lock is left to them
contents.py    what claimed messages say; at_hand.py, what was read along with the claim; budget.py, how much of it is
               in memory; memory.py, what it leaves there
waking.py      what wakes a runner on SQLite: doorbell.py and logwatch.py, with hearing.py
registrar.py   what is known of accounts and senders, and their opened secrets; snapshot.py, read at once
gate.py        what may be claimed; quota.py, the limits: what may go now, what waits until when
pickups.py     the pickup folders, scanned in their rhythm
feedback.py    what the application hears of: events, webhook.py, notices.py, overdue.py
duties.py      what is done again and again, and how often; schedule.py, APScheduler: when, never what
upkeep.py      leases, reclaim, expiry
steady.py      whether the wall clock can be believed
aside.py       threads that nobody waits for
rescue.py      results that could not be written before the end
supervise.py   several processes
"""
