"""``outbox demo``: the whole program at work on one screen, for somebody who has never seen it.

    script.py    the five orders, and what has to come of them
    shop.py      an application: orders and their mail, in the same transactions
    relay.py     an SMTP server on loopback, whose answers are scripted: the world outside
    theatre.py   a temporary database, the relay, and the real `outbox run` in a process of its own
    outcome.py   what happened, as SQL and the relay tell it, against what should have

`outbox.cli.demo` prints it. Nothing else in the program uses this.
"""
