"""
Makes a service's next policy: gathers its patterns, asks the engine, stores the version.

One generation of a service at a time, in the whole fleet (a lease in the database); at most what
the team may spend on models in a day (reserved before the call, settled after it). Whatever the
engine does, the active policy stays until a new one is stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Final

from lipservice.policy import SamplingPolicy
from lipservice_server.config import Settings
from lipservice_server.db import Row
from lipservice_server.errors import InvalidError
from lipservice_server.policy_engine import (
    EngineSettings,
    GenerationRequest,
    GenerationResult,
    PatternRow,
    Provider,
    generate,
    most_tokens,
)
from lipservice_server.runtime import Runtime

_WINDOW_DAYS: Final = 7
_DAY: Final = 86_400
_REASONS_KEPT: Final = 500


@dataclass(frozen=True, slots=True)
class Wish:
    """What whoever asks for a policy says; None: as the service or the server is set."""

    #: Dictionaries of `api.schemas.GivenPattern`; None: the service's reports.
    patterns: Sequence[Mapping[str, Any]] | None = None
    cost_target: float | None = None
    provider: str | None = None
    activate: bool | None = None


@dataclass(frozen=True, slots=True)
class Made:
    """A new version, and how it came about."""

    row: Row
    provider: str
    fallback_reason: str | None
    max_logs_per_minute: int | None


def generate_policy(
    runtime: Runtime, team_id: int, service_name: str, wish: Wish, *, actor: str
) -> Made:
    """
    Make and store the service's next version.

    Raises:
        InvalidError: There are no patterns to make it from.
        ConflictError: Another generation of this service is under way.
        DatabaseAwayError: The database does not answer.
    """
    store, now = runtime.store, runtime.clock()
    store.services.ensure(team_id, service_name, now=now)
    lease = f"generate {team_id}/{service_name}"
    with store.leases.hold(lease, seconds=runtime.settings.llm_seconds + 60, now=now):
        service = store.services.require(team_id, service_name)
        rows, window = _gather(runtime, team_id, service, wish, now)
        if not rows:
            raise InvalidError(
                "there are no patterns to make a policy from: report some, or give them"
            )
        result = _ask(runtime, team_id, service, rows, window, wish)
        return _store(runtime, team_id, service, result, wish, actor)


def engine_settings(settings: Settings) -> EngineSettings:
    """What the engine needs of the server's settings."""
    given: dict[str, Any] = {
        "openai_api_key": settings.openai_api_key,
        "openai_base_url": settings.openai_base_url,
        "openai_model": settings.openai_model,
        "anthropic_api_key": settings.anthropic_api_key,
        "anthropic_base_url": settings.anthropic_base_url,
        "anthropic_model": settings.anthropic_model,
        "timeout_seconds": settings.llm_seconds,
    }
    return EngineSettings(**{name: value for name, value in given.items() if value})


def _gather(
    runtime: Runtime, team_id: int, service: Row, wish: Wish, now: float
) -> tuple[list[PatternRow], float]:
    """The patterns, and the seconds over which they were counted."""
    stored = runtime.store.patterns.for_generation(
        team_id, service["name"], now=now, days=_WINDOW_DAYS
    )
    age = max(60.0, min(now - service["created_at"], _WINDOW_DAYS * _DAY))
    if wish.patterns is None:
        return [_stored_row(row) for row in stored], age
    known = {row["signature"]: row for row in stored}
    summed: dict[str, PatternRow] = {}
    for given in wish.patterns:
        if given["signature"] in summed:
            raise InvalidError(f"patterns names {given['signature']} twice")
        summed[given["signature"]] = _given_row(given, known.get(given["signature"]))
    return list(summed.values()), 600.0


def _stored_row(row: Row) -> PatternRow:
    errors = min(row["errors"], row["count"])
    severities = {row["severity"]: row["count"] - errors, "ERROR": errors} if errors else {}
    if row["severity"] in ("ERROR", "CRITICAL"):
        severities = {}
    return PatternRow(
        signature=row["signature"],
        count=row["count"],
        template=row["template"],
        severity=row["severity"],
        mean_bytes=row["bytes"] / row["count"] if row["bytes"] else None,
        first_seen=datetime.fromtimestamp(row["first_seen"], timezone.utc),
        severity_distribution=severities,
    )


def _given_row(given: Mapping[str, Any], known: Row | None) -> PatternRow:
    count, size = given["count"], given["bytes"]
    return PatternRow(
        signature=given["signature"],
        count=count,
        template=given["template"] or (known["template"] if known else ""),
        severity=given["severity"] or (known["severity"] if known else "INFO"),
        mean_bytes=size / count if size and count else None,
        first_seen=datetime.fromtimestamp(known["first_seen"], timezone.utc) if known else None,
    )


