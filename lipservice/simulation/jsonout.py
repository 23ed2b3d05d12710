"""
The report for machines. The schema is documented in docs/how-to/simulate.md.

Rule of this module: within one `schema_version` keys are only added. Shares and rates are 0 to 1,
sizes are bytes, times are ISO 8601 in UTC.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from lipservice._version import __version__
from lipservice.planning import Outcome
from lipservice.simulation import wording
from lipservice.simulation.report import InputSummary, PatternRow, Report

SCHEMA_VERSION: Final = 1
_MOST_SIGNATURES: Final = 100


def report_to_dict(report: Report, top: int | None = None) -> dict[str, Any]:
    """
    The report as an object for `json.dumps`.

    Args:
        report: what to write.
        top: how many patterns it holds, the largest first; None for all.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "generator": f"lipservice {__version__}",
        "created_at": report.created_at.isoformat(),
        "service_name": report.service_name,
        "headline": wording.headline(report) if report.rows else "No log records were found.",
        "input": _input(report.input),
        "severities": {
            name: {"records": records, "bytes": size}
            for name, (records, size) in report.severities().items()
        },
        "cost_target": report.cost_target,
        "target_missed": report.target_missed,
        "outcome": _outcome(report.outcome, errors_kept=1.0),
        "uniform": _outcome(report.uniform, errors_kept=min(1.0, report.outcome.kept_share)),
        "errors": {"records": report.errors, "kept": report.errors},
        "first_records": {
            "keep_first": report.first_records.keep_first,
            "records": report.first_records.records,
            "bytes": report.first_records.bytes,
        },
        "money": {
            "currency": "USD",
            "price_per_gb": report.money.price_per_gb,
            "basis": report.money.basis,
            "why_not_extrapolated": report.money.why_not or None,
            "seen": report.money.seen,
            "kept": report.money.kept,
            "saved": report.money.saved,
        },
        "pattern_count": len(report.rows),
        "signature_count": report.signatures,
        "patterns": [_pattern(row) for row in report.rows[:top]],
        "timeline": {
            "slice_seconds": report.slice_width,
            "slices": [
                {
                    "start": _moment(each.start),
                    "seen_bytes": each.seen_bytes,
                    "kept_bytes": each.kept_bytes,
                    "error_bytes": each.error_bytes,
                }
                for each in report.slices
            ],
        },
        "notes": list(report.notes),
        "live_share": report.live_share,
        "proofs": list(report.proofs),
        "policy": report.policy.to_dict(),
    }


def _input(read: InputSummary) -> dict[str, Any]:
    return {
        "names": list(read.names),
        "records": read.records,
        "lines": read.lines,
        "bytes": read.bytes,
        "first": _moment(read.first),
        "last": _moment(read.last),
        "span_seconds": read.span,
        "records_per_minute": read.per_minute,
        "records_without_time": read.records - read.timed,
        "records_without_severity": read.unlevelled,
        "formats": dict(read.formats),
        "troubles": list(read.troubles),
    }


def _outcome(outcome: Outcome, errors_kept: float) -> dict[str, Any]:
    return {
        "patterns": outcome.patterns,
        "records": outcome.records,
        "bytes": outcome.bytes,
        "kept_records": outcome.kept_records,
        "kept_bytes": outcome.kept_bytes,
        "kept_share": outcome.kept_share,
        "visible_patterns": outcome.visible_patterns,
        "visible_share": outcome.visible_share,
        "mean_count_error": outcome.mean_error,
        "errors_kept_share": errors_kept,
    }


def _pattern(row: PatternRow) -> dict[str, Any]:
    return {
        "signatures": list(row.signatures[:_MOST_SIGNATURES]),
        "members": len(row.signatures),
        "template": row.template,
        "severity": row.severity,
        "records": row.count,
        "bytes": row.bytes,
        "rate": row.rate,
        "kept_records": row.kept_records,
        "kept_bytes": row.kept_bytes,
        "protected": bool(row.protection),
        "reason": row.reason,
    }


def _moment(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    moment: datetime = wording.moment_of(seconds)
    return moment.isoformat().replace("+00:00", "Z")
