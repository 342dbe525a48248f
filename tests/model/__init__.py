"""The protocol (claim, mark, dot, settle, reclaim) as a state space, explored to its end with the production SQL.

    python -m tests.model            # explores, and prints the figures

Two runners and two messages, one of them with `on_doubt = hold`. Every step of a runner that touches the database is a
verb of the real store on a real SQLite database; between any two steps a runner may be killed, be taken for
dead while it only sleeps, or have its COMMIT unacknowledged. The relay may accept, refuse or fall silent, having
accepted or not. After every step the promises are checked (`promises.py`).

The space is walked depth first: a step is made within a SAVEPOINT and undone afterwards, so that no state is built
twice. It is finite because messages are claimed, runners born and declared dead only so often (`Bounds`).

    protocol.py   what a runner remembers, and what can happen next
    promises.py   what must hold after every step
    reading.py    what the database says
    explorer.py   the walk
    variants.py   the same protocol with one precaution left out: each must be found to break a promise, or the model
                  proves nothing
"""
