"""LipServiceClient against a real server that misbehaves: bounded, silent, never raising."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import socket
import ssl
import subprocess
import tracemalloc
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path

import pytest

import lipservice
from lipservice._transport import _Reader, _retry_after
from lipservice.client import (
    LipServiceClient,
    Report,
    ReportAnswer,
    new_report_id,
    split_patterns,
)
from lipservice.exceptions import ConfigurationError
from tests.support.counting import Counts
from tests.support.policy_server import (
    ENDLESS_BEHAVIOURS,
    G1_BEHAVIOURS,
    OTHER_BEHAVIOURS,
    POLICY,
    PolicyServer,
    wait_for,
)
from tests.support.programs import run_script

KEY = "lip_live_abcdefgh_s3cr3t"
LONG = (20.0, 20.0)  # never reached, however busy the machine is
SHORT = (0.1, 0.1)  # for what would never end


@pytest.fixture
def server():
    with PolicyServer() as running:
        yield running


@pytest.fixture
def client(server):
    return LipServiceClient(server.url, KEY, "checkout", timeout=LONG)


def client_for(server, behaviour):
    timeout = SHORT if behaviour in ENDLESS_BEHAVIOURS else LONG
    return LipServiceClient(server.url, KEY, timeout=timeout)


def report_of(*patterns, **fields):
    given = {
        "report_id": new_report_id(),
        "service_name": "checkout",
        "instance_id": "pod-1",
        "interval": 600.0,
        "patterns": patterns or (Counts("00000000000000aa", 100),),
    }
    return Report(**{**given, **fields})


class TestAskingForThePolicy:
    def test_gives_the_document_and_its_etag(self, server, client):
        answer = client.fetch_policy()

        assert answer.document == POLICY
        assert answer.problem is None
        assert answer.etag

    def test_says_who_asks_and_keeps_the_key_out_of_the_address(self, server, client):
        client.fetch_policy()

        (request,) = server.requests
        assert request.target == (
            f"/api/v1/policies/active?service_name=checkout&instance_id={client.instance_id}"
        )
        assert request.headers["authorization"] == f"Bearer {KEY}"
        assert request.headers["lipservice-spec"] == "LSIG-1"
        assert request.headers["user-agent"].startswith(
            f"lipservice-python/{lipservice.__version__}"
        )

    def test_without_service_and_key_it_is_the_documented_bare_form(self, server):
        LipServiceClient(server.url + "/", instance_id="pod-7").fetch_policy()

        (request,) = server.requests
        assert request.target == "/api/v1/policies/active?instance_id=pod-7"
        assert "authorization" not in request.headers

    def test_a_path_in_the_url_is_kept(self, server):
        LipServiceClient(server.url + "/behind/proxy/").fetch_policy()

        path = server.requests[0].target.partition("?")[0]
        assert path == "/behind/proxy/api/v1/policies/active"

    def test_the_etag_sent_back_gives_not_modified(self, server, client):
        etag = client.fetch_policy().etag

        answer = client.fetch_policy(etag)

        assert (answer.not_modified, answer.etag, answer.document) == (True, etag, None)

    def test_a_304_that_was_not_asked_for_is_a_problem(self, server, client):
        server.behave("304")

        assert client.fetch_policy().problem.status == 304

    @pytest.mark.parametrize("etag", ["no quotes", '"a" "b"', '"' + "x" * 5000 + '"', '"é"', '"'])
    def test_an_etag_that_cannot_be_sent_back_is_forgotten(self, server, client, etag):
        server.etag = etag

        answer = client.fetch_policy()

        assert (answer.document, answer.etag) == (POLICY, None)

    @pytest.mark.parametrize("body", [{}, {"error": "oops"}, {"policy_id": "x"}])
    def test_json_that_is_no_policy_is_a_problem(self, server, client, body):
        server.policy = body

        assert client.fetch_policy().problem.kind == "body"


@pytest.mark.parametrize("behaviour", G1_BEHAVIOURS + OTHER_BEHAVIOURS)
def test_whatever_the_server_does_a_value_comes_back(server, behaviour):
    """No exception, in bounded time (a hang or an endless drip would run into pytest's time-out)."""
    client = client_for(server, behaviour)
    server.behave(behaviour)

    policy, report = client.fetch_policy(), client.report(report_of())

    assert policy.document is None
    assert policy.problem is not None
    assert report.outcome in {"retry", "refused"}
    assert report.problem is not None
    assert KEY not in f"{policy}{report}"


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [("refused", "connection"), ("hang", "timeout"), ("drip", "timeout"), ("301", "redirect"),
     ("503", "status"), ("truncated", "connection"), ("html", "body")],
)  # fmt: skip
def test_problems_say_what_sort_they_are(server, behaviour, kind):
    server.behave(behaviour)

    assert client_for(server, behaviour).fetch_policy().problem.kind == kind


