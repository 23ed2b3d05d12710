"""What an HTTP exchange brings, as plain values; imports only the stdlib."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

ProblemKind = Literal["connection", "timeout", "redirect", "status", "body", "internal"]


@dataclass(frozen=True, slots=True)
class Problem:
    """Why an exchange brought nothing, in words fit for a log."""

    #: What sort of trouble: nothing got through, it took too long, an unwanted answer.
    kind: ProblemKind
    #: One line for people; holds no secret.
    text: str
    #: The HTTP status, where an answer came.
    status: int | None = None

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class HTTPAnswer:
    """What came back: a whole body of a status, or a problem."""

    status: int = 0
    #: Names in lower case; of a repeated header the last.
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    problem: Problem | None = None
    #: Seconds that the server asks to wait, at least 0.
    retry_after: float | None = None
    #: Whether the server may have acted on the request although the answer is missing.
    uncertain: bool = False
