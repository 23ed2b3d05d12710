"""
The charts of the page, as SVG. One visual word in all of them: pale is what was seen, solid is
what is kept.

Rule of this module: everything that comes from a log goes through `escape`; colours are classes
of the page's style sheet, so that a strict content security policy allows them and dark mode
changes them; nothing needs a script.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Final, NamedTuple

from lipservice.simulation import wording
from lipservice.simulation.console import safe, width_of
from lipservice.simulation.report import PatternRow, Report, Slice
from lipservice.simulation.treemap import Box, squarify

_GAP: Final = 2.0
_PAD: Final = 8.0
_LEAST_COLUMNS: Final = 9


def escape(text: str) -> str:
    """*text* for any place in HTML or SVG, without characters that could hide or reorder it."""
    return html.escape(safe(text), quote=True)


def number(value: float) -> str:
    """A coordinate."""
    return f"{value:.1f}".removesuffix(".0")


class Canvas(NamedTuple):
    """The size of a chart, and of its letters, in units of its view box."""

    width: float
    height: float
    font: float
    #: Tiles, or columns, at most.
    most: int
    #: Class of the SVG, which the style sheet shows at the widths it is made for.
    name: str


WIDE_MAP: Final = Canvas(1120, 520, 12.5, 48, "wide")
NARROW_MAP: Final = Canvas(400, 620, 12.5, 22, "narrow")
WIDE_TIME: Final = Canvas(1120, 230, 12.5, 96, "wide")
NARROW_TIME: Final = Canvas(400, 230, 12.5, 40, "narrow")


# --- treemap --------------------------------------------------------------------------------


def volume_map(report: Report, canvas: Canvas, linked: int) -> str:
    """
    A treemap: a tile for each pattern, its area the bytes seen, its solid part the bytes kept.

    Args:
        report: what to show.
        canvas: the size.
        linked: how many patterns the page's table has; the tiles of these link there.
    """
    shown = list(report.rows[: canvas.most])
    rest = report.rows[canvas.most :]
    amounts = [float(row.bytes) for row in shown]
    rest_bytes = float(sum(row.bytes for row in rest))
    order = [*shown, None] if rest_bytes else list(shown)
    if rest_bytes:
        amounts.append(rest_bytes)
    ranked = sorted(
        zip(amounts, range(len(order)), strict=True), key=lambda pair: (-pair[0], pair[1])
    )
    boxes = squarify([amount for amount, _ in ranked], Box(0, 0, canvas.width, canvas.height))
    tiles = []
    for (_, index), box in zip(ranked, boxes, strict=True):
        row = order[index]
        if row is None:
            tiles.append(_rest_tile(rest, box, canvas, report.outcome.bytes))
        else:
            tile = _tile(row, box, canvas, report.outcome.bytes)
            link = f'<a href="#pattern-{index + 1}">{tile}</a>' if index < linked else tile
            tiles.append(link)
    label = "Treemap of the patterns by bytes. The table below has the same figures."
    return _svg(canvas, label, "".join(tiles))


def _tile(row: PatternRow, box: Box, canvas: Canvas, total: float) -> str:
    share = wording.percent(row.bytes / max(total, 1.0))
    rate = "keep all" if row.rate >= 1.0 else f"keep {wording.percent(row.rate)}"
    text = row.template or "(empty message)"
    title = (
        f"{text}\n{row.severity}: {row.count:,} records, {wording.bytes_words(row.bytes)} "
        f"({share}). {row.reason}"
    )
    kept = row.kept_bytes / row.bytes if row.bytes else 1.0
    label = _Label(title, text, (f"{share} · {rate}", share))
    return _tile_shapes(box, kept, row.severity.lower(), label, canvas)


def _rest_tile(rest: Sequence[PatternRow], box: Box, canvas: Canvas, total: float) -> str:
    size = sum(row.bytes for row in rest)
    kept = sum(row.kept_bytes for row in rest)
    share = wording.percent(size / max(total, 1.0))
    rate = f"keep {wording.percent(kept / size)}"
    text = f"{len(rest):,} more patterns"
    title = f"{text}: {wording.bytes_words(size)} ({share})"
    label = _Label(title, text, (f"{share} · {rate}", share))
    return _tile_shapes(box, kept / size, "rest", label, canvas)


class _Label(NamedTuple):
    title: str
    text: str
    #: Ways to say share and rate, the longest first.
    figures: Sequence[str]


def _tile_shapes(box: Box, rate: float, kind: str, label: _Label, canvas: Canvas) -> str:
    x, y = box.x + _GAP / 2, box.y + _GAP / 2
    width, height = max(box.width - _GAP, 0.5), max(box.height - _GAP, 0.5)
    solid = min(max(height * rate, 1.5 if rate > 0 else 0.0), height)
    place = f'x="{number(x)}" width="{number(width)}"'
    shapes = [
        f"<title>{escape_lines(label.title)}</title>",
        f'<rect class="seen {kind}" {place} y="{number(y)}" height="{number(height)}" rx="3"/>',
        f'<rect class="kept {kind}" {place} y="{number(y + height - solid)}" '
        f'height="{number(solid)}" rx="{3 if rate >= 1 else 1.5}"/>',
        f'<rect class="frame" {place} y="{number(y)}" height="{number(height)}" rx="3"/>',
        _tile_text(Box(x, y, width, height), solid, label, canvas),
    ]
    return "<g>" + "".join(shapes) + "</g>"


def _tile_text(box: Box, solid: float, label: _Label, canvas: Canvas) -> str:
    """The label, in the larger of the tile's two parts; as many lines as fit."""
    on_solid = solid > box.height / 2
    room = solid if on_solid else box.height - solid
    top = box.y + box.height - solid if on_solid else box.y
    line_height = canvas.font * 1.3
    columns = int((box.width - 2 * _PAD) / (canvas.font * 0.602))
    lines = int((room - 1.2 * _PAD) / line_height)
    if columns < _LEAST_COLUMNS or lines < 1:
        return ""
    fitting = [each for each in label.figures if len(each) <= columns] if lines > 1 else []
    figures = fitting[0] if fitting else ""
    words = wrap(label.text, columns, lines - bool(figures))
    spans = [(each, "") for each in words]
    if figures:
        spans.append((figures, "figures"))
    first = top + _PAD + canvas.font * 0.8
    text = "".join(
        f'<tspan x="{number(box.x + _PAD)}" y="{number(first + at * line_height)}"'
        + (f' class="{kind}"' if kind else "")
        + f">{escape(each)}</tspan>"
        for at, (each, kind) in enumerate(spans)
    )
    return f'<text class="label{" on-solid" if on_solid else ""}" aria-hidden="true">{text}</text>'


