"""
The command `lipservice-server`, also as `python -m lipservice_server`.

It stands before `lipservice_server.cli` so that a missing extra is one line, not a traceback.
"""

from __future__ import annotations

import sys

#: Modules of the extra [server]: what is absent among them is told with the way to get it.
_EXTRA = frozenset(
    {
        "flask",
        "gunicorn",
        "huey",
        "jwt",
        "peewee",
        "playhouse",
        "prometheus_client",
        "psycopg2",
        "pydantic",
        "redis",
    }
)


def main() -> int:
    """Run the command line of the process; the exit code."""
    try:
        from lipservice_server.cli import main as run  # noqa: PLC0415 - see above
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        sys.stderr.write(
            f"lipservice-server: {error.name} is not installed: pip install 'lipservice[server]'\n"
        )
        return 2
    return run()


if __name__ == "__main__":
    sys.exit(main())
