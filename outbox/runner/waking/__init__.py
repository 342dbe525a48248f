"""What wakes a runner on SQLite when somebody commits. (On PostgreSQL it is `store.listener`.)

sources.py     all of it
doorbell.py    `enqueue()` says that a commit is coming; logwatch.py, Linux tells of a write to the database's log
hearing.py     how either is heard
"""
