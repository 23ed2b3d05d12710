"""
Policies on disk: the cache of the last good one, and the file that a user writes.

Rules. Reading trusts nothing: size, type of file, checksum and document are checked, and whatever
is wrong is a reason in words, never an exception. Writing replaces the file as a whole (new file,
fsync, rename), readable by its owner only. JSON, never pickle.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lipservice.exceptions import ConfigurationError, PolicyError
from lipservice.policy import SamplingPolicy

#: Most bytes of a policy on disk.
MAX_FILE_BYTES: Final = 64 * 1024 * 1024

_FORMAT: Final = "lipservice-policy-cache"
_VERSION: Final = 1
_MAX_HEADER: Final = 300
_STALE_AFTER: Final = 600.0  # seconds after which another writer's temporary file was left behind
_SETTLED_AFTER: Final = 2.0  # seconds after which a file's time stamp tells two edits apart


@dataclass(frozen=True, slots=True)
class CachedPolicy:
    """A policy that was good when it was stored."""

    policy: SamplingPolicy
    #: The server's ETag of it.
    etag: str | None


class PolicyCache:
    """
    The last good policy of one server, service and key, kept in a folder.

    The file's checksum is keyed with the three, so a file of another service, or one that somebody
    without the key put there, is not taken for ours. Several processes may share the folder: the
    last writer wins, a reader sees one whole policy or the other.

    Args:
        folder: Where to keep it; made (0700) when the first policy is stored.
        identity: Server, service and key; never written down.
        now: Wall clock in seconds, to tell left-over temporary files.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        identity: tuple[str, str, str],
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._folder = Path(folder)
        self._secret = hashlib.sha256(json.dumps(identity).encode()).digest()
        self._now = now
        self._path = self._folder / f"policy-{_mac(self._secret, b'name')[:16]}.json"

    @property
    def path(self) -> Path:
        """The file, whether it is there or not."""
        return self._path

    def load(self) -> tuple[CachedPolicy | None, str | None]:
        """
        Read the stored policy; never raises.

        Returns:
            The policy, or None and why it is not used; (None, None): there is none.
        """
        try:
            content = _read_regular_file(self._path, owned=True)
            return self._parse(content), None
        except FileNotFoundError:
            return None, None
        except Exception as error:
            return None, f"the cached policy is not used: {_reason(error)}"

    def save(self, policy: SamplingPolicy, etag: str | None) -> str | None:
        """
        Store *policy* in place of the last one; never raises.

        Returns:
            Why it could not be stored, or None.
        """
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._remove_left_overs()
            _replace_file(self._path, self._render(policy, etag))
        except Exception as error:
            return f"the policy cannot be cached in {str(self._folder)!r}: {_reason(error)}"
        return None

    def _render(self, policy: SamplingPolicy, etag: str | None) -> bytes:
        body = json.dumps({"policy": policy.to_dict(), "etag": etag}).encode()
        head = {"format": _FORMAT, "version": _VERSION, "mac": _mac(self._secret, body)}
        return json.dumps(head).encode() + b"\n" + body

    def _parse(self, content: bytes) -> CachedPolicy:
        head, newline, body = content.partition(b"\n")
        if not newline or len(head) > _MAX_HEADER:
            raise _UnusableError("it is cut off or no policy cache")
        header = _object(head)
        if header.get("format") != _FORMAT or header.get("version") != _VERSION:
            raise _UnusableError("it is of another version or no policy cache")
        if not hmac.compare_digest(
            str(header.get("mac")).encode(), _mac(self._secret, body).encode()
        ):
            raise _UnusableError("its checksum is wrong")
        stored = _object(body)
        etag = stored.get("etag")
        policy = SamplingPolicy.from_dict(stored.get("policy"))
        return CachedPolicy(policy, etag if isinstance(etag, str) else None)

    def _remove_left_overs(self) -> None:
        """Delete what writers left that were killed before their rename."""
        for path in self._folder.glob(f".{self._path.name}.*.tmp"):
            with contextlib.suppress(OSError):
                if self._now() - path.stat().st_mtime > _STALE_AFTER:
                    path.unlink()


