"""Patterns that have jumped, found once an hour by a look at every pattern's week."""

from __future__ import annotations

STATEMENTS = (
    """CREATE TABLE rising (
        service_id BIGINT NOT NULL, place BIGINT NOT NULL, signature {code} NOT NULL,
        today DOUBLE PRECISION NOT NULL, before DOUBLE PRECISION NOT NULL,
        factor DOUBLE PRECISION NOT NULL, PRIMARY KEY (service_id, place)) {clustered}""",
)
