"""
One line instead of a logging configuration: the API document's three functions.

This is the only module that changes global state: it adds a handler to the root logger, makes the
sampler the default one and, if asked, configures structlog.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Final

from lipservice._settings import (
    build_sampler,
    forget_samplers,
    read_settings,
    set_default_sampler,
)
from lipservice._worker import EXIT_SECONDS
from lipservice.exceptions import ConfigurationError
from lipservice.integrations.stdlib import SamplingHandler
from lipservice.sampler import AdaptiveSampler

if TYPE_CHECKING:
    import structlog

_logger: Final = logging.getLogger("lipservice")


class _Setup:
    """What `configure_adaptive_logging` has done, so that it can be undone."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.sampler: AdaptiveSampler | None = None
        self.handlers: list[logging.Handler] = []
        self.owned: list[logging.Handler] = []
        self.level_before: int | None = None
        self.uses_structlog = True
        self.configured_structlog = False


_setup: Final = _Setup()


def configure_adaptive_logging(
    service_name: str,
    lipservice_url: str | None = None,
    api_key: str | None = None,
    policy_refresh_interval: float = 300,
    pattern_report_interval: float = 600,
    downstream_handler: logging.Handler | None = None,
    use_structlog: bool = True,
    posthog_api_key: str | None = None,
    posthog_team_id: str | None = None,
    posthog_endpoint: str = "https://app.posthog.com",
    **kwargs: Any,
) -> None:
    """
    Sample what the application logs, through logging and structlog.

    Kept records go to *downstream_handler* and, with *posthog_api_key*, to PostHog. Calling it
    again replaces what the call before set up.

    Args:
        service_name: Name of the service.
        lipservice_url: URL of the policy server; None: work without one.
        api_key: Key of the policy server.
        policy_refresh_interval: Seconds between policy refreshes, above 0.
        pattern_report_interval: Seconds between pattern reports, above 0.
        downstream_handler: Where kept records are written; default: standard error, as
            "time level logger: message".
        use_structlog: Configure structlog as well, to log through `logging`; only if the
            application has not configured it itself (otherwise the logger `lipservice` says how to
            add the processor), and only if it is installed.
        posthog_api_key: Project key (`phc_...`); None: nothing goes to PostHog.
        posthog_team_id: PostHog's team.
        posthog_endpoint: PostHog's address; the usual ones are mapped to their ingestion host.
        kwargs: `level` (of the root logger, default INFO), `posthog_options` (a dict of further
            fields of `PostHogConfig`), and the settings of docs/reference/settings.md:
            `cost_target`, `policy_file`, `policy_cache`, `protect`, `keep_first`,
            `max_logs_per_minute`, `max_pattern_cache_size`, `shadow`, `notices`.

    Raises:
        ConfigurationError: A parameter is wrong; the message names it, nothing has changed.
        MissingExtraError: *posthog_api_key* is given and the extra is not installed.
    """
    level = _level(kwargs.pop("level", logging.INFO))
    posthog_options = kwargs.pop("posthog_options", None) or {}
    if not service_name or not isinstance(service_name, str):
        raise ConfigurationError(f"service_name is the service's name, not {service_name!r:.80}")
    if downstream_handler is not None and not isinstance(downstream_handler, logging.Handler):
        raise ConfigurationError(
            f"downstream_handler is a logging.Handler, not {downstream_handler!r:.80}"
        )
    sampler = build_sampler(
        read_settings(
            {
                "service_name": service_name,
                "lipservice_url": lipservice_url,
                "api_key": api_key,
                "policy_refresh_interval": policy_refresh_interval,
                "pattern_report_interval": pattern_report_interval,
                **kwargs,
            },
            {},
        )
    )
    targets = [downstream_handler or _standard_error()]
    owned = [] if downstream_handler is not None else targets[:]
    if posthog_api_key is not None:
        posthog = _posthog_handler(
            service_name, posthog_api_key, posthog_team_id, posthog_endpoint, posthog_options
        )
        targets.append(posthog)
        owned.append(posthog)
    with _setup.lock:
        _take_down(EXIT_SECONDS)
        _set_up(sampler, targets, owned, level)
        _setup.uses_structlog = use_structlog
        if use_structlog:
            _configure_structlog()


def get_logger(name: str) -> structlog.BoundLogger | logging.Logger:
    """
    A logger whose records are sampled.

    Args:
        name: The logger's name, usually `__name__`.

    Returns:
        structlog's logger (`logger.info("text", key=value)`), or one of `logging` if structlog
        is not installed or `use_structlog` was False.
    """
    if _setup.sampler is not None and not _setup.uses_structlog:
        return logging.getLogger(name)
    try:
        import structlog  # noqa: PLC0415 - optional
    except ImportError:
        return logging.getLogger(name)
    logger: structlog.BoundLogger = structlog.get_logger(name)
    return logger


