"""
All benchmarks with one command: tables of ratios, and JSON.

    tox -e bench                                      or
    python contrib/benchmarks/run.py [NAME ...] [--json FILE]

Names are the modules beside this one. Everything is interleaved and told as medians; read the
ratios, the nanoseconds belong to the machine.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import sys
import warnings
from pathlib import Path
from typing import Any

#: What runs without a name. `server_load` (minutes), `reliability` and `call_sites` (which fetches
#: applications from PyPI) are asked for by name.
USUAL = (
    *("decisions", "signature", "frameworks", "scopes", "grouping", "quality", "optimizer"),
    *("export", "ledger"),
)
ASKED_FOR = ("reliability", "server_load", "call_sites")


def main() -> int:
    """Run what was asked for; 1 if something failed."""
    parser = argparse.ArgumentParser(description="LipService's benchmarks")
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[*USUAL, *ASKED_FOR, []])
    parser.add_argument("--json", metavar="FILE", default="benchmarks.json")
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))
    warnings.simplefilter("ignore")
    results: dict[str, Any] = {"python": platform.python_version(), "machine": platform.machine()}
    failed = []
    for name in arguments.names or USUAL:
        print(f"\n=== {name}", flush=True)
        try:
            module = importlib.import_module(name)
            results[name] = module.run()
            if hasattr(module, "table"):
                print(module.table(results[name]))
        except Exception as error:
            failed.append(name)
            print(f"{name} failed: {type(error).__name__}: {error}", file=sys.stderr)
    Path(arguments.json).write_text(json.dumps(results, indent=1, default=str), encoding="utf-8")
    print(f"\nwritten to {arguments.json}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
