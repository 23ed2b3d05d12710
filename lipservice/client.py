"""
The policy server's API for a process that is sampled: one method per endpoint, no schedule.

Rules. Nothing here raises but the constructor; every answer is a value that says what came or
what went wrong. Nothing here logs, retries or remembers. The key is sent as `Authorization:
Bearer` and appears nowhere else. Importing this module imports only the stdlib; requests (75 ms)
is imported by the first construction, in the caller's thread, never in the worker's.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import sys
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Final, Literal, Protocol

from lipservice._answers import HTTPAnswer, Problem
from lipservice._fork import on_fork
from lipservice._version import __version__
from lipservice.exceptions import ConfigurationError

#: The specification of signatures that this client follows, sent with every request.
SIGNATURE_SPEC: Final = "LSIG-1"
#: Seconds to connect to the server, and seconds without a byte from it.
DEFAULT_TIMEOUT: Final = (3.0, 7.0)
#: Most bytes of a policy, as sent and as unpacked.
MAX_POLICY_BYTES: Final = 32 * 1024 * 1024
#: Most bytes of the answer to a report.
MAX_ANSWER_BYTES: Final = 1024 * 1024
#: Most patterns of one report.
MAX_REPORT_PATTERNS: Final = 1_000
#: Most bytes of one report's templates, so that it stays well under a server's 2 MiB.
MAX_REPORT_BYTES: Final = 1_000_000

_GZIP_ABOVE: Final = 1_000
_BYTES_PER_PATTERN: Final = 400  # of everything but the template, generously
_MAX_ETAG: Final = 1_000
# What the server takes; a forked child's instance id is 9 characters longer than its parent's.
_MAX_TEMPLATE: Final = 4_096
_MAX_NAME: Final = 100
_INSTANCE_ID: Final = re.compile(r"[A-Za-z0-9._:@/-]{1,80}")
_MAX_KEY: Final = 4_096
_MAX_SEARCH: Final = 200
_LONGEST_TIMEOUT: Final = 3_600.0


# ---------------------------------------------------------------------- what goes and comes


class PatternCounts(Protocol):
    """What a report tells of one pattern in one interval; `lipservice.patterns.PatternStats`."""

    @property
    def signature(self) -> str:
        """16 hex digits that name the template."""

    @property
    def template(self) -> str:
        """The message with `<*>` for its variables."""

    @property
    def count(self) -> int:
        """Records seen."""

    @property
    def kept(self) -> int:
        """Records kept."""

    @property
    def bytes(self) -> int:
        """Bytes of the messages seen."""

    @property
    def severity_distribution(self) -> Mapping[str, int]:
        """Records of each severity."""

    @property
    def first_seen(self) -> datetime:
        """Of the interval's first record; aware."""

    @property
    def last_seen(self) -> datetime:
        """Of the interval's last record; aware."""

    @property
    def sampling_rate(self) -> float:
        """The rate at the last decision, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Report:
    """
    One upload of counts. Sent again unchanged, it counts once: the server knows its id.

    Templates only: no value of a variable leaves the process this way.
    """

    #: Unique; a repeat of the same report has the same id.
    report_id: str
    #: What was sampled; None: the key's own service.
    service_name: str | None
    #: The process that counted.
    instance_id: str
    #: Seconds in which the counts came together.
    interval: float
    #: At most `MAX_REPORT_PATTERNS`.
    patterns: tuple[PatternCounts, ...]
    #: Counters of the process's own health, plain numbers.
    health: Mapping[str, float] | None = None

    def to_document(self) -> dict[str, Any]:
        """The report as the server takes it, ready for `json.dumps`."""
        document: dict[str, Any] = {
            "report_id": self.report_id,
            "service_name": self.service_name,
            "instance_id": self.instance_id,
            "interval": self.interval,
            "sdk": {"language": "python", "version": __version__},
            "patterns": [_pattern_document(pattern) for pattern in self.patterns],
        }
        if self.service_name is None:
            del document["service_name"]
        if self.health is not None:
            document["health"] = dict(self.health)
        return document

    @property
    def records(self) -> int:
        """Records that the report's patterns count."""
        return sum(pattern.count for pattern in self.patterns)


