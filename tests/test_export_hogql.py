"""
The queries of docs/how-to/posthog.md give true counts on the exporter's real output.

They run in ClickHouse itself (the package chdb-core-lite, in `tox -e hogql`), on a table as PostHog's
receiver fills it: each attribute as the JSON text of its value. PostHog's SQL compiles
`attributes.name` to that text without its quotes, or null, and `toFloat` to a cast that answers
null; both are done here by hand.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from pathlib import Path

import pytest

from lipservice.policy import SamplingPolicy
from lipservice.sampler import AdaptiveSampler
from tests.support.export_bench import Bench

chdb = pytest.importorskip("chdb", reason="ClickHouse in process: pip install chdb-core-lite")

PAGE = Path(__file__).parent.parent / "docs" / "how-to" / "posthog.md"
SEVERITIES = {9: "info", 13: "warn", 17: "error"}
LOGGED = {
    "user {} logged in": ("INFO", 8000),
    "cache miss for key {}": ("WARNING", 3000),
    "card {} failed": ("ERROR", 40),
}


@pytest.fixture(scope="module")
def records():
    """What arrives when the sampler keeps a twentieth of three patterns, and every error."""
    bench = Bench(max_queue_size=100_000, batch_size=1000, service_name="shop")
    sampler = AdaptiveSampler()
    sampler.apply_policy(SamplingPolicy(sampling_rate=0.05, keep_first=10))
    for template, (severity, count) in LOGGED.items():
        for n in range(count):
            message = template.format(n)
            decision = sampler.decide_message(message, severity)
            if decision is not None:
                bench.exporter.export_log(
                    message,
                    severity,
                    ms=float(n % 100),
                    lipservice_signature=decision.signature,
                    lipservice_rate=decision.rate,
                    lipservice_weight=decision.weight,
                )
    bench.flush()
    return bench.network.acknowledged


@pytest.fixture(scope="module")
def query(records):
    session = chdb.session.Session()
    session.query("CREATE FUNCTION toFloat AS (x) -> accurateCastOrNull(x, 'Float64')")
    session.query("""
        CREATE FUNCTION attribute AS (m, k) -> if(mapContains(m, k),
            replaceRegexpAll(m[k], '^"|"$', ''), NULL)
    """)
    session.query("""
        CREATE TABLE logs (timestamp DateTime64(6), body String, severity_text String,
            service_name String, attributes Map(String, String)) ENGINE = Memory
    """)
    rows = "\n".join(
        json.dumps(
            {
                "body": record["body"],
                "severity_text": SEVERITIES[record["severity_number"]],
                "service_name": record["resource"]["service.name"],
                "attributes": {k: json.dumps(v) for k, v in record["attributes"].items()},
            }
        )
        for record in records
    )
    session.query(
        "CREATE TABLE raw (body String, severity_text String, service_name String, attributes Map(String, String)) ENGINE = Memory"
    )
    session.query(f"INSERT INTO raw FORMAT JSONEachRow {rows}")
    session.query(
        "INSERT INTO logs SELECT now64(6), body, severity_text, service_name, attributes FROM raw"
    )

    def run(hogql):
        sql = re.sub(r"attributes\.(\w+)", r"attribute(attributes, '\1')", hogql)
        return [json.loads(line) for line in str(session.query(sql, "JSONEachRow")).splitlines()]

    yield run
    session.close()


@pytest.fixture(scope="module")
def page():
    return re.findall(r"```sql\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def near(estimate, truth):
    """Five standard errors at a rate of 0.05."""
    return abs(float(estimate) - truth) < 5 * math.sqrt(truth * 19)


def weight(record):
    return record["attributes"].get("lip_weight", 1.0)


def test_by_pattern(query, page, records):
    rows = {row["template"]: row for row in query(page[0])}

    assert len(rows) == 3
    for template, (severity, count) in LOGGED.items():
        row = rows[template.replace("{}", "<*>")]
        assert near(row["happened"], count)
        assert int(row["kept"]) < count / 5 or severity == "ERROR"
    assert float(rows["card <*> failed"]["happened"]) == 40
    assert sum(float(row["happened"]) for row in rows.values()) == pytest.approx(
        sum(map(weight, records))
    )


def test_by_hour_and_severity(query, page):
    found = defaultdict(float)
    for row in query(page[1]):
        found[row["severity_text"]] += float(row["happened"])
        assert row["severity_text"] != "error" or float(row["plus_or_minus"]) == 0.0

    assert near(found["info"], 8000)
    assert near(found["warn"], 3000)
    assert found["error"] == 40


def test_mean_of_a_number(query, page, records):
    (row,) = query(page[2])
    mean = sum(weight(r) * r["attributes"]["ms"] for r in records) / sum(map(weight, records))

    assert row["mean_ms"] == pytest.approx(mean)
    assert row["mean_ms"] == pytest.approx(49.5, abs=10)


def test_what_is_saved(query, page, records):
    (row,) = query(page[3])

    assert int(row["kept"]) == len(records)
    assert near(row["happened"], 11_040)
    assert 0.9 < float(row["share_saved"]) < 0.96


def test_every_query_of_the_page_is_tested(page):
    assert len(page) == 4
