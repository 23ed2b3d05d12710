"""`lipservice simulate`: what sampling would keep and save on existing logs."""

from __future__ import annotations

import argparse
import json
import os
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

from lipservice.cli.files import check_replaceable, write_result
from lipservice.cli.inputs import (
    add_files_argument,
    add_log_format_argument,
    open_sources,
    read_records,
    whole_number,
)
from lipservice.exceptions import ConfigurationError, PolicyError
from lipservice.families import merge_families
from lipservice.planning import plan_policy
from lipservice.policy import DEFAULT_KEEP_FIRST, SamplingPolicy
from lipservice.simulation.console import Console
from lipservice.simulation.counting import PatternCounter
from lipservice.simulation.reading import Reading, Source
from lipservice.simulation.report import (
    DEFAULT_PRICE,
    PRICE_REASON,
    Report,
    build_report,
    volumes_of,
)

DEFAULT_COST_TARGET: Final = 0.1
_EXAMPLES: Final = """\
examples:
  lipservice simulate app.log --cost-target 0.1
  lipservice simulate /var/log/app/*.log.gz --cost-target 5% --html report.html
  kubectl logs deploy/web | lipservice simulate - --top 50
  lipservice simulate app.log --write-policy policy.json
  lipservice simulate app.log --policy policy.json --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the subcommand."""
    parser.epilog = _EXAMPLES
    add_files_argument(parser, "FILE")
    planning = parser.add_argument_group("what to keep")
    planning.add_argument(
        "--cost-target", type=read_share, metavar="SHARE",
        help=f"share of the bytes to keep, 0.1 or 10%% (default: {DEFAULT_COST_TARGET})",
    )  # fmt: skip
    planning.add_argument(
        "--protect", action="append", default=[], metavar="WORD",
        help="keep every record whose pattern holds WORD; may be repeated",
    )  # fmt: skip
    planning.add_argument(
        "--keep-first", type=whole_number, metavar="N",
        help=f"records of a pattern that each new process keeps (default: {DEFAULT_KEEP_FIRST})",
    )  # fmt: skip
    planning.add_argument(
        "--policy", metavar="FILE", help="show what this policy would keep, instead of planning one"
    )
    add_log_format_argument(parser.add_argument_group("how to read"))
    add_report_arguments(parser)


def add_report_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what every command with a report has."""
    showing = parser.add_argument_group("what to show")
    showing.add_argument(
        "--price-per-gb", type=_price, default=DEFAULT_PRICE, metavar="DOLLARS",
        help=f"price of 10^9 bytes (default: {DEFAULT_PRICE:.2f}, {PRICE_REASON})",
    )  # fmt: skip
    showing.add_argument(
        "--service-name", metavar="NAME", help="name of the service, for the report"
    )
    showing.add_argument(
        "--top",
        type=whole_number,
        metavar="N",
        help="patterns to show (default: 20; all with --json)",
    )
    showing.add_argument(
        "--json", action="store_true", help="write the report as JSON, and nothing else"
    )
    showing.add_argument(
        "--html", metavar="FILE", help="write the report as one self-contained page"
    )
    showing.add_argument("--write-policy", metavar="FILE", help="write the policy, to use it")
    showing.add_argument(
        "--force", action="store_true", help="replace any file by --html or --write-policy"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the subcommand."""
    policy = _policy_to_look_at(arguments)
    check_outputs(arguments, arguments.files)
    counter, reading = PatternCounter(), Reading()
    sources = open_sources(arguments.files, reading.troubles)
    for record in read_records(sources, reading, arguments.log_format):
        counter.add(record)
    now = datetime.now(timezone.utc)
    families = merge_families(pattern.template for pattern in counter.patterns())
    cost_target = None
    if policy is None:
        cost_target = (
            DEFAULT_COST_TARGET if arguments.cost_target is None else arguments.cost_target
        )
        policy = _plan(counter, arguments, cost_target, families, now)
    report = build_report(
        counter,
        reading,
        policy,
        families=families,
        title=_title(arguments.service_name, sources),
        created_at=now,
        cost_target=cost_target,
        price_per_gb=arguments.price_per_gb,
        service_name=arguments.service_name,
    )
    show_report(report, arguments)
    return 0


