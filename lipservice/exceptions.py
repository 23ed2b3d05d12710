"""
What LipService raises, and only at its boundary: construction, configuration, CLI, parsing.

    LipServiceError
    ├── ConfigurationError (ValueError)   a parameter or setting is wrong; the message names it
    ├── PolicyError (ValueError)          a policy document is wrong; the message names the field
    └── MissingExtraError (ImportError)   a dependency is absent; the message says how to get it

Inside a running application nothing is raised. This module imports nothing of ours, so that
every other one may import it.
"""

from __future__ import annotations


class LipServiceError(Exception):
    """Base of every error that LipService raises."""


class ConfigurationError(LipServiceError, ValueError):
    """A parameter or setting is wrong; the message names it and says what would be right."""


class PolicyError(LipServiceError, ValueError):
    """A policy document is wrong; the message names the field."""


class MissingExtraError(LipServiceError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed: pip install 'lipservice[{extra}]'")
        #: The package that could not be imported.
        self.package = package
        #: The extra of LipService that brings it.
        self.extra = extra
