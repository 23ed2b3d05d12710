"""Services, their instances, and what they save."""

from __future__ import annotations

from typing import Any, Final

from lipservice_server.api import schemas
from lipservice_server.api.routing import Api, Call
from lipservice_server.db import Row
from lipservice_server.policy_cache import deal
from lipservice_server.store.instances import LIVE_INTERVALS

_GB: Final = 1e9
_DAY: Final = 86_400


def add_services(api: Api) -> None:
    """Declare the endpoints."""
    _add_services(api)
    _add_instances(api)
    _add_savings(api)


def _add_services(api: Api) -> None:
    runtime, store = api.runtime, api.runtime.store

    @api.endpoint(
        "GET",
        "/services",
        scopes=("read",),
        summary="The team's services.",
        answer=schemas.Services,
        whole_team=True,
    )
    def services(call: Call) -> dict[str, Any]:
        return {"services": store.services.all(call.identity.team_id)}

    @api.endpoint(
        "GET",
        "/service",
        scopes=("read",),
        summary="One service and how it is treated.",
        query=schemas.ServiceQuery,
        answer=schemas.ServiceLine,
        errors=(404,),
    )
    def service(call: Call) -> dict[str, Any]:
        return store.services.require(call.identity.team_id, call.service())

    @api.endpoint(
        "PATCH",
        "/service",
        scopes=("admin",),
        summary="Change how a service is treated: cost target, limit, shadow mode, generation.",
        query=schemas.ServiceQuery,
        body=schemas.ServiceChange,
        answer=schemas.ServiceLine,
        errors=(404,),
    )
    def service_change(call: Call) -> dict[str, Any]:
        team, name = call.identity.team_id, call.service()
        changes = call.body.model_dump(exclude_unset=True)
        row = store.services.update(
            team, name, changes, actor=call.identity.actor, now=runtime.clock()
        )
        runtime.cache.refresh((team, name))
        return row

    @api.endpoint(
        "DELETE",
        "/service",
        scopes=("admin",),
        summary="Delete a service and everything that was counted for it.",
        query=schemas.ServiceQuery,
        answer=schemas.Empty,
        errors=(404,),
    )
    def service_delete(call: Call) -> dict[str, Any]:
        team, name = call.identity.team_id, call.service()
        store.services.delete(team, name, actor=call.identity.actor, now=runtime.clock())
        runtime.cache.refresh((team, name))
        return {}


def _add_instances(api: Api) -> None:
    runtime, store = api.runtime, api.runtime.store

    @api.endpoint(
        "GET",
        "/instances",
        scopes=("read",),
        summary="The processes that report, the last seen first.",
        query=schemas.InstancesQuery,
        answer=schemas.InstancePage,
        errors=(404,),
    )
    def instances(call: Call) -> dict[str, Any]:
        team, name, query = call.identity.team_id, call.service(), call.query
        now = runtime.clock()
        service = store.services.require(team, name)
        rows, total = store.instances.page(
            team,
            name,
            live_at=now if query.live else None,
            limit=query.limit,
            offset=query.offset,
        )
        limit = service["max_logs_per_minute"]
        shares = {} if limit is None else deal(limit, store.instances.live(service["id"], now=now))
        return {"instances": [_instance(row, shares, now) for row in rows], "total": total}


def _instance(row: Row, shares: dict[str, int], now: float) -> Row:
    live = row["last_seen"] + row["seconds"] * LIVE_INTERVALS >= now
    return row | {"live": live, "share": shares.get(row["instance_id"])}


def _add_savings(api: Api) -> None:
    runtime, store = api.runtime, api.runtime.store

    @api.endpoint(
        "GET",
        "/savings",
        scopes=("read",),
        summary="What was seen, kept and saved, over time.",
        query=schemas.SavingsQuery,
        answer=schemas.SavingsAnswer,
        errors=(404,),
    )
    def savings(call: Call) -> dict[str, Any]:
        query, team = call.query, call.identity.team_id
        whole = query.service_name is None and call.identity.service_name is None
        name = None if whole else call.service()
        until = runtime.clock()
        since = until - (query.days - 1) * _DAY
        since -= since % _DAY
        totals = store.savings.totals(team, name, since=since, until=until)
        price = store.teams.get(team)["price_per_gb"]
        price = runtime.settings.price_per_gb if price is None else price
        saved = max(0, totals["bytes"] - totals["kept_bytes"])
        return {
            **totals,
            "service_name": name,
            "saved_bytes": saved,
            "saved_money": saved / _GB * price,
            "price_per_gb": price,
            "points": store.savings.over_time(
                team, name, step=query.step, since=since, until=until
            ),
        }
