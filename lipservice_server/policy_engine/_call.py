"""
One call to a provider, bounded in time, in size and in what it may do.

Rules: no redirect is followed; an answer is admitted by its head before its body is read; the
body is read up to a bound; the deadline is for everything together (name look-up, connection,
a head or a body that drips, the one retry), and an overdue call is cancelled, not abandoned.
Nothing of a provider's error body is ever repeated: it may echo a key.

This module knows no provider: `_openai` and `_anthropic` do.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

#: Bytes of an answer that are read; the longest that a prompt allows has a tenth of it.
MAX_BODY: Final = 1_048_576
# Time that a cancelled call has to clean up before it is left to itself.
_GRACE: Final = 1.0
# Time before the retry where the provider names none, and the least that must remain after it.
_PAUSE: Final = 1.0
_LEAST_TIME: Final = 1.0


@dataclass(frozen=True, slots=True)
class Reply:
    """What a provider answered."""

    text: str
    #: None where the answer did not say.
    tokens_in: int | None
    tokens_out: int | None


class CallFailedError(Exception):
    """A call gave no usable answer."""

    def __init__(
        self,
        reason: str,
        *,
        retryable: bool = False,
        retry_after: float | None = None,
        unpaid: bool = False,
        reply: Reply | None = None,
    ) -> None:
        super().__init__(reason)
        #: Why, in plain words that begin with a verb: "refused the key (401)".
        self.reason = reason
        #: Whether the same call may do better.
        self.retryable = retryable
        #: Seconds that the provider asked us to wait.
        self.retry_after = retry_after
        #: Whether it is sure that no token was used.
        self.unpaid = unpaid
        #: The answer, where there was one and it named its usage.
        self.reply = reply


def run_within(seconds: float, call: Callable[[], Awaitable[Reply]]) -> Reply:
    """
    Await *call*, and again once if it says so, for *seconds* in all.

    Runs an event loop in a thread of its own, since the caller may have one running already.

    Raises:
        CallFailedError: There was no answer, or not in time.
    """
    outcomes: queue.SimpleQueue[Reply | CallFailedError] = queue.SimpleQueue()
    deadline = time.monotonic() + seconds
    thread = threading.Thread(
        target=lambda: outcomes.put(_outcome(call, deadline)), name="lipservice-llm", daemon=True
    )
    thread.start()
    try:
        outcome = outcomes.get(timeout=max(0.0, deadline - time.monotonic()) + _GRACE)
    except queue.Empty:
        outcome = _overdue()
    if isinstance(outcome, CallFailedError):
        raise outcome
    return outcome


def _outcome(call: Callable[[], Awaitable[Reply]], deadline: float) -> Reply | CallFailedError:
    try:
        return asyncio.run(_timed(call, deadline))
    except CallFailedError as error:
        return error
    except asyncio.TimeoutError:
        return _overdue()
    except Exception as error:  # whatever a client may raise
        return _failure_of(error)


async def _timed(call: Callable[[], Awaitable[Reply]], deadline: float) -> Reply:
    seconds = max(0.0, deadline - time.monotonic())
    return await asyncio.wait_for(_with_one_retry(call, deadline), seconds)


async def _with_one_retry(call: Callable[[], Awaitable[Reply]], deadline: float) -> Reply:
    try:
        return await call()
    except Exception as error:
        failure = _failure_of(error)
        pause = _PAUSE if failure.retry_after is None else failure.retry_after
        if not failure.retryable or time.monotonic() + pause + _LEAST_TIME > deadline:
            raise failure from None
        await asyncio.sleep(pause)
    return await call()


def _overdue() -> CallFailedError:
    return CallFailedError("gave no whole answer in time")


def _failure_of(error: BaseException) -> CallFailedError:
    """The failure within *error*: clients wrap what a hook raises, each in its own way."""
    chain = list(_chain(error))
    for link in chain:
        if isinstance(link, CallFailedError):
            return link
    names = {type(link).__name__ for link in chain}
    if names & _UNREACHED:
        return CallFailedError("could not be reached", unpaid=True)
    if names & _BROKEN_OFF:
        return CallFailedError("broke off the connection")
    return CallFailedError(f"could not be asked ({type(error).__name__})")


# By name, since the clients have changed from httpx to httpx2 and may be of either.
_UNREACHED: Final = frozenset({"ConnectError", "ConnectTimeout", "UnsupportedProtocol"})
_BROKEN_OFF: Final = frozenset({"ReadError", "WriteError", "RemoteProtocolError", "CloseError"})


def _chain(error: BaseException) -> list[BaseException]:
    links: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in links:
        links.append(link)
        link = link.__cause__ or link.__context__
    return links


async def admit(response: Any) -> None:
    """
    Let an HTTP response pass by its head, as an event hook of an httpx client.

    Raises:
        CallFailedError: It is not a plain JSON answer.
    """
    if response.status_code != 200:
        raise _refusal(response.status_code, response.headers.get("retry-after"))
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise CallFailedError("answered something that is not JSON")
    if response.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise CallFailedError("answered in an encoding that was not asked for")


async def read_bounded(chunks: AsyncIterator[bytes]) -> bytes:
    """
    The whole body, at most `MAX_BODY` bytes.

    Raises:
        CallFailedError: There is more.
    """
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > MAX_BODY:
            raise CallFailedError("answered far more than was asked for")
    return bytes(body)


def _refusal(status: int, retry_after: str | None) -> CallFailedError:
    if status in _STATUS_WORDS:
        words = _STATUS_WORDS[status]
    elif 300 <= status < 400:
        words = "answered with a redirect, which is not followed"
    else:
        words = "had an error of its own" if status >= 500 else "did not accept the request"
    return CallFailedError(
        f"{words} ({status})",
        retryable=status == 429 or status >= 500,
        retry_after=_seconds(retry_after),
        unpaid=True,
    )


_STATUS_WORDS: Final = {
    401: "refused the key",
    403: "refused the key",
    404: "does not know the model or the address",
    413: "found the prompt too long",
    429: "has no capacity left for this key",
}


def _seconds(retry_after: str | None) -> float | None:
    """Retry-After in seconds; a date is taken as "long", which the deadline then refuses."""
    if retry_after is None:
        return None
    text = retry_after.strip()
    return float(text) if text.isascii() and text.isdigit() and len(text) < 10 else 1e9


def mapping(value: object) -> Mapping[str, Any]:
    """*value*, or an empty mapping where it is none."""
    return value if isinstance(value, dict) else {}


def whole_number(value: object) -> int | None:
    """*value* as a count of tokens, or None where it cannot be one."""
    fine = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 10**9
    return int(value) if fine else None  # type: ignore[call-overload]
