"""
What could not be sent, on disk until it can be.

    spool_dir/<where it goes to>/<process>/<time>-<number>-<records>.batch

Rules. Each process writes in a folder of its own and holds its lock file; a folder whose lock is
free belonged to a process that is gone, and is taken over. What goes to another address, key or
team lies elsewhere and is never mixed in. A file is written whole (temporary name, then rename),
carries a checksum and a version, and is deleted once the receiver has it. A file that cannot be
read is deleted and counted: it never stops anything. Nothing is raised but OSError.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lipservice.export.config import PostHogConfig
from lipservice.export.losses import Loss, of_items, unknown
from lipservice.export.otlp import Item

try:
    import fcntl as _fcntl
except ImportError:  # Windows: an open lock file keeps its folder from being renamed
    _fcntl = None  # type: ignore[assignment]

_MAGIC: Final = b"LIPSPOOL\x01"
_HEAD: Final = struct.Struct("<II")
_SUFFIX: Final = ".batch"
_FILE_LIMIT: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Spooled:
    """One file's content."""

    path: Path
    resource: bytes
    items: list[Item]


class Spool:
    """
    The files of one process for one destination. Not thread-safe: the worker's own.

    Args:
        root: The user's folder.
        destination: Name of the folder for this address, key and team; see `destination`.
        max_bytes: Bound on all files for the destination, of all processes.
        max_age: Seconds after which a file is given up.
        now: Seconds since the epoch.
    """

    def __init__(
        self,
        root: Path,
        destination: str,
        *,
        max_bytes: int,
        max_age: float,
        now: Callable[[], float],
    ) -> None:
        self._home = root / destination
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._now = now
        self._number = 0
        self._folder: Path | None = None
        self._lock: int | None = None
        #: Records given up; the exporter takes and clears them.
        self.losses: Counter[Loss] = Counter()
        #: Records found of processes that are gone, since the exporter looked.
        self.recovered = 0
        # Records in folders that were let go, by the folders' names: ours until someone takes them.
        self._left: dict[str, int] = {}

    def write(self, resource: bytes, items: list[Item], at: float | None = None) -> bool:
        """Keep *items*; False if the disk does not take them. *at*: since when they wait."""
        content = _pack(resource, items)
        try:
            folder = self._own_folder()
            self._make_room(len(content))
            self._number += 1
            stamp = int((self._now() if at is None else at) * 1000)
            path = folder / f"{stamp:015d}-{self._number:06d}-{len(items)}{_SUFFIX}"
            _write_whole(path, content)
        except OSError:
            return False
        return True

    def oldest(self) -> Spooled | None:
        """The oldest file that can be read; those that cannot or are too old are deleted."""
        for path in self._files():
            if self._now() - _time_of(path) > self._max_age:
                self._give_up(path, "spool_expired")
                continue
            try:
                resource, items = _unpack(_read(path))
            except (OSError, ValueError):
                self._give_up(path, "spool_corrupt")
                continue
            return Spooled(path, resource, items)
        return None

    def done(self, path: Path) -> None:
        """Delete a file: its records are delivered, or counted as lost."""
        with contextlib.suppress(OSError):
            path.unlink()

    def records(self) -> int:
        """Records in this process's files, those that it let go among them."""
        return sum(map(_records_of, self._files())) + sum(self._left.values())

    def adopt(self) -> None:
        """Take over the files of processes that are gone."""
        with contextlib.suppress(OSError):
            folder = self._own_folder()
            for other in sorted(self._home.iterdir()):
                if other != folder and other.is_dir():
                    self._take_over(other, folder)

    def close(self) -> None:
        """Let the folder go, for the next process to take over; delete it if it is empty."""
        folder, lock = self._folder, self._lock
        if folder is None or lock is None:
            return
        left = sum(map(_records_of, self._files()))
        if left:
            self._left[folder.name] = left
        self._folder = self._lock = None
        with contextlib.suppress(OSError):
            if not any(path.suffix == _SUFFIX for path in folder.iterdir()):
                (folder / "lock").unlink()
                folder.rmdir()
        os.close(lock)

    def forget(self) -> None:
        """In a forked child: the folder and its files are the parent's."""
        lock, self._folder, self._lock = self._lock, None, None
        self.losses = Counter()
        self.recovered = 0
        self._left = {}
        if lock is not None:
            with contextlib.suppress(OSError):
                os.close(lock)  # or the parent's lock would outlive the parent

    def _own_folder(self) -> Path:
        if self._folder is None:
            folder = self._home / f"{os.getpid()}-{secrets.token_hex(4)}"
            folder.mkdir(mode=0o700, parents=True)
            self._lock = _open_lock(folder)
            _try_lock(self._lock)
            self._folder = folder
        return self._folder

    def _files(self) -> list[Path]:
        if self._folder is None:
            return []
        try:
            return sorted(path for path in self._folder.iterdir() if path.suffix == _SUFFIX)
        except OSError:
            return []

    def _take_over(self, other: Path, folder: Path) -> None:
        lock = _open_lock(other)
        try:
            if _try_lock(lock):
                self._move_files(other, folder)
        finally:
            os.close(lock)

    def _move_files(self, other: Path, folder: Path) -> None:
        found = -self._left.pop(other.name, 0)  # what is our own is not found
        for path in sorted(other.iterdir()):
            with contextlib.suppress(OSError):
                if path.suffix == _SUFFIX and path.is_file():
                    path.rename(folder / self._adopted_name(path))
                    found += _records_of(path)
                elif path.is_file():
                    path.unlink()  # the lock, or a file half written
        self.recovered += max(0, found)
        with contextlib.suppress(OSError):
            other.rmdir()

    def _adopted_name(self, path: Path) -> str:
        self._number += 1
        since = path.name.partition("-")[0]
        return f"{since}-{self._number:06d}a-{_records_of(path)}{_SUFFIX}"

    def _make_room(self, size: int) -> None:
        used = sum(path.stat().st_size for path in self._all_files())
        for path in self._files():
            if used + size <= self._max_bytes:
                return
            used -= path.stat().st_size
            self._give_up(path, "spool_full")
        if used + size > self._max_bytes:
            raise OSError("other processes fill the spool")

    def _all_files(self) -> Iterator[Path]:
        for folder in self._home.iterdir():
            if folder.is_dir():
                with contextlib.suppress(OSError):
                    yield from (path for path in folder.iterdir() if path.suffix == _SUFFIX)

    def _give_up(self, path: Path, reason: str) -> None:
        self.losses.update(_lost_with(path, reason))
        try:
            path.unlink()
        except OSError:  # a folder of that name, or no permission: out of the way at least
            with contextlib.suppress(OSError):
                path.rename(path.with_suffix(".unreadable"))


