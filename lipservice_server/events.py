"""Events for PostHog: a policy was activated, what a service saved in a day. Never a template."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Protocol

from lipservice_server.config import Settings

_log = logging.getLogger(__name__)


class Events(Protocol):
    """Where events go."""

    def capture(self, event: str, *, team: int, properties: Mapping[str, Any]) -> None:
        """Hand over one event; never waits and never raises."""

    def flush(self) -> None:
        """Wait until what was handed over has been sent, for a process that is about to end."""


class _NoEvents:
    def capture(self, event: str, *, team: int, properties: Mapping[str, Any]) -> None:
        pass

    def flush(self) -> None:
        pass


class _PostHogEvents:
    """Through the posthog library, whose own thread sends."""

    def __init__(self, key: str, host: str) -> None:
        self._key, self._host = key, host
        self._client: Any = None

    def capture(self, event: str, *, team: int, properties: Mapping[str, Any]) -> None:
        try:
            self._open().capture(
                event,
                distinct_id=f"lipservice-team-{team}",
                properties={**properties, "team_id": team, "$process_person_profile": False},
            )
        except Exception as error:  # an event must never fail what it tells of
            _log.warning("an event could not be handed to PostHog: %s", type(error).__name__)

    def flush(self) -> None:
        if self._client is not None:
            self._client.flush()

    def _open(self) -> Any:
        if self._client is None:
            from posthog import Posthog  # noqa: PLC0415  110 ms, and only where it is configured

            self._client = Posthog(self._key, host=self._host, disable_geoip=True)
        return self._client


def make_events(settings: Settings) -> Events:
    """Events to PostHog where a key is set, else nowhere."""
    if not settings.posthog_api_key:
        return _NoEvents()
    return _PostHogEvents(settings.posthog_api_key, settings.posthog_host)
