"""Bad input of every kind: a 4xx that says what is wrong, and nothing is changed."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
import zlib
from urllib.parse import urlsplit

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lipservice_server.app import create_app, runtime_of
from lipservice_server.config import Settings, load_settings
from lipservice_server.runtime import make_runtime
from tests.server.harness import a_pattern, a_report, key_in, make_team

REPORT = "/api/v1/patterns/report"
JSON = {"Content-Type": "application/json"}
NAN = float("nan")


def with_pattern(**fields):
    return json.dumps(a_report(0) | {"patterns": [a_pattern(0, **fields)]}).encode()


def with_report(**fields):
    return json.dumps(a_report(1) | fields).encode()


RAW = {
    "nothing": b"",
    "a space": b" ",
    "not JSON": b"{",
    "two values": b"{} {}",
    "a byte order mark": b"\xef\xbb\xbf{}",
    "not UTF-8": b'{"patterns": "\xff\xfe"}',
    "UTF-16": json.dumps(a_report(1)).encode("utf-16"),
    "null": b"null",
    "a list": b"[]",
    "a number": b"1",
    "100,000 levels": b'{"patterns":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "100,000 objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "patterns missing": b'{"service_name":"shop"}',
    "patterns as object": with_report(patterns={}),
    "patterns as text": with_report(patterns="x"),
    "patterns null": with_report(patterns=None),
    "1,001 patterns": with_report(patterns=[a_pattern(i) for i in range(1001)]),
    "unknown field": with_report(surprise=1),
    "pattern as text": with_report(patterns=["x"]),
    "pattern as list": with_report(patterns=[[]]),
    "unknown field of a pattern": with_pattern(surprise=1),
    "a key twice": b'{"service_name":"shop","service_name":"shop2","patterns":[]}',
    "a key twice with spaces": b'{"service_name" : "shop","service_name"\n: "shop2","patterns":[]}',
    "a pattern's key twice": b'{"service_name":"shop","patterns":[{"signature":"a","signature":"b","count":1,"last_seen":"2023-01-01T12:00:00Z","sampling_rate":1}]}',
    "a key twice, escaped": b'{"service_name":"shop","service\\u005fname":"shop2","patterns":[]}',
    "a severity twice": b'{"service_name":"shop","patterns":[{"signature":"a","severity_distribution":{"INFO":1,"INFO":2},"count":1,"last_seen":"2023-01-01T12:00:00Z","sampling_rate":1}]}',
    "a lone surrogate": b'{"service_name":"\\ud800","patterns":[]}',
    "a surrogate in a template": b'{"service_name":"shop","patterns":[{"signature":"a","template":"\\udfff","count":1,"last_seen":"2023-01-01T12:00:00Z","sampling_rate":1}]}',
    "NaN": with_pattern(sampling_rate=NAN),
    "Infinity": with_pattern(sampling_rate=float("inf")),
    "-Infinity": with_pattern(sampling_rate=float("-inf")),
    "1e400": with_pattern(sampling_rate=1.0).replace(
        b'"sampling_rate": 1.0', b'"sampling_rate": 1e400'
    ),
    "rate above 1": with_pattern(sampling_rate=1.0000001),
    "rate below 0": with_pattern(sampling_rate=-1e-9),
    "rate as text": with_pattern(sampling_rate="0.1"),
    "rate true": with_pattern(sampling_rate=True),
    "rate null": with_pattern(sampling_rate=None),
    "count 2^63": with_pattern(count=2**63),
    "count 10^400": with_pattern(count=1).replace(
        b'"count": 1,', b'"count": 1' + b"0" * 400 + b","
    ),
    "count 10^12 + 1": with_pattern(count=10**12 + 1),
    "count negative": with_pattern(count=-1),
    "count 1.5": with_pattern(count=1.5),
    "count 1.0": with_pattern(count=1.0),
    "count true": with_pattern(count=True),
    "count text": with_pattern(count="1"),
    "count null": with_pattern(count=None),
    "count list": with_pattern(count=[1]),
    "kept above count": with_pattern(count=1, kept=2),
    "kept above count worked out": with_pattern(count=0, kept=1),
    "bytes 10^16": with_pattern(bytes=10**16),
    "bytes negative": with_pattern(bytes=-1),
    "signature empty": with_pattern(signature=""),
    "signature of 65": with_pattern(signature="a" * 65),
    "signature of 7,000": with_pattern(signature="a" * 7000),
    "signature with NUL": with_pattern(signature="a\x00"),
    "signature with a line end": with_pattern(signature="abc\n"),
    "signature with a space": with_pattern(signature="a b"),
    "signature with a slash": with_pattern(signature="../x"),
    "signature of other letters": with_pattern(signature="ä"),
    "signature number": with_pattern(signature=1),
    "signature object": with_pattern(signature={}),
    "signature null": with_pattern(signature=None),
    "template with NUL": with_pattern(template="a\x00b"),
    "template of 4,097": with_pattern(template="x" * 4097),
    "template number": with_pattern(template=5),
    "time without zone": with_pattern(last_seen="2026-01-01T12:00:00"),
    "time as number": with_pattern(last_seen=1_700_000_000),
    "time as date": with_pattern(last_seen="2026-01-01"),
    "time of nonsense": with_pattern(last_seen="yesterday"),
    "time 30 February": with_pattern(last_seen="2026-02-30T12:00:00Z"),
    "time year 0": with_pattern(last_seen="0000-01-01T00:00:00Z"),
    "time year 1": with_pattern(last_seen="0001-01-01T00:00:00+23:59"),
    "time year 9999": with_pattern(last_seen="9999-12-31T23:59:59-23:59"),
    "time null": with_pattern(last_seen=None),
    "time empty": with_pattern(first_seen=""),
    "severity unknown shape": with_pattern(severity_distribution={"IN FO": 1}),
    "severity negative": with_pattern(severity_distribution={"INFO": -1}),
    "severity list": with_pattern(severity_distribution=["INFO"]),
    "severity 17 names": with_pattern(
        severity_distribution={f"L{chr(65 + i)}": 1 for i in range(17)}
    ),
    "service empty": with_report(service_name=""),
    "service of 101": with_report(service_name="x" * 101),
    "service with NUL": with_report(service_name="a\x00b"),
    "service with a line end": with_report(service_name="a\nb"),
    "service ends in a line end": with_report(service_name="shop\n"),
    "service of spaces": with_report(service_name="   "),
    "service list": with_report(service_name=["shop"]),
    "service number": with_report(service_name=1),
    "report_id empty": with_report(report_id=""),
    "report_id of 7,000": with_report(report_id="x" * 7000),
    "report_id with NUL": with_report(report_id="x\x00"),
    "report_id number": with_report(report_id=7),
    "instance_id with NUL": with_report(instance_id="x\x00"),
    "instance_id object": with_report(instance_id={}),
    "interval negative": with_report(interval=-1),
    "interval NaN": with_report(interval=NAN),
    "interval text": with_report(interval="600"),
    "sdk text": with_report(sdk="python"),
    "sdk unknown": with_report(sdk={"os": "x"}),
    "sdk with an escape": with_report(sdk={"language": "\x1b[31m"}),
    "health list": with_report(health=[]),
    "health nested": with_report(health={"a": {"b": 1}}),
    "health of 61": with_report(health={f"k{i}": 1 for i in range(61)}),
    "health NaN": with_report(health={"a": NAN}),
    "health text with NUL": with_report(health={"a": "\x00"}),
    "health name": with_report(health={"<script>": 1}),
}

GOOD = json.dumps(a_report(1)).encode()
ENCODED = {
    "gzip that is none": (b"not gzip", "gzip", 400),
    "gzip cut off": (gzip.compress(GOOD)[:-9], "gzip", 400),
    "gzip without its end": (gzip.compress(GOOD)[:-1], "gzip", 400),
    "gzip with a wrong sum": (gzip.compress(GOOD)[:-8] + b"\0" * 8, "gzip", 400),
    "gzip with something behind": (gzip.compress(GOOD) + b"x", "gzip", 400),
    "gzip twice": (gzip.compress(GOOD) + gzip.compress(GOOD), "gzip", 400),
    "a gzip bomb": (gzip.compress(b" " * 200_000_000, 9), "gzip", 413),
    "zlib called gzip": (zlib.compress(GOOD), "gzip", 400),
    "an unknown encoding": (GOOD, "br", 415),
    "deflate": (zlib.compress(GOOD), "deflate", 415),
    "two encodings": (gzip.compress(GOOD), "gzip, gzip", 415),
    "gzip not said": (gzip.compress(GOOD), "identity", 400),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """One application on SQLite for all of these: none of them may change anything."""
    app = create_app(
        Settings(
            data_dir=str(tmp_path_factory.mktemp("bad")),
            failures_per_minute=10**6,
            requests_per_minute=10**6,
            generations_per_minute=10**6,
        )
    )
    runtime_of(app).watcher.prepare()
    yield app, make_team(app, "a")
    runtime_of(app).watcher.stop()
    runtime_of(app).store.db.close()


def send(home, body, **headers):
    app, key = home
    started = time.perf_counter()
    answer = app.test_client().post(
        REPORT, data=body, headers=JSON | {"Authorization": f"Bearer {key}"} | headers
    )
    assert (
        time.perf_counter() - started < 20
    )  # "a 15 s answer" was one of the findings; not a benchmark
    return answer


def state(home):
    db = runtime_of(home[0]).store.db
    return [
        db.row(f"SELECT count(*) AS n FROM {table}")["n"]
        for table in ("pattern", "report", "service", "instance")
    ]


def boosts(home):
    return runtime_of(home[0]).store.db.rows("SELECT * FROM boost")


@pytest.mark.parametrize("name", sorted(RAW))
def test_a_bad_report_is_refused_with_a_reason_and_changes_nothing(home, name):
    before = state(home)
    answer = send(home, RAW[name])
    assert 400 <= answer.status_code < 500, answer.text
    assert len(answer.json["error"]["message"]) > 5
    assert state(home) == before


@pytest.mark.parametrize("name", sorted(ENCODED))
def test_a_badly_encoded_report_is_refused(home, name):
    body, encoding, status = ENCODED[name]
    before = state(home)
    answer = send(home, body, **{"Content-Encoding": encoding})
    assert answer.status_code == status, answer.text
    assert state(home) == before


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""]
)
def test_only_json_is_read(home, kind):
    assert send(home, GOOD, **{"Content-Type": kind}).status_code == 415


@pytest.mark.parametrize(
    "query",
    [
        "",
        "service_name=",
        "service_name=a&service_name=b",
        "surprise=1",
        "service_name=%00",
        "service_name=%ff",
        "service_name=" + "x" * 101,
        "service_name=a&instance_id=%00",
        "instance_id=a%20b&service_name=a",
        "service_name=a&" + "&".join(f"a{i}=1" for i in range(50)),
    ],
)
def test_a_bad_query_for_the_policy_is_refused(home, query):
    app, key = home
    answer = app.test_client().get(
        f"/api/v1/policies/active?{query}", headers={"Authorization": f"Bearer {key}"}
    )
    assert answer.status_code == 422, answer.text


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/api/v1/patterns?service_name=shop&sort=count;drop", None),
        ("GET", "/api/v1/patterns?service_name=shop&limit=501", None),
        ("GET", "/api/v1/patterns?service_name=shop&limit=x", None),
        ("GET", "/api/v1/patterns?service_name=shop&offset=-1", None),
        ("GET", "/api/v1/patterns?service_name=shop&offset=99999999999999999999", None),
        ("GET", "/api/v1/patterns?service_name=shop&search=%00", None),
        ("GET", "/api/v1/patterns/a%20b?service_name=shop", None),
        ("GET", "/api/v1/policies/99999999999999999999?service_name=shop", None),
        ("GET", "/api/v1/policies/-1?service_name=shop", None),
        ("GET", "/api/v1/audit?before=0", None),
        ("PATCH", "/api/v1/service?service_name=shop", {"cost_target": 0}),
        ("PATCH", "/api/v1/service?service_name=shop", {"cost_target": True}),
        ("PATCH", "/api/v1/service?service_name=shop", {"max_logs_per_minute": -1}),
        ("PATCH", "/api/v1/service?service_name=shop", {"id": 1}),
        ("PATCH", "/api/v1/service?service_name=shop", {"team_id": 2}),
        ("PATCH", "/api/v1/service?service_name=shop", {"mode": None}),
        ("PATCH", "/api/v1/service?service_name=shop", {"words": ["a b"]}),
        ("POST", "/api/v1/keys", {"name": "x", "scopes": []}),
        ("POST", "/api/v1/keys", {"name": "x", "scopes": ["root"]}),
        ("POST", "/api/v1/keys", {"name": "x\n", "scopes": ["read"]}),
        ("POST", "/api/v1/keys", {"name": "x", "scopes": ["read"], "expires_at": 5}),
        (
            "POST",
            "/api/v1/keys",
            {"name": "x", "scopes": ["read"], "expires_at": "2001-01-01T00:00:00Z"},
        ),
        ("POST", "/api/v1/keys", {"name": "x", "scopes": ["read"], "team_id": 2}),
        ("POST", "/api/v1/policies/generate", {"service_name": "shop", "cost_target": 2}),
        (
            "POST",
            "/api/v1/policies/generate",
            {"service_name": "shop", "llm_provider": "http://169.254.169.254/"},
        ),
        ("POST", "/api/v1/policies/generate", {"service_name": "shop", "base_url": "http://x"}),
        (
            "POST",
            "/api/v1/policies/generate",
            {
                "service_name": "shop",
                "patterns": [{"signature": "a", "count": 1}, {"signature": "a", "count": 1}],
            },
        ),
        *(
            ("POST", "/api/v1/boosts?service_name=shop", body)
            for body in (
                {"minutes": 0},
                {"minutes": -1},
                {"minutes": 1440.001},
                {"minutes": "10"},
                {"minutes": True},
                {"minutes": None},
                {"severity": "debug"},
                {"severity": "LOUD"},
                {"severity": 10},
                {"logger": ""},
                {"logger": "a\nb"},
                {"logger": "x" * 201},
                {"logger": "shop", "severity": "DEBUG"},
                {"logger": "shop", "pattern": "user 1 gone"},
                {"pattern": ""},
                {"pattern": "a\x00b"},
                {"pattern": "x" * 4097},
                {"pattern": ["a"]},
                {"pattern": "never reported <*> here"},
                {"reason": "x" * 501},
                {"reason": None},
                {"signature": f"{1:016x}"},
                {"until": "2026-01-01T00:00:00Z"},
                {"service_name": "other"},
            )
        ),
        ("POST", "/api/v1/boosts?service_name=nobody", {}),
        ("GET", "/api/v1/boosts?limit=201", None),
        ("GET", "/api/v1/boosts?before=0", None),
        ("GET", "/api/v1/boosts?ended=maybe", None),
        ("GET", "/api/v1/boosts?service_name=nobody", None),
        ("DELETE", "/api/v1/boosts/99999999999999999999", None),
        ("DELETE", "/api/v1/boosts/0", None),
        ("DELETE", "/api/v1/boosts/x", None),
        ("POST", "/api/v1/policies?service_name=shop", {"sampling_rate": 2}),
        (
            "POST",
            "/api/v1/policies?service_name=shop",
            {"sampling_rate": 1, "pattern_rates": {"a b": 1}},
        ),
    ],
)
def test_bad_administration_is_refused(home, method, path, body):
    app, key = home
    send(home, json.dumps(a_report(1)).encode())
    before = boosts(home)
    kwargs = {} if body is None else {"json": body}
    answer = app.test_client().open(
        path, method=method, headers={"Authorization": f"Bearer {key}"}, **kwargs
    )
    assert answer.status_code in (404, 422), answer.text
    assert answer.json["error"]["message"]
    assert boosts(home) == before


def test_unknown_paths_and_methods_are_told_in_the_same_form(home):
    client = home[0].test_client()
    assert client.get("/api/v1/nothing").json["error"]["code"] == "not_found"
    answer = client.open("/api/v1/policies/generate", method="DELETE")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
    assert client.open("/api/v1/policies/active", method="TRACE").status_code == 405


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    field=st.sampled_from(
        [
            "signature",
            "template",
            "count",
            "kept",
            "bytes",
            "severity_distribution",
            "first_seen",
            "last_seen",
            "sampling_rate",
        ]
    ),
    value=json_values,
)
def test_any_value_in_any_field_of_a_pattern_is_counted_or_refused(home, field, value):
    """Never a 5xx; and what is accepted is there exactly as often as it was sent."""
    answer = send(home, with_pattern(**{field: value}))
    assert answer.status_code in (200, 400, 422), (field, value, answer.text)


@settings(max_examples=60, deadline=None)
@given(
    body=st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()),
    encoding=st.sampled_from(["identity", "gzip"]),
)
def test_any_bytes_are_refused(home, body, encoding):
    assert 400 <= send(home, body, **{"Content-Encoding": encoding}).status_code < 500


def test_the_openapi_document_names_every_route(home):
    app, _ = home
    document = app.test_client().get("/api/v1/openapi.json").json
    described = {
        (method.upper(), path) for path, item in document["paths"].items() for method in item
    }
    import re

    routes = {
        (method, re.sub(r"<(?:int[^>]*:)?(\w+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
        if "/dashboard" not in rule.rule
    }
    assert described == routes


def test_schemathesis_finds_nothing(home):
    """Cases made from the OpenAPI document, good and bad; 10,000 of them by hand: see the benchmarks."""
    app, key = home
    schema = schemathesis.openapi.from_wsgi("/api/v1/openapi.json", app)
    schema.config.update(headers={"Authorization": f"Bearer {key}"})
    send(home, json.dumps(a_report(3)).encode())
    checks = [
        schemathesis.checks.not_a_server_error,
        schemathesis.specs.openapi.checks.status_code_conformance,
        schemathesis.specs.openapi.checks.response_schema_conformance,
        schemathesis.specs.openapi.checks.content_type_conformance,
        schemathesis.specs.openapi.checks.negative_data_rejection,
    ]
    count = 0
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.label == "DELETE /api/v1/keys/{key_id}":
            continue  # it would end the key that the cases are sent with
        for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):
            try:
                strategy = operation.as_strategy(generation_mode=mode)
            except Exception:  # an operation without parameters has no bad case
                continue

            @settings(
                max_examples=5,
                deadline=None,
                database=None,
                derandomize=True,
                suppress_health_check=list(HealthCheck),
            )
            @given(case=strategy)
            def probe(case):
                nonlocal count
                count += 1
                response = case.call(headers={"Authorization": f"Bearer {key}"})
                case.validate_response(response, checks=checks)

            try:
                probe()
            except (TypeError, schemathesis.errors.InvalidSchema) as error:
                pytest.fail(f"{operation.label}: {error}")
            except Exception as error:
                if type(error).__name__ in ("Unsatisfiable", "SkipTest", "Skipped"):
                    continue
                raise
    assert count > 150


@pytest.fixture
def running(live):
    server = live(workers=1, threads=8, environ={"LIPSERVICE_BODY_SECONDS": "1.5"})
    runtime = make_runtime(load_settings(server.environ))
    runtime.watcher.look()
    key = key_in(runtime, "a")
    runtime.store.db.close()
    return server, key


def raw_exchange(
    server, data: bytes, *, pause_after: int | None = None, seconds: float = 8.0
) -> bytes:
    parts = urlsplit(server.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=seconds) as sock:
        if pause_after is None:
            sock.sendall(data)
        else:
            sock.sendall(data[:pause_after])
        received = b""
        try:
            while chunk := sock.recv(65536):
                received += chunk
                if b"\r\n\r\n" in received and b"}" in received:
                    break
        except TimeoutError:
            pass
        return received


def head(key, length, extra=""):
    return (
        f"POST {REPORT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {length}\r\n{extra}\r\n"
    ).encode()


def test_a_body_that_is_too_large_is_answered_and_not_reset(running):
    """A reset connection looks like a broken server, and a client would try for ever."""
    server, key = running
    answer = raw_exchange(server, head(key, 3_000_000) + b"x" * 3_000_000)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"larger than" in answer


def test_a_large_report_is_answered_whatever_it_is_refused_for(running):
    """The answer must arrive although nobody has read the body, and the connection live on."""
    server, key = running
    large = json.dumps(a_report(0) | {"patterns": [a_pattern(i) for i in range(1000)]}).encode()
    assert len(large) > 200_000
    for _ in range(3):
        for used, headers, status in (
            ("lip_x", JSON, 401),
            (key, {"Content-Type": "text/plain"}, 415),
            (key, JSON | {"Content-Encoding": "br"}, 415),
        ):
            answer = server.post(REPORT, used, data=large, headers=headers)
            assert answer.status_code == status
            assert answer.json()["error"]["message"]


def test_a_body_that_does_not_come_is_given_up(running):
    server, key = running
    data = head(key, len(GOOD)) + GOOD
    started = time.monotonic()
    answer = raw_exchange(server, data, pause_after=len(data) - 20)
    assert answer.startswith(b"HTTP/1.1 408"), answer
    assert time.monotonic() - started < 6
    assert server.get("/api/v1/policies/active?service_name=x", key).status_code == 200


def test_a_chunked_report_is_read(running):
    server, key = running
    answer = server.post(REPORT, key, data=iter([GOOD[:50], GOOD[50:]]), headers=JSON)
    assert answer.json() == {"status": "success", "patterns_processed": 1}


def test_slow_clients_do_not_keep_others_from_their_policies(live, tmp_path):
    """32 clients of one byte now and then, half of them in the head; polls go on at once (S10)."""
    server = live(workers=2, threads=32)
    runtime = make_runtime(load_settings(server.environ))
    runtime.watcher.look()
    key = key_in(runtime, "a")
    runtime.store.db.close()
    parts = urlsplit(server.url)
    stop = threading.Event()

    def drip(data, start):
        with socket.create_connection((parts.hostname, parts.port)) as sock:
            sock.sendall(data[:start])
            for place in range(start, len(data)):
                if stop.wait(0.5):
                    return
                try:
                    sock.sendall(data[place : place + 1])
                except OSError:
                    return

    request = head(key, len(GOOD)) + GOOD
    slow = [
        threading.Thread(
            target=drip, args=(request, 20 if i % 2 else request.index(b"\r\n\r\n") + 4)
        )
        for i in range(32)
    ]
    for thread in slow:
        thread.start()
    try:
        time.sleep(1)
        latencies = []
        for _ in range(40):
            started = time.perf_counter()
            assert (
                server.get("/api/v1/policies/active?service_name=x", key, timeout=5).status_code
                == 200
            )
            latencies.append(time.perf_counter() - started)
    finally:
        stop.set()
        for thread in slow:
            thread.join()
    assert sorted(latencies)[20] < 2
