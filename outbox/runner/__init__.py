"""The runner: a separate process that turns rows into mail.

service.py    puts the parts together, handles signals, drains        schedule.py   APScheduler: when, never what
dispatch.py   which messages to claim next, fairly                    upkeep.py     leases, reclaim, expiry
delivery.py   one message from claim to settlement (the heart)        clerk.py      the only thread that writes
rescue.py     results that could not be written before the end        supervise.py  several processes
"""