class TestBounds:
    def test_the_deadline_may_be_cut_for_one_request(self, server):
        """As the last report before an exit: with the client's own time-out this would take days."""
        client = LipServiceClient(server.url, timeout=(3000.0, 3000.0))
        server.behave("drip_headers")

        assert client.report(report_of(), seconds=0.2).problem.kind == "timeout"

    def test_every_read_is_given_only_the_time_that_is_left(self):
        """So that silence in the end costs no more than silence in the beginning."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.settimeout(7.0)
            left = iter([5.0, 9.0, 2.0, 0.0])
            reader = _Reader(ours.makefile("rb", buffering=0), ours, lambda: next(left))
            given = []
            for _ in range(3):
                theirs.sendall(b"x")
                reader.readinto(bytearray(1))
                given.append(ours.gettimeout())
            with pytest.raises(TimeoutError):
                reader.readinto(bytearray(1))
            reader.close()

        assert given == [5.0, 5.0, 2.0]

    def test_a_huge_answer_is_not_read_to_its_end(self, server, client):
        server.behave("huge")

        problem = client.fetch_policy().problem

        assert "larger than" in problem.text
        assert server.bytes_sent < 100_000_000

    def test_a_bomb_is_not_inflated(self, server, client):
        server.behave("bomb")
        client.report(report_of())
        tracemalloc.start()
        try:
            answer = client.report(report_of())
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

        assert answer.outcome == "retry"
        assert peak < 10_000_000

    def test_a_redirect_is_not_followed(self, server, client):
        server.behave("301")
        client.fetch_policy()

        assert len(server.requests) == 1

    @pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files in /proc")
    def test_no_connection_is_left_open(self, server):
        def open_files():
            gc.collect()
            return len(list(Path("/proc/self/fd").iterdir()))

        def ask_all():
            for behaviour in ("ok", *G1_BEHAVIOURS):
                server.behave(behaviour)
                client_for(server, behaviour).fetch_policy()
            server.behave("ok")
            server.let_go()

        ask_all()
        before = open_files()
        ask_all()
        ask_all()

        assert wait_for(lambda: open_files() <= before, 10)


class TestReporting:
    def test_the_document_is_the_promised_one_and_more(self, server, client):
        report = report_of(Counts("00000000000000aa", 100))

        answer = client.report(report)

        assert answer == ReportAnswer("acknowledged")
        (request,) = server.requests
        assert (request.method, request.target) == ("POST", "/api/v1/patterns/report")
        assert request.json == {
            "report_id": report.report_id,
            "service_name": "checkout",
            "instance_id": "pod-1",
            "interval": 600.0,
            "sdk": {"language": "python", "version": lipservice.__version__},
            "patterns": [
                {
                    "signature": "00000000000000aa",
                    "template": "user <*> logged in",
                    "count": 100,
                    "kept": 1,
                    "bytes": 100,
                    "severity_distribution": {"INFO": 1},
                    "first_seen": "2026-11-23T12:00:00.123Z",
                    "last_seen": "2026-11-23T12:00:00.123Z",
                    "sampling_rate": 0.1,
                }
            ],
        }

    def test_times_of_other_zones_are_told_in_utc(self, server, client):
        there = datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=2)))
        client.report(report_of(Counts("a" * 16, 1, last_seen=there)))

        assert server.requests[0].json["patterns"][0]["last_seen"] == "2025-12-31T23:00:00.000Z"

    def test_a_large_body_is_packed_and_a_repeat_is_the_same_to_the_byte(self, server, client):
        report = report_of(*(Counts(f"{n:016x}", n) for n in range(1, 200)))

        client.report(report)
        client.report(report)

        first, second = server.requests
        assert first.headers["content-encoding"] == "gzip"
        assert first.raw == second.raw
        assert len(server.reports) == 1

    def test_a_small_body_is_not_packed(self, server, client):
        client.report(report_of())

        assert "content-encoding" not in server.requests[0].headers

    def test_health_counters_go_along_where_given(self, server, client):
        client.report(report_of(health={"records_lost": 3}))

        assert server.requests[0].json["health"] == {"records_lost": 3}

    def test_a_lone_surrogate_does_not_stop_a_report(self, server, client):
        answer = client.report(report_of(Counts("a" * 16, 1, template="bad \udc80 name")))

        assert answer.outcome == "acknowledged"
        assert server.requests[0].json["patterns"][0]["template"] == "bad ? name"

    def test_a_template_is_cut_to_what_the_server_takes(self, server, client):
        """Else one message of single digits would have its whole report refused."""
        client.report(report_of(Counts("a" * 16, 1, template="a <*> " * 1000)))

        assert len(server.requests[0].json["patterns"][0]["template"]) == 4096

    def test_what_cannot_be_written_is_refused_without_a_request(self, server, client):
        answer = client.report(report_of(Counts("a" * 16, 1, sampling_rate=float("nan"))))

        assert (answer.outcome, server.requests) == ("refused", [])

    def test_an_id_that_the_server_knows_is_acknowledged(self, server, client):
        server.behave("409")

        assert client.report(report_of()).outcome == "acknowledged"

    @pytest.mark.parametrize("behaviour", ["400", "413", "422"])
    def test_refused_for_good(self, server, client, behaviour):
        server.behave(behaviour)

        answer = client.report(report_of())

        assert answer.outcome == "refused"
        assert answer.too_large == (behaviour == "413")

    @pytest.mark.parametrize(
        ("behaviour", "uncertain"),
        [("refused", False), ("reset", True), ("hang", True), ("500", True), ("truncated", True),
         ("html", True), ("401", False), ("404", False), ("429", False), ("301", False)],
    )  # fmt: skip
    def test_to_be_sent_again_and_whether_it_may_have_been_counted(
        self, server, behaviour, uncertain
    ):
        server.behave(behaviour)

        answer = client_for(server, behaviour).report(report_of())

        assert (answer.outcome, answer.uncertain) == ("retry", uncertain)

    def test_a_report_holds_at_most_a_thousand_patterns(self):
        sizes = [len(part) for part in split_patterns([Counts("a", 1)] * 2500)]

        assert sizes == [1000, 1000, 500]

    def test_a_report_stays_below_the_servers_size_limit(self):
        """Each of these templates is as long as a template can be."""
        patterns = [Counts(f"{n:016x}", 1, template="é" * 2048) for n in range(1000)]

        parts = list(split_patterns(patterns))

        assert [pattern for part in parts for pattern in part] == patterns
        assert max(len(repr(report_of(*part).to_document()).encode()) for part in parts) < 1_500_000


class TestGenerating:
    def test_sends_the_documented_request(self, server, client):
        pattern = {"signature": "abc123", "count": 100, "frequency": 0.1}

        answer = client.generate_policy([pattern], cost_target=0.5, llm_provider="openai")

        assert answer.document == {**POLICY, "cost_reduction": 0.75}
        assert server.requests[0].json == {
            "service_name": "checkout",
            "patterns": [pattern],
            "cost_target": 0.5,
            "llm_provider": "openai",
        }

    def test_waits_longer_for_the_model_than_for_anything_else(self, server):
        client = LipServiceClient(server.url, timeout=(5.0, 0.05))
        server.think = 0.5

        assert client.generate_policy().document is not None
        assert client.fetch_policy(seconds=60).problem.kind == "timeout"

    @pytest.mark.parametrize("patterns", [[object()], {1, 2}, [{"count": float("inf")}]])
    def test_nonsense_is_a_problem_not_an_exception(self, client, patterns):
        assert client.generate_policy(patterns).problem.kind == "internal"


class TestRetryAfter:
    NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=timezone.utc)

    @pytest.mark.parametrize(
        ("value", "seconds"),
        [("120", 120.0), ("0", 0.0), ("", None), ("-5", None), ("soon", None), ("1.5", None),
         ("٣", None), ("9" * 400, float("inf"))],
    )  # fmt: skip
    def test_seconds(self, value, seconds):
        assert _retry_after({"retry-after": value}) == seconds

    def test_a_date_counts_from_the_servers_own_date(self):
        """Though this machine's clock is a day off."""
        headers = {
            "date": format_datetime(self.NOW, usegmt=True),
            "retry-after": format_datetime(self.NOW + timedelta(seconds=90), usegmt=True),
        }

        assert _retry_after(headers, now=lambda: self.NOW.timestamp() - 86_400) == 90.0

    def test_a_date_alone_counts_from_this_machines_clock(self):
        headers = {"retry-after": format_datetime(self.NOW + timedelta(seconds=90), usegmt=True)}

        assert _retry_after(headers, now=self.NOW.timestamp) == 90.0

    @pytest.mark.parametrize(
        "value", ["Mon, 32 Foo 2026 99:99:99 GMT", "Mon, 01 Jan 99999999 00:00:00 GMT", "Mon,"]
    )
    def test_a_date_that_is_none_is_ignored(self, value):
        assert _retry_after({"retry-after": value}) is None

    def test_it_comes_with_the_answer(self, server, client):
        server.retry_after = "17"
        server.behave("503")

        assert client.fetch_policy().retry_after == 17.0
        assert client.report(report_of()).retry_after == 17.0


