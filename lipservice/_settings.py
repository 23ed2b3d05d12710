"""
From parameters and the environment to a sampler; the one table of settings.

A parameter that is given wins over its environment variable. Equal settings share one sampler, so
that the same filter on two handlers counts a record once.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from lipservice._complaints import Complaints
from lipservice._fork import on_fork
from lipservice.decision import Explanation, LedgerEntry
from lipservice.exceptions import ConfigurationError
from lipservice.policy import SamplingPolicy
from lipservice.sampler import AdaptiveSampler, samplers


@dataclass(frozen=True, slots=True)
class Settings:
    """What makes a sampler; see docs/reference/settings.md."""

    service_name: str | None = None
    lipservice_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    cost_target: float | None = None
    policy_file: str | None = None
    policy_cache: str | None = None
    policy_refresh_interval: float = 300.0
    pattern_report_interval: float = 600.0
    max_pattern_cache_size: int = 10_000
    max_logs_per_minute: int | None = None
    keep_first: int = 10
    protect: tuple[str, ...] = ()
    shadow: bool = False
    notices: bool = True
    call_sites: bool = True

    def __post_init__(self) -> None:
        # JSON and dictConfig bring lists.
        object.__setattr__(self, "protect", _words(self.protect))
        for name in ("service_name", "lipservice_url", "api_key"):
            _check_text(getattr(self, name), name)
        for name in ("shadow", "notices", "call_sites"):
            _check_truth(getattr(self, name), name)


def _truth(text: str) -> bool:
    lowered = text.lower()
    if lowered in {"1", "true", "yes", "on"}:
        return True
    if lowered in {"0", "false", "no", "off"}:
        return False
    raise ValueError(text)


def _split(text: str) -> tuple[str, ...]:
    return tuple(filter(None, map(str.strip, text.split(","))))


#: Setting -> its environment variable and how its text is read.
ENVIRONMENT: Final[Mapping[str, tuple[str, Callable[[str], Any]]]] = {
    "service_name": ("LIPSERVICE_SERVICE_NAME", str),
    "lipservice_url": ("LIPSERVICE_URL", str),
    "api_key": ("LIPSERVICE_API_KEY", str),
    "cost_target": ("LIPSERVICE_COST_TARGET", float),
    "policy_file": ("LIPSERVICE_POLICY_FILE", str),
    "policy_cache": ("LIPSERVICE_POLICY_CACHE", str),
    "policy_refresh_interval": ("LIPSERVICE_POLICY_REFRESH_INTERVAL", float),
    "pattern_report_interval": ("LIPSERVICE_PATTERN_REPORT_INTERVAL", float),
    "max_pattern_cache_size": ("LIPSERVICE_MAX_PATTERN_CACHE_SIZE", int),
    "max_logs_per_minute": ("LIPSERVICE_MAX_LOGS_PER_MINUTE", int),
    "keep_first": ("LIPSERVICE_KEEP_FIRST", int),
    "protect": ("LIPSERVICE_PROTECT", _split),
    "shadow": ("LIPSERVICE_SHADOW", _truth),
    "notices": ("LIPSERVICE_NOTICES", _truth),
    "call_sites": ("LIPSERVICE_CALL_SITES", _truth),
}


class _Shared:
    """The samplers of this process. The log call's look-up, `default`, takes no lock."""

    def __init__(self) -> None:
        self.default: AdaptiveSampler | None = None
        self.by_settings: dict[Settings, AdaptiveSampler] = {}
        self._reset_after_fork()
        on_fork(self)

    def _reset_after_fork(self) -> None:
        # Re-entrant: making a sampler imports modules, which may log or be interrupted.
        self.making = threading.RLock()
        #: Threads in whose log call the default sampler is being made.
        self.makers: set[int] = set()


_shared: Final = _Shared()


def read_settings(given: Mapping[str, object], environ: Mapping[str, str]) -> Settings:
    """
    Complete what was given from the environment.

    Raises:
        ConfigurationError: An unknown parameter, or a variable that cannot be read.
    """
    known = [each.name for each in fields(Settings)]
    for name in given:
        if name not in known:
            raise ConfigurationError(f"{name!r} is no setting; there are {', '.join(known)}")
    values = {name: value for name, value in given.items() if value is not None}
    for name, (variable, read) in ENVIRONMENT.items():
        text = environ.get(variable, "").strip()
        if text and name not in values:
            try:
                values[name] = read(text)
            except ValueError:
                raise ConfigurationError(f"{variable} cannot be read: {text!r:.80}") from None
    return Settings(**values)  # type: ignore[arg-type]  # checked by the sampler


def build_sampler(settings: Settings) -> AdaptiveSampler:
    """
    A new sampler.

    Raises:
        ConfigurationError: A setting is wrong; the message names it.
    """
    like = _policy_like(settings)
    policy = like if _says_something(settings) else None
    return AdaptiveSampler(
        _client(settings),
        settings.policy_refresh_interval,
        settings.pattern_report_interval,
        settings.max_pattern_cache_size,
        service_name=settings.service_name,
        cost_target=settings.cost_target,
        policy=policy,
        policy_file=settings.policy_file,
        policy_cache=settings.policy_cache,
        like=like,
        notices=settings.notices,
        call_sites=settings.call_sites,
    )


