"""
Every setting of the server, in one table: the fields of `Settings`.

Rule: nothing else reads the environment. Settings are checked once, at start; a wrong one stops
the start with a message that names it and says what would be right.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from lipservice.exceptions import ConfigurationError

_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})
_LEAST_SECRET: Final = 32


def _setting(
    env: str,
    default: Any,
    help: str,
    *,
    unit: str = "",
    least: float | None = None,
    most: float | None = None,
    choices: tuple[str, ...] = (),
    secret: bool = False,
) -> Any:
    metadata = {
        "env": env,
        "help": help,
        "unit": unit,
        "least": least,
        "most": most,
        "choices": choices,
        "secret": secret,
    }
    return field(default=default, metadata=metadata, repr=not secret)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the operator has set. Immutable; secrets are left out of `repr`."""

    # Where things are kept.
    database_url: str = _setting(
        "DATABASE_URL",
        "",
        "PostgreSQL (postgresql://user:password@host/name) or SQLite (sqlite:///path). "
        "Empty: lipservice.db in the data directory.",
        secret=True,
    )
    redis_url: str = _setting(
        "REDIS_URL", "", "Redis for limits and jobs. Empty: both are kept locally.", secret=True
    )
    data_dir: str = _setting(
        "LIPSERVICE_DATA_DIR",
        "lipservice-data",
        "Directory of the SQLite files, the secret key's file and the snapshot of the policies.",
    )
    secret_key: str = _setting(
        "LIPSERVICE_SECRET_KEY",
        "",
        "Secret under which API keys are hashed and tokens signed, at least 32 characters; the "
        "same on every host. Empty: made once, in the file secret.key of the data directory.",
        secret=True,
    )
    auto_migrate: bool = _setting(
        "LIPSERVICE_AUTO_MIGRATE", True, "Whether a starting server brings the schema up to date."
    )

    # The server process.
    host: str = _setting("LIPSERVICE_HOST", "127.0.0.1", "Address to listen on.")
    port: int = _setting("LIPSERVICE_PORT", 8000, "Port to listen on.", least=0, most=65535)
    workers: int = _setting("LIPSERVICE_WORKERS", 2, "Worker processes.", least=1, most=256)
    threads: int = _setting("LIPSERVICE_THREADS", 32, "Threads of each worker.", least=4, most=1024)
    log_level: str = _setting(
        "LOG_LEVEL",
        "INFO",
        "Level of the server's own log.",
        choices=("DEBUG", "INFO", "WARNING", "ERROR"),
    )
    trusted_proxies: int = _setting(
        "LIPSERVICE_TRUSTED_PROXIES",
        0,
        "Proxies in front whose X-Forwarded-For is believed; 0: the header is ignored.",
        least=0,
        most=10,
    )

    dashboard: str = _setting(
        "LIPSERVICE_DASHBOARD",
        "key",
        "Who may open the dashboard: whoever signs in with an admin key (key), anybody on this "
        "machine without signing in (loopback, for development; the server must then listen on "
        "the loopback interface), or nobody (off).",
        choices=("key", "loopback", "off"),
    )

    # The database's bounds.
    pool_size: int = _setting(
        "LIPSERVICE_POOL_SIZE",
        8,
        "Connections to PostgreSQL that a worker holds at most.",
        least=2,
        most=256,
    )
    database_timeout: float = _setting(
        "LIPSERVICE_DATABASE_TIMEOUT",
        3.0,
        "Longest wait for the database in one statement of an administrative request.",
        unit="s",
        least=0.1,
        most=60,
    )
    report_timeout: float = _setting(
        "LIPSERVICE_REPORT_TIMEOUT",
        0.25,
        "Longest wait of a report for the right to write; after it the answer is 503.",
        unit="s",
        least=0.01,
        most=30,
    )

    # Admission.
    writers: int = _setting(
        "LIPSERVICE_WRITERS", 2, "Reports that a worker writes at one time.", least=1, most=64
    )
    max_body_bytes: int = _setting(
        "LIPSERVICE_MAX_BODY_BYTES",
        2 * 1024 * 1024,
        "Largest body of a request after decompression.",
        unit="bytes",
        least=1024,
        most=64 * 1024 * 1024,
    )
    max_compressed_bytes: int = _setting(
        "LIPSERVICE_MAX_COMPRESSED_BYTES",
        256 * 1024,
        "Largest gzip body of a request as it is sent.",
        unit="bytes",
        least=1024,
        most=64 * 1024 * 1024,
    )
    body_seconds: float = _setting(
        "LIPSERVICE_BODY_SECONDS",
        10.0,
        "Time in which a request's body must have arrived.",
        unit="s",
        least=0.1,
        most=300,
    )
    polls_per_minute: int = _setting(
        "LIPSERVICE_POLLS_PER_MINUTE",
        60_000,
        "Policy requests of one key a minute and worker.",
        least=1,
        most=10**9,
    )
    reports_per_minute: int = _setting(
        "LIPSERVICE_REPORTS_PER_MINUTE",
        12_000,
        "Reports of one key a minute.",
        least=1,
        most=10**9,
    )
    requests_per_minute: int = _setting(
        "LIPSERVICE_REQUESTS_PER_MINUTE",
        600,
        "Other requests of one key a minute.",
        least=1,
        most=10**9,
    )
    generations_per_minute: int = _setting(
        "LIPSERVICE_GENERATIONS_PER_MINUTE",
        10,
        "Generations that one key may ask for a minute.",
        least=1,
        most=10**9,
    )
    failures_per_minute: int = _setting(
        "LIPSERVICE_FAILURES_PER_MINUTE",
        300,
        "Refused keys of one address a minute; after them the answer is 429.",
        least=1,
        most=10**9,
    )

    # The policies in memory.
    cache_seconds: float = _setting(
        "LIPSERVICE_CACHE_SECONDS",
        1.0,
        "Time between two looks for changed policies and keys.",
        unit="s",
        least=0.05,
        most=5,
    )
    cache_bytes: int = _setting(
        "LIPSERVICE_CACHE_BYTES",
        64 * 1024 * 1024,
        "Memory of a worker for rendered policies.",
        unit="bytes",
        least=1024 * 1024,
        most=2**40,
    )
    share_seconds: float = _setting(
        "LIPSERVICE_SHARE_SECONDS",
        30.0,
        "Time between two computations of the instances' shares of max_logs_per_minute.",
        unit="s",
        least=0.05,
        most=3600,
    )

    # Tokens and keys.
    token_seconds: int = _setting(
        "LIPSERVICE_TOKEN_SECONDS", 900, "Life of a JWT.", unit="s", least=10, most=3600
    )
    rotation_seconds: int = _setting(
        "LIPSERVICE_ROTATION_SECONDS",
        7 * 86_400,
        "Time for which a rotated key works beside its successor.",
        unit="s",
        least=0,
        most=365 * 86_400,
    )

    # Generation.
    llm_provider: str = _setting(
        "LIPSERVICE_LLM_PROVIDER",
        "builtin",
        "What judges the importance of patterns where a service does not say.",
        choices=("builtin", "openai", "anthropic"),
    )
    openai_api_key: str = _setting("OPENAI_API_KEY", "", "Key for OpenAI.", secret=True)
    openai_base_url: str = _setting(
        "OPENAI_BASE_URL", "", "An OpenAI-compatible endpoint. Empty: OpenAI's own."
    )
    openai_model: str = _setting(
        "LIPSERVICE_OPENAI_MODEL", "", "Model at OpenAI. Empty: the engine's default."
    )
    anthropic_api_key: str = _setting("ANTHROPIC_API_KEY", "", "Key for Anthropic.", secret=True)
    anthropic_base_url: str = _setting(
        "ANTHROPIC_BASE_URL", "", "Another endpoint of Anthropic's protocol. Empty: its own."
    )
    anthropic_model: str = _setting(
        "LIPSERVICE_ANTHROPIC_MODEL", "", "Model at Anthropic. Empty: the engine's default."
    )
    llm_seconds: float = _setting(
        "LIPSERVICE_LLM_SECONDS",
        30.0,
        "Time for the model's answer; after it the built-in weights are used.",
        unit="s",
        least=0.1,
        most=300,
    )
    llm_daily_calls: int = _setting(
        "LIPSERVICE_LLM_DAILY_CALLS",
        200,
        "Generations with a model of one team a day; after them the built-in weights are used.",
        least=0,
        most=10**9,
    )
    llm_daily_tokens: int = _setting(
        "LIPSERVICE_LLM_DAILY_TOKENS",
        2_000_000,
        "Tokens of one team a day.",
        least=0,
        most=10**12,
    )
    cost_target: float = _setting(
        "LIPSERVICE_COST_TARGET",
        0.1,
        "Share of the bytes that a new service keeps, 0 to 1.",
        least=0.0001,
        most=1,
    )
    regenerate_minutes: int = _setting(
        "LIPSERVICE_REGENERATE_MINUTES",
        30,
        "Least time between two generations of a service by itself; 0: never by itself.",
        unit="min",
        least=0,
        most=525_600,
    )
    regenerate_records: int = _setting(
        "LIPSERVICE_REGENERATE_RECORDS",
        1_000,
        "New records that a service must have reported before it is generated by itself.",
        least=1,
        most=10**12,
    )

    # Background work.
    rollup_minutes: int = _setting(
        "LIPSERVICE_ROLLUP_MINUTES",
        5,
        "Time between two roll-ups of counts into hours and days.",
        unit="min",
        least=1,
        most=30,
    )
    hours_kept: int = _setting(
        "LIPSERVICE_HOURS_KEPT",
        72,
        "Hours for which a pattern's volume is kept by the hour.",
        unit="h",
        least=24,
        most=8_760,
    )
    days_kept: int = _setting(
        "LIPSERVICE_DAYS_KEPT",
        90,
        "Days for which a pattern's volume is kept by the day, and an unseen pattern at all.",
        unit="d",
        least=2,
        most=3_650,
    )
    totals_days_kept: int = _setting(
        "LIPSERVICE_TOTALS_DAYS_KEPT",
        400,
        "Days for which a service's totals and the audit log are kept.",
        unit="d",
        least=2,
        most=36_500,
    )
    versions_kept: int = _setting(
        "LIPSERVICE_VERSIONS_KEPT",
        200,
        "Policy versions of a service that are kept, the active one always among them.",
        least=2,
        most=100_000,
    )
    price_per_gb: float = _setting(
        "LIPSERVICE_PRICE_PER_GB",
        0.5,
        "Price of a gigabyte (10^9 bytes) of logs where a team has not set its own.",
        least=0,
        most=10**6,
    )

    # PostHog.
    posthog_api_key: str = _setting(
        "POSTHOG_API_KEY", "", "Project key for events about policies and savings.", secret=True
    )
    posthog_host: str = _setting(
        "POSTHOG_HOST", "https://us.i.posthog.com", "Where PostHog takes events."
    )

    @property
    def database(self) -> str:
        """The database's URL, the default one worked out."""
        return self.database_url or f"sqlite:///{Path(self.data_dir).resolve() / 'lipservice.db'}"


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """
    Read the settings from *environ* (the process's own where None).

    Raises:
        ConfigurationError: A variable is wrong; the message names it and says what is right.
    """
    source = os.environ if environ is None else environ
    values = {
        spec.name: _read(spec, source[spec.metadata["env"]])
        for spec in fields(Settings)
        if source.get(spec.metadata["env"], "").strip()
    }
    settings = Settings(**values)
    _check_urls(settings)
    check_dashboard(settings)
    return settings


