"""Patterns: reports, lists, volume over time, decisions by hand."""

from __future__ import annotations

import hashlib
import time
from typing import Any, Final

from flask import Response, request
from pydantic import TypeAdapter

from lipservice_server.api import schemas
from lipservice_server.api.bodies import parse, read_body, refuse_double_keys
from lipservice_server.api.routing import Api, Call, Endpoint, admit, json_answer, read_query
from lipservice_server.errors import InvalidError
from lipservice_server.intake import Intake, take_in
from lipservice_server.store import Sender

_REPORT: Final[TypeAdapter[Any]] = TypeAdapter(schemas.Report)
_SIGNATURE: Final = r"/patterns/<signature>"


def add_patterns(api: Api) -> None:
    """Declare the endpoints."""
    _add_report(api)
    _add_lists(api)
    _add_pins(api)


def _add_report(api: Api) -> None:
    runtime = api.runtime
    settings, admission, metrics = runtime.settings, runtime.admission, runtime.metrics

    def report() -> Response:
        started = time.perf_counter()
        runtime.watcher.ensure_started()
        environ = request.environ
        identity = admit(
            runtime,
            environ.get("HTTP_AUTHORIZATION"),
            environ.get("REMOTE_ADDR", ""),
            ("ingest",),
        )
        runtime.limits.take("report", identity.key_id)
        with admission.reports.passing():
            query: Any = read_query(schemas.ServiceQuery, request)
            raw = read_body(
                request,
                most=settings.max_body_bytes,
                most_compressed=settings.max_compressed_bytes,
                deadlines=admission.bodies,
            )
            body = parse(_REPORT, raw)
            name = Call(identity, query, None, request).service(body.get("service_name"))
            now = runtime.clock()
            intake = take_in(body["patterns"], now=now)
            refuse_double_keys(raw, _count_keys(body, intake))
            with admission.writers.passing(wait=settings.report_timeout):
                counted = runtime.store.reports.accept(
                    identity.team_id,
                    name,
                    intake,
                    report_id=body.get("report_id"),
                    digest=hashlib.sha256(raw).hexdigest() if "report_id" in body else "",
                    sender=_sender(body),
                    now=now,
                    wait=settings.report_timeout,
                )
        response = json_answer(_ANSWERS[counted] % len(body["patterns"]))
        if counted:
            metrics.patterns.inc(len(body["patterns"]))
            metrics.records.inc(intake.totals.records)
        else:
            metrics.repeats.inc()
        metrics.answered("report", 200, time.perf_counter() - started)
        return response

    api.bare(
        Endpoint(
            rule="/patterns/report",
            method="POST",
            name="report",
            summary="Report counts of patterns; the same report_id again changes nothing.",
            scopes=("ingest",),
            query=schemas.ServiceQuery,
            body=schemas.Report,
            answer=schemas.Reported,
            status=200,
            whole_team=False,
            errors=(408, 409, 411, 413, 415),
        ),
        report,
    )


_ANSWERS: Final = {
    True: b'{"status":"success","patterns_processed":%d}',
    False: b'{"status":"success","patterns_processed":%d,"duplicate":true}',
}


def _count_keys(body: dict[str, Any], intake: Intake) -> int:
    """How many keys the report's objects have in all."""
    return len(body) + len(body.get("sdk", ())) + len(body.get("health", ())) + intake.keys


def _sender(body: dict[str, Any]) -> Sender | None:
    if "instance_id" not in body:
        return None
    sdk = body.get("sdk", {})
    return Sender(
        instance_id=body["instance_id"],
        interval=body.get("interval"),
        sdk_language=sdk.get("language", ""),
        sdk_version=sdk.get("version", ""),
        health=body.get("health", {}),
    )


