"""The report for a terminal: one sentence, then tables that fit its width."""

from __future__ import annotations

from typing import Final, NamedTuple

from lipservice.simulation import wording
from lipservice.simulation.console import Console, fit, safe, width_of
from lipservice.simulation.report import DEFAULT_PRICE, PatternRow, Report

#: Patterns that are shown where `--top` does not say.
DEFAULT_TOP: Final = 20
_BAR: Final = 10
# Widths from which on the table has these columns.
_WITH_COUNTS: Final = 64
_WITH_BARS: Final = 84

_COLOURS: Final = {
    "CRITICAL": ("bold", "red"),
    "ERROR": ("red",),
    "WARNING": ("yellow",),
    "INFO": ("green",),
    "DEBUG": ("blue",),
    "TRACE": ("dim",),
}
_SHORT: Final = {"CRITICAL": "CRIT", "WARNING": "WARN"}


def print_report(report: Report, console: Console, top: int = DEFAULT_TOP) -> None:
    """
    Write the report.

    Args:
        report: what to show.
        console: where to.
        top: how many patterns the table has.
    """
    _print_head(report, console)
    _print_result(report, console)
    if report.rows:
        print_patterns(report, console, top)
        _print_comparison(report, console)
    _print_proofs(report, console)
    _print_notes(report, console)


def _print_head(report: Report, console: Console) -> None:
    read = report.input
    console.line(console.style(fit(safe(report.title), console.width).rstrip(), "bold"))
    inputs = f" in {len(read.names):,} inputs" if len(read.names) > 1 else ""
    volume = f"{read.records:,} records, {wording.bytes_words(read.bytes)}{inputs}"
    _fact(console, "Read", volume + (f"; {_formats_words(report)}" if read.formats else ""))
    _fact(console, "Time", _time_words(report))
    _fact(console, "Severity", _severity_words(report))
    _fact(console, "Patterns", wording.pattern_words(report))
    for trouble in read.troubles:
        _fact(console, "Note", console.style(safe(trouble), "yellow"))
    console.line()


def _fact(console: Console, name: str, text: str) -> None:
    indent = " " * 12
    lines = _wrap(text, console.width - len(indent))
    console.line("  " + console.style(f"{name:<10}", "dim") + lines[0])
    for line in lines[1:]:
        console.line(indent + line)


def _wrap(text: str, width: int) -> list[str]:
    lines, line = [], ""
    for word in text.split(" "):
        if line and width_of(line) + 1 + width_of(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line]


def _formats_words(report: Report) -> str:
    formats = report.input.formats
    lines = max(sum(formats.values()), 1)
    shown = [
        safe(name) if count == lines else f"{safe(name)} ({wording.percent(count / lines)})"
        for name, count in list(formats.items())[:4]
    ]
    more = f" and {len(formats) - 4} more" if len(formats) > 4 else ""
    return "format " + ", ".join(shown) + more


def _time_words(report: Report) -> str:
    read = report.input
    if read.first is None or read.last is None or read.span is None:
        return "no timestamps found"
    words = f"{wording.time_words(read.first)} to {wording.time_words(read.last)}"
    words += f" ({wording.span_words(read.span)}"
    if read.per_minute is not None and read.span >= 60:
        words += f", {wording.rate_of_records(read.per_minute)}"
    words += ")"
    if read.timed < read.records:
        words += f"; {read.records - read.timed:,} records without a time"
    return words


def _severity_words(report: Report) -> str:
    read = report.input
    shown = [
        f"{name} {wording.percent(records / max(read.records, 1))}"
        for name, (records, _) in report.severities().items()
    ]
    words = ", ".join(shown) or "-"
    if read.unlevelled:
        words += f"; {read.unlevelled:,} records do not say theirs and count as INFO"
    return words


def _print_result(report: Report, console: Console) -> None:
    if not report.rows:
        console.line("No log records were found.")
        console.line()
        return
    for line in _wrap(wording.headline(report), console.width - 2):
        console.line("  " + console.style(line, "bold", "green"))
    for text in (wording.missed_target(report), wording.first_records_words(report)):
        for line in _wrap(text, console.width - 2) if text else ():
            console.line("  " + line)
    console.line()


class _Layout(NamedTuple):
    """Which columns the table has, and how wide its templates are."""

    template: int
    #: Records seen and kept.
    counts: bool
    bars: bool