def table() -> list[dict[str, str]]:
    """One row for each setting (variable, default, unit, help), for the docs and `--help`."""
    return [
        {
            "variable": spec.metadata["env"],
            "default": "" if spec.default == "" else str(spec.default),
            "unit": spec.metadata["unit"],
            "help": spec.metadata["help"],
        }
        for spec in fields(Settings)
    ]


def check_dashboard(settings: Settings) -> None:
    """
    Refuse a dashboard without sign-in that others could reach.

    Raises:
        ConfigurationError: The server is to listen on more than the loopback interface.
    """
    if settings.dashboard == "loopback" and not is_loopback(settings.host):
        raise ConfigurationError(
            "LIPSERVICE_DASHBOARD=loopback has no sign-in, so LIPSERVICE_HOST must be 127.0.0.1, "
            f"::1 or localhost, not {settings.host!r:.80}"
        )


def is_loopback(host: str) -> bool:
    """Whether an address or name is this machine's own loopback interface."""
    try:
        return host.lower() == "localhost" or ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _read(spec: Field[Any], text: str) -> Any:
    env, text = spec.metadata["env"], text.strip()
    if spec.type == "bool":
        return _read_flag(env, text)
    if spec.type in ("int", "float"):
        return _read_number(spec, text)
    choices = spec.metadata["choices"]
    if not choices:
        return text
    for choice in choices:
        if text.upper() == choice.upper():
            return choice
    raise ConfigurationError(f"{env} is one of {', '.join(choices)}, not {text!r:.40}")


