"""
The sampling policy: one immutable value, read from JSON with every field checked.

The document is the one that `GET /api/v1/policies/active` answers (see docs/reference/policy.md).
Unknown fields are ignored, so that an old client can read a newer server; a field that is known
and wrong refuses the whole document, so that the caller keeps the policy it had.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from types import MappingProxyType
from typing import Any, Final, Literal

from lipservice.exceptions import PolicyError
from lipservice.severity import PROTECTED_SEVERITIES, SEVERITIES, severity_name

Mode = Literal["active", "shadow"]

#: First records of a pattern that every process keeps, where a policy does not say.
DEFAULT_KEEP_FIRST: Final = 10
#: By how much an anomaly multiplies rates, where a policy does not say.
DEFAULT_ANOMALY_BOOST: Final = 5.0

_MAX_PATTERN_RATES: Final = 1_000_000
_MAX_WORDS: Final = 1_000
_MAX_WORD_LENGTH: Final = 200
_MAX_BOOSTS: Final = 1_000
_MAX_TEXT: Final = 100_000
_MAX_KEEP_FIRST: Final = 1_000_000
_MAX_BOOST: Final = 1_000_000.0
_LAST_SECOND: Final = 253_402_300_799  # of the year 9999


def _no_rates() -> Mapping[str, float]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Boost:
    """Full fidelity for a while. All selectors None: of the whole service."""

    #: Of this pattern only, 16 hex digits.
    signature: str | None = None
    #: Of this severity only, a canonical name.
    severity: str | None = None
    #: Of this logger and its children; then neither signature nor severity.
    logger: str | None = None
    #: Until when, seconds since the epoch.
    until: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Its form in a policy document."""
        until = datetime.fromtimestamp(math.ceil(self.until), timezone.utc)
        return {
            "signature": self.signature,
            "severity": self.severity,
            "logger": self.logger,
            "until": until.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }


