"""What adapters have in common: unusual decisions, stamps, and copies of themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from lipservice._settings import default_sampler_quietly, sampler_for
from lipservice.decision import Decision, Dropped
from lipservice.sampler import AdaptiveSampler
from lipservice.scope import RequestScope, current_scope, randomness_text, threshold_text

if TYPE_CHECKING:
    from typing_extensions import Self

    from lipservice.call_sites import CallSite

_Where = TypeVar("_Where")

#: On a record that was dropped by its own draw and is written because its request failed.
RELEASED: Final = "released"

#: On what the logger `lipservice` says, so that a format that names the weight prints it too.
OWN: Final[Mapping[str, object]] = MappingProxyType(
    {
        "lipservice_signature": "",
        "lipservice_rate": 1.0,
        "lipservice_weight": 1.0,
        "lipservice_rule": "own",
        "lipservice_policy": None,
    }
)


def is_watched(sampler: AdaptiveSampler, logger: str | None) -> bool:
    """Whether a record of this logger is of a request, or of a boosted logger."""
    if current_scope() is not None:
        return True
    return bool(sampler.boosted_loggers) and sampler.is_boosted(logger or "")


def decide_watched(
    sampler: AdaptiveSampler,
    logger: str | None,
    text: str,
    severity: str | int,
    *,
    is_format: bool,
    find_site: Callable[[_Where], CallSite | None],
    where: _Where,
) -> tuple[Decision | Dropped | None, RequestScope | None]:
    """
    The decision about a record while requests are open or loggers are boosted (`scope.WATCHED`).

    Args:
        sampler: What decides.
        logger: Name of the logger that the record comes from.
        text: The finished message, or the format string of a call with arguments.
        severity: A level name or number.
        is_format: Whether *text* is a format string.
        find_site: Finds the call site of a message; called two frames below this one.
        where: What *find_site* needs.

    Returns:
        The decision, `Dropped` in a request that may hold the record, None to drop it; and the
        request that the record belongs to, if any.
    """
    scope = current_scope()
    if sampler.boosted_loggers and sampler.is_boosted(logger or ""):
        site = (None, None) if is_format else (find_site, where)
        return sampler.decide_boosted(text, severity, *site, is_format=is_format), scope
    if scope is not None:
        site = (None, None) if is_format else (find_site, where)
        return sampler.decide_scoped(text, severity, scope, *site, is_format=is_format), scope
    if is_format:
        return sampler.decide_format(text, severity), None
    return sampler.decide_at(text, severity, find_site, where), None


def stamps_of(decision: Decision | Dropped, scope: RequestScope | None = None) -> dict[str, object]:
    """What is written on a record, in every framework; on one that was dropped, the weight 0."""
    if isinstance(decision, Dropped):
        return {
            "lipservice_signature": decision.signature,
            "lipservice_rate": decision.rate,
            "lipservice_weight": 0.0,
            "lipservice_rule": RELEASED,
            "lipservice_policy": decision.policy,
        }
    stamps: dict[str, object] = {
        "lipservice_signature": decision.signature,
        "lipservice_rate": decision.rate,
        "lipservice_weight": decision.weight,
        "lipservice_rule": decision.rule,
        "lipservice_policy": decision.policy,
    }
    if scope is not None and decision.rule == "request":
        stamps["sampling.threshold"] = threshold_text(decision.rate)
        stamps["sampling.randomness"] = randomness_text(scope.randomness)
    return stamps


class Deciding:
    """A sampler, and how to make it again in another process: counts stay where they are."""

    def __init__(self, sampler: AdaptiveSampler | None, settings: dict[str, Any]) -> None:
        self._bound = sampler_for(sampler, settings)
        self._settings = settings

    @property
    def sampler(self) -> AdaptiveSampler:
        """What decides."""
        return self._bound or default_sampler_quietly()

    def __deepcopy__(self, memo: object) -> Self:
        return self  # a copied logger goes on with the same counts

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_bound": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._bound = sampler_for(None, self._settings)
