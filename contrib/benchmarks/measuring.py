"""How every benchmark here measures: interleaved rounds in one process, medians, ratios."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence


def interleaved(
    cases: Mapping[str, Callable[[], object]], *, calls: int, rounds: int
) -> dict[str, float]:
    """
    Median nanoseconds of processor time a call of each case.

    The cases take turns, a round each, so that what else the machine does hits all of them alike.
    """
    taken: dict[str, list[float]] = {name: [] for name in cases}
    for case in cases.values():
        _round(case, calls)  # warm up
    gc.collect()
    for _ in range(rounds):
        for name, case in cases.items():
            taken[name].append(_round(case, calls))
    return {name: statistics.median(times) for name, times in taken.items()}


def _round(case: Callable[[], object], calls: int) -> float:
    loop = range(calls)
    start = time.process_time_ns()
    for _ in loop:
        case()
    return (time.process_time_ns() - start) / calls


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table as text: the first column left, the others right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        first, *rest = (
            cell.ljust(w) if i == 0 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        return "  ".join([first, *rest])

    print(f"\n{title}", line(header), "-" * len(line(header)), sep="\n")
    for row in rows:
        print(line(row))
