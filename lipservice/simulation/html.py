"""
The report as one page: no script, no request, nothing outside the file.

Rule of this module: log lines are an attacker's text. All of it goes through `escape`, and the
page's own content security policy allows nothing but the one style sheet in it, by its hash.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from importlib import resources
from typing import Final

from lipservice._version import __version__
from lipservice.simulation import wording
from lipservice.simulation.charts import (
    NARROW_MAP,
    NARROW_TIME,
    WIDE_MAP,
    WIDE_TIME,
    comparison_bar,
    escape,
    merge_slices,
    share_bar,
    volume_map,
    volume_over_time,
)
from lipservice.simulation.report import DEFAULT_PRICE, PatternRow, Report

#: Patterns in the table where `--top` does not say.
DEFAULT_PAGE_TOP: Final = 200
_GENERATOR: Final = '<meta name="generator" content="lipservice '
_TIME_ROWS: Final = 48


def report_to_html(report: Report, top: int = DEFAULT_PAGE_TOP) -> str:
    """
    The page.

    Args:
        report: what to show.
        top: how many patterns the table has.
    """
    style = resources.files("lipservice.simulation").joinpath("report.css").read_text("utf-8")
    body = [_header(report), "<main>", _headline(report)]
    if report.rows:
        body += [_map_section(report, top), _time_section(report)]
        body += [_comparison_section(report), _proof_section(report)]
        body += [_patterns_section(report, top)]
    body += ["</main>", _footer(report)]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_policy(style)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f'{_GENERATOR}{escape(__version__)}">\n'
        f"<title>{escape(report.title)} · LipService</title>\n"
        f"<style>{style}</style>\n</head>\n<body>\n" + "\n".join(body) + "\n</body>\n</html>\n"
    )


def is_report_page(text: str) -> bool:
    """Whether *text* is a page that `report_to_html` made."""
    return text.startswith("<!doctype html>") and _GENERATOR in text[:4000]


def _policy(style: str) -> str:
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def _header(report: Report) -> str:
    read = report.input
    facts = [
        f"{read.records:,} records",
        wording.bytes_words(read.bytes),
        f"{report.outcome.patterns:,} patterns",
    ]
    if read.first is not None and read.last is not None and read.span is not None:
        facts.append(f"{wording.time_words(read.first)} to {wording.time_words(read.last)}")
        if read.per_minute is not None and read.span >= 60:
            facts.append(wording.rate_of_records(read.per_minute))
    facts.append(", ".join(list(read.formats)[:3]))
    spans = "".join(f"<span>{escape(fact)}</span>" for fact in facts if fact)
    return (
        '<header class="page">\n<p class="brand">LipService</p>\n'
        f'<h1>{escape(report.title)}</h1>\n<p class="facts">{spans}</p>\n</header>'
    )


def _headline(report: Report) -> str:
    if not report.rows:
        return '<p class="headline">No log records were found.</p>'
    parts = [f'<p class="headline">{escape(wording.headline(report))}</p>']
    if missed := wording.missed_target(report):
        parts.append(f'<p class="plain missed">{escape(missed)}</p>')
    parts.append(_figures(report))
    if first := wording.first_records_words(report):
        parts.append(f'<p class="plain">{escape(first)}</p>')
    return "\n".join(parts)


def _figures(report: Report) -> str:
    outcome, money = report.outcome, report.money
    month = "a month" if money.basis == "month" else "for this input"
    asked = (
        "" if report.cost_target is None else f", asked for {wording.percent(report.cost_target)}"
    )
    errors = (
        f"{report.errors:,} records, whatever the rates" if report.errors else "no error was logged"
    )
    share = outcome.kept_share
    volume = f"{wording.bytes_words(outcome.kept_bytes)} of {wording.bytes_words(outcome.bytes)}"
    if report.live_share is not None:
        volume = f"{wording.percent(share)} with the time before its first policy"
        share = report.live_share
    cells = [
        ("Bytes kept", wording.percent(share), volume + asked),
        ("Patterns visible", wording.percent(outcome.visible_share),
         f"uniform sampling: {wording.percent(report.uniform.visible_share)}"),
        ("Errors kept", "all" if report.errors else "none", errors),
        ("Saved", wording.dollars(money.saved),
         f"{month}, of {wording.dollars(money.seen)} "
         f"at {wording.price_tag(money.price_per_gb)} per GB"),
    ]  # fmt: skip
    items = "\n".join(
        f'<div><dt>{escape(name)}</dt><dd class="big">{escape(value)}</dd>'
        f'<dd class="small">{escape(more)}</dd></div>'
        for name, value, more in cells
    )
    return f'<dl class="figures">\n{items}\n</dl>'


def _map_section(report: Report, top: int) -> str:
    linked = min(top, len(report.rows))
    return (
        '<section aria-labelledby="map">\n<h2 id="map">What is seen, and what stays</h2>\n'
        "<p>Each tile is a pattern, as large as its bytes. The solid part at its foot is what is "
        "kept: loud patterns are cut deeply, rare ones and errors stay whole.</p>\n<figure>\n"
        f"{volume_map(report, WIDE_MAP, linked)}\n{volume_map(report, NARROW_MAP, linked)}\n"
        f"{_legend(report)}\n</figure>\n{_severity_table(report)}\n</section>"
    )


def _legend(report: Report) -> str:
    swatch = (
        '<svg viewBox="0 0 22 12" aria-hidden="true"><rect class="seen {0}" width="22" height="12" '
        'rx="2"/><rect class="kept {0}" width="22" height="4" y="8" rx="1"/></svg>'
    )
    items = "".join(
        f"<li>{swatch.format(name.lower())}{escape(name)}</li>" for name in report.severities()
    )
    return f'<ul class="legend">{items}</ul>'


def _severity_table(report: Report) -> str:
    rows = []
    for name, (records, size) in report.severities().items():
        kept = sum(row.kept_bytes for row in report.rows if row.severity == name)
        rows.append(
            f'<tr><td><span class="level {name.lower()}">{escape(name)}</span></td>'
            f'<td class="n">{records:,}</td><td class="n">{wording.bytes_words(size)}</td>'
            f'<td class="n">{wording.percent(size / max(report.outcome.bytes, 1))}</td>'
            f'<td class="n">{wording.bytes_words(kept)}</td>'
            f'<td class="n">{wording.percent(kept / size if size else 1.0)}</td></tr>'
        )
    return (
        "<details>\n<summary>The same by severity, as a table</summary>\n"
        '<div class="scroll"><table>\n<thead><tr><th scope="col">Severity</th>'
        '<th scope="col" class="n">Records</th><th scope="col" class="n">Bytes seen</th>'
        '<th scope="col" class="n">Share</th><th scope="col" class="n">Bytes kept</th>'
        '<th scope="col" class="n">Kept</th></tr></thead>\n<tbody>\n'
        + "\n".join(rows)
        + "\n</tbody></table></div>\n</details>"
    )


def _time_section(report: Report) -> str:
    if len(report.slices) < 3:
        return ""
    swatch = '<li><svg viewBox="0 0 22 12" aria-hidden="true"><rect class="{0}" '
    swatch += 'width="22" height="12" rx="2"/></svg>{1}</li>'
    legend = swatch.format("seen total", "seen") + swatch.format("kept total", "kept")
    if report.errors:
        legend += swatch.format("kept error", "errors, all kept")
    return (
        '<section aria-labelledby="time">\n<h2 id="time">Volume over time</h2>\n'
        "<p>Bytes of each slice of time, as logged and as kept. "
        "Times are those of the log.</p>\n<figure>\n"
        f"{volume_over_time(report, WIDE_TIME)}\n{volume_over_time(report, NARROW_TIME)}\n"
        f'<ul class="legend">{legend}</ul>\n</figure>\n{_time_table(report)}\n</section>'
    )


def _time_table(report: Report) -> str:
    slices, together = merge_slices(report.slices, _TIME_ROWS)
    rows = "\n".join(
        f"<tr><td>{wording.time_words(each.start)}</td>"
        f'<td class="n">{wording.bytes_words(each.seen_bytes)}</td>'
        f'<td class="n">{wording.bytes_words(each.kept_bytes)}</td>'
        f'<td class="n">{wording.bytes_words(each.error_bytes)}</td></tr>'
        for each in slices
    )
    width = wording.span_words(report.slice_width * together)
    return (
        "<details>\n<summary>The same as a table</summary>\n"
        f'<div class="scroll"><table>\n<caption>Slices of {width}</caption>\n<thead><tr>'
        '<th scope="col">From</th><th scope="col" class="n">Seen</th>'
        '<th scope="col" class="n">Kept</th><th scope="col" class="n">Errors</th></tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody></table></div>\n</details>"
    )


def _comparison_section(report: Report) -> str:
    if report.outcome.kept_share >= 1.0:
        return ""
    ours, uniform = report.outcome, report.uniform
    measures: list[tuple[str, float, float, Callable[[float], str]]] = [
        ("Patterns visible", ours.visible_share, uniform.visible_share, wording.percent)
    ]
    if report.errors:
        measures.append(("Errors kept", 1.0, min(1.0, ours.kept_share), wording.percent))
    measures.append(
        ("Error of a pattern's estimated count, mean (less is better)",
         ours.mean_error, uniform.mean_error, wording.error_words)
    )  # fmt: skip
    cells = []
    name = "This policy" if report.cost_target is None else "LipService"
    for what, here, there, words in measures:
        most = max(1.0, here, there)
        cells.append(f'<div class="what">{escape(what)}</div>')
        for who, value, kind in ((name, here, "ours"), ("Uniform sampling", there, "uniform")):
            cells.append(
                f'<div class="who">{escape(who)}</div>{comparison_bar(value / most, kind)}'
                f'<div class="value">{escape(words(value))}</div>'
            )
    return (
        '<section aria-labelledby="comparison">\n<h2 id="comparison">At the same volume</h2>\n'
        "<p>What one rate for every record would do with as many bytes: it loses rare patterns "
        "and errors, and spends its budget on what is loud.</p>\n"
        f'<div class="comparison">{"".join(cells)}</div>\n</section>'
    )


def _proof_section(report: Report) -> str:
    if not report.proofs:
        return ""
    items = "\n".join(f"<li>{escape(proof)}</li>" for proof in report.proofs)
    return (
        '<section aria-labelledby="proof">\n<h2 id="proof">Counted twice</h2>\n'
        "<p>A ledger that knows nothing of the sampler counted every record before it, and every "
        f'record that came through.</p>\n<ul class="proofs">\n{items}\n</ul>\n</section>'
    )


def _patterns_section(report: Report, top: int) -> str:
    most = max(row.bytes for row in report.rows)
    rows = "\n".join(
        _pattern_row(at, row, report, most) for at, row in enumerate(report.rows[:top], start=1)
    )
    hidden = len(report.rows) - top
    caption = (
        f"The {top:,} largest of {len(report.rows):,}" if hidden > 0 else "All, the largest first"
    )
    return (
        '<section aria-labelledby="patterns">\n<h2 id="patterns">Patterns</h2>\n'
        f'<div class="scroll"><table>\n<caption>{caption}</caption>\n<thead><tr>'
        '<th scope="col">Pattern</th><th scope="col">Severity</th>'
        '<th scope="col" class="n">Records</th><th scope="col" class="n extra">Bytes</th>'
        '<th scope="col" class="n">Share</th><th scope="col" class="n">Rate</th>'
        '<th scope="col" class="n">Kept</th><th scope="col" class="extra">Seen and kept</th>'
        f"</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>\n</section>"
    )


def _pattern_row(at: int, row: PatternRow, report: Report, most: int) -> str:
    kind = row.severity.lower()
    rate = "always" if row.protection else wording.percent(row.rate)
    members = f" {len(row.signatures):,} sibling patterns." if len(row.signatures) > 1 else ""
    share = wording.percent(row.bytes / max(report.outcome.bytes, 1))
    return (
        f'<tr id="pattern-{at}"><td class="pattern">'
        f"<code>{escape(row.template or '(empty message)')}</code>"
        f'<span class="why">{escape(row.reason)}{members}</span></td>'
        f'<td><span class="level {kind}">{row.severity}</span></td>'
        f'<td class="n">{row.count:,}</td>'
        f'<td class="n extra">{wording.bytes_words(row.bytes)}</td>'
        f'<td class="n">{share}</td><td class="n">{rate}</td>'
        f'<td class="n">{wording.count_words(row.kept_records)}</td>'
        f'<td class="meter extra">{share_bar(row.bytes, row.kept_bytes, most, kind)}</td></tr>'
    )


def _footer(report: Report) -> str:
    notes = list(report.notes)
    if report.rows:
        notes.append(wording.price_words(report, DEFAULT_PRICE))
        notes.append(
            "A pattern is a message with its variables replaced by <*>; siblings that differ "
            "in one word only are shown as one. What is kept is what to expect in the steady "
            "state; the page holds no value of a variable."
        )
    notes += report.input.troubles
    notes.append(
        f"Inputs: {', '.join(report.input.names[:20])}. Made by LipService {__version__} "
        f"at {report.created_at:%Y-%m-%d %H:%M} UTC; policy {report.policy.policy_id}."
    )
    paragraphs = "\n".join(f"<p>{escape(note)}</p>" for note in notes)
    return f'<footer class="page">\n{paragraphs}\n</footer>'