@dataclass(frozen=True, slots=True)
class PolicyAnswer:
    """What came of asking for a policy: a document, "not modified", or a problem."""

    #: The policy document, unchecked.
    document: Mapping[str, Any] | None = None
    #: The policy of the given ETag is still the active one.
    not_modified: bool = False
    #: To be given back with the next request.
    etag: str | None = None
    #: Seconds that the server asks to wait, at least 0.
    retry_after: float | None = None
    #: Why neither came.
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class ReportAnswer:
    """What came of a report: acknowledged, refused for good, or to be sent again."""

    outcome: Literal["acknowledged", "refused", "retry"]
    #: Whether the report was refused for its size.
    too_large: bool = False
    #: Whether the server may have counted it although that was not heard.
    uncertain: bool = False
    #: Seconds that the server asks to wait, at least 0.
    retry_after: float | None = None
    #: Why it was not acknowledged.
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class ReadAnswer:
    """What a question to the read API brought: a document, or a problem."""

    #: The answer's JSON object, unchecked.
    document: Mapping[str, Any] | None = None
    #: Why there is none; its `status` is 404 where there is no such thing, 403 where the key may
    #: not read.
    problem: Problem | None = None


def split_patterns(
    patterns: Sequence[PatternCounts],
    *,
    most: int = MAX_REPORT_PATTERNS,
    most_bytes: int = MAX_REPORT_BYTES,
) -> Iterator[tuple[PatternCounts, ...]]:
    """Cut *patterns* into reports' worth of at most *most* patterns and about *most_bytes* each."""
    part: list[PatternCounts] = []
    size = 0
    for pattern in patterns:
        needs = len(pattern.template.encode("utf-8", "replace")) + _BYTES_PER_PATTERN
        if part and (len(part) >= most or size + needs > most_bytes):
            yield tuple(part)
            part, size = [], 0
        part.append(pattern)
        size += needs
    if part:
        yield tuple(part)


# ---------------------------------------------------------------------- the client


