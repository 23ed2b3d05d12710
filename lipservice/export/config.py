"""What the user says about the export: PostHogConfig and LogContext, every field checked."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

from lipservice.exceptions import ConfigurationError

DEFAULT_ENDPOINT: Final = "https://app.posthog.com"
#: PostHog answers 413 above this, on the wire and after gunzip (rust/capture-logs, 2026).
RECEIVER_LIMIT: Final = 2 * 1024 * 1024
#: What of LipService's own a record can carry, and what is sent unless `attributes` says otherwise.
KNOWN_ATTRIBUTES: Final = frozenset(
    {
        "signature",
        "weight",
        "rate",
        "template",
        "rule",
        "policy",
        "code",
        "code_attributes",
        "exception",
        "severity_text",
        "thread",
    }
)
DEFAULT_ATTRIBUTES: Final = frozenset(
    {"signature", "weight", "rate", "template", "code", "exception"}
)

_LOGS_PATH: Final = "/i/v1/logs"
_CLOUD: Final = re.compile(r"(?:(?P<region>us|eu|app)(?:\.i)?\.)?posthog\.com")
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")
_JWT: Final = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class LogContext:
    """
    Whom and what a record belongs to. Immutable, safe to share between threads.

    Give it to `PostHogOTLPExporter.export_log`, or make it current for all records of a block
    of code with `use()`. Values that cannot be sent (a trace id that is none) are left out.
    """

    #: W3C trace id: 32 hex digits, 16 bytes or an int.
    trace_id: str | bytes | int | None = None
    #: W3C span id: 16 hex digits, 8 bytes or an int.
    span_id: str | bytes | int | None = None
    #: W3C trace flags; bit 0 means sampled.
    trace_flags: int | None = None
    #: PostHog's person: sent as `posthogDistinctId`, which links the record with the person.
    distinct_id: str | None = None
    #: PostHog's session: sent as `sessionId`, which links the record with the session replay.
    session_id: str | None = None
    #: Sent as the attribute `user_id`.
    user_id: str | int | None = None
    #: Sent as the attribute `request_id`.
    request_id: str | int | None = None
    #: Further attributes; a value given with the record itself wins.
    attributes: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)

    @contextmanager
    def use(self) -> Iterator[LogContext]:
        """Make this the context of every record of the block, in this thread or task."""
        token = CURRENT_CONTEXT.set(self)
        try:
            yield self
        finally:
            CURRENT_CONTEXT.reset(token)


#: The context that `LogContext.use` has made current; None outside.
CURRENT_CONTEXT: Final[ContextVar[LogContext | None]] = ContextVar(
    "lipservice_log_context", default=None
)


@dataclass(frozen=True, kw_only=True)
class PostHogConfig:
    """
    Where records go and how. Checked when made; immutable; keys are not shown by `repr`.

    Raises:
        ConfigurationError: A value is wrong; the message names the parameter.
    """

    #: The project's token (`phc_...`), sent as Bearer. A personal key (`phx_...`) is refused.
    api_key: str = field(default="", repr=False)
    #: Number of the PostHog project. An attribute (`team_id`) of every batch.
    team_id: str | int | None = None
    #: PostHog's address (app., us., eu. or `*.i.posthog.com` are mapped to the region's ingestion
    #: host), a self-hosted host, or the full address of any OTLP/HTTP receiver.
    endpoint: str = DEFAULT_ENDPOINT
    #: Records in a request, at most; a full batch is sent at once. The Go SDK's default.
    batch_size: int = 100
    #: Seconds that a record waits for its batch to fill, at most.
    flush_interval: float = 5.0
    #: How often a batch that failed for a while is tried again before it is dropped or spooled.
    max_retries: int = 3
    #: Seconds for one request in all: connecting, sending, and reading the answer.
    timeout: float = 10.0
    #: Seconds that `stop()` waits for what is queued; the interpreter's exit waits 2 at most.
    shutdown_timeout: float = 2.0
    #: Records that may wait in memory; one above 2 KiB takes a place for each 2 KiB.
    max_queue_size: int = 20_000
    #: Bytes of a request before compression, at most; PostHog refuses more than 2 MiB.
    max_batch_bytes: int = 1024 * 1024
    #: Characters of a message, a stack trace or an attribute, at most; the rest is cut.
    max_value_length: int = 16_384
    #: Whether requests are compressed (gzip, level 1). Saves traffic, not PostHog's bill.
    gzip: bool = True
    #: Folder for what could not be sent; None: nothing is written to disk.
    spool_dir: str | os.PathLike[str] | None = None
    #: Bytes of the spool, at most; the oldest records go first.
    spool_max_bytes: int = 100 * 1024 * 1024
    #: Seconds after which spooled records are given up.
    spool_max_age: float = 3 * 86_400.0
    #: The resource's `service.name`; None: OTEL_SERVICE_NAME, LIPSERVICE_SERVICE_NAME, or
    #: "unknown_service:python".
    service_name: str | None = None
    #: The resource's `service.version`; None: not sent.
    service_version: str | None = None
    #: The resource's `deployment.environment.name`; None: not sent.
    environment: str | None = None
    #: Further attributes of the resource. They are billed; None as a value takes one of ours
    #: ("host.name", "process.pid") out.
    resource_attributes: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    #: Which attributes of LipService's own are sent (see docs/how-to/posthog.md for their cost).
    attributes: Collection[str] = DEFAULT_ATTRIBUTES
    #: Seconds after which the template, code location and rate of a sampled pattern are sent
    #: again with one of its records; 0: with each record.
    pattern_facts_interval: float = 3600.0
    #: Whether secrets are taken out before anything leaves the process.
    redact: bool = True
    #: Further names of attributes whose values are secret (whole name, any case).
    redact_keys: Collection[str] = ()
    #: Further regular expressions for secrets in values, messages and stack traces. Each costs
    #: a search of every text of every record.
    redact_patterns: Collection[str | re.Pattern[str]] = ()
    #: A JSON web token to send as Bearer instead of the key, or a function that gives one; the
    #: function is asked again after a 401. Called in the worker thread.
    jwt: str | Callable[[], str] | None = field(default=None, repr=False)
    #: Further headers of each request.
    headers: Mapping[str, str] = field(default_factory=lambda: _NOTHING, repr=False)

    def __post_init__(self) -> None:
        _check_credentials(self.api_key, self.jwt)
        _check_team(self.team_id)
        logs_url(self.endpoint)
        _check_numbers(self)
        _check_collections(self)

    @property
    def url(self) -> str:
        """The address that records are posted to."""
        return logs_url(self.endpoint)


def logs_url(endpoint: str) -> str:
    """
    Address of the OTLP logs route for *endpoint*.

    PostHog's own addresses are mapped here, since a redirect loses the records. A host alone
    gets PostHog's path, or OTLP's own on OTLP's port 4318; an address with a path is kept.

    Raises:
        ConfigurationError: It is no http(s) address, or holds a password, query or fragment.
    """
    try:
        parts = urlsplit(endpoint.strip())
        host, port = parts.hostname or "", parts.port
    except (AttributeError, ValueError) as error:
        raise ConfigurationError(f"endpoint: {error}") from None
    if parts.scheme not in {"http", "https"} or not host:
        raise ConfigurationError(f"endpoint: not an http(s) address: {endpoint!r}")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigurationError("endpoint: must hold no user, password, query or fragment")
    cloud = _CLOUD.fullmatch(host)
    if cloud:
        if parts.scheme != "https":
            raise ConfigurationError("endpoint: PostHog's cloud takes https only")
        region = "eu" if cloud["region"] == "eu" else "us"
        return f"https://{region}.i.posthog.com{_LOGS_PATH}"
    if parts.path not in {"", "/"}:
        return f"{parts.scheme}://{parts.netloc}{parts.path}"
    path = "/v1/logs" if port == 4318 else _LOGS_PATH
    return f"{parts.scheme}://{parts.netloc}{path}"


def _check_credentials(api_key: object, jwt: object) -> None:
    if not isinstance(api_key, str):
        raise ConfigurationError("api_key: must be a str")
    if api_key.startswith("phx_"):
        raise ConfigurationError(
            "api_key: this is a personal API key (phx_...), which PostHog refuses for ingestion "
            "and which can read your data; use the project's token (phc_...) from the project "
            "settings"
        )
    if api_key and not _TOKEN.fullmatch(api_key):
        raise ConfigurationError("api_key: must be printable ASCII without spaces")
    if jwt is None:
        if not api_key:
            raise ConfigurationError("api_key: the project's token (phc_...) is missing")
    elif isinstance(jwt, str):
        if not _JWT.fullmatch(jwt):
            raise ConfigurationError("jwt: not a JSON web token (three parts joined by dots)")
    elif not callable(jwt):
        raise ConfigurationError("jwt: must be a str or a function that returns one")


def _check_team(team_id: object) -> None:
    if team_id is None or (isinstance(team_id, int) and not isinstance(team_id, bool)):
        return
    if not isinstance(team_id, str) or not _TOKEN.fullmatch(team_id):
        raise ConfigurationError("team_id: must be the project's number, as str or int")


_BOUNDS: Final = {
    "batch_size": (int, 1, 100_000),
    "flush_interval": (float, 0.01, 3600.0),
    "max_retries": (int, 0, 1000),
    "timeout": (float, 0.05, 600.0),
    "shutdown_timeout": (float, 0.0, 600.0),
    "max_queue_size": (int, 1, 10_000_000),
    "max_batch_bytes": (int, 4096, RECEIVER_LIMIT),
    "max_value_length": (int, 16, 1_000_000),
    "spool_max_bytes": (int, 4096, 1 << 50),
    "spool_max_age": (float, 1.0, 3650 * 86_400.0),
    "pattern_facts_interval": (float, 0.0, 1e9),
}


def _check_numbers(config: PostHogConfig) -> None:
    for name, (kind, low, high) in _BOUNDS.items():
        value = getattr(config, name)
        allowed = (int, float) if kind is float else int
        if isinstance(value, bool) or not isinstance(value, allowed):
            raise ConfigurationError(f"{name}: must be {kind.__name__}, not {value!r}")
        if not low <= value <= high:
            raise ConfigurationError(f"{name}: must be between {low} and {high}, not {value!r}")


def _check_collections(config: PostHogConfig) -> None:
    unknown = sorted(set(config.attributes) - KNOWN_ATTRIBUTES)
    if isinstance(config.attributes, str) or unknown:
        raise ConfigurationError(
            f"attributes: {unknown or config.attributes!r}; known are {sorted(KNOWN_ATTRIBUTES)}"
        )
    for name in ("redact_keys", "redact_patterns"):
        if isinstance(getattr(config, name), str):
            raise ConfigurationError(f"{name}: must be a collection of str, not one str")
    for pattern in config.redact_patterns:
        _check_pattern(pattern)
    for name in ("resource_attributes", "headers"):
        if not isinstance(getattr(config, name), Mapping):
            raise ConfigurationError(f"{name}: must be a mapping")
    for name, value in config.headers.items():
        if not _TOKEN.fullmatch(name) or "\n" in value or "\r" in value:
            raise ConfigurationError(f"headers: {name!r} cannot be sent")
    for name in ("service_name", "service_version", "environment"):
        value = getattr(config, name)
        if value is not None and (not isinstance(value, str) or not value):
            raise ConfigurationError(f"{name}: must be None or a str that is not empty")
    if config.spool_dir is not None and not isinstance(config.spool_dir, (str, os.PathLike)):
        raise ConfigurationError("spool_dir: must be None or a path")


def _check_pattern(pattern: str | re.Pattern[str]) -> None:
    try:
        re.compile(pattern)
    except (re.error, TypeError) as error:
        raise ConfigurationError(f"redact_patterns: {pattern!r}: {error}") from None