@dataclass(frozen=True, slots=True)
class SamplingPolicy:
    """
    Which records to keep. Immutable, hence safe to share between threads.

    The rate of a pattern is `pattern_rates[signature]`, else `severity_rates[severity]`, else
    `sampling_rate` (each a probability, 0 to 1). ERROR and above are kept whatever stands here.
    """

    #: Name of this policy, for people and logs.
    policy_id: str = "local"
    #: Rate of what nothing else names, 0 to 1.
    sampling_rate: float = 1.0
    #: Words that protect a pattern whose template holds one of them (whole word, any case).
    patterns: tuple[str, ...] = ()
    #: Bound on kept, unprotected records a minute and process; None: no bound.
    max_logs_per_minute: int | None = None
    #: Rate of each severity (canonical names), 0 to 1.
    severity_rates: Mapping[str, float] = field(default_factory=_no_rates)
    #: Number of the policy version; None for a policy that no server made.
    version: int | None = None
    #: Rate of each signature, 0 to 1.
    pattern_rates: Mapping[str, float] = field(default_factory=_no_rates)
    #: Factor on rates while an anomaly lasts, at least 1.
    anomaly_boost: float = DEFAULT_ANOMALY_BOOST
    #: First records of a pattern that a process keeps, at least 0.
    keep_first: int = DEFAULT_KEEP_FIRST
    #: "shadow" counts what would be dropped and drops nothing.
    mode: Mode = "active"
    #: Signatures that are protected by hand: never dropped, not even by the limit.
    protected: frozenset[str] = frozenset()
    #: What the policy server keeps whole for a while, whatever the version.
    boosts: tuple[Boost, ...] = ()
    #: Why the rates are what they are, in words.
    reasoning: str = ""
    #: What made the policy ("builtin", "openai", "file", ...).
    generated_by: str = ""
    #: ISO 8601 time of its making.
    created_at: str | None = None
    _protecting: re.Pattern[str] | None = field(
        init=False, repr=False, compare=False, hash=False, default=None
    )

    def __post_init__(self) -> None:
        words = "|".join(re.escape(word) for word in sorted(self.patterns) if word)
        # Lookarounds, not \b: a protected word may begin or end with punctuation.
        pattern = re.compile(rf"(?<!\w)(?:{words})(?!\w)", re.IGNORECASE) if words else None
        object.__setattr__(self, "_protecting", pattern)

    def rate_for(self, signature: str, severity: str) -> float:
        """The rate of a pattern before boost and cap; *severity* in its canonical name."""
        if severity in PROTECTED_SEVERITIES or signature in self.protected:
            return 1.0
        rate = self.pattern_rates.get(signature)
        if rate is None:
            rate = self.severity_rates.get(severity, self.sampling_rate)
        return rate

    def protects(self, template: str) -> bool:
        """Whether *template* holds one of the policy's words."""
        return self._protecting is not None and self._protecting.search(template) is not None

    @classmethod
    def from_dict(cls, document: object) -> SamplingPolicy:
        """
        Read a policy document.

        Raises:
            PolicyError: The document is not an object, or a known field is of the wrong type or
                out of range; the message names the field.
        """
        if not isinstance(document, Mapping):
            raise PolicyError(f"a policy is a JSON object, not {type(document).__name__}")
        return cls(
            policy_id=_text(document, "policy_id", "unnamed", limit=200),
            sampling_rate=_rate(document.get("sampling_rate", 1.0), "sampling_rate"),
            patterns=_words(document.get("patterns", ())),
            max_logs_per_minute=_whole(document, "max_logs_per_minute", 0, 10**9),
            severity_rates=_severity_rates(document.get("severity_rates")),
            version=_whole(document, "version", 0, 2**53),
            pattern_rates=_rates(document.get("pattern_rates"), "pattern_rates"),
            anomaly_boost=_boost(document.get("anomaly_boost")),
            keep_first=_keep_first(document),
            mode=_mode(document.get("mode", "active")),
            protected=_signatures(document.get("protected")),
            boosts=_boosts(document.get("boosts")),
            reasoning=_text(document, "reasoning", "", limit=_MAX_TEXT),
            generated_by=_text(document, "generated_by", "", limit=200),
            created_at=_text(document, "created_at", "", limit=100) or None,
        )

    def to_dict(self) -> dict[str, Any]:
        """The policy document, ready for `json.dumps`; `from_dict` reads it back unchanged."""
        return {
            "policy_id": self.policy_id,
            "version": self.version,
            "sampling_rate": self.sampling_rate,
            "patterns": list(self.patterns),
            "max_logs_per_minute": self.max_logs_per_minute,
            "severity_rates": dict(self.severity_rates),
            "pattern_rates": dict(self.pattern_rates),
            "anomaly_boost": self.anomaly_boost,
            "keep_first": self.keep_first,
            "mode": self.mode,
            "protected": sorted(self.protected),
            "boosts": [boost.to_dict() for boost in self.boosts],
            "reasoning": self.reasoning,
            "generated_by": self.generated_by,
            "created_at": self.created_at,
        }


