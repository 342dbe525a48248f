"""The one thread of a runner that reads and writes the database, and what it is asked.

clerk.py       the thread; request.py, what it is asked; gather.py, what shares a COMMIT
patience.py    how it meets a fault of the database that passes
others.py      what others do with SQLite's file: looks.py, have they committed; courtesy.py, the lock is left to them
contents.py    what claimed messages say; at_hand.py, what was read along with the claim; budget.py, how much of it is
               in memory; memory.py, what it leaves there
"""
