"""The files of static/: read once, compressed once, and named by their content for browsers."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from flask import Response, request

if TYPE_CHECKING:
    from lipservice_server.dashboard.pages import Pages

_ROOT: Final = Path(__file__).parent / "static"
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file, as it is sent."""

    plain: bytes
    gzipped: bytes
    content_type: str
    digest: str


@lru_cache(maxsize=1)
def all_assets() -> dict[str, Asset]:
    """Every file by its path below static/; nothing else is ever served."""
    return {
        path.relative_to(_ROOT).as_posix(): _read(path)
        for path in sorted(_ROOT.rglob("*"))
        if path.suffix in _TYPES
    }


def asset_version(name: str) -> str:
    """Changes when the file does."""
    return all_assets()[name].digest


def add_assets(pages: Pages) -> None:
    """Serve them."""

    def static(path: str) -> Response:
        asset = all_assets().get(path)
        if asset is None:
            return Response("There is no such file.\n", 404, mimetype="text/plain")
        small = "gzip" in request.headers.get("Accept-Encoding", "")
        response = Response(asset.gzipped if small else asset.plain)
        response.headers["Content-Type"] = asset.content_type
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        response.headers["Vary"] = "Accept-Encoding"
        if small:
            response.headers["Content-Encoding"] = "gzip"
        return response

    pages.blueprint.add_url_rule("/static/<path:path>", "static", static, methods=["GET"])


def _read(path: Path) -> Asset:
    plain = path.read_bytes()
    return Asset(
        plain=plain,
        gzipped=gzip.compress(plain, 9, mtime=0),
        content_type=_TYPES[path.suffix],
        digest=hashlib.sha256(plain).hexdigest()[:12],
    )
