"""
What the server's parts raise and the API answers.

    ServerError
    ├── DatabaseAwayError     503: the database does not answer, is locked or full
    ├── BusyError             503: as much is in flight as is taken at one time
    ├── NotFoundError         404: no such thing in this team
    ├── ConflictError         409: the state does not allow it
    ├── InvalidError          400, 408, 413, 415, 422: the request is wrong; the message says where
    ├── UnauthorizedError     401: no valid key
    ├── ForbiddenError        403: the key lacks a scope
    └── LimitedError          429: too many requests

Messages are shown to the caller: they hold no secret and nothing of another team.
"""

from __future__ import annotations

from typing import Any


class ServerError(Exception):
    """Base of what the API answers as an error; `status` is the HTTP status."""

    status = 500
    code = "error"

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        details: list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(message)
        #: What is wrong, for the caller.
        self.message = message
        if status is not None:
            self.status = status
        #: Seconds after which to try again; None: trying again is of no use.
        self.retry_after = retry_after
        #: One entry for each wrong field.
        self.details = details or []


class DatabaseAwayError(ServerError):
    """The database does not answer, is locked, or is full."""

    status = 503
    code = "database_away"

    def __init__(self, message: str = "the database is away; try again", **kwargs: Any) -> None:
        super().__init__(message, retry_after=kwargs.pop("retry_after", 5), **kwargs)


class BusyError(ServerError):
    """As much is in flight as the server takes at one time."""

    status = 503
    code = "busy"

    def __init__(self, message: str = "the server is busy; try again", **kwargs: Any) -> None:
        super().__init__(message, retry_after=kwargs.pop("retry_after", 2), **kwargs)


class NotFoundError(ServerError):
    """There is no such thing in this team."""

    status = 404
    code = "not_found"


class ConflictError(ServerError):
    """The state does not allow it."""

    status = 409
    code = "conflict"


class InvalidError(ServerError):
    """The request is wrong; the message says where."""

    status = 422
    code = "invalid"


class UnauthorizedError(ServerError):
    """There is no valid key or token."""

    status = 401
    code = "unauthorized"


class ForbiddenError(ServerError):
    """The key lacks a scope."""

    status = 403
    code = "forbidden"


class LimitedError(ServerError):
    """Too many requests."""

    status = 429
    code = "limited"
