"""`bin/check --torture`: the promise under kill, freeze and restart, and the figures of it.

    __main__.py  the command, and its topics
    cruelty.py   what a topic is given and says
    zygote.py    forks runners in milliseconds, so that thousands of them can be killed; lives.py asks it to
    watched.py   a runner whose seams are watched, and that kills or stops itself at a named point
    points.py    the points of the crash matrix, and the stories in which they are reached
    matrix.py    every point × {kill -9, SIGSTOP past the lease} × {retry, hold} × {SQLite, PostgreSQL}
    soak.py      everything at once, at random, and then the reconciliation; writer.py, an application in it
    recovery.py  how soon after a death, and how soon after a SIGTERM
    shim.py      the system as a test wants it (shim.c, preloaded): clocks that jump, disks that fail, what was synced
    storage.py   a SQLite file that is locked, full, broken, replaced; commits.py, PostgreSQL's lost acknowledgements
    power.py     the power is cut, and what was acknowledged is there
    spoiler.py   somebody commits between any two statements of a program
    clocks.py    the wall clock jumps
    hostile.py   rows that should not be (hostilities.py); deadly.py, a message that kills
    corpora.py   mail as others have collected it

Nothing here reaches into production code but from outside: `watched.py` wraps what one part calls of another.
"""
