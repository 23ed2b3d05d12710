"""What differs between two policy documents. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_FIELDS: Final = ("sampling_rate", "anomaly_boost", "keep_first", "mode", "generated_by")


def diff_documents(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Fields, rates and words in which two documents differ; null stands for "not said"."""
    old_words, new_words = before.get("patterns", []), after.get("patterns", [])
    return {
        "fields": [
            {"name": name, "before": before.get(name), "after": after.get(name)}
            for name in _FIELDS
            if before.get(name) != after.get(name)
        ],
        "severity_rates": _rates(before.get("severity_rates"), after.get("severity_rates")),
        "pattern_rates": _rates(before.get("pattern_rates"), after.get("pattern_rates")),
        "words_added": [word for word in new_words if word not in old_words],
        "words_removed": [word for word in old_words if word not in new_words],
    }


def _rates(
    before: Mapping[str, float] | None, after: Mapping[str, float] | None
) -> list[dict[str, Any]]:
    old, new = before or {}, after or {}
    names = sorted(name for name in {**old, **new} if old.get(name) != new.get(name))
    return [{"name": name, "before": old.get(name), "after": new.get(name)} for name in names]
