"""Public names whose modules are imported when they are first used (PEP 562)."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module


def attribute_of(module: str, homes: Mapping[str, str], name: str) -> object:
    """
    What `__getattr__` of *module* answers: the value, which from then on is an attribute.

    Args:
        module: Name of the module that is asked.
        homes: Public name -> name of the module that holds it.
        name: What is asked for.

    Raises:
        AttributeError: There is no such name.
    """
    home = homes.get(name)
    if home is None:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    value = getattr(import_module(home), name)
    setattr(sys.modules[module], name, value)
    return value