class TestConstruction:
    @pytest.mark.parametrize(
        "url",
        ["", "   ", None, 7, "lipservice.example.com", "ftp://example.com", "http://", "https:///x",
         "http://host:99999999", "http://host:0", "http://user:pw@host", "http://host/?a=b",
         "http://host/#a", "http://ho st", "http://host/\r\nX: y", "http://[::1", "http://*.x",
         "http://" + "a" * 300 + "." + "é" * 70],
    )  # fmt: skip
    def test_a_wrong_url_is_named(self, url):
        with pytest.raises(ConfigurationError, match=r"^base_url"):
            LipServiceClient(url)

    @pytest.mark.parametrize(
        "key",
        [
            "",
            "s3cr3t\n",
            "s3cr3t\r\nX: y",
            "a b",
            "s3cr3t\x00",
            "schlüssel",
            7,
            b"s3cr3t",
            "x" * 9999,
        ],
    )
    def test_a_wrong_key_is_named_but_not_shown(self, key):
        with pytest.raises(ConfigurationError, match=r"^api_key") as caught:
            LipServiceClient("http://localhost", key)
        assert "s3cr3t" not in str(caught.value)

    @pytest.mark.parametrize(
        "timeout", [(1,), 5, None, (0, 1), (1, -1), (1, float("nan")), ("a", 1), (1, 1e9)]
    )
    def test_a_wrong_timeout_is_named(self, timeout):
        with pytest.raises(ConfigurationError, match=r"^timeout"):
            LipServiceClient("http://localhost", timeout=timeout)

    @pytest.mark.parametrize("name", ["", " x", "a\nb", "x" * 101, 7])
    def test_a_wrong_service_name_is_named(self, name):
        with pytest.raises(ConfigurationError, match=r"^service_name"):
            LipServiceClient("http://localhost", service_name=name)

    @pytest.mark.parametrize("name", ["", "pöd", "x" * 81, "a b", "a\n", 7])
    def test_a_wrong_instance_id_is_named(self, name):
        with pytest.raises(ConfigurationError, match=r"^instance_id"):
            LipServiceClient("http://localhost", instance_id=name)

    def test_an_international_host_is_encoded_at_once(self):
        assert (
            LipServiceClient("https://bücher.example/").base_url == "https://xn--bcher-kva.example"
        )

    def test_its_repr_holds_no_key(self):
        assert KEY not in repr(LipServiceClient("http://localhost", KEY))

    def test_two_clients_are_two_instances(self):
        one, other = (LipServiceClient("http://localhost").instance_id for _ in range(2))
        assert one != other


