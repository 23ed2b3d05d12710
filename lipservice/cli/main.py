"""
Entry point of the command: finds the subcommand, runs it, and turns errors into exit codes.

    0    done
    1    done, and what was checked is not right (subcommands say when)
    2    wrong usage, or an input that cannot be read; one line on standard error
    130  ended by Ctrl-C

A broken pipe (`lipservice simulate x.log | head`) ends quietly.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Final, NamedTuple

from lipservice._version import __version__
from lipservice.exceptions import LipServiceError

USAGE_ERROR: Final = 2
INTERRUPTED: Final = 130


class _Subcommand(NamedTuple):
    module: str
    summary: str


#: Every subcommand: the module that has it, and what `lipservice --help` says of it.
SUBCOMMANDS: Final = {
    "simulate": _Subcommand(
        "lipservice.cli.simulate", "show what sampling would keep and save on your own log files"
    ),
    "demo": _Subcommand(
        "lipservice.cli.demo", "run a small web shop under load and sample its logs live"
    ),
    "explain": _Subcommand(
        "lipservice.cli.explain", "say which rule decides a message, and at which rate"
    ),
    "patterns": _Subcommand(
        "lipservice.cli.patterns",
        "list the patterns of logs, and the logging calls that split them",
    ),
    "check-posthog": _Subcommand(
        "lipservice.cli.check_posthog", "send one record to PostHog and say what came back"
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run the command line; *argv* without the program's name, None for that of the process.

    Returns:
        The exit code. Only `SystemExit` of argparse is raised (`--help`, `--version`, usage).
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(arguments)
    except LipServiceError as error:
        return _complain(str(error))
    except BrokenPipeError:
        _silence_stdout()
        return 0
    except KeyboardInterrupt:
        print("\nlipservice: interrupted", file=sys.stderr)
        return INTERRUPTED


def _run(arguments: list[str]) -> int:
    name = next((each for each in arguments if not each.startswith("-")), None)
    chosen = SUBCOMMANDS.get(name or "")
    module = importlib.import_module(chosen.module) if chosen else None
    parser, subparsers = _parser()
    for each, subcommand in SUBCOMMANDS.items():
        subparser = subparsers.add_parser(
            each,
            help=subcommand.summary,
            description=subcommand.summary[0].upper() + subcommand.summary[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        if subcommand is chosen and module is not None:
            module.add_arguments(subparser)
    parsed = parser.parse_args(arguments)
    if module is None:
        parser.print_help()
        return 0
    code: int = module.run(parsed)
    sys.stdout.flush()  # here, where a broken pipe is still caught
    return code


def _parser() -> tuple[
    argparse.ArgumentParser, argparse._SubParsersAction[argparse.ArgumentParser]
]:
    parser = argparse.ArgumentParser(
        prog="lipservice",
        description="Samples an application's logs by pattern: less to pay for, no error lost.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"lipservice {__version__}")
    return parser, parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")


def _complain(message: str) -> int:
    line = " ".join(message.split())
    text = f"lipservice: {line}\n"
    encoding = sys.stderr.encoding or "ascii"
    sys.stderr.write(text.encode(encoding, "backslashreplace").decode(encoding))
    return USAGE_ERROR


def _silence_stdout() -> None:
    """Keep the interpreter from complaining when it flushes at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
