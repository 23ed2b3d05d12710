"""The first schema."""

from __future__ import annotations

#: `{id}` is a numbered primary key, `{code}` a text compared byte by byte; `{clustered}` keeps rows
#: in the order of their key on SQLite, `{updated}` also leaves room for new row versions in
#: PostgreSQL's pages.
STATEMENTS = (
    """CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)""",
    # Serials that every worker looks at to learn that keys or policies have changed.
    """CREATE TABLE change (name TEXT PRIMARY KEY, serial BIGINT NOT NULL)""",
    """INSERT INTO change (name, serial) VALUES ('keys', 1), ('policies', 1), ('deleted', 1)""",
    """CREATE TABLE lease (
        name TEXT PRIMARY KEY, holder TEXT NOT NULL, ends_at DOUBLE PRECISION NOT NULL)""",
    """CREATE TABLE team (
        id {id}, name TEXT NOT NULL UNIQUE, created_at BIGINT NOT NULL,
        price_per_gb DOUBLE PRECISION, llm_daily_calls BIGINT, llm_daily_tokens BIGINT)""",
    """CREATE TABLE api_key (
        id {id}, team_id BIGINT NOT NULL REFERENCES team (id), name TEXT NOT NULL,
        prefix TEXT NOT NULL UNIQUE, hash TEXT NOT NULL, scopes TEXT NOT NULL,
        service_name TEXT, created_at BIGINT NOT NULL, expires_at BIGINT, revoked_at BIGINT,
        replaced_by BIGINT)""",
    """CREATE INDEX api_key_team ON api_key (team_id)""",
    """CREATE TABLE service (
        id {id}, team_id BIGINT NOT NULL REFERENCES team (id), name TEXT NOT NULL,
        created_at BIGINT NOT NULL, cost_target DOUBLE PRECISION, max_logs_per_minute BIGINT,
        llm_provider TEXT, mode TEXT NOT NULL, auto_generate BIGINT NOT NULL,
        auto_apply BIGINT NOT NULL, words TEXT NOT NULL, active_version BIGINT,
        last_version BIGINT NOT NULL, revision BIGINT NOT NULL, records BIGINT NOT NULL,
        last_report_at BIGINT, generated_at BIGINT, generated_records BIGINT NOT NULL,
        UNIQUE (team_id, name))""",
    """CREATE INDEX service_revision ON service (revision)""",
    """CREATE TABLE pattern (
        service_id BIGINT NOT NULL, signature {code} NOT NULL, template TEXT NOT NULL,
        severity TEXT NOT NULL, first_seen BIGINT NOT NULL, last_seen BIGINT NOT NULL,
        count BIGINT NOT NULL, kept BIGINT NOT NULL, bytes BIGINT NOT NULL,
        kept_bytes BIGINT NOT NULL, errors BIGINT NOT NULL, rate DOUBLE PRECISION NOT NULL,
        reported_at BIGINT NOT NULL,
        rolled_count BIGINT NOT NULL DEFAULT 0, rolled_kept BIGINT NOT NULL DEFAULT 0,
        rolled_bytes BIGINT NOT NULL DEFAULT 0, rolled_kept_bytes BIGINT NOT NULL DEFAULT 0,
        rolled_errors BIGINT NOT NULL DEFAULT 0,
        PRIMARY KEY (service_id, signature)) {updated}""",
    """CREATE TABLE report (
        service_id BIGINT NOT NULL, report_id {code} NOT NULL, digest TEXT NOT NULL,
        received_at BIGINT NOT NULL, patterns BIGINT NOT NULL,
        PRIMARY KEY (service_id, report_id)) {clustered}""",
    """CREATE INDEX report_received ON report (received_at)""",
    """CREATE TABLE service_hour (
        service_id BIGINT NOT NULL, hour BIGINT NOT NULL, records BIGINT NOT NULL,
        kept BIGINT NOT NULL, bytes BIGINT NOT NULL, kept_bytes BIGINT NOT NULL,
        errors BIGINT NOT NULL, reports BIGINT NOT NULL,
        PRIMARY KEY (service_id, hour)) {clustered}""",
    # The hour or day comes before the signature: a period is one range to prune and to compare,
    # and the volume of the 50 patterns on a page is 50 look-ups in each period.
    """CREATE TABLE pattern_hour (
        service_id BIGINT NOT NULL, hour BIGINT NOT NULL, signature {code} NOT NULL,
        count BIGINT NOT NULL, kept BIGINT NOT NULL, bytes BIGINT NOT NULL,
        kept_bytes BIGINT NOT NULL, errors BIGINT NOT NULL,
        PRIMARY KEY (service_id, hour, signature)) {clustered}""",
    """CREATE TABLE pattern_day (
        service_id BIGINT NOT NULL, day BIGINT NOT NULL, signature {code} NOT NULL,
        count BIGINT NOT NULL, kept BIGINT NOT NULL, bytes BIGINT NOT NULL,
        kept_bytes BIGINT NOT NULL, errors BIGINT NOT NULL,
        PRIMARY KEY (service_id, day, signature)) {clustered}""",
    """CREATE TABLE instance (
        service_id BIGINT NOT NULL, instance_id {code} NOT NULL, first_seen BIGINT NOT NULL,
        last_seen BIGINT NOT NULL, sdk_language TEXT NOT NULL, sdk_version TEXT NOT NULL,
        seconds BIGINT NOT NULL, records_per_minute DOUBLE PRECISION NOT NULL,
        reports BIGINT NOT NULL, records BIGINT NOT NULL, kept BIGINT NOT NULL,
        health TEXT NOT NULL, PRIMARY KEY (service_id, instance_id)) {clustered}""",
    """CREATE TABLE policy (
        service_id BIGINT NOT NULL, version BIGINT NOT NULL, policy_id TEXT NOT NULL,
        state TEXT NOT NULL, document TEXT NOT NULL, details TEXT NOT NULL,
        generated_by TEXT NOT NULL, created_at BIGINT NOT NULL, created_by TEXT NOT NULL,
        activated_at BIGINT, cost_target DOUBLE PRECISION, cost_reduction DOUBLE PRECISION,
        PRIMARY KEY (service_id, version))""",
    """CREATE TABLE override (
        service_id BIGINT NOT NULL, signature {code} NOT NULL, rate DOUBLE PRECISION NOT NULL,
        protected BIGINT NOT NULL, reason TEXT NOT NULL, created_at BIGINT NOT NULL,
        created_by TEXT NOT NULL, PRIMARY KEY (service_id, signature)) {clustered}""",
    """CREATE TABLE audit (
        id {id}, team_id BIGINT NOT NULL, at BIGINT NOT NULL, actor TEXT NOT NULL,
        action TEXT NOT NULL, target TEXT NOT NULL, detail TEXT NOT NULL)""",
    """CREATE INDEX audit_team ON audit (team_id, id)""",
    """CREATE TABLE llm_usage (
        team_id BIGINT NOT NULL, day BIGINT NOT NULL, calls BIGINT NOT NULL,
        tokens BIGINT NOT NULL, PRIMARY KEY (team_id, day)) {clustered}""",
)
