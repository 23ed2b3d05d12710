"""Policies: generation, history, drafts, activation, differences. The active one: `active`."""

from __future__ import annotations

import time
from typing import Any

from lipservice.policy import SamplingPolicy
from lipservice_server.api import schemas
from lipservice_server.api.routing import Api, Call
from lipservice_server.diff import diff_documents
from lipservice_server.errors import ConflictError, InvalidError
from lipservice_server.generation import Wish, generate_policy


def add_policies(api: Api) -> None:
    """Declare the endpoints."""
    _add_generate(api)
    _add_history(api)
    _add_changes(api)


def _add_generate(api: Api) -> None:
    runtime = api.runtime

    @api.endpoint(
        "POST",
        "/policies/generate",
        scopes=("admin",),
        summary="Make a policy, from the patterns given or from the service's reports.",
        query=schemas.ServiceQuery,
        body=schemas.Generate,
        answer=schemas.Generated,
        limit="generate",
        gate=runtime.admission.generations,
        errors=(409,),
    )
    def generate(call: Call) -> dict[str, Any]:
        body: schemas.Generate = call.body
        if body.service_name and call.query.service_name not in (None, body.service_name):
            raise InvalidError("service_name differs between the query and the body")
        wish = Wish(
            patterns=None
            if body.patterns is None
            else [pattern.model_dump() for pattern in body.patterns],
            cost_target=body.cost_target,
            provider=body.llm_provider,
            activate=body.activate,
        )
        made = generate_policy(
            runtime,
            call.identity.team_id,
            call.service(body.service_name),
            wish,
            actor=call.identity.actor,
        )
        document: dict[str, Any] = made.row["document"]
        return document | {
            "max_logs_per_minute": made.max_logs_per_minute,
            "cost_reduction": made.row["cost_reduction"],
            "state": made.row["state"],
            "llm_provider": made.provider,
            "fallback_reason": made.fallback_reason,
        }


def _add_history(api: Api) -> None:
    store = api.runtime.store

    @api.endpoint(
        "GET",
        "/policies",
        scopes=("read",),
        summary="The versions of a service's policy, the newest first.",
        query=schemas.HistoryQuery,
        answer=schemas.PolicyHistory,
        errors=(404,),
    )
    def policy_history(call: Call) -> dict[str, Any]:
        team, name = call.identity.team_id, call.service()
        query = call.query
        return {
            "policies": store.policies.history(team, name, before=query.before, limit=query.limit),
            "active_version": store.services.require(team, name)["active_version"],
        }

    @api.endpoint(
        "GET",
        "/policies/<int(max=9007199254740991):version>",
        scopes=("read",),
        summary="One version, with its document and what was noted at its making.",
        query=schemas.ServiceQuery,
        answer=schemas.PolicyVersion,
        errors=(404,),
    )
    def policy_version(call: Call, version: int) -> dict[str, Any]:
        return store.policies.get(call.identity.team_id, call.service(), version)

    @api.endpoint(
        "GET",
        "/policies/diff",
        scopes=("read",),
        summary="What differs between two versions.",
        query=schemas.DiffQuery,
        answer=schemas.PolicyDiff,
        errors=(404,),
    )
    def policy_diff(call: Call) -> dict[str, Any]:
        team, name, query = call.identity.team_id, call.service(), call.query
        before = store.policies.get(team, name, query.from_version)
        after = store.policies.get(team, name, query.to_version)
        return {
            "from_version": query.from_version,
            "to_version": query.to_version,
            **diff_documents(before["document"], after["document"]),
        }


def _add_changes(api: Api) -> None:
    runtime, store = api.runtime, api.runtime.store

    @api.endpoint(
        "POST",
        "/policies",
        scopes=("admin",),
        summary="Write a policy by hand, as a draft or active at once.",
        query=schemas.ServiceQuery,
        body=schemas.DraftPolicy,
        answer=schemas.PolicyVersion,
        status=201,
        errors=(404,),
    )
    def policy_draft(call: Call) -> dict[str, Any]:
        body: schemas.DraftPolicy = call.body
        name = call.service()
        now = runtime.clock()
        written = body.model_dump(exclude={"activate"})
        policy = SamplingPolicy.from_dict(
            written
            | {
                "policy_id": f"{name}-by-hand",
                "generated_by": "hand",
                "created_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
            }
        )
        return _told(
            call,
            store.policies.add(
                call.identity.team_id,
                name,
                policy,
                activate=body.activate,
                actor=call.identity.actor,
                now=now,
            ),
        )

    @api.endpoint(
        "POST",
        "/policies/<int(max=9007199254740991):version>/activate",
        scopes=("admin",),
        summary="Make a version the active one; with an earlier version, this is the roll back.",
        query=schemas.ServiceQuery,
        answer=schemas.PolicyVersion,
        errors=(404, 409),
    )
    def policy_activate(call: Call, version: int) -> dict[str, Any]:
        return _told(call, _activate(call, version))

    @api.endpoint(
        "POST",
        "/policies/<int(max=9007199254740991):version>/approve",
        scopes=("admin",),
        summary="Approve a draft, which makes it the active one.",
        query=schemas.ServiceQuery,
        answer=schemas.PolicyVersion,
        errors=(404, 409),
    )
    def policy_approve(call: Call, version: int) -> dict[str, Any]:
        found = store.policies.get(call.identity.team_id, call.service(), version)
        if found["state"] != "draft":
            raise ConflictError(f"version {version} is {found['state']}, not a draft")
        return _told(call, _activate(call, version))

    @api.endpoint(
        "POST",
        "/policies/<int(max=9007199254740991):version>/reject",
        scopes=("admin",),
        summary="Refuse a draft for good.",
        query=schemas.ServiceQuery,
        answer=schemas.PolicyVersion,
        errors=(404, 409),
    )
    def policy_reject(call: Call, version: int) -> dict[str, Any]:
        return store.policies.reject(
            call.identity.team_id,
            call.service(),
            version,
            actor=call.identity.actor,
            now=runtime.clock(),
        )

    def _activate(call: Call, version: int) -> dict[str, Any]:
        return store.policies.activate(
            call.identity.team_id,
            call.service(),
            version,
            actor=call.identity.actor,
            now=runtime.clock(),
        )

    def _told(call: Call, row: dict[str, Any]) -> dict[str, Any]:
        """Tell PostHog and this worker's memory of a version that is active now."""
        if row["state"] == "active":
            announce(api, call.identity.team_id, call.service(), row)
        return row


def announce(api: Api, team_id: int, service_name: str, row: dict[str, Any]) -> None:
    """What follows when a version has become active."""
    api.runtime.cache.refresh((team_id, service_name))
    api.runtime.events.capture(
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
