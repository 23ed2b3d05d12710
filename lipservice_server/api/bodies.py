"""
Reads a request's body: admitted, bounded, whole, and without double meanings.

In this order: content type, declared length, the bytes within a time, gzip while its output stays
within bounds, the schema, and the check that no object names a key twice (of which JSON parsers
take the last, and others the first).
"""

from __future__ import annotations

import json
import zlib
from contextlib import suppress
from typing import Any, Final

from flask import Request
from pydantic import TypeAdapter, ValidationError
from werkzeug.exceptions import ClientDisconnected

from lipservice_server.admission import BodyDeadlines
from lipservice_server.errors import InvalidError

#: How much of a body that is too large is read away, so that the client can read the answer.
_DRAINED: Final = 8 * 1024 * 1024
_CHUNK: Final = 64 * 1024


def read_body(
    request: Request, *, most: int, most_compressed: int, deadlines: BodyDeadlines
) -> bytes:
    """
    The body's bytes, decompressed.

    Raises:
        InvalidError: 400 for what is broken, 408 for what is slow, 411, 413, 415.
    """
    if request.mimetype != "application/json":
        raise InvalidError("the body is JSON: Content-Type: application/json", status=415)
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip"):
        raise InvalidError("the body is plain or Content-Encoding: gzip", status=415)
    bound = most_compressed if encoding == "gzip" else most
    raw = _read(request, bound, deadlines)
    return _inflate(raw, most) if encoding == "gzip" else raw


def drain(environ: dict[str, Any], deadlines: BodyDeadlines) -> None:
    """
    Read away what is left of a body that was refused, within bounds.

    gunicorn closes a connection with more than 64 KiB unread, and a client that is still sending
    then sees a broken pipe instead of the answer, and may try for ever.
    """
    left, stream = _DRAINED, environ["wsgi.input"]
    with deadlines.reading(environ.get("gunicorn.socket")), suppress(OSError, ValueError):
        while left > 0 and (chunk := stream.read(_CHUNK)):
            left -= len(chunk)


def parse(adapter: TypeAdapter[Any], body: bytes) -> Any:
    """
    The body as what *adapter* describes.

    Raises:
        InvalidError: 400 where it is not JSON, 422 where it is not what is asked for.
    """
    try:
        value = adapter.validate_json(body)
    except ValidationError as error:
        raise explain(error) from None
    except (ValueError, RecursionError) as error:
        raise InvalidError(f"the body is not JSON: {error!s:.200}", status=400) from None
    return value


def refuse_double_keys(body: bytes, keys: int) -> None:
    """
    Refuse a body in which an object names a key twice.

    *keys* is how many the parsed body has. Where no more quotes stand before a colon in the text,
    spaces aside, none can be double, and the slow look is spared.

    Raises:
        InvalidError: A key is named twice.
    """
    if body.translate(None, b" \t\r\n").count(b'":') > keys:
        find_double_keys(body)


def find_double_keys(body: bytes) -> None:
    """Parse *body* with care; raises InvalidError at the first key that is named twice."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise InvalidError("an object names a key twice", status=400)
        return found

    json.loads(body, object_pairs_hook=unique)


def explain(error: ValidationError) -> InvalidError:
    """pydantic's complaint in the API's form, without the input itself."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    details = [
        {"field": ".".join(map(str, problem["loc"])) or "body", "problem": problem["msg"]}
        for problem in problems[:20]
    ]
    if problems and problems[0]["type"] == "json_invalid":
        return InvalidError(f"the body is not JSON: {problems[0]['msg']}", status=400)
    first = details[0] if details else {"field": "body", "problem": "is wrong"}
    return InvalidError(f"{first['field']}: {first['problem']}", details=details)


def _read(request: Request, bound: int, deadlines: BodyDeadlines) -> bytes:
    length = request.content_length
    if length is None and "chunked" not in request.headers.get("Transfer-Encoding", "").lower():
        raise InvalidError("the body's length is needed: Content-Length", status=411)
    with deadlines.reading(request.environ.get("gunicorn.socket")) as slow:
        try:
            if length is not None and length > bound:
                raise _too_large(bound)
            body = _take(request, bound)
        except (ClientDisconnected, OSError) as error:
            raise _broken(deadlines.is_late(slow)) from error
        if length is not None and len(body) < length:
            raise _broken(deadlines.is_late(slow))
    return body


def _take(request: Request, bound: int) -> bytes:
    parts, size = [], 0
    while chunk := request.stream.read(min(_CHUNK, bound + 1 - size)):
        parts.append(chunk)
        size += len(chunk)
        if size > bound:
            raise _too_large(bound)
    return b"".join(parts)


def _too_large(bound: int) -> InvalidError:
    return InvalidError(f"the body is larger than {bound:,} bytes: send fewer patterns", status=413)


def _broken(late: bool) -> InvalidError:
    if late:
        return InvalidError("the body took too long to arrive", status=408)
    return InvalidError("the body is shorter than its Content-Length", status=400)


def _inflate(raw: bytes, most: int) -> bytes:
    inflater = zlib.decompressobj(wbits=31)
    try:
        body = inflater.decompress(raw, most + 1)
    except zlib.error:
        raise InvalidError("the body is not gzip", status=400) from None
    if len(body) > most:
        raise _too_large(most)
    if not inflater.eof or inflater.unconsumed_tail:
        raise InvalidError("the gzip body is cut off", status=400)
    if inflater.unused_data:
        raise InvalidError("something follows the gzip body", status=400)
    return body
