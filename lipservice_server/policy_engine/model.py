"""
What goes into a generation and what comes out: values only, all immutable, nothing that acts.

Rule: this module imports no other of the engine, so that every one of them may import it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import urlsplit

from lipservice.exceptions import ConfigurationError
from lipservice.policy import DEFAULT_KEEP_FIRST, SamplingPolicy
from lipservice.severity import severity_name

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

Provider = Literal["openai", "anthropic", "builtin"]

#: What `GenerationRequest.provider` may say.
PROVIDERS: Final[tuple[Provider, ...]] = ("openai", "anthropic", "builtin")

#: Size of a record, in bytes, where nobody has measured it: the cost target then means records.
DEFAULT_MEAN_BYTES: Final = 200.0

_EMPTY: Final[Mapping[str, Any]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class PatternRow:
    """One pattern of a service, with the sums of its counts over the request's window."""

    #: Name of the pattern, at most 128 characters.
    signature: str
    #: Records in the window, 0 to 1e18.
    count: float
    #: The message with its variables as `<*>`; empty where a report did not carry it.
    template: str = ""
    #: The severity that most of its records have, in any spelling that `severity_name` reads.
    severity: str = "INFO"
    #: Mean size of a record in bytes, above 0 and at most 1e9; None: not measured.
    mean_bytes: float | None = None
    #: First time that any instance reported it (aware); None: not known.
    first_seen: datetime | None = None
    #: Records of each severity, where a report carried them; empty: all have `severity`.
    severity_distribution: Mapping[str, float] = field(default_factory=lambda: _EMPTY)

    def __post_init__(self) -> None:
        _require(0 < len(self.signature) <= 128, "signature holds 1 to 128 characters")
        _require(_within(self.count, 1e18), "count lies between 0 and 1e18")
        size = self.mean_bytes
        _require(
            size is None or (_within(size, 1e9) and size > 0),
            "mean_bytes lies above 0 and at most 1e9",
        )
        _require_aware(self.first_seen, "first_seen")
        for name, count in self.severity_distribution.items():
            _require(
                _within(count, 1e18),
                f"severity_distribution[{name!r:.40}] lies between 0 and 1e18",
            )
        object.__setattr__(self, "severity", severity_name(self.severity))


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """
    What one generation works from.

    Raises:
        ConfigurationError: A field is out of its range; the message names it.
    """

    service_name: str
    patterns: tuple[PatternRow, ...]
    #: Share of the bytes to keep, above 0 and at most 1.
    cost_target: float
    provider: Provider = "builtin"
    #: Rates that a person has set, 0 to 1, by signature; they win over everything but ERROR.
    pins: Mapping[str, float] = field(default_factory=lambda: _EMPTY)
    #: Signatures that a person has protected: rate 1.
    protected: frozenset[str] = frozenset()
    #: Words that a person protects (whole word, any case).
    words: tuple[str, ...] = ()
    #: The service's bound on kept, unprotected records a minute; None: no bound.
    max_logs_per_minute: int | None = None
    #: First records of a pattern that every process keeps.
    keep_first: int = DEFAULT_KEEP_FIRST
    #: The policy in force, whose mode and anomaly boost are carried on; None: the first one.
    previous: SamplingPolicy | None = None
    #: Time over which the counts were summed, in seconds, above 0.
    window_seconds: float = 600.0
    #: LLM tokens (in and out) that the team may still spend today; None: no cap.
    tokens_allowed: int | None = None
    #: Name of the new policy; empty: made from the service's name and the version.
    policy_id: str = ""
    #: Number that the store will give the version; None: not numbered.
    version: int | None = None

    def __post_init__(self) -> None:
        target, window, allowed = self.cost_target, self.window_seconds, self.tokens_allowed
        _require(_finite(target) and 0 < target <= 1, "cost_target lies above 0 and at most 1")
        _require(_finite(window) and window > 0, "window_seconds is finite and above 0")
        _require(self.provider in PROVIDERS, f"llm_provider is one of {', '.join(PROVIDERS)}")
        _require(allowed is None or allowed >= 0, "tokens_allowed is at least 0")
        for signature, rate in self.pins.items():
            _require(
                _finite(rate) and 0 <= rate <= 1, f"the pin of {signature!r:.40} lies in 0 to 1"
            )
        names = [row.signature for row in self.patterns]
        _require(len(set(names)) == len(names), "patterns names each signature once")


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """
    What the operator has set. Nothing here ever comes from a request.

    Keys are left out of `repr`, so that no log line or traceback shows them.
    """

    openai_api_key: str | None = field(default=None, repr=False)
    #: An OpenAI-compatible endpoint, such as http://127.0.0.1:11434/v1; None: OpenAI's own.
    openai_base_url: str | None = None
    openai_model: str = "gpt-5.4-mini"
    #: Value of `reasoning_effort`; None leaves it out, as models that do not reason need. "auto":
    #: "none" at OpenAI's own endpoint, left out elsewhere. The answer has to come within
    #: `timeout_seconds`, so more than "low" is seldom of use.
    openai_reasoning_effort: str | None = "auto"
    #: Name of the field that bounds the answer. "auto": `max_completion_tokens` at OpenAI's own
    #: endpoint, where newer models refuse the old name; `max_tokens` elsewhere, as several
    #: compatible servers silently ignore the new one.
    openai_output_limit: Literal["auto", "max_completion_tokens", "max_tokens"] = "auto"
    anthropic_api_key: str | None = field(default=None, repr=False)
    #: None: Anthropic's own endpoint.
    anthropic_base_url: str | None = None
    anthropic_model: str = "claude-haiku-5-5"
    #: Value of `output_config.effort`; None leaves it out, as models without efforts need.
    anthropic_effort: str | None = "low"
    #: Value of `thinking.type`; None leaves it out, as models that always think need.
    anthropic_thinking: str | None = "disabled"
    #: Time for a whole generation's calls in seconds, a retry among them, above 0.
    timeout_seconds: float = 30.0
    #: Patterns shown to a model; the others get their built-in weight.
    max_prompt_patterns: int = 200
    #: Characters of a template that a model sees.
    max_template_length: int = 200
    #: Tokens that an answer may have.
    max_output_tokens: int = 8_000
    #: Words that a model may protect in one generation; 0: none.
    max_words: int = 10
    #: Share of the budget that those words may cost, 0 to 1.
    max_words_share: float = 0.1

    def __post_init__(self) -> None:
        timeout = self.timeout_seconds
        _require(_finite(timeout) and timeout > 0, "timeout_seconds is finite and above 0")
        _require_web_address(self.openai_base_url, "openai_base_url")
        _require_web_address(self.anthropic_base_url, "anthropic_base_url")
        for name in ("max_prompt_patterns", "max_template_length", "max_output_tokens"):
            _require(getattr(self, name) >= 1, f"{name} is at least 1")
        _require(self.max_words >= 0, "max_words is at least 0")
        _require(0 <= self.max_words_share <= 1, "max_words_share lies between 0 and 1")


