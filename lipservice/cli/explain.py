"""`lipservice explain`: the pattern of a message, what decides it, and what became of it lately."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from lipservice._policy_store import PolicyFile
from lipservice.cli.fleet import FleetAnswer, FleetPattern, Volume, ask_fleet
from lipservice.client import LipServiceClient
from lipservice.decision import Explanation
from lipservice.exceptions import ConfigurationError, LipServiceError, PolicyError
from lipservice.fitting import message_of
from lipservice.policy import Boost, SamplingPolicy
from lipservice.sampler import AdaptiveSampler
from lipservice.severity import severity_name
from lipservice.signature import compute_signature
from lipservice.simulation.console import Console, safe

_EXAMPLES = """\
examples:
  lipservice explain "user 17 logged in" --policy policy.json
  LIPSERVICE_URL=... LIPSERVICE_API_KEY=... lipservice explain "user 17 logged in"
  lipservice explain 9f7a61ac347cd2c6 --severity debug --json

With a server and a key of the scope `read` it also tells what became of the pattern in all
instances. What became of it in one process only that process knows:
lipservice.default_sampler().explain(message).
"""

_SIGNATURE: Final = re.compile(r"[0-9a-f]{16}")
#: Of `Explanation`: what only a running process has.
_OF_A_PROCESS: Final = ("seen", "kept", "last_seen", "per_minute", "ledger")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the subcommand."""
    parser.epilog = _EXAMPLES
    parser.add_argument("message", help="a finished message, or a signature (16 hex digits)")
    parser.add_argument(
        "--severity", help="a level's name (default: what the server says of the pattern; INFO)"
    )
    parser.add_argument("--policy", metavar="FILE", help="a policy as JSON; no server is asked")
    parser.add_argument(
        "--url",
        default=os.environ.get("LIPSERVICE_URL"),
        help="the policy server, for its policy and counts",
    )
    parser.add_argument("--api-key", default=os.environ.get("LIPSERVICE_API_KEY"), metavar="KEY")
    parser.add_argument(
        "--service-name", default=os.environ.get("LIPSERVICE_SERVICE_NAME"), metavar="NAME"
    )
    parser.add_argument("--json", action="store_true", help="for machines")


def run(arguments: argparse.Namespace) -> int:
    """Explain; 0."""
    text: str = arguments.message
    signature = text if _SIGNATURE.fullmatch(text) else None
    policy, fleet = _ask(arguments, text, signature)
    pattern = fleet.pattern
    severity = arguments.severity or (pattern.severity if pattern else "INFO")
    explanation = _explain(policy, text, signature, severity, pattern)
    boosts = _boosts_for(policy, explanation.signature, explanation.severity)
    if arguments.json:
        print(json.dumps(_document(explanation, boosts, fleet)))
        return 0
    console = Console(sys.stdout)
    for line in _lines(explanation, policy, boosts, fleet):
        console.line(safe(line))
    return 0


# ---------------------------------------------------------------------- what is known


def _ask(
    arguments: argparse.Namespace, text: str, signature: str | None
) -> tuple[SamplingPolicy | None, FleetAnswer]:
    if arguments.policy:
        return PolicyFile(arguments.policy).load(), FleetAnswer()
    if not arguments.url:
        return None, FleetAnswer()
    client = LipServiceClient(arguments.url, arguments.api_key, arguments.service_name)
    answer = client.fetch_policy()
    if answer.problem is not None:
        raise LipServiceError(f"no policy from {client.base_url}: {answer.problem}")
    return _checked(answer.document), ask_fleet(client, text, signature)


def _checked(document: Mapping[str, Any] | None) -> SamplingPolicy:
    try:
        return SamplingPolicy.from_dict(document)
    except PolicyError as error:
        raise ConfigurationError(f"the server's policy cannot be used: {error}") from None


# ---------------------------------------------------------------------- what decides


def _explain(
    policy: SamplingPolicy | None,
    text: str,
    signature: str | None,
    severity: str,
    pattern: FleetPattern | None,
) -> Explanation:
    if pattern is not None:
        signature, text = pattern.signature, message_of(pattern.template)
    if signature is None or compute_signature(text) == signature:
        return _explain_message(policy, text, severity)
    template = pattern.template if pattern else ""
    return _explain_signature(policy, signature, template, severity)


def _explain_message(policy: SamplingPolicy | None, text: str, severity: str) -> Explanation:
    # Past its first records, which every process keeps whatever the policy says.
    steady = None if policy is None else dataclasses.replace(policy, keep_first=0)
    sampler = AdaptiveSampler(policy=steady, notices=False)
    explanation = sampler.explain(text, severity)
    sampler.shutdown()
    return explanation