class TestSecrecy:
    @pytest.mark.parametrize("behaviour", [*G1_BEHAVIOURS, "ok"])
    def test_the_key_is_in_no_log_record(self, server, behaviour, caplog):
        caplog.set_level(logging.DEBUG)
        server.behave(behaviour)
        client = client_for(server, behaviour)
        client.fetch_policy()
        client.report(report_of())

        assert KEY not in caplog.text

    def test_netrc_does_not_replace_the_key(self, server, tmp_path, monkeypatch):
        (tmp_path / ".netrc").write_text("machine 127.0.0.1 login other password person\n")
        (tmp_path / ".netrc").chmod(0o600)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))

        LipServiceClient(server.url, KEY).fetch_policy()
        LipServiceClient(server.url).fetch_policy()

        with_key, without = server.requests
        assert with_key.headers["authorization"] == f"Bearer {KEY}"
        assert "authorization" not in without.headers


class TestEnvironment:
    def test_a_proxy_is_used(self, server, monkeypatch):
        monkeypatch.setenv("http_proxy", server.url)
        client = LipServiceClient("http://policies.invalid", KEY)

        assert client.fetch_policy().document == POLICY
        assert server.requests[0].target.startswith("http://policies.invalid/api/v1/policies/")

    def test_a_proxy_that_drips_is_bounded_too(self, server, monkeypatch):
        """http through the proxy, and the CONNECT for https."""
        monkeypatch.setenv("http_proxy", server.url)
        monkeypatch.setenv("https_proxy", server.url)
        server.behave("drip_headers")
        for scheme in ("http", "https"):
            client = LipServiceClient(f"{scheme}://policies.invalid", timeout=SHORT)

            assert client.fetch_policy().problem.kind == "timeout"

    def test_no_proxy_is_honoured(self, server, monkeypatch):
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        monkeypatch.setenv("no_proxy", "127.0.0.1")

        assert LipServiceClient(server.url).fetch_policy().document == POLICY


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=IP:127.0.0.1", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder


class TestTLS:
    @pytest.fixture
    def tls_server(self, certificate):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
        with PolicyServer(tls=context) as running:
            yield running

    def test_an_unknown_certificate_is_refused(self, tls_server):
        problem = LipServiceClient(tls_server.url, KEY, timeout=LONG).fetch_policy().problem

        assert (problem.kind, tls_server.requests) == ("connection", [])
        assert problem.text == "TLS failed: self-signed certificate"

    def test_a_bundle_of_the_environment_is_honoured(self, tls_server, certificate, monkeypatch):
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate / "cert.pem"))
        client = LipServiceClient(tls_server.url, KEY, timeout=LONG)

        assert client.fetch_policy().document == POLICY

    def test_a_drip_is_bounded_under_tls(self, tls_server, certificate, monkeypatch):
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate / "cert.pem"))
        tls_server.behave("drip")
        client = LipServiceClient(tls_server.url, KEY, timeout=LONG)

        assert client.fetch_policy(seconds=0.5).problem.kind == "timeout"


class TestImports:
    def test_importing_the_module_imports_no_third_party(self):
        run_script("""
            import sys
            import lipservice.client
            assert "requests" not in sys.modules and "urllib3" not in sys.modules
        """)

    def test_nothing_is_imported_once_a_client_is_constructed(self):
        """An import in the worker could wait for ever for a lock that a fork left locked."""
        run_script("""
            import sys
            from lipservice.client import LipServiceClient, Report, new_report_id
            from tests.support.counting import Counts
            from tests.support.policy_server import G1_BEHAVIOURS, OTHER_BEHAVIOURS, PolicyServer

            with PolicyServer() as server:
                client = LipServiceClient(server.url, "k", timeout=(0.1, 0.1))
                elsewhere = LipServiceClient("http://localhost:9", timeout=(0.1, 0.1))
                before = set(sys.modules)
                for behaviour in ("ok", *G1_BEHAVIOURS, *OTHER_BEHAVIOURS):
                    server.retry_after = "Mon, 23 Nov 2026 12:00:00 GMT"
                    server.behave(behaviour)
                    client.fetch_policy()
                    client.report(Report(new_report_id(), "x", "y", 1.0, (Counts("a", 1),) * 100))
                elsewhere.fetch_policy()
                new = set(sys.modules) - before
                assert not new, new
        """)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_is_another_instance():
    run_script("""
        import os
        from lipservice.client import LipServiceClient

        named = LipServiceClient("http://localhost", instance_id="pod-7")
        unnamed = LipServiceClient("http://localhost")
        before = unnamed.instance_id
        child = os.fork()
        if child == 0:
            new = named.instance_id.startswith("pod-7-") and unnamed.instance_id != before
            os._exit(0 if new else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert (named.instance_id, unnamed.instance_id) == ("pod-7", before)
    """)
