"""
The server's secret: read from the settings, or made once and kept in a file.

From it, one key for each use is derived, so that what signs tokens never hashes API keys. The
database remembers a fingerprint: a server with another secret would refuse every key, and says at
start why instead.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from lipservice.exceptions import ConfigurationError
from lipservice_server.config import Settings
from lipservice_server.db import Database

_NAME = "secret.key"


def load_secret(settings: Settings) -> bytes:
    """
    The secret, made and stored (mode 0600) where there is none yet.

    Raises:
        ConfigurationError: The file cannot be read or made, or is too short.
    """
    if settings.secret_key:
        return settings.secret_key.encode()
    path = Path(settings.data_dir) / _NAME
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        secret = path.read_bytes().strip() if path.exists() else _make(path)
    except OSError as error:
        raise ConfigurationError(f"the secret key's file {path}: {error.strerror}") from error
    if len(secret) < 32:
        raise ConfigurationError(f"the secret key in {path} has fewer than 32 characters")
    return secret


def derive(secret: bytes, use: str) -> bytes:
    """The key for one use."""
    return hmac.new(secret, f"lipservice {use}".encode(), hashlib.sha256).digest()


def check_fingerprint(db: Database, secret: bytes) -> None:
    """
    Compare the secret with the one that the database's keys were hashed under.

    Raises:
        ConfigurationError: It is another one.
    """
    mine = derive(secret, "fingerprint").hex()
    with db.transaction():
        db.execute(
            "INSERT INTO meta (name, value) VALUES ('fingerprint', ?)"
            " ON CONFLICT (name) DO NOTHING",
            mine,
        )
        row = db.row("SELECT value FROM meta WHERE name = 'fingerprint'")
    if row is None or row["value"] != mine:
        raise ConfigurationError(
            "this server's secret is not the one that the keys in the database were hashed under: "
            f"set LIPSERVICE_SECRET_KEY to it, or bring back the file {_NAME} of the data "
            "directory (several hosts need the same one)"
        )


def _make(path: Path) -> bytes:
    """Make the file; of several processes at once one wins, and all read what it wrote."""
    temporary = path.with_name(f"{_NAME}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secrets.token_urlsafe(48).encode())
    try:
        os.link(temporary, path)  # unlike a rename, it fails where another was first
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
    return path.read_bytes().strip()
