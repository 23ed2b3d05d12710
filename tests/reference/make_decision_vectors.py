"""
Writes tests/conformance/02-decision.json from plain statements of the rules.

    python -m tests.reference.make_decision_vectors

Nothing here imports the implementation but the canonical names of severities, which are data.
"""

import json
import math
from datetime import datetime
from fractions import Fraction
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


def chance(limit, kept):
    """The probability with which the limit's guard lets a record pass, exactly."""
    room = limit - kept
    return min(Fraction(1), Fraction(2 * room, limit) ** 3) if room > 0 else Fraction(0)


#: (limit, kept in the last minute) whose chance is a sum of few powers of two: the same number in
#: every language, however it raises to the third power.
LIMITS = [
    (1000, 0), (1000, 499), (1000, 500), (1000, 625), (1000, 750), (1000, 875), (1000, 1000),
    (1000, 1001), (8, 4), (8, 5), (8, 6), (8, 7), (8, 8), (4096, 4095), (600, 450), (1, 0), (1, 1),
    (3, 1), (3, 3), (0, 0), (0, 5),
]  # fmt: skip


def limits():
    cases = []
    for limit, kept in LIMITS:
        exact = chance(limit, kept)
        assert Fraction(float(exact)) == exact, (limit, kept)
        cases.append({"limit": limit, "kept": kept, "chance": float(exact)})
    return cases


TRACE_IDS = [
    "4bf92f3577b34da6a3ce929d0e0e4736",
    "0af7651916cd43dd8448eb211c80319c",
    "f" * 32,
    "0" * 31 + "1",
]


def requests_at_the_limit():
    """The guard's chance is a factor of the rate that the request's number is compared with."""
    cases = []
    for trace_id in TRACE_IDS:
        for rate in (1.0, 0.5, 0.1):
            for factor in (1.0, 0.421875, 0.125, 0.0):
                number, text = threshold(rate * factor)
                kept = factor > 0.0 and int(trace_id[-14:], 16) >= number
                cases.append(
                    {
                        "trace_id": trace_id,
                        "rate": rate,
                        "chance": factor,
                        "threshold": text,
                        "kept": kept,
                    }
                )
    return cases


def boost(*, until="2026-11-25T12:30:00Z", **selectors):
    return {"signature": None, "severity": None, "logger": None, **selectors, "until": until}


NOW = "2026-11-25T12:00:00Z"
LOGIN = signature("user 1 logged in")
#: What a policy has in `boosts`, by what the case is about.
BOOSTS = {
    "a pattern": [boost(signature=LOGIN)],
    "a severity": [boost(severity="DEBUG")],
    "a pattern at a severity": [boost(signature=LOGIN, severity="DEBUG")],
    "a logger and its children": [boost(logger="shop.cart")],
    "the whole service": [boost()],
    "what is over": [boost(until="2026-11-25T11:59:59Z")],
    "what ends now": [boost(until=NOW)],
    "what ends in a second": [boost(until="2026-11-25T12:00:01Z")],
    "one that is over and one that is not": [
        boost(signature=LOGIN, until="2026-11-25T11:00:00Z"),
        boost(signature=LOGIN, until="2026-11-25T12:10:00Z"),
    ],
    "several, of which any may hold": [
        boost(signature="0123456789abcdef"),
        boost(severity="WARNING"),
        boost(logger="shop"),
    ],
    "none": [],
}
#: logger, message, severity, records of the pattern seen before
BOOSTED_RECORDS = [
    ("shop.cart", "user 7 logged in", "DEBUG", 3),
    ("shop.cart.items", "other 1", "INFO", 3),
    ("shop.carts", "other 1", "DEBUG", 3),
    ("jobs", "user 7 logged in", "INFO", 1000),
    ("jobs", "never 2", "WARNING", 1000),
    ("shop.cart", "other 1", "INFO", 2),
    ("shop.cart", "Payment 5 taken", "DEBUG", 1000),
    ("shop.cart", "user 7 logged in", "ERROR", 1000),
]


def moment(text):
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def holds_for(each, logger, message, severity):
    """Whether a boost is on and names the record; a name of a logger names its children too."""
    if moment(each["until"]) <= moment(NOW):
        return False
    if each["logger"] is not None:
        return logger == each["logger"] or logger.startswith(each["logger"] + ".")
    return each["signature"] in (None, signature(message)) and each["severity"] in (None, severity)


def boosts():
    cases = []
    for about, running in BOOSTS.items():
        for logger, message, severity, seen in BOOSTED_RECORDS:
            rule, rate = decide(message, severity, seen)
            if rule == "rate" and any(holds_for(b, logger, message, severity) for b in running):
                rule, rate = "boosted", 1.0
            cases.append(
                {
                    "about": about,
                    "now": NOW,
                    "boosts": running,
                    "logger": logger,
                    "message": message,
                    "severity": severity,
                    "seen_before": seen,
                    "rule": rule,
                    "rate": rate,
                }
            )
    return cases


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
    requests = [
        {
            "trace_id": trace_id,
            "rate": rate,
            "threshold": threshold(rate)[1],
            "randomness": trace_id[-14:],
            "kept": int(trace_id[-14:], 16) >= threshold(rate)[0],
        }
        for trace_id in TRACE_IDS
        for rate in (0.5, 0.25, 0.1, 0.01, 0.75)
    ]
    document = {
        "spec": "decision",
        "severity_names": SEVERITIES,
        "policy": POLICY,
        "decisions": decisions,
        "gaps": gaps,
        "requests": requests,
        "limit": limits(),
        "requests_at_the_limit": requests_at_the_limit(),
        "boosts": boosts(),
    }
    TARGET.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
