"""Putting files where they belong. Nothing that is there is ever overwritten, whoever has put it there meanwhile."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def place(source: Path, folder: Path, names: Iterable[str]) -> Path:
    """Move `source` into `folder`, under the first of `names` that is free, and return its new path. It is there as a
    whole or not at all, on another volume too. Raises OSError.
    """
    target = _reserve(folder, names)
    try:
        try:
            source.replace(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _copy_over(source, target)
            source.unlink()
    except BaseException:
        with suppress(OSError):  # what we reserved, if it is still empty
            if target.stat().st_size == 0:
                target.unlink()
        raise
    sync_directory(folder)
    return target


def write_new(folder: Path, names: Iterable[str], content: bytes) -> Path:
    """A new file in `folder`, under the first of `names` that is free. Raises OSError."""
    target = _reserve(folder, names)
    _write_over(target, content)
    sync_directory(folder)
    return target


def sync_directory(folder: Path) -> None:
    """So that a name survives a loss of power. Windows does not offer it."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _reserve(folder: Path, names: Iterable[str]) -> Path:
    """An empty file of ours, under a name that nobody had."""
    for name in names:
        path = folder / name
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            continue
        return path
    raise FileExistsError(errno.EEXIST, "every name is taken", str(folder))


def _copy_over(source: Path, target: Path) -> None:
    new = target.with_name(f".{target.name[-200:]}.part")
    with source.open("rb") as read, new.open("wb") as written:
        shutil.copyfileobj(read, written, 1024 * 1024)
        written.flush()
        os.fsync(written.fileno())
    shutil.copystat(source, new)
    new.replace(target)


def _write_over(target: Path, content: bytes) -> None:
    new = target.with_name(f".{target.name[-200:]}.part")
    with new.open("wb") as written:
        written.write(content)
        written.flush()
        os.fsync(written.fileno())
    new.replace(target)
