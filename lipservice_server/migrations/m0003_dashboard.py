"""Sessions of the dashboard: the id's hash only, so that a stolen database opens nothing."""

from __future__ import annotations

STATEMENTS = (
    """CREATE TABLE dashboard_session (
        hash {code} PRIMARY KEY, team_id BIGINT NOT NULL REFERENCES team (id), key_id BIGINT,
        created_at BIGINT NOT NULL, ends_at BIGINT NOT NULL, notice TEXT NOT NULL DEFAULT '')""",
)
