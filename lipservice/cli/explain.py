"""`lipservice explain`: the pattern of a message, the rule that decides it, and its rate."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

from lipservice._policy_store import PolicyFile
from lipservice.client import LipServiceClient
from lipservice.exceptions import ConfigurationError, LipServiceError, PolicyError
from lipservice.policy import SamplingPolicy
from lipservice.sampler import AdaptiveSampler

_EXAMPLES = """\
examples:
  lipservice explain "user 17 logged in" --policy policy.json
  LIPSERVICE_URL=... LIPSERVICE_API_KEY=... lipservice explain "user 17 logged in" --severity debug

What became of a pattern in a running process only that process knows:
lipservice.default_sampler().explain(message). The server's dashboard has the counts of all.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the subcommand."""
    parser.epilog = _EXAMPLES
    parser.add_argument("message", help="a finished message, or a signature that the policy names")
    parser.add_argument("--severity", default="INFO", help="a level's name (default: INFO)")
    parser.add_argument("--policy", metavar="FILE", help="a policy as JSON")
    parser.add_argument(
        "--url", default=os.environ.get("LIPSERVICE_URL"), help="the policy server, for its policy"
    )
    parser.add_argument("--api-key", default=os.environ.get("LIPSERVICE_API_KEY"), metavar="KEY")
    parser.add_argument(
        "--service-name", default=os.environ.get("LIPSERVICE_SERVICE_NAME"), metavar="NAME"
    )
    parser.add_argument("--json", action="store_true", help="for machines")


def run(arguments: argparse.Namespace) -> int:
    """Explain; 0."""
    policy = _policy(arguments)
    # Past its first records, which every process keeps whatever the policy says.
    steady = None if policy is None else dataclasses.replace(policy, keep_first=0)
    sampler = AdaptiveSampler(policy=steady, notices=False)
    explanation = sampler.explain(arguments.message, arguments.severity)
    sampler.shutdown()
    told = dataclasses.asdict(explanation)
    del told["seen"], told["kept"]  # of a process that has seen nothing
    if arguments.json:
        print(json.dumps(told))
        return 0
    for line in str(explanation).splitlines()[:-1]:
        print(line)
    if policy is not None and policy.keep_first and explanation.rule == "rate":
        print(f"each process keeps its first {policy.keep_first} records whatever the rate")
    return 0


def _policy(arguments: argparse.Namespace) -> SamplingPolicy | None:
    if arguments.policy:
        return PolicyFile(arguments.policy).load()
    if not arguments.url:
        return None
    client = LipServiceClient(arguments.url, arguments.api_key, arguments.service_name)
    answer = client.fetch_policy()
    if answer.problem is not None:
        raise LipServiceError(f"no policy from {client.base_url}: {answer.problem}")
    return _checked(answer.document)


def _checked(document: Mapping[str, Any] | None) -> SamplingPolicy:
    try:
        return SamplingPolicy.from_dict(document)
    except PolicyError as error:
        raise ConfigurationError(f"the server's policy cannot be used: {error}") from None
