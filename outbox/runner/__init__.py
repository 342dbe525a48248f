"""The runner: a separate process that turns rows into mail.

service.py     puts the parts together, handles signals, drains
dispatch.py    which messages to claim next, fairly
delivery.py    one message from claim to settlement (the heart); journey.py, what it has come to so far
carriers.py    a task for each place of an account, that takes one message after the other
conversation.py   the part of it that the relay takes part in; brakes.py, the refusals met in a row
clerk.py       the only thread that writes; request.py, what it is asked; gather.py, what shares a COMMIT
contents.py    what claimed messages say; budget.py, how much of it is in memory; memory.py, what it leaves there
waking.py      what wakes a runner on SQLite: looks.py, doorbell.py, logwatch.py
registrar.py   what is known of accounts and senders, and their opened secrets
quota.py       limits: what may go now, what waits until when, which connections are ours
feedback.py    what the application hears of: events, webhook.py, notices.py, overdue.py
upkeep.py      leases, reclaim, expiry
schedule.py    APScheduler: when, never what
steady.py      whether the wall clock can be believed
patience.py    how the clerk meets a fault of the database that passes
aside.py       threads that nobody waits for
rescue.py      results that could not be written before the end
supervise.py   several processes
"""
