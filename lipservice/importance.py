"""
Built-in importance: how much the error of a pattern's count matters, from its words.

The optimizer keeps a pattern at a rate proportional to the square root of its importance, so a
factor of 9 here is a factor of 3 in kept records: the rules need to be right in tendency only,
and none of them can silence a pattern. Rule of this module: few rules, each with its reason, so
that a dashboard can say in one sentence why a pattern has its rate.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from lipservice.severity import severity_name

#: Bounds of an importance, of the built-in rules and of an LLM alike.
LEAST_IMPORTANCE: Final = 0.1
MOST_IMPORTANCE: Final = 10.0

#: The author of a message has already judged it once, by its severity.
_SEVERITY: Final = {
    "TRACE": 0.25,
    "DEBUG": 0.5,
    "INFO": 1.0,
    "WARNING": 3.0,
    "ERROR": 10.0,
    "CRITICAL": 10.0,
}


class _Rule(NamedTuple):
    factor: float
    topic: str
    words: frozenset[str]


def _rule(factor: float, topic: str, words: str) -> _Rule:
    return _Rule(factor, topic, frozenset(words.split()))


#: The first rule that has a word of the template decides, so a failed health check is a failure.
_RULES: Final = (
    # What people look for first when something is wrong, whatever its severity.
    _rule(
        3.0,
        "failure",
        "abort aborted aborting broken cannot corrupt corrupted corruption crash crashed dead "
        "deadlock died down error errors exception exhausted fail failed failing fails failure "
        "failures fatal full illegal invalid killed lost missing oom overflow panic refused "
        "reject rejected retried retries retry retrying rollback severe timeout timeouts "
        "traceback unable unavailable unexpected unhandled unreachable violation",
    ),
    # Rare by nature, asked for months later, and often alone to prove what happened.
    _rule(
        3.0,
        "security",
        "access attack auth authenticated authentication authorization authorized banned blocked "
        "breach certificate credential credentials denied forbidden intrusion login logon logout "
        "mfa password permission permissions privilege privileges revoked root sudo suspicious "
        "token unauthorized",
    ),
    # Every record may stand for money or be needed by an auditor.
    _rule(
        3.0,
        "money or audit",
        "audit billing charge chargeback charged checkout consent gdpr invoice order ordered "
        "orders paid payment payments payout purchase refund refunded subscription transaction "
        "transactions transfer",
    ),
    # What a change in behaviour is traced back to.
    _rule(
        2.0,
        "a change of state",
        "booting config configuration configured deploy deployed deployment disabled enabled "
        "initialized install installed leader migrated migration reload reloaded restart "
        "restarted restarting shutdown shutting start started starting startup stop stopped "
        "stopping terminated terminating upgrade upgraded version",
    ),
    # Regular by design: its count is known without it, and it repeats nothing but itself.
    _rule(
        0.2,
        "routine",
        "alive beat health healthcheck healthy healthz heartbeat heartbeats idle keepalive "
        "liveness livez metrics noop ping pinging poll polled polling pong readiness readyz "
        "scrape",
    ),
)
_RULE_OF_WORD: Final = {
    word.encode(): number for number, rule in enumerate(_RULES) for word in rule.words
}
_WORDS: Final = frozenset(_RULE_OF_WORD)
# Lower-cases ASCII and turns all of it that is no letter into blanks; other bytes stay.
_LETTERS: Final = bytes(
    ord(chr(code).lower()) if chr(code).isalpha() else ord(" ") for code in range(0x80)
) + bytes(range(0x80, 0x100))


def builtin_importance(template: str, severity: str) -> float:
    """
    Importance of a pattern by the built-in rules, from `LEAST_IMPORTANCE` to `MOST_IMPORTANCE`.

    The severity's value, times the factor of the first rule that knows a word of the template.

    Args:
        template: The message with its variables as `<*>`; may be empty.
        severity: In any spelling that `severity_name` reads.

    Thread-safe: pure.
    """
    weight = _SEVERITY.get(severity) or _SEVERITY[severity_name(severity)]
    found = _find_rule(template)
    if found is None:
        return weight
    return min(max(weight * found[0].factor, LEAST_IMPORTANCE), MOST_IMPORTANCE)


def importance_reason(template: str, severity: str) -> str:
    """
    Why `builtin_importance` answers what it does: `INFO that speaks of failure ("failed")`.

    Thread-safe: pure.
    """
    name = severity_name(severity)
    found = _find_rule(template)
    if found is None:
        return name
    rule, word = found
    return f'{name} that speaks of {rule.topic} ("{word}")'


def _find_rule(template: str) -> tuple[_Rule, str] | None:
    """The first rule that knows a word of *template*, and the word, the first in the alphabet."""
    words = template.encode("utf-8", "replace").translate(_LETTERS).split()
    if _WORDS.isdisjoint(words):
        return None
    number, word = min((_RULE_OF_WORD[word], word) for word in words if word in _WORDS)
    return _RULES[number], word.decode()