@dataclass(frozen=True, slots=True)
class Clamp:
    """One thing that a model said and that the engine did not take as said, for the audit log."""

    #: Which rule acted, such as "unknown number" or "word too common".
    rule: str
    #: What it acted on: a signature, a word, or a number of the prompt. Plain text, cut.
    subject: str
    #: What the model said, cut to a few characters. Written by the model: show it as text only.
    said: str = ""


@dataclass(frozen=True, slots=True)
class PatternJudgement:
    """How much one pattern matters, and why."""

    #: The weight in the optimizer, above 0.
    importance: float
    #: In a few words. Where a model wrote it, an attacker may have: show it as text only.
    reason: str
    #: Who said so: "builtin", "openai" or "anthropic".
    source: Provider


@dataclass(frozen=True, slots=True)
class GenerationResult:
    """A new policy and everything that the store, the audit log and a reader want to know of it."""

    policy: SamplingPolicy
    #: Expected share of bytes that is no longer kept, 0 to 1: 1 - kept.
    cost_reduction: float
    #: Of every pattern of the request, by signature.
    judgements: Mapping[str, PatternJudgement]
    #: Every protected word: those set by hand, then those that the model proposed and we took.
    words: tuple[str, ...]
    #: In a sentence or two; text of the model where it answered: show it as text only.
    summary: str
    #: What the weights came from in the end.
    provider_used: Provider
    #: Why an LLM was asked for and not used, in plain words; None where it was, or none was asked.
    fallback_reason: str | None = None
    #: Tokens to book against the day's cap. Where a call's usage is unknown (a time-out, say),
    #: the most that it can have been.
    tokens_in: int = 0
    tokens_out: int = 0
    #: SHA-256 (hex) of the whole prompt; empty where none was made.
    prompt_hash: str = ""
    #: The model that was asked; empty where none was.
    model: str = ""
    #: What the engine did not take as the model said it.
    clamps: tuple[Clamp, ...] = ()
    #: The model's raw answer, cut and without control characters, for the audit log only.
    answer: str = ""


def _finite(value: float) -> bool:
    return not isinstance(value, bool) and math.isfinite(value)


def _within(value: float, most: float) -> bool:
    return not isinstance(value, bool) and 0 <= value <= most


def _require(holds: bool, rule: str) -> None:
    if not holds:
        raise ConfigurationError(rule)


def _require_aware(moment: datetime | None, name: str) -> None:
    _require(moment is None or moment.tzinfo is not None, f"{name} carries its time zone")


def _require_web_address(url: str | None, name: str) -> None:
    if url is None:
        return
    parts = urlsplit(url)
    fine = parts.scheme in {"http", "https"} and parts.hostname and "@" not in parts.netloc
    _require(bool(fine), f"{name} is an http or https address without a user name in it")