def wrap(text: str, columns: int, lines: int) -> list[str]:
    """*text* in at most so many lines of so many columns; what does not fit is cut."""
    found: list[str] = []
    line = ""
    for word in safe(text).split():
        if line and width_of(line) + 1 + width_of(word) <= columns:
            line = f"{line} {word}"
            continue
        if line:
            found.append(line)
        *full, line = _pieces(word, columns)
        found += full
        if len(found) > lines:
            break
    if line:
        found.append(line)
    if len(found) > lines:
        found = found[:lines]
        if found:
            found[-1] = _cut(found[-1], columns - 1) + "…"
    return found


def _pieces(word: str, columns: int) -> list[str]:
    """A word in pieces of at most so many columns, but at least one character."""
    pieces = []
    while width_of(word) > columns and len(word) > 1:
        piece = _cut(word, columns) or word[0]
        pieces.append(piece)
        word = word[len(piece) :]
    return [*pieces, word] if word or not pieces else pieces


def _cut(text: str, columns: int) -> str:
    taken = 0
    for at, character in enumerate(text):
        taken += width_of(character)
        if taken > columns:
            return text[:at]
    return text if columns > 0 else ""


def escape_lines(text: str) -> str:
    """As `escape`, but line ends stay."""
    return "\n".join(escape(line) for line in text.split("\n"))


def _svg(canvas: Canvas, label: str, content: str) -> str:
    return (
        f'<svg class="{canvas.name}" viewBox="0 0 {number(canvas.width)} {number(canvas.height)}" '
        f'role="group" aria-label="{escape(label)}" font-size="{number(canvas.font)}">'
        f"{content}</svg>"
    )


# --- volume over time -----------------------------------------------------------------------


