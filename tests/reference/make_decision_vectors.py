"""
Writes tests/conformance/02-decision.json from plain statements of the rules.

    python -m tests.reference.make_decision_vectors

Nothing here imports the implementation but the canonical names of severities, which are data.
"""

import json
import math
from pathlib import Path

from tests.reference import lsig1

TARGET = Path(__file__).parent.parent / "conformance" / "02-decision.json"

SEVERITIES = {
    "info": "INFO", "INFO": "INFO", "Information": "INFO", "notice": "INFO", "success": "INFO",
    "debug": "DEBUG", "trace": "TRACE", "warn": "WARNING", "Warning": "WARNING", "err": "ERROR",
    "error": "ERROR", "exception": "ERROR", "critical": "CRITICAL", "fatal": "CRITICAL",
    "panic": "CRITICAL", "emergency": "CRITICAL", "bananas": "INFO", "": "INFO",
}  # fmt: skip


def signature(message):
    return lsig1.signature(message)


POLICY = {
    "sampling_rate": 0.2,
    "severity_rates": {"DEBUG": 0.05, "ERROR": 0.0},
    "pattern_rates": {signature("user 1 logged in"): 0.5, signature("never 1"): 0.0},
    "patterns": ["payment", "fraud!"],
    "keep_first": 3,
}


def decide(message, severity, seen_before):
    """DESIGN.md's order, word for word."""
    if severity in {"ERROR", "CRITICAL"}:
        return "error", 1.0
    template = lsig1.template(message)
    if any(holds(template, word) for word in POLICY["patterns"]):
        return "protected", 1.0
    if seen_before < POLICY["keep_first"]:
        return "first", 1.0
    rates = POLICY["pattern_rates"]
    fallback = POLICY["severity_rates"].get(severity, POLICY["sampling_rate"])
    return "rate", rates.get(signature(message), fallback)


def holds(template, word):
    """Whole word, any case: no letter, digit or underscore beside it."""
    text, word, start = template.lower(), word.lower(), 0
    while (at := text.find(word, start)) >= 0:
        before, after = text[at - 1 : at], text[at + len(word) : at + len(word) + 1]
        if not is_word(before) and not is_word(after):
            return True
        start = at + 1
    return False


def is_word(character):
    return bool(character) and (character.isalnum() or character == "_")


def threshold(rate):
    """OpenTelemetry: the rejection threshold of 56 bits, hex without trailing zeros."""
    number = min(2**56 - 1, max(0, round((1.0 - rate) * 2**56)))
    return number, f"{number:014x}".rstrip("0") or "0"


def main():
    messages = [
        "user 7 logged in",
        "other 1",
        "never 2",
        "Payment 5 taken",
        "prepayment 1",
        "a fraud! b",
    ]
    decisions = [
        {"message": message, "severity": severity, "seen_before": seen, "rule": rule, "rate": rate}
        for message in messages
        for severity in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
        for seen in (0, 2, 3, 1000)
        for rule, rate in [decide(message, severity, seen)]
    ]
    gaps = [
        {
            "rate": rate,
            "uniform": u,
            "dropped_before_the_next_kept": int(math.log(u) / math.log1p(-rate)),
        }
        for rate in (0.5, 0.1, 0.01, 0.001)
        for u in (0.999, 0.75, 0.31, 0.02, 1e-6)
    ]
    trace_ids = [
        "4bf92f3577b34da6a3ce929d0e0e4736",
        "0af7651916cd43dd8448eb211c80319c",
        "f" * 32,
        "0" * 31 + "1",
    ]
    requests = [
        {
            "trace_id": trace_id,
            "rate": rate,
            "threshold": threshold(rate)[1],
            "randomness": trace_id[-14:],
            "kept": int(trace_id[-14:], 16) >= threshold(rate)[0],
        }
        for trace_id in trace_ids
        for rate in (0.5, 0.25, 0.1, 0.01, 0.75)
    ]
    document = {
        "spec": "decision",
        "severity_names": SEVERITIES,
        "policy": POLICY,
        "decisions": decisions,
        "gaps": gaps,
        "requests": requests,
    }
    TARGET.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
