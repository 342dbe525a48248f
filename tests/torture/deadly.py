"""`outbox ARGUMENT…` on a message that kills whoever composes it: an entry point for `hostile.py`.

A mail whose subject is "deadly" ends the process with SIGKILL, as a fault in a C library would, or the system for want
of memory.
"""

from __future__ import annotations

import os
import signal
from typing import Any


def main() -> None:
    from outbox.cli.main import app
    from outbox.core.render import render as compose
    from outbox.runner.sending import delivery

    def render(message: Any) -> Any:
        if message.subject == "deadly":
            os.kill(os.getpid(), signal.SIGKILL)
        return compose(message)

    vars(delivery)["render"] = render
    app()


if __name__ == "__main__":
    main()
