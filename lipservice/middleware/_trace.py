"""Trace ids as other systems hand them on; None for whatever is not one."""

from __future__ import annotations

_HEX = frozenset("0123456789abcdef")


def from_traceparent(header: object) -> str | None:
    """The trace id of a W3C `traceparent` header (version-traceid-parentid-flags)."""
    parts = header.strip().split("-") if isinstance(header, str) else []
    if len(parts) < 4 or len(parts[0]) != 2 or parts[0] == "ff":
        return None
    return _checked(parts[1])


def from_x_ray(header: str | None) -> str | None:
    """The trace id of AWS's header "Root=1-5759e988-bd862e3fe1be46a994272793;...", as W3C's."""
    for part in (header or "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == "Root":
            return _checked("".join(value.split("-")[1:]))
    return None


def _checked(text: str) -> str | None:
    return text if len(text) == 32 and set(text) <= _HEX and set(text) != {"0"} else None