def _add_lists(api: Api) -> None:
    runtime, store = api.runtime, api.runtime.store

    @api.endpoint(
        "GET",
        "/patterns",
        scopes=("read",),
        summary="A service's patterns: searched, sorted, by the page.",
        query=schemas.PatternsQuery,
        answer=schemas.PatternPage,
        errors=(404,),
    )
    def patterns(call: Call) -> dict[str, Any]:
        query: schemas.PatternsQuery = call.query
        rows, total = store.patterns.search(
            call.identity.team_id,
            call.service(),
            search=query.search,
            severity=query.severity,
            pinned=query.pinned,
            sort=query.sort,
            descending=query.order == "desc",
            limit=query.limit,
            offset=query.offset,
        )
        return {"patterns": rows, "total": total}

    @api.endpoint(
        "GET",
        "/patterns/rising",
        scopes=("read",),
        summary="Patterns whose volume has jumped, the steepest first.",
        query=schemas.RisingQuery,
        answer=schemas.Rising,
        errors=(404,),
    )
    def patterns_rising(call: Call) -> dict[str, Any]:
        return {
            "patterns": store.patterns.risers(
                call.identity.team_id,
                call.service(),
                limit=call.query.limit,
                least=call.query.least,
            )
        }

    @api.endpoint(
        "GET",
        _SIGNATURE,
        scopes=("read",),
        summary="One pattern.",
        query=schemas.ServiceQuery,
        answer=schemas.PatternLine,
        errors=(404,),
    )
    def pattern(call: Call, signature: str) -> dict[str, Any]:
        return store.patterns.get(call.identity.team_id, call.service(), _named(signature))

    @api.endpoint(
        "GET",
        f"{_SIGNATURE}/volume",
        scopes=("read",),
        summary="A pattern's volume over time.",
        query=schemas.VolumeQuery,
        answer=schemas.Volume,
        errors=(404,),
    )
    def pattern_volume(call: Call, signature: str) -> dict[str, Any]:
        team, name, query = call.identity.team_id, call.service(), call.query
        store.patterns.get(team, name, _named(signature))
        points = store.patterns.volumes(
            team, name, [signature], step=query.step, periods=query.periods, now=runtime.clock()
        )
        return {"signature": signature, "step": query.step, "points": points[signature]}


def _add_pins(api: Api) -> None:
    runtime, store = api.runtime, api.runtime.store

    @api.endpoint(
        "GET",
        "/pins",
        scopes=("read",),
        summary="What people have decided about a service's patterns.",
        query=schemas.ServiceQuery,
        answer=schemas.Pins,
        errors=(404,),
    )
    def pins(call: Call) -> dict[str, Any]:
        return {"pins": store.patterns.overrides(call.identity.team_id, call.service())}

    @api.endpoint(
        "PUT",
        f"{_SIGNATURE}/pin",
        scopes=("admin",),
        summary="Fix a pattern's rate by hand, or protect it.",
        query=schemas.ServiceQuery,
        body=schemas.Pin,
        answer=schemas.PatternLine,
        errors=(404, 409),
    )
    def pattern_pin(call: Call, signature: str) -> dict[str, Any]:
        body: schemas.Pin = call.body
        if (body.rate is None) != body.protected:
            raise InvalidError("a pin is either a rate or protected: true")
        team, name = call.identity.team_id, call.service()
        row = store.patterns.pin(
            team,
            name,
            _named(signature),
            rate=1.0 if body.rate is None else body.rate,
            protected=body.protected,
            reason=body.reason,
            actor=call.identity.actor,
            now=runtime.clock(),
        )
        runtime.cache.refresh((team, name))
        return row

    @api.endpoint(
        "DELETE",
        f"{_SIGNATURE}/pin",
        scopes=("admin",),
        summary="Take back a decision by hand.",
        query=schemas.ServiceQuery,
        answer=schemas.Empty,
        errors=(404,),
    )
    def pattern_release(call: Call, signature: str) -> dict[str, Any]:
        team, name = call.identity.team_id, call.service()
        store.patterns.release(
            team, name, _named(signature), actor=call.identity.actor, now=runtime.clock()
        )
        runtime.cache.refresh((team, name))
        return {}


_PATH_SIGNATURE: Final[TypeAdapter[str]] = TypeAdapter(schemas.Signature)


def _named(signature: str) -> str:
    try:
        return _PATH_SIGNATURE.validate_python(signature)
    except ValueError:
        raise InvalidError("a signature is 1 to 64 characters of A-Z a-z 0-9 . _ : -") from None