class PolicyFile:
    """
    A policy that a user writes, read again whenever the file changes.

    Args:
        path: A JSON file with a policy document.
        now: Wall clock in seconds, compared with the file's own time.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, now: Callable[[], float] = time.time
    ) -> None:
        self._path = Path(path)
        self._now = now
        self._seen: tuple[int, ...] | None = None
        self._digest = b""
        self._suspect: tuple[int, ...] | None = None
        self._told: tuple[int, ...] | None = None

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    def load(self) -> SamplingPolicy:
        """
        Read the policy now, for a constructor.

        Raises:
            ConfigurationError: The file cannot be read or holds no policy; the message says why.
        """
        try:
            return self._read(self._stamp())
        except (_UnusableError, ValueError, OSError) as error:
            raise ConfigurationError(f"policy_file {str(self._path)!r}: {_reason(error)}") from None

    def reload(self) -> tuple[SamplingPolicy | None, str | None]:
        """
        Read the policy if the file has changed; never raises.

        A file that is bad twice at the same state is told once: an editor may have been in the
        middle of writing it.

        Returns:
            The new policy, or None; and what is wrong with the file, once, or None.
        """
        stamp: tuple[int, ...] = ()
        try:
            stamp = self._stamp()
            if stamp in (self._seen, self._told):
                return None, None
            digest = self._digest
            policy = self._read(stamp)
            return (policy, None) if digest != self._digest else (None, None)
        except Exception as error:
            return None, self._complaint(stamp, error)

    def _read(self, stamp: tuple[int, ...]) -> SamplingPolicy:
        content = _read_regular_file(self._path, owned=False)
        digest = hashlib.sha256(content).digest()
        policy = SamplingPolicy.from_dict(_object(content))
        self._digest = digest
        self._suspect = self._told = None
        # Two edits within one tick of the file system's clock look alike: look again until the
        # time stamp is old enough to show the next one.
        is_settled = abs(self._now() - stamp[0] / 1e9) > _SETTLED_AFTER
        self._seen = stamp if is_settled else None
        return policy

    def _complaint(self, stamp: tuple[int, ...], error: Exception) -> str | None:
        if stamp != self._suspect:
            self._suspect = stamp
            return None
        if stamp == self._told:  # a file that is missing, say
            return None
        self._told = stamp
        return (
            f"policy_file {str(self._path)!r} is not used, the last policy stays: {_reason(error)}"
        )

    def _stamp(self) -> tuple[int, ...]:
        status = self._path.stat()
        return status.st_mtime_ns, status.st_size, status.st_ino


# ---------------------------------------------------------------------- files


class _UnusableError(Exception):
    """A file is not what it should be; its text says how."""


def _reason(error: Exception) -> str:
    if isinstance(error, (_UnusableError, PolicyError)):
        return str(error)
    return getattr(error, "strerror", None) or type(error).__name__


def _mac(secret: bytes, content: bytes) -> str:
    return hmac.new(secret, content, hashlib.sha256).hexdigest()


def _object(content: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError):
        raise _UnusableError("it is no JSON") from None
    if not isinstance(document, dict):
        raise _UnusableError(f"it is a JSON {type(document).__name__}, not an object")
    return document


def _read_regular_file(path: Path, *, owned: bool) -> bytes:
    """The file's bytes; a pipe, device or folder in its place is refused without waiting."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    descriptor = os.open(path, flags)
    try:
        _check_status(os.fstat(descriptor), owned=owned)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(MAX_FILE_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(content) > MAX_FILE_BYTES:
        raise _UnusableError(f"it is larger than {MAX_FILE_BYTES:,} bytes")
    return content


def _check_status(status: os.stat_result, *, owned: bool) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise _UnusableError("it is no regular file")
    if owned and hasattr(os, "geteuid") and status.st_uid not in {os.geteuid(), 0}:
        raise _UnusableError("it belongs to another user")


def _replace_file(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")
    try:
        _write_new_file(temporary, content)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(path.parent)


def _write_new_file(path: Path, content: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
    with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make the rename itself last; not every system lets a folder be synced."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
