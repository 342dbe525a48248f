"""`bin/bench`: what Outbox costs, measured as a user would see it; ratios first, for absolute figures differ by machine.

    figures.py     what a measurement says, and how it is printed and kept as JSON
    ground.py      a fresh database of either kind, a relay that takes everything, a runner that drains it
    <topic>.py     a measurement each: `measure(bench)` yields figures
    peers/         what else people use, each in a virtual environment of its own

A measurement times the program itself, as a process, wherever that is what a user waits for.
"""