def spool_of(config: PostHogConfig, now: Callable[[], float]) -> Spool | None:
    """The spool that *config* asks for."""
    if config.spool_dir is None:
        return None
    return Spool(
        Path(config.spool_dir),
        destination(config),
        max_bytes=config.spool_max_bytes,
        max_age=config.spool_max_age,
        now=now,
    )


def destination(config: PostHogConfig) -> str:
    """A name for address, key and team that gives none of them away."""
    parts = "\0".join((config.url, config.api_key, str(config.team_id)))
    return hashlib.sha256(parts.encode()).hexdigest()[:24]


def _pack(resource: bytes, items: list[Item]) -> bytes:
    parts = [struct.pack("<II", len(items), len(resource)), resource]
    for scope, item in items:
        name = scope.encode("utf-8", "replace")[:1024]
        parts += (struct.pack("<HI", len(name), len(item)), name, item)
    body = b"".join(parts)
    return b"".join((_MAGIC, _HEAD.pack(len(body), zlib.crc32(body)), body))


def _unpack(content: bytes) -> tuple[bytes, list[Item]]:
    start = len(_MAGIC) + _HEAD.size
    if not content.startswith(_MAGIC) or len(content) < start:
        raise ValueError("not a spool file of this version")
    size, checksum = _HEAD.unpack_from(content, len(_MAGIC))
    body = memoryview(content)[start:]
    if len(body) != size or zlib.crc32(body) != checksum:
        raise ValueError("damaged")
    count, length = struct.unpack_from("<II", body)
    position = 8 + length
    resource, items = bytes(body[8:position]), []
    for _ in range(count):
        name, item = struct.unpack_from("<HI", body, position)
        position += 6
        scope = bytes(body[position : position + name]).decode("utf-8", "replace")
        items.append((scope, bytes(body[position + name : position + name + item])))
        position += name + item
    return resource, items


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_FILE_LIMIT)


def _write_whole(path: Path, content: bytes) -> None:
    temporary = path.with_suffix(".tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _lost_with(path: Path, reason: str) -> Counter[Loss]:
    """Whose records a file holds; its name says how many they are."""
    records = _records_of(path)
    try:
        _, items = _unpack(_read(path))
    except (OSError, ValueError, struct.error):
        return unknown(reason, records)
    return of_items(reason, items) if len(items) == records else unknown(reason, records)


def _time_of(path: Path) -> float:
    stamp = path.name.partition("-")[0]
    return int(stamp) / 1000 if stamp.isdigit() and len(stamp) < 20 else 0.0


def _records_of(path: Path) -> int:
    count = path.stem.rpartition("-")[2]
    return min(int(count), 1_000_000) if count.isdigit() and len(count) < 10 else 0


def _open_lock(folder: Path) -> int:
    return os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)


def _try_lock(lock: int) -> bool:
    """Lock an open file until it is closed; False if another process has."""
    if _fcntl is None:
        return True
    try:
        _fcntl.flock(lock, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
    except OSError:
        return False
    return True
