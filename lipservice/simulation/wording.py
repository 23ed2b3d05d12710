"""Numbers and sentences for people, the same in the terminal and on the page."""

from __future__ import annotations

from datetime import datetime, timezone

from lipservice.simulation.report import PRICE_REASON, Money, Report

_SIZES = ("bytes", "kB", "MB", "GB", "TB", "PB")


def bytes_words(size: float) -> str:
    """`1.5 MB`: powers of 1,000, three digits."""
    if size < 1000:
        return f"{size:,.0f} bytes"
    unit = 0
    while size >= 999.5 and unit < len(_SIZES) - 1:
        size /= 1000
        unit += 1
    digits = 2 if size < 9.995 else 1 if size < 99.95 else 0
    return f"{size:,.{digits}f} {_SIZES[unit]}"


def percent(share: float) -> str:
    """`12 %`; 0 % and 100 % only where they are exact."""
    value = 100.0 * share
    if value <= 0:
        return "0 %"
    if value >= 100:
        return "100 %"
    if value < 0.01:
        return "<0.01 %"
    if value < 0.095:
        return f"{value:.2f} %"
    if value < 9.95:
        return f"{value:.1f} %".replace(".0 %", " %")
    if value > 99.95:
        return "99.9 %"
    if value >= 99.5:
        return f"{value:.1f} %"
    return f"{value:.0f} %"


def error_words(error: float) -> str:
    """A mean relative error, which can exceed 100 %."""
    return percent(error) if error < 0.995 else f"{100 * error:,.0f} %"


def count_words(number: float) -> str:
    """`1,234`; small expectations keep a digit."""
    if 0 < number < 0.05:
        return "<0.1"
    if number < 9.95 and abs(number - round(number)) > 0.04:
        return f"{number:.1f}"
    return f"{number:,.0f}"


def dollars(amount: float) -> str:
    """`$1,234`; cents below 100."""
    if amount >= 99.995:
        return f"${amount:,.0f}"
    if 0 < amount < 0.01:
        return "less than a cent"
    return f"${max(amount, 0.0):.2f}"


def price_tag(price: float) -> str:
    """`$0.50`, with as many digits as the price has."""
    return f"${price:.2f}" if round(price, 2) == price else f"${price:g}"


def span_words(seconds: float) -> str:
    """`2.5 hours`."""
    for unit, size in (("days", 86_400.0), ("hours", 3_600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            value = seconds / size
            return (
                f"{value:,.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}".replace(".0 ", " ")
            )
    return f"{seconds:,.0f} seconds" if seconds != 1 else "1 second"


def time_words(seconds: float) -> str:
    """`2024-01-02 15:04:05`, as the log has it."""
    moment = moment_of(seconds)
    return f"{moment:%Y-%m-%d %H:%M:%S}" if moment.year > 1970 else f"{moment:%H:%M:%S}"


def moment_of(seconds: float) -> datetime:
    """The moment as an aware datetime; what no calendar holds is the nearest that one does."""
    return datetime.fromtimestamp(min(max(seconds, 0.0), 253_402_300_799.0), tz=timezone.utc)


def rate_of_records(per_minute: float) -> str:
    """`48 records a minute`, or a day where they are rarer."""
    if per_minute >= 0.95:
        return f"{per_minute:,.0f} records a minute"
    per_day = per_minute * 1440
    return f"{per_day:,.0f} records a day" if per_day >= 9.5 else f"{per_day:.1f} records a day"


def pattern_words(report: Report) -> str:
    """How many there are, and how many signatures they bring together."""
    patterns = report.outcome.patterns
    if report.signatures <= patterns:
        return f"{patterns:,}"
    return f"{patterns:,} ({report.signatures:,} before sibling templates were taken together)"


def headline(report: Report) -> str:
    """The result in one sentence that a person would repeat."""
    if report.live_share is not None:
        return _live_headline(report, report.live_share)
    share = percent(report.outcome.kept_share)
    kept = _errors_words(report)
    visible = percent(report.outcome.visible_share)
    return (
        f"At {share} of the bytes you would keep {kept}{visible} of the patterns visible; "
        f"{saving_words(report.money)}."
    )


def _live_headline(report: Report, share: float) -> str:
    visible = percent(report.outcome.visible_share)
    return (
        f"From its first policy on LipService kept {percent(share)} of the bytes, "
        f"{_errors_words(report)}{visible} of the patterns visible; {saving_words(report.money)}."
    )


def _errors_words(report: Report) -> str:
    return "every error and " if report.errors else ""


def saving_words(money: Money) -> str:
    """`this saves $12 a month at $0.50 per GB`."""
    when = "a month" if money.basis == "month" else "on this input"
    return f"this saves {dollars(money.saved)} {when} at {price_tag(money.price_per_gb)} per GB"


def missed_target(report: Report) -> str:
    """Why more is kept than was asked for, plainly; "" where it is not."""
    target = report.cost_target
    if target is None or report.live_share is not None or not report.target_missed:
        return ""
    share = report.protected_bytes / max(report.outcome.bytes, 1.0)
    if share > target:
        return (
            f"The target of {percent(target)} cannot be met: what is always kept (errors and "
            f"protected patterns) is already {percent(share)} of the bytes. The other patterns "
            "are kept at the least rates that leave them visible."
        )
    return (
        f"The target of {percent(target)} cannot quite be met: {percent(share)} of the bytes are "
        "always kept (errors and protected patterns), and the rest has its least rates."
    )


def first_records_words(report: Report) -> str:
    """What a new process keeps on top."""
    first = report.first_records
    if not first.keep_first or not first.records:
        return ""
    return (
        f"Each new process also keeps its first {first.keep_first:,} records of each pattern: "
        f"{first.records:,} records here ({bytes_words(first.bytes)})."
    )


def price_words(report: Report, default_price: float) -> str:
    """Where the price comes from, and what it was extrapolated from."""
    money = report.money
    source = (
        f"{price_tag(money.price_per_gb)} per GB (10^9 bytes) is {PRICE_REASON}; "
        "set yours with --price-per-gb."
        if money.price_per_gb == default_price
        else f"Priced at {price_tag(money.price_per_gb)} per GB (10^9 bytes)."
    )
    span = report.input.span
    if money.basis == "month" and span:
        return f"{source} A month (730 hours) is extrapolated from {span_words(span)} of logs."
    return f"{source} Not extrapolated to a month: {money.why_not}."


def comparison(report: Report) -> list[tuple[str, str, str]]:
    """Rows of (what, with this policy, uniform at the same volume)."""
    outcome, uniform = report.outcome, report.uniform
    rows = [("patterns visible", percent(outcome.visible_share), percent(uniform.visible_share))]
    if report.errors:
        rows.append(("errors kept", "100 %", percent(min(1.0, outcome.kept_share))))
    rows.append(
        (
            "mean error of a count",
            error_words(outcome.mean_error),
            error_words(uniform.mean_error),
        )
    )
    return rows