def _layout(width: int) -> _Layout:
    counts, bars = width >= _WITH_COUNTS, width >= _WITH_BARS
    others = 25 + (20 if counts else 0) + (2 + _BAR if bars else 0)
    return _Layout(width - others, counts, bars)


def print_patterns(report: Report, console: Console, top: int) -> None:
    """Write the table of the *top* patterns by volume."""
    if top <= 0:
        return
    layout = _layout(console.width)
    records = f" {'RECORDS':>9}" if layout.counts else ""
    kept = f" {'KEPT':>9}" if layout.counts else ""
    bars = "  SEEN/KEPT" if layout.bars else ""
    head = f"  {'PATTERN':<{layout.template}} LEVEL{records} {'SHARE':>7} {'RATE':>8}{kept}{bars}"
    console.line(console.style(head, "dim"))
    total = max(report.outcome.bytes, 1.0)
    most = max(row.bytes for row in report.rows)
    for row in report.rows[:top]:
        console.line(_table_row(row, console, layout, total, most))
    _print_rest(report, console, top)
    console.line()


def _table_row(row: PatternRow, console: Console, layout: _Layout, total: float, most: int) -> str:
    template = fit(safe(row.template) or "(empty message)", layout.template)
    level = console.style(f"{_SHORT.get(row.severity, row.severity):<5}", *_COLOURS[row.severity])
    rate = f"{'always' if row.protection else wording.percent(row.rate):>8}"
    rate = console.style(rate, "cyan") if row.protection else rate
    records = f" {row.count:>9,}" if layout.counts else ""
    kept = f" {wording.count_words(row.kept_records):>9}" if layout.counts else ""
    bar = "  " + _bar(row, console, most) if layout.bars else ""
    share = f"{wording.percent(row.bytes / total):>7}"
    return f"  {template} {level}{records} {share} {rate}{kept}{bar}"


def _bar(row: PatternRow, console: Console, most: int) -> str:
    """A bar as long as the volume; its full part is what is kept."""
    eighths = "▏▎▍▌▋▊▉█"
    seen = max(1, round(_BAR * row.bytes / most))
    kept = _BAR * row.kept_bytes / most
    full = int(kept)
    part = int((kept - full) * 8)
    solid = "█" * full + (eighths[part - 1] if part and full < _BAR else "")
    if not solid:
        solid = "▏"
    return console.style(solid, *_COLOURS[row.severity]) + console.style(
        "░" * (max(seen, len(solid)) - len(solid)), "dim"
    )


def _print_rest(report: Report, console: Console, top: int) -> None:
    rest = report.rows[top:]
    if not rest:
        return
    total = max(report.outcome.bytes, 1.0)
    size = sum(row.bytes for row in rest)
    kept = sum(row.kept_bytes for row in rest)
    text = (
        f"and {len(rest):,} more patterns: {wording.percent(size / total)} of the bytes, "
        f"of which {wording.percent(kept / size if size else 1.0)} is kept "
        f"(--top {len(report.rows)} shows all)"
    )
    for line in _wrap(text, console.width - 2):
        console.line("  " + console.style(line, "dim"))


def _print_comparison(report: Report, console: Console) -> None:
    if report.outcome.kept_share >= 1.0:
        return
    name = "this policy" if report.cost_target is None else "LipService"
    what_width = min(34, console.width - 26)
    head = f"  {fit('AT THE SAME VOLUME', what_width)} {name:>11} {'uniform':>11}"
    console.line(console.style(head, "dim"))
    for what, here, uniform in wording.comparison(report):
        value = console.style(f"{here:>11}", "bold")
        console.line(f"  {fit(what, what_width)} {value} {uniform:>11}")
    console.line()


def _print_proofs(report: Report, console: Console) -> None:
    for proof in report.proofs:
        first, *more = _wrap(safe(proof), console.width - 4)
        console.line(f"  {console.style('✓', 'green')} {first}")
        for line in more:
            console.line("    " + line)
    if report.proofs:
        console.line()


def _print_notes(report: Report, console: Console) -> None:
    notes = [*report.notes]
    if report.rows:
        notes.append(wording.price_words(report, DEFAULT_PRICE))
    for note in notes:
        for line in _wrap(note, console.width - 2):
            console.line("  " + console.style(line, "dim"))
