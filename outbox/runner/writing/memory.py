"""Memory that large mail has used goes back to the system."""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache

BLOCK = 1024 * 1024
"""Octets."""

_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of glibc, mallopt(3)


@lru_cache(maxsize=1)
def return_large_blocks() -> None:
    """From now on, a block of a megabyte or more is given back to the system when it is freed.

    glibc does so from 128 KiB on, but learns from each that is freed, up to 32 MiB, to keep the next one: some mails of
    24 MB then leave holes of 60 MB. What is not glibc is left as it is.
    """
    import ctypes  # needed where there is large mail

    with suppress(OSError, AttributeError, TypeError):  # TypeError: Windows has no library without a name
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, BLOCK)
