"""`lipservice check-posthog`: sends one record to PostHog and says what came back, in words."""

from __future__ import annotations

import argparse
import json
import logging
import os
import secrets
import time
from typing import Any, Final
from urllib.parse import urlsplit

from lipservice._answers import HTTPAnswer
from lipservice._transport import Transport
from lipservice._version import __version__
from lipservice.export.capture import entry_of_record
from lipservice.export.config import DEFAULT_ENDPOINT, PostHogConfig
from lipservice.export.exporter import headers_of, resource_of
from lipservice.export.http import Action, Connection, judge
from lipservice.export.otlp import RecordEncoder, assemble, encode_resource, partial_success
from lipservice.export.redaction import Redactor

_LOGS_PATH: Final = "/i/v1/logs"
_EXAMPLES: Final = """\
examples:
  lipservice check-posthog --api-key phc_...
  POSTHOG_API_KEY=phc_... lipservice check-posthog --endpoint https://eu.posthog.com
  lipservice check-posthog --endpoint http://collector:4318/v1/logs --api-key none

exit codes: 0 records arrive, 1 they do not, 2 wrong usage
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the subcommand."""
    parser.epilog = _EXAMPLES
    parser.add_argument(
        "--api-key", default=os.environ.get("POSTHOG_API_KEY", ""), metavar="KEY",
        help="the project's token, phc_... (default: the environment's POSTHOG_API_KEY)",
    )  # fmt: skip
    parser.add_argument(
        "--team-id", default=os.environ.get("POSTHOG_TEAM_ID") or None, metavar="ID",
        help="number of the project (default: the environment's POSTHOG_TEAM_ID)",
    )  # fmt: skip
    parser.add_argument(
        "--endpoint", default=os.environ.get("POSTHOG_ENDPOINT") or DEFAULT_ENDPOINT, metavar="URL",
        help=f"PostHog's address, or any OTLP/HTTP receiver's (default: {DEFAULT_ENDPOINT})",
    )  # fmt: skip
    parser.add_argument("--service-name", metavar="NAME", help="service.name of the record")
    parser.add_argument(
        "--timeout", type=float, default=10.0, metavar="SECONDS", help="for each request"
    )


def run(arguments: argparse.Namespace) -> int:
    """Check, tell, and answer 0 if records arrive, else 1."""
    config = PostHogConfig(
        api_key=arguments.api_key,
        team_id=arguments.team_id,
        endpoint=arguments.endpoint,
        service_name=arguments.service_name,
        timeout=arguments.timeout,
        gzip=False,
    )
    print(f"records go to   {config.url}")
    known = _check_key(config)
    taken = _send_one(config)
    if known and taken:
        return 0
    print("\nRecords do not arrive." if not taken else "\nRecords are taken, but not kept.")
    return 1


# ---------------------------------------------------------------------- the key


def _check_key(config: PostHogConfig) -> bool:
    """
    Whether a project has this key, as far as one can know.

    The logs route answers 200 to every key that looks like one and drops the records of those
    that nobody has. The flags route looks the key up.
    """
    parts = urlsplit(config.url)
    if parts.path != _LOGS_PATH:
        print("the key         not checked: this is not PostHog's own route")
        return True
    origin = f"{parts.scheme}://{parts.netloc}"
    headers = {"Content-Type": "application/json", "User-Agent": f"lipservice/{__version__}"}
    body = {"api_key": config.api_key, "token": config.api_key, "distinct_id": "lipservice-check"}
    transport = Transport(origin, {}, connect=config.timeout, read=config.timeout)
    answer = transport.exchange(
        "POST",
        f"{origin}/flags/?v=2",
        headers=headers,
        body=json.dumps(body).encode(),
        limit=8 * 1024 * 1024,
        seconds=config.timeout,
    )
    known, text = _meaning_of_flags(answer)
    print(f"the key         {text}")
    return known


def _meaning_of_flags(answer: HTTPAnswer) -> tuple[bool, str]:
    if answer.problem is not None:
        return True, f"not checked: {answer.problem.text}"
    if answer.status in {401, 403}:
        return False, (
            "belongs to no project here. Such records are answered with 200 and thrown away: "
            "take the token (phc_...) from the project's settings, and mind the region (us, eu)"
        )
    if answer.status == 200:
        return True, "belongs to a project"
    return True, f"not checked: the flags route answered {answer.status}"


# ---------------------------------------------------------------------- one record


def _send_one(config: PostHogConfig) -> bool:
    mark = secrets.token_hex(4)
    body = _one_record(config, mark)
    headers = headers_of(config, config.api_key)
    connection = Connection(config.url)
    started = time.monotonic()
    answer = connection.post(body, headers, config.timeout)
    took = (time.monotonic() - started) * 1000
    connection.close()
    taken, text = _meaning_of_logs(answer, mark)
    print(f"one record      {text}")
    if answer.problem is None:
        print(
            f"                answer {answer.status} after {took:.0f} ms, {len(body)} bytes billed"
        )
    return taken


def _one_record(config: PostHogConfig, mark: str) -> bytes:
    record = logging.LogRecord(
        "lipservice.check", logging.INFO, __file__, 1, "LipService check %s", (mark,), None
    )
    record.check = mark
    encoder = RecordEncoder(config, Redactor(), time.monotonic)
    items = encoder.encode_slice([entry_of_record(record)[0]])
    return assemble(encode_resource(resource_of(config)), items)


def _meaning_of_logs(answer: HTTPAnswer, mark: str) -> tuple[bool, str]:
    verdict = judge(answer, time.time())
    rejected, reason = partial_success(answer.body)
    if verdict.action is Action.DELIVERED and not rejected:
        return True, f"taken. In PostHog's logs within a minute or so: search for {mark}"
    if verdict.action is Action.DELIVERED:
        return False, f"rejected by the receiver: {reason}"
    if verdict.action is Action.STOP:
        return False, f"refused: the key is not accepted ({verdict.text})"
    if answer.status == 429:
        return False, f"refused: over quota, or too many requests{_wait(verdict.retry_after)}"
    if verdict.reason == "redirected":
        return False, verdict.text
    if answer.status == 404:
        return False, "refused: there is no such route; is the endpoint's path right?"
    return False, verdict.text


def _wait(seconds: Any) -> str:
    return f"; it wants to be left alone for {seconds:.0f} s" if seconds else ""
