"""Putting files where they belong. Nothing that is there is ever overwritten, whoever has put it there meanwhile.

On one volume that is a rename, which happens or does not. To another volume a file goes in three steps, of which each
can be the last before a crash, and none leaves two files or half of one:

    .work/7f3a….1__order.eml ──copy──► sentmail/.7f3a….part       the copy is complete before the file is removed,
    .work/7f3a….1__order.eml ──remove                             and made again if it is not removed;
    sentmail/.7f3a….part     ──rename─► sentmail/…-order.eml.sent without the file, the copy is it
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO

_RENAME_NOREPLACE = 1
_AT_FDCWD = -100

_NOT_HERE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)
"""How a system or a file system says that it cannot rename without replacing."""


def place(source: Path, folder: Path, names: Iterable[str], *, token: str) -> Path:
    """Move `source` into `folder`, under the first of `names` that is free, and return its new path. It is there as a
    whole or not at all, on another volume too, where `token` is what a copy is called that is not complete yet: no
    other file has the same. What a crash has interrupted is gone on with. Raises OSError.
    """
    copy = _copy_of(token, folder)
    if not _is_there(copy) or _is_there(source):
        try:
            return _renamed(source, folder, names)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
        _copy_over(source, copy)
        sync_directory(folder)
        source.unlink()
    return _renamed(copy, folder, names)


def is_under_way(folder: Path, token: str) -> bool:
    """Whether a crash has left a copy there that only wants its name."""
    return _is_there(_copy_of(token, folder))


def write_new(folder: Path, names: Iterable[str], content: bytes, *, token: str, mode: int | None = None) -> Path:
    """A new file in `folder`, under the first of `names` that is free; there as a whole or not at all. `token`: what
    it is called until it is written, by this writer alone. `mode`: exactly that (POSIX); None: as the umask has it.
    Raises OSError.
    """
    new = _copy_of(token, folder)
    try:
        with _created(new, 0o666 if mode is None else 0o600) as written:
            written.write(content)
            written.flush()
            if mode is not None and os.name == "posix":
                os.fchmod(written.fileno(), mode)
            os.fsync(written.fileno())
        return _renamed(new, folder, names)
    except BaseException:
        with suppress(OSError):  # it has its name already, or was never there
            new.unlink()
        raise


def sync_directory(folder: Path) -> None:
    """So that a name survives a loss of power. Who may not read the folder, as in a drop box, has all disks written.
    Windows does not offer it.
    """
    if os.name != "posix":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:
        os.sync()
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _created(path: Path, mode: int) -> IO[bytes]:
    """A new file, in the place of what a crash has left of it."""
    if _is_there(path):
        path.unlink()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags, mode), "wb")


def _copy_of(token: str, folder: Path) -> Path:
    return folder / f".{token}.part"


def _is_there(path: Path) -> bool:
    return os.path.lexists(path)


def _renamed(source: Path, folder: Path, names: Iterable[str]) -> Path:
    """Rename to the first of `names` that is free. Raises OSError, EXDEV where it is on another volume."""
    for name in names:
        target = folder / name
        try:
            _rename_new(source, target)
        except FileExistsError:
            continue
        sync_directory(folder)
        return target
    raise FileExistsError(errno.EEXIST, "every name is taken", str(folder))


def _rename_new(source: Path, target: Path) -> None:
    """Rename, if nothing is there. Raises FileExistsError, OSError."""
    if sys.platform == "win32":
        source.rename(target)  # it does not replace
        return
    fault = _renameat2(source, target)
    if fault == 0:
        return
    if fault not in _NOT_HERE:
        raise OSError(fault, os.strerror(fault), str(source), None, str(target))
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))  # so nobody else can have the name
    try:
        source.replace(target)
    except OSError:
        target.unlink()
        raise


def _renameat2(source: Path, target: Path) -> int:
    """Linux's rename that replaces nothing: 0, or the error. ENOSYS where there is none."""
    if sys.platform != "linux":
        return errno.ENOSYS
    import ctypes  # for whoever moves files

    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return errno.ENOSYS
    ended = call(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), ctypes.c_uint(_RENAME_NOREPLACE))
    return ctypes.get_errno() if ended else 0


def _copy_over(source: Path, new: Path) -> None:
    """Whole, and on the disk. What is no plain file is not opened: a link is made anew, a pipe is an empty file."""
    if source.is_symlink():
        if _is_there(new):
            new.unlink()
        new.symlink_to(source.readlink())
        return
    with _created(new, 0o600) as written:
        if stat.S_ISREG(source.lstat().st_mode):
            with source.open("rb") as read:
                shutil.copyfileobj(read, written, 1024 * 1024)
            written.flush()
            shutil.copystat(source, new)
        os.fsync(written.fileno())
