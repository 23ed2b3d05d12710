"""Policies: the active one, history, differences, candidates, replay, and making the next one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Final, TypeVar

from flask import Response, request

from lipservice.planning import Outcome, expected_outcome
from lipservice.policy import SamplingPolicy
from lipservice.severity import SEVERITIES
from lipservice_server.dashboard import numbers, sentences
from lipservice_server.dashboard.outcomes import (
    WELL,
    Comparison,
    Counts,
    compare,
    read_counts,
    read_policy,
    well_counted,
)
from lipservice_server.dashboard.overview import price_of
from lipservice_server.dashboard.workshop import PendingError
from lipservice_server.db import Row
from lipservice_server.diff import diff_documents
from lipservice_server.errors import InvalidError
from lipservice_server.generation import Wish, engine_settings, generate_policy
from lipservice_server.policy_cache import default_document
from lipservice_server.policy_engine import GenerationRequest, generate
from lipservice_server.policy_engine.difference import POOR, replay

if TYPE_CHECKING:
    from lipservice_server.dashboard.pages import Pages, Visit

_T = TypeVar("_T")
_DAY: Final = 86_400
_MONTH: Final = 30.0
_RATES_SHOWN: Final = 100
_HISTORY: Final = 30
_WINDOW: Final = 7
#: Above so many patterns the slider tells no pattern's change: the draft's own page does.
_MOST_COMPARED: Final = 20_000
#: What the slider stands at, per mille of the bytes: fine where it is cheap, coarse where not.
TARGETS: Final = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0)


@dataclass(frozen=True, slots=True)
class Effect:
    """What a cost target would come to, before anything is saved."""

    target: float
    outcome: Outcome
    well: int
    patterns: int
    #: Bytes and money of thirty days.
    kept_bytes: float
    cost: float
    saved: float
    sentence: str


def add_policy(pages: Pages) -> None:
    """Declare the pages and forms."""
    _add_views(pages)
    _add_new(pages)
    _add_forms(pages)


def _add_views(pages: Pages) -> None:
    @pages.page("/policy")
    def policy(visit: Visit) -> Response:
        active = visit.store.policies.active(visit.team_id, visit.name)
        history = visit.store.policies.history(
            visit.team_id, visit.name, before=visit.whole("before", 0, least=0, most=2**53) or None,
            limit=_HISTORY,
        )  # fmt: skip
        reached = _reached(visit, active)
        pins = visit.store.patterns.overrides(visit.team_id, visit.name)
        document = default_document() if active is None else active["document"]
        return visit.show(
            "policy.html",
            tab="policy",
            active=active,
            document=document,
            served=read_policy(document, visit.named, pins),
            pins=pins,
            reached=reached,
            sentence=sentences.achieved(active["cost_reduction"], reached) if active else "",
            history=history,
            drafts=[line for line in history if line["state"] == "draft"],
            more=len(history) == _HISTORY,
        )

    @pages.page("/policy/version")
    def version(visit: Visit) -> Response:
        row = _version(visit, "version")
        base = _base(visit, row)
        found = _waited(lambda: _compared(visit, base, row, _WINDOW))
        if found is None:
            return _later(visit, f"Comparing version {row['version']}")
        days = _days(visit, _WINDOW)
        return visit.show(
            "version.html",
            tab="policy",
            row=row,
            base=base,
            comparison=found,
            sentence=sentences.candidate(found),
            changes=found.changes,
            per_month=_MONTH / days,
            price=price_of(visit),
            days=days,
        )

    @pages.page("/policy/compare")
    def compared(visit: Visit) -> Response:
        before, after = _version(visit, "from"), _version(visit, "to")
        found = _waited(lambda: _compared(visit, before, after, _WINDOW))
        if found is None:
            return _later(visit, "Comparing the two versions")
        difference = diff_documents(before["document"], after["document"])
        rates = difference["pattern_rates"][:_RATES_SHOWN]
        return visit.show(
            "compare.html",
            tab="policy",
            before=before,
            after=after,
            difference=difference,
            rates=rates,
            templates=visit.overview.templates_of(
                visit.team_id, visit.name, [each["name"] for each in rates]
            ),
            comparison=found,
            sentence=sentences.candidate(found),
        )

    @pages.page("/policy/replay")
    def replay(visit: Visit) -> Response:
        days = visit.whole("days", _WINDOW, least=1, most=30)
        row = _version(visit, "version")
        base = _base(visit, row)
        processes = visit.overview.live_instances(visit.team_id, visit.name, now=visit.now)

        def make() -> tuple[Comparison, Replayed]:
            return _compared(visit, base, row, days), _replayed(visit, row, days, processes)

        found = _waited(make)
        if found is None:
            return _later(visit, f"Replaying {numbers.plural(days, 'day')}")
        comparison, replayed = found
        return visit.show(
            "replay.html",
            tab="policy",
            row=row,
            base=base,
            days=days,
            counted_days=_days(visit, days),
            comparison=comparison,
            replayed=replayed,
            severities=SEVERITIES[::-1],
            changes=comparison.changes,
            poor=comparison.poor,
            poorly=POOR,
            price=price_of(visit),
        )


@dataclass(frozen=True, slots=True)
class Replayed:
    """The sums of a replay; its patterns are those of the comparison."""

    records: float
    bytes: float
    kept_records: float
    kept_bytes: float
    kept_share: float
    limit_factor: float
    severities: Mapping[str, tuple[float, float]]


def _replayed(visit: Visit, row: Row, days: int, processes: int) -> Replayed:
    """What a version would have kept, with the processes and the fleet's limit of today."""
    limit = visit.named["max_logs_per_minute"]
    pins = visit.store.patterns.overrides(visit.team_id, visit.name)
    document = {**row["document"], "max_logs_per_minute": limit}
    key = ("replay", visit.team_id, visit.name, row["version"], days, visit.named["revision"])

    def make() -> Replayed:
        counts = _counts(visit, days)
        policy = read_policy(document, visit.named, pins)
        found = replay(
            policy, counts.volumes, processes=max(1, processes), window_seconds=counts.days * _DAY
        )
        names = (field.name for field in fields(Replayed))
        return Replayed(**{name: getattr(found, name) for name in names})

    return visit.pages.workshop.get(key, make)