def _read_flag(env: str, text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ConfigurationError(f"{env} is true or false, not {text!r:.40}")


def _read_number(spec: Field[Any], text: str) -> int | float:
    env, least, most = (spec.metadata[name] for name in ("env", "least", "most"))
    kind = "a whole number" if spec.type == "int" else "a number"
    try:
        number = int(text) if spec.type == "int" else float(text)
    except ValueError:
        raise ConfigurationError(f"{env} is {kind}, not {text!r:.40}") from None
    if not least <= number <= most:
        unit = f" {spec.metadata['unit']}" if spec.metadata["unit"] else ""
        raise ConfigurationError(f"{env} lies between {least} and {most}{unit}, not {text:.40}")
    return number


def _check_urls(settings: Settings) -> None:
    if not settings.database.startswith(("sqlite:///", "postgresql://", "postgres://")):
        raise ConfigurationError(
            "DATABASE_URL begins with postgresql:// or sqlite:/// (its value is not shown here)"
        )
    if settings.redis_url and urlsplit(settings.redis_url).scheme not in (
        "redis",
        "rediss",
        "unix",
    ):
        raise ConfigurationError("REDIS_URL begins with redis://, rediss:// or unix://")
    if settings.secret_key and len(settings.secret_key) < _LEAST_SECRET:
        raise ConfigurationError(f"LIPSERVICE_SECRET_KEY has at least {_LEAST_SECRET} characters")
    for env, url in (
        ("OPENAI_BASE_URL", settings.openai_base_url),
        ("ANTHROPIC_BASE_URL", settings.anthropic_base_url),
        ("POSTHOG_HOST", settings.posthog_host),
    ):
        if url and (urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc):
            raise ConfigurationError(f"{env} is an http or https address, not {url!r:.80}")
