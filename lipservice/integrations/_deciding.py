"""What adapters have in common: unusual decisions, stamps, and copies of themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from lipservice._settings import default_sampler_quietly, sampler_for
from lipservice.decision import Decision, Dropped
from lipservice.sampler import AdaptiveSampler
from lipservice.scope import RequestScope, randomness_text, threshold_text

if TYPE_CHECKING:
    from typing_extensions import Self

    from lipservice.call_sites import CallSite


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


def decide_watched(
    sampler: AdaptiveSampler,
    logger: str | None,
    scope: RequestScope | None,
    text: str,
    severity: str | int,
    find_site: Callable[..., CallSite | None],
    where: object,
    *,
    is_format: bool,
) -> Decision | Dropped | None:
    """
    The decision about a record, where it may be one of a request or of a boosted logger.

    Args:
        sampler: What decides.
        logger: Name of the logger that the record comes from.
        scope: The request that the record belongs to, if any.
        text: The finished message, or the format string of a call with arguments.
        severity: A level name or number.
        find_site: Finds the call site of a message, or with `percent=True` that of a format
            string; called three frames below this one.
        where: What *find_site* needs.
        is_format: Whether *text* is a format string.

    Returns:
        `Dropped` where a request may hold the record, None where it is dropped for good.
    """
    if sampler.boosted_loggers and sampler.is_boosted(logger or ""):
        return sampler.decide_boosted(text, severity, find_site, where, is_format=is_format)
    if scope is not None:
        return sampler.decide_scoped(text, severity, scope, find_site, where, is_format=is_format)
    if is_format:
        return sampler.decide_format(text, severity, find_site, where)
    return sampler.decide_at(text, severity, find_site, where)


def stamps_of(decision: Decision | Dropped, scope: RequestScope | None = None) -> dict[str, object]:
    """What is written on a record, in every framework; on one that was dropped, the weight 0."""
    if type(decision) is Dropped:
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
        stamps.update(traced(decision, scope))
    return stamps


def traced(decision: Decision, scope: RequestScope) -> dict[str, object]:
    """What is written on a record besides, for the Collector and other services to agree with."""
    return {
        "sampling.threshold": threshold_text(decision.rate),
        "sampling.randomness": randomness_text(scope.randomness),
    }


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
