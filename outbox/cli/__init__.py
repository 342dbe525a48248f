"""The command line: one module per group of verbs, each with an `app` that `main` mounts.

    main.py      the program: global options, how errors end
    session.py   what commands share: configuration, database, vault, who is acting
    output.py    how things are printed
    origin.py    which database is meant, and where that was read
    usage.py     help texts, and complaints about the command line
    key.py account.py sender.py init.py config.py schema.py …    the verbs

`outbox --help` is fast because these modules import nothing heavy (peewee, pydantic, cryptography, apscheduler, rich)
before a command runs: commands import inside their functions.

Exit codes: 0 done · 1 refused (also by who was asked), or a check failed · 2 usage · 3 configuration · 4 database or
schema · 5 key · 6 nothing matched (only where asked for) · 7 the relay refused a test · 130 interrupted.
"""
