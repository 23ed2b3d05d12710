"""Writes a result to a file: whole or not at all, and never over a file of another kind."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from lipservice.exceptions import ConfigurationError


def write_result(
    name: str, text: str, *, is_ours: Callable[[str], bool], what: str, force: bool
) -> None:
    """
    Replace the file *name* by *text* in one step.

    Args:
        name: the file.
        text: its new content.
        is_ours: whether a file's content is of the kind that may be replaced.
        what: that kind, for the message.
        force: replace a file of any kind.

    Raises:
        ConfigurationError: the file is of another kind, or cannot be written.
    """
    path = Path(os.path.realpath(name))
    check_replaceable(name, is_ours=is_ours, what=what, force=force)
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            temporary = Path(file.name)
            file.write(text)
        temporary.chmod(_mode_of(path))
        temporary.replace(path)
        temporary = None
    except OSError as error:
        raise ConfigurationError(f"cannot write {name}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()


def check_replaceable(name: str, *, is_ours: Callable[[str], bool], what: str, force: bool) -> None:
    """
    Make sure that the file *name* may be written; done early, before a long run.

    Raises:
        ConfigurationError: it is of another kind and *force* is not set, or its folder is absent.
    """
    path = Path(os.path.realpath(name))
    if path.is_dir():
        raise ConfigurationError(f"cannot write {name}: it is a directory")
    if not path.parent.is_dir():
        raise ConfigurationError(f"cannot write {name}: there is no directory {path.parent}")
    if force or not path.exists():
        return
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        content = "\0"
    if content and not is_ours(content):
        raise ConfigurationError(f"{name} exists and is not {what}; --force replaces it")


def _mode_of(path: Path) -> int:
    """The mode of the file that is replaced, or that of a new one."""
    try:
        return path.stat().st_mode & 0o777
    except OSError:
        mask = os.umask(0)
        os.umask(mask)
        return 0o666 & ~mask