class LipServiceClient:
    """
    Talks to one policy server for one service. Thread-safe.

    Proxies and CA bundles of the environment are honoured as requests does; `.netrc` is not, since
    it would replace the key. Certificates are verified, redirects are not followed.

    Args:
        base_url: Where the server is, e.g. "https://lipservice.example.com"; a path is kept.
        api_key: Sent as `Authorization: Bearer`; None: no key.
        service_name: What is sampled; None: the service that the key belongs to.
        timeout: Seconds to connect and seconds without a byte; their sum bounds every request
            as a whole, however slowly its answer drips (but for name resolution).
        instance_id: Names this process; default: a random one. A forked child gets its own.

    Raises:
        ConfigurationError: A parameter is wrong; the message names it, and never holds the key.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        service_name: str | None = None,
        *,
        timeout: tuple[float, float] = DEFAULT_TIMEOUT,
        instance_id: str | None = None,
    ) -> None:
        from lipservice._transport import Transport, prepared_url  # noqa: PLC0415 - see the rules

        try:
            self._base_url = prepared_url(_checked_url(base_url)).rstrip("/")
        except ConfigurationError:
            raise
        except ValueError as error:
            raise ConfigurationError(f"base_url is no URL that can be requested: {error}") from None
        self._key = _checked_key(api_key)
        self._service_name = _checked_name(service_name)
        self._given_instance_id = _checked_instance_id(instance_id)
        connect, read = _checked_timeout(timeout)
        self._seconds = connect + read
        self._instance_id = self._given_instance_id or _random_id()
        self._transport = Transport(self._base_url, _headers(self._key), connect=connect, read=read)
        on_fork(self)

    def __repr__(self) -> str:
        return f"LipServiceClient({self._base_url!r}, service_name={self._service_name!r})"

    @property
    def base_url(self) -> str:
        """Where the server is, without a slash at its end."""
        return self._base_url

    @property
    def service_name(self) -> str | None:
        """What is sampled; None: the service that the key belongs to."""
        return self._service_name

    @property
    def instance_id(self) -> str:
        """Names this process; another one in each forked child."""
        return self._instance_id

    @property
    def seconds(self) -> float:
        """Most seconds that a request takes."""
        return self._seconds

    def identity(self) -> tuple[str, str, str]:
        """Server, service and key: whose policy this client gets. Secret, never to be shown."""
        return self._base_url, self._service_name or "", self._key or ""

    def fetch_policy(
        self, etag: str | None = None, *, seconds: float | None = None
    ) -> PolicyAnswer:
        """
        Ask for the active policy; never raises.

        Args:
            etag: Of the policy that the caller has: the answer may then be "not modified".
            seconds: Most seconds to take, if less than the client's own.
        """
        headers = {"If-None-Match": etag} if etag else {}
        # Who asks, so that the server can give each instance its share of the service's limit.
        asker = {"service_name": self._service_name, "instance_id": self._instance_id}
        answer = self._exchange(
            "GET",
            _address("policies/active", asker),
            headers,
            limit=MAX_POLICY_BYTES,
            seconds=seconds,
        )
        return _policy_answer(answer, etag)

    def report(self, report: Report, *, seconds: float | None = None) -> ReportAnswer:
        """
        Upload one report; never raises.

        The same report makes the same bytes, so it may be sent until it is acknowledged.

        Args:
            report: What to send.
            seconds: Most seconds to take, if less than the client's own.
        """
        body = _json_bytes(report.to_document)
        if body is None:
            return ReportAnswer("refused", problem=_UNWRITABLE)
        answer = self._post("/api/v1/patterns/report", body, MAX_ANSWER_BYTES, seconds)
        return _report_answer(answer)

    def generate_policy(
        self,
        patterns: Sequence[Mapping[str, Any]] | None = None,
        cost_target: float | None = None,
        llm_provider: str | None = None,
        *,
        seconds: float = 60.0,
    ) -> PolicyAnswer:
        """
        Have the server make a new policy; never raises. Waits for it in the caller's thread.

        Args:
            patterns: Objects with `signature`, `count` and `frequency`; None: what was reported.
            cost_target: The share of bytes to keep, 0 to 1; None: the service's own.
            llm_provider: "openai", "anthropic" or "builtin"; None: the server's own.
            seconds: Most seconds to take.

        Returns:
            The new policy's document, or a problem.
        """
        fields = {
            "service_name": self._service_name,
            "patterns": patterns,
            "cost_target": cost_target,
            "llm_provider": llm_provider,
        }
        body = _json_bytes(
            lambda: {name: value for name, value in fields.items() if value is not None}
        )
        if body is None:
            return PolicyAnswer(problem=_UNWRITABLE)
        # The model's thinking time: the server is silent for most of it.
        answer = self._post("/api/v1/policies/generate", body, MAX_POLICY_BYTES, seconds, seconds)
        return _policy_answer(answer, None)

    def fetch_pattern(self, signature: str) -> ReadAnswer:
        """
        Ask for one pattern's counts since it was first seen; never raises.

        The key needs the scope `read`, here and for the two below.

        Args:
            signature: Of the pattern, as it was reported.
        """
        return self._read(f"patterns/{urllib.parse.quote(signature, safe='')}", {})

    def fetch_volume(
        self, signature: str, *, step: Literal["hour", "day"], periods: int
    ) -> ReadAnswer:
        """
        Ask for a pattern's counts over time; never raises.

        Args:
            signature: Of the pattern, as it was reported.
            step: Length of a period; hours and days are those of UTC.
            periods: How many of them, 1 to 366; the last one is running.
        """
        path = f"patterns/{urllib.parse.quote(signature, safe='')}/volume"
        return self._read(path, {"step": step, "periods": periods})

    def search_patterns(self, search: str, *, limit: int = 500) -> ReadAnswer:
        """
        Ask for the most frequent patterns of a text; never raises.

        Args:
            search: A part of the template in any case, or the beginning of a signature; its
                first 200 characters.
            limit: Most patterns to name, 1 to 500.
        """
        return self._read("patterns", {"search": search[:_MAX_SEARCH], "limit": limit})

    def close(self) -> None:
        """Nothing is kept open between requests; here so that callers need not know."""

    def _read(self, path: str, parameters: Mapping[str, object]) -> ReadAnswer:
        address = _address(path, {"service_name": self._service_name, **parameters})
        answer = self._exchange("GET", address, {}, limit=MAX_POLICY_BYTES, seconds=None)
        return _read_answer(answer)

    def _post(
        self,
        path: str,
        body: bytes,
        limit: int,
        seconds: float | None,
        silence: float | None = None,
    ) -> HTTPAnswer:
        headers = {"Content-Type": "application/json"}
        if len(body) > _GZIP_ABOVE:
            body = gzip.compress(body, compresslevel=6, mtime=0)
            headers["Content-Encoding"] = "gzip"
        return self._exchange(
            "POST", path, headers, body=body, limit=limit, seconds=seconds, silence=silence
        )

    def _exchange(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        *,
        body: bytes | None = None,
        limit: int,
        seconds: float | None,
        silence: float | None = None,
    ) -> HTTPAnswer:
        return self._transport.exchange(
            method,
            self._base_url + path,
            headers=headers,
            body=body,
            limit=limit,
            seconds=self._seconds if seconds is None else seconds,
            silence=silence,
        )

    def _reset_after_fork(self) -> None:
        given = self._given_instance_id
        self._instance_id = f"{given}-{_random_id()[:8]}" if given else _random_id()


def _address(path: str, parameters: Mapping[str, object]) -> str:
    """A path of the API with those parameters that are said."""
    said = {name: value for name, value in parameters.items() if value}
    query = urllib.parse.urlencode(said, errors="replace")  # a lone surrogate has no UTF-8
    return f"/api/v1/{path}" + (f"?{query}" if query else "")


def _headers(key: str | None) -> dict[str, str]:
    headers = {
        "Accept": "application/json",
        "Accept-Encoding": "gzip",
        "Connection": "close",
        "LipService-Spec": SIGNATURE_SPEC,
        "User-Agent": f"lipservice-python/{__version__} Python/{_python_version()}",
    }
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    return headers


def _python_version() -> str:
    return ".".join(str(number) for number in sys.version_info[:3])


def _random_id() -> str:
    return os.urandom(16).hex()


def new_report_id() -> str:
    """A fresh id, 32 hex digits from the system's randomness, hence safe after a fork."""
    return _random_id()


