"""Reads the LogHub samples: real messages, each with the true statement that it comes from."""

import csv
from pathlib import Path

#: Where the samples lie beside a checkout. Their licence forbids a copy in the project.
DEFAULT = Path(__file__).resolve().parents[3] / "shared" / "data" / "loghub"


def read_samples(folder=DEFAULT):
    """Map each sample's name to its (message, true statement) pairs, in the order of the log."""
    files = sorted(Path(folder).glob("*/*_2k.log_structured.csv"))
    if not files:
        raise FileNotFoundError(f"no */*_2k.log_structured.csv in {folder}: clone logpai/loghub")
    return {file.parent.name: _read(file) for file in files}


def _read(file):
    with file.open(encoding="utf-8", newline="") as lines:
        return [(row["Content"], row["EventId"]) for row in csv.DictReader(lines)]
