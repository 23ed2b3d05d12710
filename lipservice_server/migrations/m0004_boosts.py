"""Boosts: what is kept whole for a while, by whom, why and until when."""

from __future__ import annotations

STATEMENTS = (
    # `ends_at` is moved forward where somebody ends it early; `ended_by` then says who did.
    """CREATE TABLE boost (
        id {id}, service_id BIGINT NOT NULL, signature {code}, severity TEXT, logger TEXT,
        minutes DOUBLE PRECISION NOT NULL, reason TEXT NOT NULL, created_at BIGINT NOT NULL,
        created_by TEXT NOT NULL, ends_at BIGINT NOT NULL, ended_by TEXT)""",
    """CREATE INDEX boost_service ON boost (service_id, ends_at)""",
)
