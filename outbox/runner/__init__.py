"""The runner: a separate process that turns rows into mail.

service.py     puts the parts together, handles signals, drains
dispatch.py    which messages to claim next, fairly
delivery.py    one message from claim to settlement (the heart); journey.py, what it has come to so far
conversation.py   the part of it that the relay takes part in; brakes.py, the refusals met in a row
clerk.py       the only thread that writes; request.py, what it is asked; budget.py, how much mail is in memory
registrar.py   what is known of accounts and senders, and their opened secrets
quota.py       limits: what may go now, what waits until when, which connections are ours (places.py)
feedback.py    what the application hears of: events, webhook.py, notices.py, overdue.py
upkeep.py      leases, reclaim, expiry
schedule.py    APScheduler: when, never what
rescue.py      results that could not be written before the end
supervise.py   several processes
"""