def _number(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise PolicyError(f"{name} is a number, not {type(value).__name__}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise PolicyError(f"{name} is a finite number, not {value!r:.40}")
    return number


def _rate(value: object, name: str) -> float:
    number = _number(value, name)
    if not 0.0 <= number <= 1.0:
        raise PolicyError(f"{name} lies between 0 and 1, not {number!r}")
    return number


def _rates(value: object, name: str) -> Mapping[str, float]:
    if value is None:
        return _no_rates()
    if not isinstance(value, Mapping):
        raise PolicyError(f"{name} is an object of rates, not {type(value).__name__}")
    if len(value) > _MAX_PATTERN_RATES:
        raise PolicyError(f"{name} holds at most {_MAX_PATTERN_RATES:,} rates, not {len(value):,}")
    return MappingProxyType({str(k): _rate(v, f"{name}[{k!r:.40}]") for k, v in value.items()})


def _severity_rates(value: object) -> Mapping[str, float]:
    rates: dict[str, float] = {}
    for name, rate in _rates(value, "severity_rates").items():
        severity = severity_name(name)
        if severity == "INFO" and name.strip().upper() not in _INFO_NAMES:
            continue  # a level we do not know; its records are sampled as INFO
        rates[severity] = 1.0 if severity in PROTECTED_SEVERITIES else rate
    return MappingProxyType({name: rates[name] for name in SEVERITIES if name in rates})


_INFO_NAMES: Final = frozenset({"INFO", "INFORMATION", "INFORMATIONAL"})


def _words(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise PolicyError(f"patterns is a list of words, not {type(value).__name__}")
    if len(value) > _MAX_WORDS:
        raise PolicyError(f"patterns holds at most {_MAX_WORDS:,} words, not {len(value):,}")
    for word in value:
        if not isinstance(word, str) or not 0 < len(word.strip()) <= _MAX_WORD_LENGTH:
            raise PolicyError(f"patterns holds words of 1 to {_MAX_WORD_LENGTH} characters")
    return tuple(word.strip() for word in value)


def _signatures(value: object) -> frozenset[str]:
    if value is None:
        return frozenset()
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise PolicyError(f"protected is a list of signatures, not {type(value).__name__}")
    if len(value) > _MAX_PATTERN_RATES:
        raise PolicyError(f"protected holds at most {_MAX_PATTERN_RATES:,} signatures")
    if not all(isinstance(signature, str) and signature for signature in value):
        raise PolicyError("protected holds signatures, each a text")
    return frozenset(value)


def _boosts(value: object) -> tuple[Boost, ...]:
    if value is None:
        return ()
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise PolicyError(f"boosts is a list of objects, not {type(value).__name__}")
    if len(value) > _MAX_BOOSTS:
        raise PolicyError(f"boosts holds at most {_MAX_BOOSTS:,} objects, not {len(value):,}")
    return tuple(_one_boost(each) for each in value)


def _one_boost(value: object) -> Boost:
    if not isinstance(value, Mapping):
        raise PolicyError(f"boosts holds objects, not {type(value).__name__}")
    for name in ("signature", "severity", "logger"):
        if not isinstance(value.get(name), (str, type(None))):
            raise PolicyError(f"boosts holds a {name} that is no text")
    severity, logger = value.get("severity"), value.get("logger")
    if logger is not None and not (severity is None and value.get("signature") is None):
        raise PolicyError("boosts holds a logger together with a signature or severity")
    return Boost(
        signature=value.get("signature"),
        severity=None if severity is None else severity_name(severity),
        logger=logger,
        until=_time(value.get("until")),
    )


def _time(value: object) -> float:
    try:
        # "Z" is read by Python from 3.11 on.
        until = datetime.fromisoformat(str(value).replace("Z", "+00:00"))
        seconds = until.replace(tzinfo=until.tzinfo or timezone.utc).timestamp()
        # Whole seconds of years that can be written again, as the document has them.
        return float(min(max(math.ceil(seconds), 0), _LAST_SECOND))
    except (ValueError, OverflowError):
        raise PolicyError(f"boosts holds an until that is no time: {value!r:.40}") from None


def _whole(document: Mapping[str, Any], name: str, least: int, most: int) -> int | None:
    value = document.get(name)
    if value is None:
        return None
    number = _number(value, name)
    if number != int(number) or not least <= number <= most:
        raise PolicyError(f"{name} is a whole number from {least} to {most}, not {value!r:.40}")
    return int(number)


def _keep_first(document: Mapping[str, Any]) -> int:
    value = _whole(document, "keep_first", 0, _MAX_KEEP_FIRST)
    return DEFAULT_KEEP_FIRST if value is None else value


def _boost(value: object) -> float:
    if value is None:
        return DEFAULT_ANOMALY_BOOST
    number = _number(value, "anomaly_boost")
    if not 1.0 <= number <= _MAX_BOOST:
        raise PolicyError(f"anomaly_boost is at least 1, not {number!r}")
    return number


def _mode(value: object) -> Mode:
    if value == "active":
        return "active"
    if value == "shadow":
        return "shadow"
    raise PolicyError(f'mode is "active" or "shadow", not {value!r:.40}')


def _text(document: Mapping[str, Any], name: str, default: str, *, limit: int) -> str:
    value = document.get(name)
    if value is None:
        return default
    if not isinstance(value, str):
        raise PolicyError(f"{name} is a string, not {type(value).__name__}")
    if len(value) > limit:
        raise PolicyError(f"{name} holds at most {limit:,} characters, not {len(value):,}")
    return value
