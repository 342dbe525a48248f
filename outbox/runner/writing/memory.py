"""Memory that large mail has used goes back to the system."""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache

BLOCK = 1024 * 1024
"""Octets."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc, mallopt(3)


@lru_cache(maxsize=1)
def return_large_blocks() -> None:
    """From now on, a block of a megabyte or more is given back to the system when it is freed.

    glibc does so from 128 KiB on, but learns from each that is freed, up to 32 MiB, to keep the next one: some mails of
    24 MB then leave holes of 60 MB. From the first that it sees it also learns to keep twice as much at the top of the
    heap, and does not unlearn that by itself. What is not glibc is left as it is.
    """
    import ctypes  # needed where there is large mail

    with suppress(OSError, AttributeError, TypeError):  # TypeError: Windows has no library without a name
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, BLOCK)
        mallopt(_TRIM_THRESHOLD, BLOCK)
