"""
LipService: samples an application's logs by pattern, inside the process.

Importing this package starts nothing and imports no third-party package: each public name is
loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lipservice._version import __version__

if TYPE_CHECKING:
    from lipservice.exceptions import (
        ConfigurationError as ConfigurationError,
    )

_HOMES = {
    "ConfigurationError": "lipservice.exceptions",
    "LipServiceError": "lipservice.exceptions",
    "MissingExtraError": "lipservice.exceptions",
    "PolicyError": "lipservice.exceptions",
}

__all__ = [  # noqa: PLE0604 - the table above is the one list of public names
    *_HOMES,
    "__version__",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'lipservice' has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - only paid when a name is used

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