def _explain_signature(
    policy: SamplingPolicy | None, signature: str, template: str, severity: str
) -> Explanation:
    """As `_explain_message` where no message is at hand; a word protects only what is known."""
    at_large = _explain_message(policy, "", severity)
    rule, rate = "rate", 1.0
    if at_large.rule == "error":
        rule = "error"
    elif policy is not None:
        rate = policy.rate_for(signature, at_large.severity)
        if signature in policy.protected or policy.protects(template):
            rule, rate = "protected", 1.0
        elif any(each.logger is None for each in _boosts_for(policy, signature, at_large.severity)):
            rule, rate = "boosted", 1.0
    return dataclasses.replace(
        at_large, signature=signature, template=template or "(its template is not known)",
        rule=rule, rate=rate,
    )  # fmt: skip


def _boosts_for(policy: SamplingPolicy | None, signature: str, severity: str) -> list[Boost]:
    """What runs and may keep the pattern's records; those of loggers too, which may be theirs."""
    if policy is None:
        return []
    now = time.time()
    return [
        boost
        for boost in policy.boosts
        if boost.until > now
        and boost.signature in (None, signature)
        and boost.severity in (None, severity_name(severity))
    ]


# ---------------------------------------------------------------------- what is told


def _document(explanation: Explanation, boosts: list[Boost], fleet: FleetAnswer) -> dict[str, Any]:
    told = dataclasses.asdict(explanation)
    for name in _OF_A_PROCESS:
        del told[name]
    return {
        **told,
        "boosts": [boost.to_dict() for boost in boosts],
        "fleet": None if fleet.pattern is None else _fleet_document(fleet.pattern),
        "why_no_fleet": fleet.why_not or None,
    }


def _fleet_document(pattern: FleetPattern) -> dict[str, Any]:
    return {
        "signature": pattern.signature,
        "template": pattern.template,
        "severity": pattern.severity,
        "first_seen": pattern.first_seen.isoformat(),
        "last_seen": pattern.last_seen.isoformat(),
        "last_24_hours": pattern.last_24_hours._asdict(),
        "last_7_days": pattern.last_7_days._asdict(),
        "ever": pattern.ever._asdict(),
        "pin": None if pattern.pin is None else pattern.pin._asdict(),
        "by_template": pattern.by_template,
    }


def _lines(
    explanation: Explanation,
    policy: SamplingPolicy | None,
    boosts: list[Boost],
    fleet: FleetAnswer,
) -> Iterator[str]:
    if fleet.pattern is not None and fleet.pattern.by_template:
        yield "no instance reports this message's own pattern now; of those that it fits:"
    # The template may be a stranger's text: it is not to make lines of its own.
    shown = dataclasses.replace(explanation, template=safe(explanation.template))
    yield from str(shown).split("\n")[:-1]
    if policy is not None and policy.keep_first and explanation.rule == "rate":
        yield f"each process keeps its first {policy.keep_first} records whatever the rate"
    for boost in boosts:
        yield f"kept whole until {boost.to_dict()['until']}: {_whom(boost)}"
    if fleet.pattern is not None:
        yield from _fleet_lines(fleet.pattern)
    elif fleet.why_not:
        yield fleet.why_not
    elif policy is None:
        yield _NO_POLICY
    elif explanation.rule == "rate" and not _names(policy, explanation.signature):
        yield _ANOTHER_PATTERN


def _names(policy: SamplingPolicy, signature: str) -> bool:
    """Whether the policy has a rate of the pattern's own, or none of any pattern."""
    return not policy.pattern_rates or signature in policy.pattern_rates


_NO_POLICY: Final = (
    "this is without any policy: name one by --policy or --url; a process that makes its own is"
    " asked by lipservice.explain(message) in it"
)
_ANOTHER_PATTERN: Final = (
    "the policy has no rate for this pattern: where a word of the message varies, write a number"
    " in its place, or give the signature"
)


def _whom(boost: Boost) -> str:
    if boost.logger is not None:
        return f"logger {boost.logger} and its children, should the record be one of theirs"
    if boost.signature is not None:
        return f"this pattern{f' at {boost.severity}' if boost.severity else ''}"
    return f"severity {boost.severity}" if boost.severity else "the whole service"


def _fleet_lines(pattern: FleetPattern) -> Iterator[str]:
    if pattern.pin is not None:
        what = (
            "protected"
            if pattern.pin.protected
            else f"its rate is pinned to {pattern.pin.rate:.4g}"
        )
        reason = f": {pattern.pin.reason}" if pattern.pin.reason else ""
        yield f"{what} by hand ({pattern.pin.by}){reason}"
    yield "in all instances, by their reports:"
    for when, volume in (
        ("last 24 hours", pattern.last_24_hours),
        ("last 7 days", pattern.last_7_days),
        (f"since {pattern.first_seen:%Y-%m-%d}", pattern.ever),
    ):
        yield f"  {when:<16} {_volume(volume)}"
    yield f"  last seen at {pattern.last_seen:%Y-%m-%d %H:%M:%S} UTC, mostly at {pattern.severity}"


def _volume(volume: Volume) -> str:
    errors = f", {volume.errors:,} at ERROR or above" if volume.errors else ""
    return f"{volume.seen:,} seen, {volume.kept:,} kept{errors}"