def sampler_for(
    sampler: AdaptiveSampler | None, given: Mapping[str, object]
) -> AdaptiveSampler | None:
    """
    The sampler that an integration was given, or the one its settings make.

    None if neither was given: then the default sampler is looked up at each record, so that it
    may be configured later.

    Raises:
        ConfigurationError: Both a sampler and settings were given, or a setting is wrong.
    """
    if sampler is not None:
        if given:
            raise ConfigurationError(f"give a sampler or settings, not both: {', '.join(given)}")
        return sampler
    if not given:
        return None
    settings = read_settings(given, os.environ)
    try:
        hash(settings)
    except TypeError:
        return build_sampler(settings)  # refuses what is of the wrong type
    with _shared.making:
        if settings not in _shared.by_settings:
            _shared.by_settings[settings] = build_sampler(settings)
        return _shared.by_settings[settings]


def default_sampler() -> AdaptiveSampler:
    """
    The sampler that was configured, else one made from the environment alone.

    Raises:
        ConfigurationError: An environment variable is wrong; the message names it.
    """
    sampler = _shared.default
    if sampler is None:
        made = build_sampler(read_settings({}, os.environ))
        with _shared.making:
            sampler = _shared.default
            if sampler is None:  # no other thread was faster
                sampler = _shared.default = made
    return sampler


def default_sampler_quietly() -> AdaptiveSampler:
    """`default_sampler` for the middle of a log call: if that fails, everything is kept."""
    sampler = _shared.default
    return _make_default_quietly() if sampler is None else sampler


def _make_default_quietly() -> AdaptiveSampler:
    maker = threading.get_ident()
    if maker in _shared.makers:  # a record that is born while we make it: an import that warns
        return AdaptiveSampler(notices=False)
    _shared.makers.add(maker)
    try:
        return default_sampler()
    except Exception as error:
        sampler = _shared.default = AdaptiveSampler()
        Complaints().warn("settings", f"everything is kept: {error}")
        return sampler
    finally:
        _shared.makers.discard(maker)


def boost(
    pattern: str | None = None,
    *,
    severity: str | None = None,
    logger: str | None = None,
    minutes: float = 10.0,
) -> None:
    """
    `AdaptiveSampler.boost` for every sampler of this process.

    Args:
        pattern: A signature, or a message of the pattern.
        severity: Only records of this severity.
        logger: Records of this logger and its children; not together with *pattern* and
            *severity*.
        minutes: How long, above 0, at most 1440.

    Raises:
        ConfigurationError: A parameter is wrong; the message names it.
    """
    for sampler in samplers() or [default_sampler()]:
        sampler.boost(pattern, severity=severity, logger=logger, minutes=minutes)


def explain(message: str, severity: str = "INFO") -> Explanation:
    """
    `AdaptiveSampler.explain` by the sampler of this process that has seen most of the pattern.

    Args:
        message: The finished message, or a signature of a pattern that was seen.
        severity: A level name in any case, or a level number.
    """
    explained = [each.explain(message, severity) for each in samplers() or [default_sampler()]]
    return max(explained, key=lambda each: each.seen)


def ledger(*, patterns: bool = True) -> list[LedgerEntry]:
    """
    `AdaptiveSampler.ledger` of every sampler of this process, one after the other.

    Args:
        patterns: An entry for each pattern and severity; False: one for all patterns of a
            severity.
    """
    return [entry for each in samplers() for entry in each.ledger(patterns=patterns)]


def set_default_sampler(sampler: AdaptiveSampler | None) -> None:
    """Replace the default sampler; None: the environment's again, when it is next asked for."""
    _shared.default = sampler


def forget_samplers() -> None:
    """Make equal settings build a new sampler again, after a shutdown."""
    with _shared.making:
        _shared.by_settings.clear()
        _shared.default = None


def _client(settings: Settings) -> Any:
    if settings.lipservice_url is None:
        return None
    from lipservice.client import LipServiceClient  # noqa: PLC0415 - brings requests

    try:
        return LipServiceClient(
            settings.lipservice_url, settings.api_key, service_name=settings.service_name
        )
    except ConfigurationError as error:
        named = str(error).replace("base_url", "lipservice_url", 1)  # as its user knows it
        raise ConfigurationError(named) from None


def _policy_like(settings: Settings) -> SamplingPolicy:
    """What a policy made in this process says besides rates, checked as any policy is."""
    document = {
        "policy_id": "settings",
        "patterns": list(settings.protect),
        "max_logs_per_minute": settings.max_logs_per_minute,
        "keep_first": settings.keep_first,
        "mode": "shadow" if settings.shadow else "active",
        "generated_by": "settings",
    }
    try:
        return SamplingPolicy.from_dict(document)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


def _says_something(settings: Settings) -> bool:
    """Whether the settings alone are a policy: a limit, and no other source of one."""
    other = settings.cost_target or settings.policy_file or settings.lipservice_url
    return settings.max_logs_per_minute is not None and not other


def _words(value: object) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, (list, tuple, set, frozenset)):
        raise ConfigurationError(f"protect is a list of words, not {value!r:.80}")
    for word in value:
        if not isinstance(word, str) or not word.strip():
            raise ConfigurationError(f"protect is a list of words; {word!r:.80} is none")
    return tuple(value)


def _check_text(value: object, name: str) -> None:
    if value is not None and not isinstance(value, str):
        raise ConfigurationError(f"{name} is a text, not a {type(value).__name__}")


def _check_truth(value: object, name: str) -> None:
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name} is true or false, not {value!r:.80}")
