"""The requests of this process that are open."""

from __future__ import annotations

import gc

from lipservice.scope import RequestScope


def open_requests() -> list[RequestScope]:
    """Those that have begun and not ended."""
    return [each for each in gc.get_objects() if type(each) is RequestScope and not each.closed]
