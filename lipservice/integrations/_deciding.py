"""What adapters have in common that their frameworks copy and pickle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lipservice._settings import default_sampler_quietly, sampler_for
from lipservice.sampler import AdaptiveSampler

if TYPE_CHECKING:
    from typing_extensions import Self


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
