"""Windows has neither kill -9 nor SIGSTOP nor fork: there, nothing of this can be tried."""

import sys

collect_ignore_glob = ["test_*"] if sys.platform == "win32" else []