def show_report(report: Report, arguments: argparse.Namespace) -> None:
    """Write the report in the ways that were asked for (see `add_report_arguments`)."""
    if arguments.html:
        from lipservice.simulation.html import DEFAULT_PAGE_TOP, is_report_page, report_to_html

        page = report_to_html(report, DEFAULT_PAGE_TOP if arguments.top is None else arguments.top)
        write_result(
            arguments.html, page, is_ours=is_report_page, what=_A_PAGE, force=arguments.force
        )
    if arguments.write_policy:
        document = json.dumps(report.policy.to_dict(), indent=2) + "\n"
        write_result(
            arguments.write_policy,
            document,
            is_ours=_is_policy,
            what=_A_POLICY,
            force=arguments.force,
        )
    if arguments.json:
        from lipservice.simulation.jsonout import report_to_dict

        print(json.dumps(report_to_dict(report, arguments.top), indent=2))
        return
    from lipservice.simulation.text import DEFAULT_TOP, print_report

    console = Console(sys.stdout)
    print_report(report, console, DEFAULT_TOP if arguments.top is None else arguments.top)
    for name, what in ((arguments.html, "page"), (arguments.write_policy, "policy")):
        if name:
            console.line(f"  The {what} is in {name}")


def check_outputs(arguments: argparse.Namespace, inputs: list[str]) -> None:
    """Refuse early what could not be written at the end, or would destroy an input."""
    from lipservice.simulation.html import is_report_page

    for name, is_ours, what in (
        (arguments.html, is_report_page, _A_PAGE),
        (arguments.write_policy, _is_policy, _A_POLICY),
    ):
        if name is None:
            continue
        if any(os.path.realpath(name) == os.path.realpath(each) for each in inputs if each != "-"):
            raise ConfigurationError(f"{name} is an input; write the result to another file")
        check_replaceable(name, is_ours=is_ours, what=what, force=arguments.force)


_A_PAGE: Final = "a page written by lipservice"
_A_POLICY: Final = "a policy"


def _is_policy(text: str) -> bool:
    try:
        document = json.loads(text)
        SamplingPolicy.from_dict(document)
    except (ValueError, RecursionError):
        return False
    return "policy_id" in document and "sampling_rate" in document


def _policy_to_look_at(arguments: argparse.Namespace) -> SamplingPolicy | None:
    if arguments.policy is None:
        return None
    for name in ("cost_target", "keep_first", "protect"):
        if getattr(arguments, name):
            option = "--" + name.replace("_", "-")
            raise ConfigurationError(f"--policy shows a policy as it is: leave out {option}")
    try:
        with Path(arguments.policy).open(encoding="utf-8") as file:
            return SamplingPolicy.from_dict(json.load(file))
    except OSError as error:
        raise ConfigurationError(
            f"cannot read {arguments.policy}: {error.strerror or error}"
        ) from error
    except PolicyError as error:
        raise PolicyError(f"{arguments.policy}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{arguments.policy} is not JSON: {error}") from error


def _plan(
    counter: PatternCounter,
    arguments: argparse.Namespace,
    cost_target: float,
    families: dict[str, str],
    now: datetime,
) -> SamplingPolicy:
    keep_first = arguments.keep_first
    return plan_policy(
        volumes_of(counter.patterns()),
        cost_target,
        policy_id=arguments.service_name or "simulated",
        families=families,
        patterns_words=tuple(arguments.protect),
        keep_first=DEFAULT_KEEP_FIRST if keep_first is None else keep_first,
        created_at=now.isoformat(),
    )


def _title(service_name: str | None, sources: list[Source]) -> str:
    name = Path(sources[0].name).name if len(sources) == 1 else f"{len(sources):,} inputs"
    return f"{service_name} · {name}" if service_name else name


def read_share(text: str) -> float:
    """A share as users write it: 0.1 or 10%."""
    try:
        value = float(text.rstrip("% ")) / (100 if text.rstrip().endswith("%") else 1)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"a share is a number such as 0.1 or 10%, not {text!r}"
        ) from None
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(
            f"a share lies between 0 and 1 (or 0% and 100%), not {text}"
        )
    return value


def _price(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value < 1e9:
        raise argparse.ArgumentTypeError(
            f"a price is a number of dollars, at least 0, not {text!r}"
        )
    return value