def _add_new(pages: Pages) -> None:
    @pages.page("/policy/new")
    def new(visit: Visit) -> Response:
        target = _target(visit, visit.arg("target"))
        try:
            effect = _effect(visit, target, wait=0.12)
        except PendingError:
            effect = None  # the page's script asks again, and so does the button
        return visit.show(
            "new.html",
            tab="policy",
            target=target,
            targets=TARGETS,
            step=min(range(len(TARGETS)), key=lambda number: abs(TARGETS[number] - target)),
            effect=effect,
            told=_told(effect) if effect else None,
            well=WELL,
            providers=("builtin", "openai", "anthropic"),
            provider=visit.named["llm_provider"] or visit.runtime.settings.llm_provider,
        )

    @pages.page("/policy/effect")
    def effect(visit: Visit) -> Response:
        try:
            found = _effect(visit, _target(visit, visit.arg("target")), wait=5.0)
        except PendingError:
            return Response("{}", 202, mimetype="application/json")
        body = json.dumps(_told(found))
        return Response(body, mimetype="application/json")


def _add_forms(pages: Pages) -> None:
    @pages.page("/policy/generate", post=True)
    def make(visit: Visit) -> Response:
        runtime = visit.runtime
        runtime.limits.take("generate", f"dashboard {visit.viewer.session_hash}")
        provider = visit.field("provider")
        wish = Wish(
            cost_target=_target(visit, visit.field("target")),
            provider=provider if provider in ("builtin", "openai", "anthropic") else None,
            activate=False,
        )
        with runtime.admission.generations.passing(wait=1.0):
            made = generate_policy(
                runtime, visit.team_id, visit.name, wish, actor=visit.viewer.actor
            )
        fallback = (
            f" The model was not used: {made.fallback_reason}." if made.fallback_reason else ""
        )
        visit.tell(f"Version {made.row['version']} is made, as a draft.{fallback}")
        return visit.go("policy/version", version=made.row["version"])

    @pages.page("/policy/activate", post=True)
    def activate(visit: Visit) -> Response:
        before = visit.named["active_version"]
        row = visit.store.policies.activate(
            visit.team_id,
            visit.name,
            _number(visit.field("version")),
            actor=visit.viewer.actor,
            now=visit.now,
        )
        mode, mode_before = visit.field("mode"), visit.named["mode"]
        if mode in ("shadow", "active") and mode != mode_before:
            _set_mode(visit, mode)
        _announce(visit, row)
        undo = None
        if before is not None and before != row["version"] and not request.form.get("undo"):
            undo = {
                "page": "policy/activate",
                "fields": {
                    "service": visit.name,
                    "version": str(before),
                    "mode": mode_before,
                    "undo": "1",
                },
            }
        told = f"Version {row['version']} is active"
        visit.tell(
            f"{told}, in shadow: nothing is dropped." if mode == "shadow" else f"{told}.", undo
        )
        return visit.go("policy")

    @pages.page("/policy/reject", post=True)
    def reject(visit: Visit) -> Response:
        row = visit.store.policies.reject(
            visit.team_id,
            visit.name,
            _number(visit.field("version")),
            actor=visit.viewer.actor,
            now=visit.now,
        )
        visit.tell(f"Version {row['version']} is rejected.")
        return visit.go("policy")

    @pages.page("/policy/mode", post=True)
    def mode(visit: Visit) -> Response:
        wanted = "shadow" if visit.field("mode") == "shadow" else "active"
        before = visit.named["mode"]
        _set_mode(visit, wanted)
        undo = {"page": "policy/mode",
                "fields": {"service": visit.name, "mode": before, "undo": "1"}}  # fmt: skip
        told = (
            "Shadow mode is on: nothing is dropped, what would be is counted."
            if wanted == "shadow"
            else "Shadow mode is off: the policy decides."
        )
        visit.tell(told, None if request.form.get("undo") or before == wanted else undo)
        return visit.go("policy")


