"""The command line: one module per group of verbs, each with an `app`; `main` says which verb is where.

    main.py      the program: its verbs, global options, how errors end
    commands.py  verbs are imported and built when they are typed
    session.py   what commands share: configuration, database, vault, who is acting
    output.py    how things are printed
    origin.py    which database is meant, and where that was read
    usage.py     help texts, and complaints about the command line
    key.py account.py sender.py init.py config.py schema.py …    the verbs

`outbox --help` is fast because it imports none of the verbs. They are fast because they import nothing heavy (peewee,
pydantic, cryptography, apscheduler, rich) before they run: commands import inside their functions.

Exit codes: 0 done · 1 refused (also by who was asked), or a check failed · 2 usage · 3 configuration · 4 database or
schema · 5 key · 6 nothing matched (only where asked for) · 7 the relay refused a test · 130 interrupted.
"""
