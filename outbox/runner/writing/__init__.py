"""All that a runner reads from its database and writes to it, over one connection.

clerk.py       who is asked, and who serves it when: the event loop, or a thread; request.py, what is asked; gather.py,
               what shares a COMMIT
desk.py        how it is served: a transaction, then the reads
patience.py    how the thread meets a fault of the database that passes
others.py      what others do with SQLite's file: have they committed (looks.py, by the thread; glances.py, by the event
               loop); the lock is left to them (courtesy.py)
contents.py    what claimed messages say; at_hand.py, what was read along with the claim; budget.py, how much of it is
               in memory; memory.py, what it leaves there
"""
