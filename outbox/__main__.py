"""``python -m outbox`` is ``outbox``."""

from outbox.cli.main import main

if __name__ == "__main__":
    main()