def _set_mode(visit: Visit, mode: str) -> None:
    visit.store.services.update(
        visit.team_id, visit.name, {"mode": mode}, actor=visit.viewer.actor, now=visit.now
    )
    visit.runtime.cache.refresh((visit.team_id, visit.name))


def _announce(visit: Visit, row: Row) -> None:
    """What follows when a version has become active, as in the API."""
    visit.runtime.cache.refresh((visit.team_id, visit.name))
    visit.runtime.events.capture(
        "lipservice policy activated",
        team=visit.team_id,
        properties={
            "version": row["version"],
            "generated_by": row["generated_by"],
            "cost_target": row["cost_target"],
            "cost_reduction": row["cost_reduction"],
            "pattern_rates": len(row["document"].get("pattern_rates") or {}),
        },
    )


def _reached(visit: Visit, active: Row | None) -> float | None:
    """The reduction achieved since the version became active; None: too early to tell."""
    if active is None or active["activated_at"] is None:
        return None
    # Counts are by the hour: the first whole one after the instances' next poll and report.
    start = (active["activated_at"] // 3600 + 1) * 3600
    if start >= visit.now:
        return None
    totals = visit.store.savings.totals(visit.team_id, visit.name, since=start, until=visit.now)
    return 1 - totals["kept_bytes"] / totals["bytes"] if totals["bytes"] else None


def _version(visit: Visit, name: str) -> Row:
    return visit.store.policies.get(visit.team_id, visit.name, _number(visit.arg(name)))


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 16):
        raise InvalidError("a version is a whole number")
    return int(text)


def _base(visit: Visit, row: Row) -> Row:
    """What *row* is held against: the active version; for the active one, the one before it."""
    active = visit.named["active_version"]
    if active is not None and active != row["version"]:
        return visit.store.policies.get(visit.team_id, visit.name, active)
    earlier = visit.store.policies.history(
        visit.team_id, visit.name, before=row["version"], limit=1
    )
    if earlier:
        return visit.store.policies.get(visit.team_id, visit.name, earlier[0]["version"])
    return {"version": 0, "document": default_document()}


def _waited(make: Callable[[], _T]) -> _T | None:
    try:
        return make()
    except PendingError:
        return None


def _later(visit: Visit, doing: str) -> Response:
    """A page that comes again by itself."""
    return visit.show("pending.html", tab="policy", doing=doing, status=200, refresh=True)


def _days(visit: Visit, days: int) -> float:
    """Days that the counts of *days* days cover: the store's begin at midnight."""
    age = (visit.now - visit.named["created_at"]) / _DAY
    return float(max(1 / 24, min(age, days - 1 + (visit.now % _DAY) / _DAY)))


