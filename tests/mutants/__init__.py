"""Mutation testing: does anybody notice when the program is wrong?

    bin/check --coverage                        branch coverage of core, store and smtp, and what nothing runs
    bin/check --mutate [--sample N] [--seed S]  small mistakes in them, and which of them no test notices

    recording.py  a plugin of pytest: which test runs which line, and how long each takes
    covered.py    records that once, and keeps it as long as the three packages stay as they are
    mutations.py  every small mistake that can be made in a module; sql.py, in a statement
    workshop.py   a copy of the tree to make a mistake in, and processes that test it
    critical.py   the mistakes that would break the promise, by name: test_critical.py asks on every run of the tests

There are libraries for this. mutmut 3 wraps functions, so it mutates nothing that is executed while a module is
imported: no statement of the store, no table of replies. cosmic-ray starts pytest with the same tests for every mutant
(here: six minutes each), and mutates no text. Half of this program's mistakes would be made in SQL.
"""
