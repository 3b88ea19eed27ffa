"""Writing without half-written files: a temporary name in the same folder, renamed when all went well."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inverse.errors import InputError


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary path beside `path`; it becomes `path` on success and is deleted on failure.

    The temporary name keeps all suffixes (.nii.gz), because writers choose their format by them. A file that is
    already at `path` is replaced in one step, and stays as it is when writing fails.

    Args:
        path: the file to write.

    Yields:
        The path to write to.

    Raises:
        InputError: the folder is missing or not writable, `path` is a folder, or the disk is full.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: expected a file name, got a folder; add a file name.")
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist; create it first.")
    temporary = path.with_name(f".{secrets.token_hex(4)}.{path.name}")
    try:
        temporary.open("xb").close()
    except OSError as error:
        raise InputError(f"{path}: cannot write to {path.parent} ({error.strerror}); choose another folder.") from error
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise InputError(f"{path}: the disk is full; free space or choose another folder.") from error
        raise
    finally:
        temporary.unlink(missing_ok=True)