# ---------------------------------------------------------------------- parameters


def _checked_url(base_url: object) -> str:
    if not isinstance(base_url, str) or not base_url.strip():
        raise ConfigurationError("base_url is the policy server's URL, a string")
    try:
        url = urllib.parse.urlsplit(base_url.strip())
        port_is_right = url.port is None or url.port > 0
    except ValueError as error:
        raise ConfigurationError(f"base_url is no URL: {error}") from None
    if url.scheme.lower() not in {"http", "https"} or not url.hostname or not port_is_right:
        raise ConfigurationError("base_url begins with http:// or https:// and names a host")
    if url.username is not None or url.password is not None:
        raise ConfigurationError("base_url holds no user and password: give api_key instead")
    if url.query or url.fragment:
        raise ConfigurationError("base_url has no ? and no #")
    if any(ord(char) < 33 or ord(char) == 127 for char in base_url.strip()):
        raise ConfigurationError("base_url holds no blank and no control character")
    return base_url.strip().rstrip("/")


def _checked_key(api_key: object) -> str | None:
    if api_key is None:
        return None
    if not isinstance(api_key, str):
        raise ConfigurationError(f"api_key is a string or None, not {type(api_key).__name__}")
    if not 0 < len(api_key) <= _MAX_KEY:
        raise ConfigurationError(f"api_key has 1 to {_MAX_KEY:,} characters; None for no key")
    if not all(33 <= ord(char) <= 126 for char in api_key):
        raise ConfigurationError(
            "api_key holds printable ASCII only: no blank, line end or control character"
        )
    return api_key


def _checked_name(name: object) -> str | None:
    if name is None:
        return None
    if not isinstance(name, str):
        raise ConfigurationError(f"service_name is a string or None, not {type(name).__name__}")
    if not 0 < len(name) <= _MAX_NAME or not name.isprintable() or name.strip() != name:
        raise ConfigurationError(
            f"service_name has 1 to {_MAX_NAME} printable characters, no blank at either end"
        )
    return name


def _checked_instance_id(instance_id: object) -> str | None:
    if instance_id is None:
        return None
    if not isinstance(instance_id, str) or not _INSTANCE_ID.fullmatch(instance_id):
        raise ConfigurationError("instance_id has 1 to 80 letters, digits and . _ : @ / -")
    return instance_id


def _checked_timeout(timeout: object) -> tuple[float, float]:
    try:
        connect, read = (float(seconds) for seconds in timeout)  # type: ignore[attr-defined]  # checked here
    except (TypeError, ValueError):
        raise ConfigurationError("timeout is a pair of seconds, (connect, read)") from None
    if not all(0 < seconds <= _LONGEST_TIMEOUT for seconds in (connect, read)):
        raise ConfigurationError(f"timeout's seconds are above 0, at most {_LONGEST_TIMEOUT:,.0f}")
    return connect, read


# ---------------------------------------------------------------------- reports


def _pattern_document(pattern: PatternCounts) -> dict[str, Any]:
    return {
        "signature": pattern.signature,
        "template": pattern.template[:_MAX_TEMPLATE],
        "count": pattern.count,
        "kept": pattern.kept,
        "bytes": pattern.bytes,
        "severity_distribution": dict(pattern.severity_distribution),
        "first_seen": _rfc3339(pattern.first_seen),
        "last_seen": _rfc3339(pattern.last_seen),
        "sampling_rate": pattern.sampling_rate,
    }


def _rfc3339(moment: datetime) -> str:
    """RFC 3339 in UTC, with milliseconds and a Z."""
    text = moment.astimezone(timezone.utc).isoformat(timespec="milliseconds")
    return text.removesuffix("+00:00") + "Z"


