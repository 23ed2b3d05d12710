"""
Tiles whose areas are in proportion: a squarified treemap. Pure geometry.

Bruls, Huizing, van Wijk: "Squarified Treemaps", Data Visualization 2000. Rows of tiles are laid
along the shorter side of what is left, each as long as the worst aspect ratio in it gets better.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Box(NamedTuple):
    """A rectangle; y grows downwards."""

    x: float
    y: float
    width: float
    height: float


def squarify(amounts: Sequence[float], box: Box) -> list[Box]:
    """
    One tile for each of *amounts*, in the same order; together they fill *box*.

    Args:
        amounts: positive, the largest first.
        box: the area to fill.
    """
    total = sum(amounts)
    if not amounts or total <= 0:
        return []
    scale = box.width * box.height / total
    areas = [amount * scale for amount in amounts]
    tiles: list[Box] = []
    start = 0
    while start < len(areas):
        side = min(box.width, box.height)
        end = start + 1
        while end < len(areas) and _worst(areas[start : end + 1], side) <= _worst(
            areas[start:end], side
        ):
            end += 1
        row, box = _lay_row(areas[start:end], box)
        tiles += row
        start = end
    return tiles


def _worst(areas: Sequence[float], side: float) -> float:
    """The worst aspect ratio in a row of tiles along *side*."""
    total = sum(areas)
    if total <= 0 or side <= 0:
        return float("inf")
    square = side * side / (total * total)
    return max(max(areas) * square, 1.0 / (min(areas) * square) if min(areas) > 0 else float("inf"))


def _lay_row(areas: Sequence[float], box: Box) -> tuple[list[Box], Box]:
    """The tiles of a row along the shorter side, and what is left of the box."""
    total = sum(areas)
    tiles = []
    if box.width >= box.height:
        thickness = total / box.height if box.height else 0.0
        y = box.y
        for area in areas:
            height = area / thickness if thickness else 0.0
            tiles.append(Box(box.x, y, thickness, height))
            y += height
        return tiles, Box(box.x + thickness, box.y, max(box.width - thickness, 0.0), box.height)
    thickness = total / box.width if box.width else 0.0
    x = box.x
    for area in areas:
        width = area / thickness if thickness else 0.0
        tiles.append(Box(x, box.y, width, thickness))
        x += width
    return tiles, Box(box.x, box.y + thickness, box.width, max(box.height - thickness, 0.0))
