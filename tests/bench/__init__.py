"""`bin/bench`: what Outbox costs, measured as a user sees it. Ratios come first: absolute figures differ by machine.

    figures.py     what a measurement says, and how it is printed and kept as JSON
    process.py     a program in a process of its own, and what it used
    ground.py      a fresh database of either kind, a relay that takes everything, a runner that drains it
    relay.py       that relay in Python: with a delay, or where there is no smtp-sink
    plot.py        docs/performance.svg, out of the figures that were kept
    <topic>.py     a measurement each: `measure(bench)` yields figures
    peers/         what else people use, each in a virtual environment of its own

A measurement times the program itself, as a process, wherever that is what a user waits for.
"""