def _json_bytes(make: Callable[[], Mapping[str, Any]]) -> bytes | None:
    """What *make* returns, lone surrogates as `?`; None if JSON has no word for it."""
    try:
        text = json.dumps(
            make(), default=dict, ensure_ascii=False, allow_nan=False, separators=(",", ":")
        )
        return text.encode("utf-8", "replace")
    except Exception:
        return None


_UNWRITABLE: Final = Problem("internal", "the request cannot be written as JSON")


# ---------------------------------------------------------------------- answers


#: Every field may be left out for the reader of a policy; an answer without these two comes from
#: something else that speaks JSON, and must not replace a policy.
_OF_EVERY_POLICY: Final = ("policy_id", "sampling_rate")


def _policy_answer(answer: HTTPAnswer, etag: str | None) -> PolicyAnswer:
    if answer.problem is not None:
        return PolicyAnswer(retry_after=answer.retry_after, problem=answer.problem)
    if answer.status == 304 and etag:
        return PolicyAnswer(not_modified=True, etag=etag, retry_after=answer.retry_after)
    if answer.status != 200:
        return PolicyAnswer(retry_after=answer.retry_after, problem=_problem_of_status(answer))
    document = _json_object(answer.body)
    if document is None or not all(name in document for name in _OF_EVERY_POLICY):
        problem = Problem("body", "the answer is no policy", answer.status)
        return PolicyAnswer(retry_after=answer.retry_after, problem=problem)
    return PolicyAnswer(document, etag=_etag(answer.headers), retry_after=answer.retry_after)


def _read_answer(answer: HTTPAnswer) -> ReadAnswer:
    if answer.problem is not None:
        return ReadAnswer(problem=answer.problem)
    document = _json_object(answer.body) if answer.status == 200 else None
    if document is None:
        return ReadAnswer(problem=_problem_of_status(answer))
    return ReadAnswer(document)


def _report_answer(answer: HTTPAnswer) -> ReportAnswer:
    if answer.problem is not None:
        return ReportAnswer(
            "retry",
            uncertain=answer.uncertain,
            retry_after=answer.retry_after,
            problem=answer.problem,
        )
    if answer.status == 409 or _is_acknowledgement(answer):
        return ReportAnswer("acknowledged")
    if answer.status in {400, 413, 422}:
        return ReportAnswer(
            "refused", too_large=answer.status == 413, problem=_problem_of_status(answer)
        )
    return ReportAnswer(
        "retry",
        uncertain=answer.status >= 500 or answer.status < 300,
        retry_after=answer.retry_after,
        problem=_problem_of_status(answer),
    )


def _is_acknowledgement(answer: HTTPAnswer) -> bool:
    """
    Whether the server itself took the report.

    Another body comes from something in between (a login page, say), which counts nothing: the
    report must be sent again.
    """
    if not 200 <= answer.status < 300:
        return False
    return (_json_object(answer.body) or {}).get("status") == "success"


def _problem_of_status(answer: HTTPAnswer) -> Problem:
    status = answer.status
    if 300 <= status < 400 and status != 304:
        return Problem("redirect", f"redirected (HTTP {status}), which is not followed", status)
    if status == 304:
        return Problem("status", 'HTTP 304 ("not modified") to a first request', status)
    if 200 <= status < 300:
        return Problem("body", f"HTTP {status} without the answer that was asked for", status)
    return Problem("status", f"HTTP {status} {_REASONS.get(status, '')}".strip(), status)


_REASONS: Final = {
    400: "(bad request)",
    401: "(the key is missing or wrong)",
    403: "(the key does not allow this)",
    404: "(no such address, service or policy)",
    408: "(time-out)",
    413: "(too large)",
    422: "(refused)",
    429: "(too many requests)",
    500: "(server error)",
    502: "(bad gateway)",
    503: "(unavailable)",
    504: "(gateway time-out)",
}


def _json_object(body: bytes) -> Mapping[str, Any] | None:
    try:
        document = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError, MemoryError):
        return None
    return document if isinstance(document, dict) else None


def _etag(headers: Mapping[str, str]) -> str | None:
    """The ETag if it can be sent back as it is (RFC 9110, 8.8.3)."""
    etag = headers.get("etag", "").strip()
    opaque = etag.removeprefix("W/")
    is_quoted = len(opaque) >= 2 and opaque[0] == opaque[-1] == '"' and '"' not in opaque[1:-1]
    fits = len(etag) <= _MAX_ETAG and all(33 <= ord(char) <= 126 for char in opaque)
    return etag if is_quoted and fits else None
