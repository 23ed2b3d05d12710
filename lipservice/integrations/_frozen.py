"""What a held record says stays what it said: copies of the application's containers."""

from __future__ import annotations

import copy
from collections import deque
from typing import Any, Final

_SEQUENCES: Final = frozenset({list, tuple, set})
# What a container, a place in one, and an object of any other class take, about.
_PLACE_BYTES: Final = 50


def frozen(value: Any) -> tuple[Any, int]:
    """
    A copy of a container of the application's, down to what is none, and about its bytes.

    An object of any other class is in the copy itself.
    """
    kind = type(value)
    if kind is str or kind is bytes:
        return value, len(value)
    if kind is bytearray:
        return kind(value), len(value)
    if isinstance(value, dict):
        return _frozen_mapping(value)
    if kind in _SEQUENCES:
        items = [frozen(each) for each in value]
        copied = kind(each for each, _ in items)
        return copied, _PLACE_BYTES + sum(size for _, size in items)
    if isinstance(value, (list, deque)):
        return _frozen_sequence(value)
    if isinstance(value, set):
        return copy.copy(value), _PLACE_BYTES * (1 + len(value))
    return value, _PLACE_BYTES


def _frozen_sequence(value: Any) -> tuple[Any, int]:
    copied = copy.copy(value)
    size = _PLACE_BYTES
    for place, each in enumerate(value):
        copied[place], added = frozen(each)
        size += added
    return copied, size


def _frozen_mapping(value: dict[Any, Any]) -> tuple[dict[Any, Any], int]:
    copied = {} if type(value) is dict else copy.copy(value)  # it may have a default, say
    size = _PLACE_BYTES
    for key, each in value.items():
        copied[key], added = frozen(each)
        size += added + _PLACE_BYTES
    return copied, size
