"""
The OpenTelemetry Collector's own code reads what the exporter writes.

contrib/otlp-check is a small Go program around the Collector's pdata module. Its first build takes
minutes, so this runs in `tox -e collector` (or with LIPSERVICE_TEST_COLLECTOR=1) where Go is
installed; LIPSERVICE_OTLP_CHECK names a binary that has been built already.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from lipservice.export.config import LogContext
from tests.support.export_bench import Bench

SOURCE = Path(__file__).parent.parent / "contrib" / "otlp-check"
READY = os.environ.get("LIPSERVICE_OTLP_CHECK")
WANTED = os.environ.get("LIPSERVICE_TEST_COLLECTOR")

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not READY and not (WANTED and shutil.which("go")),
        reason="set LIPSERVICE_TEST_COLLECTOR=1 where Go is installed (tox -e collector)",
    ),
]


@pytest.fixture(scope="module")
def check(tmp_path_factory):
    binary = READY
    if not binary:
        binary = str(tmp_path_factory.mktemp("otlp") / "otlp-check")
        subprocess.run(["go", "build", "-o", binary, "."], cwd=SOURCE, check=True, timeout=800)

    def run(bodies):
        framed = b"".join(struct.pack(">I", len(body)) + body for body in bodies)
        done = subprocess.run([binary], input=framed, capture_output=True, check=True, timeout=60)
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


class Sent:
    """A bench whose network keeps the bodies."""

    def __init__(self, **settings):
        self.bench = Bench(**settings)
        self.bodies = []
        answer = self.bench.network

        def post(body, headers, seconds):
            self.bodies.append(body)
            return answer(body, headers, seconds)

        self.bench.exporter._post = post


def value(any_value):
    ((kind, content),) = any_value.items()
    if kind == "intValue":
        return int(content)
    if kind == "arrayValue":
        return [value(item) for item in content.get("values", [])]
    if kind == "kvlistValue":
        return pairs(content.get("values", []))
    return content


def pairs(attributes):
    return {pair["key"]: value(pair["value"]) for pair in attributes}


def test_every_kind_of_value(check):
    sent = Sent(team_id=7, service_name="shop")
    context = LogContext(
        trace_id="0af7651916cd43dd8448eb211c80319c", span_id="b7ad6b7169203331", trace_flags=1
    )
    given = {
        "text": "é" * 200,
        "n": -5,
        "large": 2**62,
        "x": 1.5,
        "yes": True,
        "list": [1, "a", [True]],
        "map": {"a": {"b": 2}},
    }
    try:
        raise ValueError("bad")
    except ValueError as error:
        sent.bench.exporter.export_log(
            "paid", "ERROR", None, context, logger="shop.cart", exc_info=error, **given
        )
    sent.bench.flush()

    (logs,) = check(sent.bodies)
    (resource_logs,) = logs["resourceLogs"]
    (scope_logs,) = resource_logs["scopeLogs"]
    (record,) = scope_logs["logRecords"]
    attributes = pairs(record["attributes"])
    assert (
        pairs(resource_logs["resource"]["attributes"]).items()
        >= {
            "service.name": "shop",
            "team_id": "7",
        }.items()
    )
    assert scope_logs["scope"] == {"name": "shop.cart"}
    assert record["body"] == {"stringValue": "paid"}
    assert record["severityNumber"] == 17
    assert record["traceId"] == context.trace_id
    assert record["spanId"] == context.span_id
    assert record["flags"] == 1
    assert attributes["exception.type"] == "ValueError"
    assert {name: attributes[name] for name in given} == given


def test_many_records_of_many_loggers(check):
    sent = Sent(batch_size=50)
    for n in range(500):
        sent.bench.exporter.export_log(f"m{n} \ud800", logger=f"l{n % 7}", n=n)
    sent.bench.flush()

    bodies = [
        record["body"]["stringValue"]
        for logs in check(sent.bodies)
        for scope in logs["resourceLogs"][0]["scopeLogs"]
        for record in scope["logRecords"]
    ]
    assert sorted(bodies) == sorted(f"m{n} ?" for n in range(500))


def test_the_check_itself_can_fail(check):
    with pytest.raises(subprocess.CalledProcessError):
        check([b"\x0a\xff\xff\xff"])