def _counts(visit: Visit, days: int) -> Counts:
    """The counts, read anew every five minutes; those of 100,000 patterns take a second or two."""
    key = (visit.team_id, visit.name, days, int(visit.now) // 300)

    def make() -> Counts:
        rows = visit.store.patterns.for_generation(
            visit.team_id, visit.name, now=visit.now, days=days
        )
        return read_counts(rows, _days(visit, days))

    return visit.pages.counts.get(key, make)


def _compared(visit: Visit, before: Row, after: Row, days: int) -> Comparison:
    """Two versions on the counts of some days. Pins are laid over both."""
    pins = visit.store.patterns.overrides(visit.team_id, visit.name)

    def make() -> Comparison:
        first = read_policy(before["document"], visit.named, pins)
        second = read_policy(after["document"], visit.named, pins)
        return compare(_counts(visit, days), first, second)

    key = ("compare", visit.team_id, visit.name, before["version"], after["version"], days)
    return visit.pages.workshop.get((*key, visit.named["revision"]), make)


def _effect(visit: Visit, target: float, *, wait: float) -> Effect:
    inputs, price = _inputs(visit), price_of(visit)
    key = ("effect", visit.team_id, visit.name, visit.named["revision"], target, price)
    return visit.pages.workshop.get(
        key, lambda: _work_out(visit, _counts(visit, _WINDOW), inputs, target, price), wait=wait
    )


def _inputs(visit: Visit) -> tuple[list[Row], Row | None]:
    pins = visit.store.patterns.overrides(visit.team_id, visit.name)
    return pins, visit.store.policies.active(visit.team_id, visit.name)


def _work_out(
    visit: Visit,
    counts: Counts,
    inputs: tuple[list[Row], Row | None],
    target: float,
    price: float,
) -> Effect:
    """Plan as a generation with the built-in weights would, and store nothing."""
    pins, active = inputs
    service, settings = visit.named, engine_settings(visit.runtime.settings)
    if not counts.rows:
        raise InvalidError("there are no counts yet: a policy is made from what instances report")
    document = default_document() if active is None else active["document"]
    wanted = GenerationRequest(
        service_name=service["name"],
        patterns=counts.rows,
        cost_target=target,
        pins={pin["signature"]: pin["rate"] for pin in pins if not pin["protected"]},
        protected=frozenset(pin["signature"] for pin in pins if pin["protected"]),
        words=tuple(service["words"]),
        max_logs_per_minute=service["max_logs_per_minute"],
        previous=SamplingPolicy.from_dict(document) if active else None,
        window_seconds=counts.days * _DAY,
    )
    made = generate(
        wanted,
        settings=settings,
        clock=lambda: datetime.fromtimestamp(visit.now, timezone.utc),
    )
    outcome = expected_outcome(counts.volumes, made.policy)
    well, patterns = well_counted(counts, made.policy)
    monthly = _MONTH / counts.days
    return Effect(
        target=target,
        outcome=outcome,
        well=well,
        patterns=patterns,
        kept_bytes=outcome.kept_bytes * monthly,
        cost=outcome.kept_bytes * monthly / 1e9 * price,
        saved=(outcome.bytes - outcome.kept_bytes) * monthly / 1e9 * price,
        sentence=_sentence(counts, read_policy(document, service, pins), made.policy),
    )


def _sentence(counts: Counts, before: SamplingPolicy, after: SamplingPolicy) -> str:
    """What would change; with very many patterns, of the volume only, so that it comes soon."""
    if len(counts.rows) <= _MOST_COMPARED:
        return sentences.candidate(compare(counts, before, after))
    kept = [expected_outcome(counts.volumes, policy).kept_share for policy in (before, after)]
    return f"Keeps {numbers.share(kept[1])} of the volume, now {numbers.share(kept[0])}."


def _told(effect: Effect) -> dict[str, str]:
    """An effect in words, for the page and its script alike."""
    return {
        "target": numbers.share(effect.target),
        "kept": numbers.share(effect.outcome.kept_share),
        "volume": f"{numbers.size(effect.kept_bytes)} a month",
        "cost": numbers.money(effect.cost),
        "saved": numbers.money(effect.saved),
        "well": f"{numbers.exact(effect.well)} of {numbers.exact(effect.patterns)}",
        "visible": f"{effect.outcome.visible_patterns:,.0f} of {numbers.exact(effect.patterns)}",
        "sentence": effect.sentence,
    }


def _target(visit: Visit, text: str) -> float:
    """A cost target in percent, as it is typed; the service's own where none is."""
    if not text:
        own = visit.named["cost_target"] or visit.runtime.settings.cost_target
        return float(own)
    try:
        percent = float(text.replace(",", ".").removesuffix("%").strip())
    except ValueError:
        raise InvalidError("a cost target is a number of percent") from None
    if not 0 < percent <= 100:
        raise InvalidError("a cost target lies above 0 and at most 100 percent")
    return percent / 100
