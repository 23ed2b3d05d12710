"""
The policies and keys on disk, for a server that starts while its database is away.

Holds key hashes (HMAC under the server's secret, of no use to a thief) and rendered policies;
mode 0600, written beside and renamed, with a checksum. It is read only where the database does not
answer at start, and what the database says afterwards wins, revocations first of all.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lipservice_server.db import Row

_FORMAT: Final = 1
_MOST_BYTES: Final = 512 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a worker needs to answer without a database."""

    #: The serials at which it was made.
    serials: Mapping[str, int]
    keys: list[Row]
    #: (team id, service name, service id, document, limit) of each service with a policy.
    policies: list[tuple[int, str, int, dict[str, Any], int | None]]


def write_snapshot(path: Path, snapshot: Snapshot) -> None:
    """
    Put *snapshot* in the place of the one before, whole or not at all.

    Raises:
        OSError: The directory cannot be written.
    """
    body = json.dumps(
        {
            "serials": dict(snapshot.serials),
            "keys": snapshot.keys,
            "policies": snapshot.policies,
        },
        separators=(",", ":"),
    ).encode()
    head = {"format": _FORMAT, "sha256": hashlib.sha256(body).hexdigest()}
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(json.dumps(head).encode() + b"\n" + body)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise


def read_snapshot(path: Path) -> Snapshot | None:
    """The snapshot, or None where there is none that is whole and of this format."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            return None
        head, _, body = path.read_bytes().partition(b"\n")
        about = json.loads(head)
        if about["format"] != _FORMAT or about["sha256"] != hashlib.sha256(body).hexdigest():
            return None
        held = json.loads(body)
        return Snapshot(
            serials=held["serials"],
            keys=held["keys"],
            policies=[tuple(policy) for policy in held["policies"]],
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