def shutdown(timeout: float = EXIT_SECONDS) -> _Done:
    """
    Report what was counted, flush, and undo what `configure_adaptive_logging` did.

    Plainly called or awaited, with or without a running event loop: it blocks for at most
    *timeout* seconds when it is called, and what it returns can be awaited but need not be.
    Logging goes on afterwards, unsampled. Calling it twice is harmless.

    Args:
        timeout: Most seconds to wait.

    Returns:
        An awaitable that is done.
    """
    with _setup.lock:
        _take_down(timeout)
    return _Done()


class _Done:
    """Awaitable without an event loop: everything has been done."""

    def __await__(self) -> Generator[None, None, None]:
        return
        yield


def _set_up(
    sampler: AdaptiveSampler,
    targets: list[logging.Handler],
    owned: list[logging.Handler],
    level: int,
) -> None:
    root = logging.getLogger()
    _setup.sampler = sampler
    _setup.owned = owned
    _setup.handlers = [SamplingHandler(target, sampler=sampler) for target in targets]
    _setup.level_before = root.level
    set_default_sampler(sampler)
    for handler in _setup.handlers:
        root.addHandler(handler)
    if root.level == logging.WARNING or root.level > level:  # logging's default, or deafer
        root.setLevel(level)


def _take_down(timeout: float) -> None:
    sampler = _setup.sampler
    if sampler is None:
        return
    root = logging.getLogger()
    until = time.monotonic() + timeout
    sampler.shutdown(timeout)
    for handler in _setup.handlers:
        root.removeHandler(handler)
    for handler in _setup.owned:
        exporter = getattr(handler, "exporter", None)
        if exporter is not None:
            exporter.stop(max(0.0, until - time.monotonic()))  # one deadline for all
        handler.flush()
        handler.close()
    if _setup.level_before is not None:
        root.setLevel(_setup.level_before)
    if _setup.configured_structlog:
        _structlog().reset_defaults()
    _setup.sampler = None
    _setup.handlers, _setup.owned = [], []
    _setup.configured_structlog = False
    set_default_sampler(None)
    forget_samplers()


def _standard_error() -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_TextFormatter())
    return handler


def _posthog_handler(
    service_name: str,
    api_key: str,
    team_id: str | None,
    endpoint: str,
    options: dict[str, Any],
) -> logging.Handler:
    from lipservice.export.config import PostHogConfig  # noqa: PLC0415 - an extra
    from lipservice.export.handler import PostHogHandler  # noqa: PLC0415

    config = PostHogConfig(
        api_key=api_key,
        team_id=team_id,
        endpoint=endpoint,
        **{"service_name": service_name, **options},
    )
    return PostHogHandler(config)


def _structlog() -> Any:
    import structlog  # noqa: PLC0415 - optional

    return structlog


def _configure_structlog() -> None:
    try:
        structlog = _structlog()
    except ImportError:
        return
    if structlog.is_configured():
        _logger.info(
            "structlog is configured already and stays as it is; to sample its events, put"
            " lipservice.SamplingProcessor() into its processors"
        )
        return
    from lipservice.integrations.structlog import sampling_bound_logger  # noqa: PLC0415 - optional

    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, _to_logging],
        # Not the processor: that could not hold what a request may have to release.
        wrapper_class=sampling_bound_logger(structlog.stdlib.BoundLogger),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    _setup.configured_structlog = True


def _to_logging(
    _logger: object, _name: str, event_dict: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The event as message and its pairs as `extra`: what `logging` formats and PostHog gets."""
    event = event_dict.pop("event", "")
    options: dict[str, Any] = {
        key: event_dict.pop(key) for key in _LOGGING_OPTIONS if key in event_dict
    }
    arguments = event_dict.pop("positional_args", ())
    extra = {f"{key}_" if key in _TAKEN else key: value for key, value in event_dict.items()}
    return (event, *arguments), {**options, "extra": extra}


_LOGGING_OPTIONS: Final = ("exc_info", "stack_info", "stacklevel")
# Names that a record has already: `logging` refuses them in `extra`.
_TAKEN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class _TextFormatter(logging.Formatter):
    """time level logger: message key=value ..."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        pairs = "".join(
            f" {key}={value!r}"
            for key, value in vars(record).items()
            if key not in _TAKEN and not key.startswith(("lipservice_", "sampling."))
        )
        return super().formatMessage(record) + pairs


def _level(level: object) -> int:
    number = logging.getLevelName(level) if isinstance(level, str) else level
    if isinstance(number, bool) or not isinstance(number, int):
        raise ConfigurationError(f"level is a level of logging, not {level!r:.80}")
    return number