def _ask(
    runtime: Runtime, team_id: int, service: Row, rows: list[PatternRow], window: float, wish: Wish
) -> GenerationResult:
    settings, store = runtime.settings, runtime.store
    engine = engine_settings(settings)
    wanted = wish.provider or service["llm_provider"] or settings.llm_provider
    day = int(runtime.clock()) // _DAY
    reserved = _reserve(runtime, team_id, wanted, engine, day)
    active = store.policies.active(team_id, service["name"])
    pins = store.patterns.overrides(team_id, service["name"])
    request = GenerationRequest(
        service_name=service["name"],
        patterns=tuple(rows),
        cost_target=wish.cost_target or service["cost_target"] or settings.cost_target,
        provider=_provider(wanted),
        pins={pin["signature"]: pin["rate"] for pin in pins if not pin["protected"]},
        protected=frozenset(pin["signature"] for pin in pins if pin["protected"]),
        words=tuple(service["words"]),
        max_logs_per_minute=service["max_logs_per_minute"],
        previous=SamplingPolicy.from_dict(active["document"]) if active else None,
        window_seconds=window,
        tokens_allowed=reserved if reserved is not None else 0,
        version=service["last_version"] + 1,
    )
    used = reserved or 0
    try:
        result = generate(
            request,
            settings=engine,
            clock=lambda: datetime.fromtimestamp(runtime.clock(), timezone.utc),
        )
        used = result.tokens_in + result.tokens_out
    finally:
        if reserved is not None:
            store.teams.settle(team_id, day, reserved=reserved, used=used)
    outcome = "fallback" if result.fallback_reason else "ok"
    runtime.metrics.generations.labels(result.provider_used, outcome).inc()
    return result


def _reserve(
    runtime: Runtime, team_id: int, provider: str, engine: EngineSettings, day: int
) -> int | None:
    """Tokens set aside for this call; None where none is to be made or the day's are spent."""
    if provider == "builtin":
        return None
    team, settings = runtime.store.teams.get(team_id), runtime.settings
    return runtime.store.teams.reserve_call(
        team_id,
        day,
        calls_allowed=_or(team["llm_daily_calls"], settings.llm_daily_calls),
        tokens_allowed=_or(team["llm_daily_tokens"], settings.llm_daily_tokens),
        reserve=most_tokens(engine),  # what was not used is given back after the call
    )


def _or(value: int | None, default: int) -> int:
    return default if value is None else value


def _provider(name: str) -> Provider:
    if name == "openai":
        return "openai"
    return "anthropic" if name == "anthropic" else "builtin"


def _store(
    runtime: Runtime, team_id: int, service: Row, result: GenerationResult, wish: Wish, actor: str
) -> Made:
    store, now = runtime.store, runtime.clock()
    activate = service["auto_apply"] if wish.activate is None else wish.activate
    row = store.policies.add(
        team_id,
        service["name"],
        result.policy,
        activate=activate,
        actor=actor,
        now=now,
        cost_target=wish.cost_target or service["cost_target"] or runtime.settings.cost_target,
        cost_reduction=result.cost_reduction,
        details=_details(result),
    )
    store.services.mark_generated(team_id, service["id"], now=now)
    if row["state"] == "active":
        runtime.cache.refresh((team_id, service["name"]))
        runtime.events.capture(
            "lipservice policy activated",
            team=team_id,
            properties={
                "version": row["version"],
                "generated_by": row["generated_by"],
                "cost_target": row["cost_target"],
                "cost_reduction": row["cost_reduction"],
                "pattern_rates": len(row["document"]["pattern_rates"]),
            },
        )
    return Made(row, result.provider_used, result.fallback_reason, service["max_logs_per_minute"])


def _details(result: GenerationResult) -> dict[str, Any]:
    """What the audit and the dashboard want to know of a generation."""
    told = {
        signature: {"importance": judgement.importance, "reason": judgement.reason}
        for signature, judgement in result.judgements.items()
        if judgement.source != "builtin"
    }
    return {
        "summary": result.summary,
        "provider": result.provider_used,
        "fallback_reason": result.fallback_reason,
        "tokens_in": result.tokens_in,
        "tokens_out": result.tokens_out,
        "prompt_sha256": result.prompt_hash,
        "model": result.model,
        "answer": result.answer,
        "clamps": [
            {"rule": clamp.rule, "subject": clamp.subject, "said": clamp.said}
            for clamp in result.clamps[:_REASONS_KEPT]
        ],
        "patterns": len(result.judgements),
        "judgements": dict(list(told.items())[:_REASONS_KEPT]),
    }