def merge_slices(slices: Sequence[Slice], most: int) -> tuple[list[Slice], int]:
    """At most so many slices, and how many of the old ones each of them holds."""
    together = max(1, -(-len(slices) // most))
    merged = []
    for start in range(0, len(slices), together):
        group = slices[start : start + together]
        merged.append(
            Slice(
                group[0].start,
                sum(each.seen_bytes for each in group),
                sum(each.kept_bytes for each in group),
                sum(each.error_bytes for each in group),
            )
        )
    return merged, together


def volume_over_time(report: Report, canvas: Canvas) -> str:
    """Columns of bytes seen, kept, and of errors, for each slice of time."""
    slices, together = merge_slices(report.slices, canvas.most)
    width = report.slice_width * together
    left, bottom, top = 64.0, 26.0, 10.0
    plot = Box(left, top, canvas.width - left - 4, canvas.height - top - bottom)
    highest = max(each.seen_bytes for each in slices)
    ceiling, step = nice_ceiling(highest)
    parts = [_grid(plot, ceiling, step)]
    column = plot.width / len(slices)
    gap = 1.0 if column > 4 else 0.2
    for at, each in enumerate(slices):
        parts.append(_column(each, plot, plot.x + at * column, column - gap, ceiling, width))
    parts.append(_time_axis(slices, width, plot, canvas))
    label = (
        f"Bytes seen and kept, in slices of {wording.span_words(width)}. "
        "The table below has the same figures."
    )
    return _svg(canvas, label, "".join(parts))


def nice_ceiling(highest: float) -> tuple[float, float]:
    """A round number not below *highest*, and the step of two to five grid lines up to it."""
    size = 1.0
    while size * 10 <= highest:
        size *= 10
    for factor, parts in ((1, 2), (2, 2), (2.5, 5), (4, 4), (5, 5), (8, 4), (10, 2)):
        if size * factor >= highest:
            return size * factor, size * factor / parts
    return highest or 1.0, highest or 1.0


def _grid(plot: Box, ceiling: float, step: float) -> str:
    lines = []
    for at in range(round(ceiling / step) + 1):
        y = plot.y + plot.height * (1 - at * step / ceiling)
        lines.append(
            f'<line class="grid" x1="{number(plot.x)}" x2="{number(plot.x + plot.width)}" '
            f'y1="{number(y)}" y2="{number(y)}"/>'
            f'<text class="axis end" x="{number(plot.x - 8)}" y="{number(y + 4)}">'
            f"{escape(axis_bytes(at * step))}</text>"
        )
    return "".join(lines)


def axis_bytes(size: float) -> str:
    """A round size without needless digits: `2.5 kB`."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:g} {unit}"
    return f"{size:g} B"


def _column(each: Slice, plot: Box, x: float, width: float, ceiling: float, seconds: float) -> str:
    title = (
        f"{wording.time_words(each.start)}, {wording.span_words(seconds)}: "
        f"{wording.bytes_words(each.seen_bytes)} seen, {wording.bytes_words(each.kept_bytes)} kept"
    )
    bars = []
    for kind, amount in (
        ("seen total", each.seen_bytes),
        ("kept total", each.kept_bytes),
        ("kept error", each.error_bytes),
    ):
        height = plot.height * amount / ceiling
        if height > 0:
            height = max(height, 0.75)
            bars.append(
                f'<rect class="{kind}" x="{number(x)}" width="{width:.2f}" '
                f'y="{number(plot.y + plot.height - height)}" height="{number(height)}"/>'
            )
    return f"<g><title>{escape(title)}</title>{''.join(bars)}</g>" if bars else ""


#: Distances that people expect between marks of time, in seconds.
_TICKS: Final = (
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400,
    172_800, 604_800, 1_209_600, 2_592_000, 7_776_000, 15_552_000, 31_536_000,
)  # fmt: skip


def _time_axis(slices: Sequence[Slice], width: float, plot: Box, canvas: Canvas) -> str:
    start, span = slices[0].start, width * len(slices)
    most = max(2, int(plot.width // 110))
    tick = next((each for each in _TICKS if span / each <= most), _TICKS[-1])
    labels = []
    for at in range(int(start // tick) + 1, int((start + span) // tick) + 1):
        x = plot.x + plot.width * (at * tick - start) / span
        if plot.x + 16 <= x <= plot.x + plot.width - 30:
            labels.append(
                f'<line class="grid" x1="{number(x)}" x2="{number(x)}" '
                f'y1="{number(plot.y + plot.height)}" y2="{number(plot.y + plot.height + 5)}"/>'
                f'<text class="axis middle" x="{number(x)}" y="{number(canvas.height - 6)}">'
                f"{_tick_words(at * tick, tick)}</text>"
            )
    return "".join(labels)


def _tick_words(seconds: float, tick: int) -> str:
    moment = wording.moment_of(seconds)
    if tick < 60:
        return f"{moment:%H:%M:%S}"
    if tick < 86_400:
        midnight = moment.hour == 0 and moment.minute == 0 and moment.year > 1970
        return f"{moment:%b} {moment.day}" if midnight else f"{moment:%H:%M}"
    return f"{moment:%b %Y}" if tick >= 2_592_000 else f"{moment:%b} {moment.day}"


# --- small bars -----------------------------------------------------------------------------


def share_bar(seen: float, kept: float, most: float, kind: str) -> str:
    """A bar for a table cell: as long as the share of the largest, solid as far as it is kept."""
    length = max(100.0 * seen / most, 0.8) if most else 0.0
    solid = max(length * kept / seen, 0.8 if kept else 0.0) if seen else 0.0
    return (
        '<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="seen {kind}" width="{number(length)}" height="10"/>'
        f'<rect class="kept {kind}" width="{number(solid)}" height="10"/></svg>'
    )


def comparison_bar(value: float, kind: str) -> str:
    """A bar from 0 to 1."""
    return (
        '<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="track" width="100" height="10"/>'
        f'<rect class="{kind}" width="{number(max(min(value, 1.0) * 100, 0.6))}" height="10"/>'
        "</svg>"
    )
