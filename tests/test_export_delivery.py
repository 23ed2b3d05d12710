"""Records reach a real receiver in another process, whatever it does and whatever the application does."""

from __future__ import annotations

import logging
import logging.config
import os
import random
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from lipservice.export.config import PostHogConfig
from lipservice.export.exporter import PostHogOTLPExporter
from lipservice.export.handler import PostHogHandler
from tests.support.otlp_receiver import Receiver

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def shared():
    with Receiver() as running:
        yield running


@pytest.fixture
def receiver(shared):
    shared.reset()
    return shared


@pytest.fixture
def make(receiver):
    """Makes exporters, and stops them all at the end."""
    made = []

    def make_one(**settings):
        settings = {"api_key": "phc_x", "endpoint": receiver.url, "flush_interval": 0.1, **settings}
        exporter = PostHogOTLPExporter(PostHogConfig(**settings))
        made.append(exporter)
        return exporter

    yield make_one
    for exporter in made:
        exporter.stop(0.5)


@pytest.fixture
def logger():
    made = logging.getLogger("shop.delivery")
    made.setLevel(logging.DEBUG)
    made.propagate = False
    yield made
    made.handlers.clear()
    made.propagate = True
    made.setLevel(logging.NOTSET)


def balanced(health):
    return health["emitted"] + health["recovered"] == (
        health["delivered"] + sum(health["dropped"].values()) + health["queued"] + health["spooled"]
    )


def run_program(text, *arguments, timeout=60):
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", textwrap.dedent(text), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    return done, time.monotonic() - started


class TestWay:
    def test_records_of_logging_arrive_whole(self, make, receiver, logger):
        exporter = make(team_id="12345", service_name="shop")
        logger.addHandler(PostHogHandler(exporter=exporter))
        logger.info("user %s paid %d", "bob", 5, extra={"order": 7, "ok": True, "ms": 1.5})

        assert exporter.flush(10)
        (got,) = receiver.records()
        assert got["body"] == "user bob paid 5"
        assert got["scope"] == "shop.delivery"
        assert got["attributes"].pop("code.at").startswith("tests/test_export_delivery.py:")
        assert got["attributes"] == {"order": 7, "ok": True, "ms": 1.5}
        assert got["resource"]["team_id"] == "12345"
        assert abs(got["time_unix_nano"] / 1e9 - time.time()) < 60

    def test_one_record_arrives_within_the_interval_without_a_flush(self, make, receiver):
        make(flush_interval=0.2).export_log("m")

        assert len(receiver.wait_for(1)) == 1

    def test_gzip_or_not(self, make, receiver):
        for gzip in (True, False):
            exporter = make(gzip=gzip)
            exporter.export_log("x" * 5000)
            exporter.flush(10)

        sizes = [seen["size"] for seen in receiver.stats()["seen"]]
        encodings = [seen["headers"].get("Content-Encoding") for seen in receiver.stats()["seen"]]
        assert [r["body"] for r in receiver.records()] == ["x" * 5000] * 2
        assert sizes[0] < 500
        assert sizes[1] > 5000
        assert encodings == ["gzip", None]

    def test_in_dictconfig(self, receiver):
        """By class and parameters, with a level and a filter, as applications write it."""
        name = "shop.dictconfig"
        config = {
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {
                "posthog": {
                    "class": "lipservice.PostHogHandler",
                    "level": "WARNING",
                    "config": {"api_key": "phc_x", "endpoint": receiver.url},
                    "flush_interval": 0.1,
                }
            },
            "loggers": {name: {"handlers": ["posthog"], "level": "DEBUG", "propagate": False}},
        }
        logging.config.dictConfig(config)
        logging.getLogger(name).info("no")
        logging.getLogger(name).error("yes")
        (handler,) = logging.getLogger(name).handlers
        assert handler.exporter.flush(10)
        handler.close()
        logging.getLogger(name).handlers.clear()

        assert [r["body"] for r in receiver.records()] == ["yes"]

    def test_filters_of_the_handler_are_asked_and_may_replace(self, make, receiver, logger):
        exporter = make()
        handler = PostHogHandler(exporter=exporter)
        handler.addFilter(lambda record: "secret" not in record.msg)
        logger.addHandler(handler)
        logger.info("secret")
        logger.info("open")
        exporter.flush(10)

        assert [r["body"] for r in receiver.records()] == ["open"]


class TestFaults:
    def test_five_percent_of_failing_requests_cost_no_record(self, make, receiver):
        receiver.misbehave(
            {"kind": "status", "status": 503, "headers": {"Retry-After": "0"}, "share": 0.05}
        )
        exporter = make(batch_size=20)
        for n in range(4000):
            exporter.export_log(f"m{n}")
        exporter.flush(60)

        assert sorted(r["body"] for r in receiver.records()) == sorted(f"m{n}" for n in range(4000))
        assert receiver.stats()["answers"]["503"] > 0
        assert exporter.health()["delivered"] == 4000

    @pytest.mark.parametrize("seed", range(6))
    def test_random_trouble_balances(self, make, receiver, seed, tmp_path):
        draw = random.Random(seed)
        kinds = [
            {"kind": "status", "status": 500},
            {"kind": "status", "status": 413},
            {"kind": "status", "status": 429, "headers": {"Retry-After": "0"}},
            {"kind": "reset"},
            {"kind": "garbage"},
            {"kind": "poison", "text": "m7 "},
            {"kind": "partial", "rejected": 1},
        ]
        receiver.misbehave(*[{**kind, "share": 0.08} for kind in draw.sample(kinds, 3)])
        exporter = make(
            batch_size=draw.choice([5, 50]),
            max_retries=1,
            max_queue_size=draw.choice([50, 10_000]),
            spool_dir=tmp_path if seed % 2 else None,
        )
        threads = [
            threading.Thread(
                target=lambda: [
                    exporter.export_log(f"m{n} x", draw.choice(["INFO", "ERROR"]))
                    for n in range(150)
                ]
            )
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        exporter.flush(3)
        exporter.stop(2)
        health = exporter.health()

        assert health["emitted"] == 600
        assert balanced(health), health
        assert receiver.stats()["records"] >= health["delivered"]

    def test_after_an_outage_delivery_resumes(self, make, receiver):
        receiver.misbehave({"kind": "reset", "times": 2})
        exporter = make()
        exporter.export_log("m")

        assert [r["body"] for r in receiver.wait_for(1)] == ["m"]

    def test_an_acknowledgement_that_is_lost_may_double_but_never_lose(self, make, receiver):
        receiver.misbehave({"kind": "accept_then_reset", "times": 1})
        exporter = make()
        exporter.export_log("m")
        exporter.flush(10)

        assert [r["body"] for r in receiver.records()] == ["m", "m"]
        assert exporter.health()["delivered"] == 1


class TestSelfFeeding:
    def test_the_root_logger_at_debug_gets_nothing_of_ours(self, receiver):
        """OpenTelemetry's handler feeds itself for ever here (RELIABILITY.md A2.2)."""
        done, _ = run_program(
            """
            import http.client, logging, sys, time, warnings
            from lipservice.export.handler import PostHogHandler
            http.client.HTTPConnection.debuglevel = 1
            logging.captureWarnings(True)
            warnings.simplefilter("always")
            handler = PostHogHandler(api_key="phc_x", endpoint=sys.argv[1], flush_interval=0.05)
            seen = []
            class Other(logging.Handler):
                def emit(self, record):
                    seen.append(record.name)
            root = logging.getLogger()
            root.setLevel(logging.DEBUG)
            root.addHandler(handler)
            root.addHandler(Other())
            logging.getLogger("app").info("one")
            time.sleep(1.5)
            health = handler.exporter.health()
            print(health["emitted"], health["requests"], *sorted(set(seen)))
            """,
            receiver.url,
        )

        assert done.stdout.split() == ["1", "1", "app", "lipservice"], done
        assert len(receiver.records()) == 1

    def test_the_logger_lipservice_is_never_sent(self, make, receiver):
        handler = PostHogHandler(exporter=make())
        for name, sent in [
            ("lipservice", 0),
            ("lipservice.export", 0),
            ("lipservicex", 1),
            ("", 1),
        ]:
            handler.handle(logging.LogRecord(name, 20, "p", 1, "m", (), None))
            handler.exporter.flush(5)
            assert handler.exporter.health()["emitted"] == sent + (name == "")


class TestReentrancy:
    """Goal G8: code that logs where nobody expects it."""

    def test_finalizers_that_log_at_every_allocation(self, receiver):
        done, _ = run_program(
            """
            import gc, logging, sys
            from lipservice.export.handler import PostHogHandler
            handler = PostHogHandler(api_key="phc_x", endpoint=sys.argv[1], batch_size=50, flush_interval=0.05)
            log = logging.getLogger("app")
            log.setLevel(logging.DEBUG)
            log.addHandler(handler)
            class Noisy:
                def __init__(self):
                    self.me = self  # only the collector finds it
                def __del__(self):
                    log.debug("gone")
            gc.set_threshold(1)
            for n in range(10_000):
                Noisy()
                log.info("n %d", n)
            gc.set_threshold(700)
            gc.collect()
            handler.exporter.flush(20)
            health = handler.exporter.health()
            print(health["emitted"], health["emitted"] == health["delivered"] + sum(health["dropped"].values()))
            """,
            receiver.url,
            timeout=100,
        )

        assert done.returncode == 0, done
        emitted, balances = done.stdout.split()
        assert int(emitted) > 19_000
        assert balances == "True"

    def test_signal_handlers_that_log(self, receiver):
        done, _ = run_program(
            """
            import logging, signal, sys
            from lipservice.export.handler import PostHogHandler
            handler = PostHogHandler(api_key="phc_x", endpoint=sys.argv[1], batch_size=20, flush_interval=0.05)
            log = logging.getLogger("app")
            log.setLevel(logging.DEBUG)
            count = [0]
            def interrupt(*args):
                count[0] += 1
                handler.handle(logging.LogRecord("app", 30, "p", 1, "signal %d", (count[0],), None))
            signal.signal(signal.SIGALRM, interrupt)
            signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
            for n in range(10_000):
                handler.handle(logging.LogRecord("app", 20, "p", 1, "n %d", (n,), None))
            signal.setitimer(signal.ITIMER_REAL, 0)
            handler.exporter.flush(20)
            health = handler.exporter.health()
            print(health["emitted"] == 10_000 + count[0], health["delivered"] + sum(health["dropped"].values()) == health["emitted"])
            """,
            receiver.url,
        )

        assert done.stdout.split() == ["True", "True"], done

    def test_dictconfig_while_records_are_being_sent(self, receiver):
        """It closes handlers while it holds logging's lock, which the worker may want."""
        receiver.misbehave({"kind": "slow", "seconds": 0.3})
        done, _ = run_program(
            """
            import logging, logging.config, sys, time
            from lipservice.export import exporter as module
            config = {"version": 1, "disable_existing_loggers": False, "handlers": {"p": {"class": "lipservice.PostHogHandler", "api_key": "phc_x",
                "endpoint": sys.argv[1], "flush_interval": 0.02}}, "root": {"handlers": ["p"], "level": "DEBUG"}}
            longest = 0.0
            for n in range(10):
                started = time.monotonic()
                logging.config.dictConfig(config)
                longest = max(longest, time.monotonic() - started)
                logging.getLogger("app").info("n %d", n)
                time.sleep(0.05)
            deadline = time.monotonic() + 15
            while module._lingering and time.monotonic() < deadline:
                time.sleep(0.05)
            logging.getLogger().handlers[0].exporter.flush(10)
            print(longest < 1.5)
            """,
            receiver.url,
        )

        assert done.stdout.split() == ["True"], done
        assert sorted(r["body"] for r in receiver.records()) == sorted(f"n {n}" for n in range(10))

    def test_a_complaint_of_the_export_does_not_come_back(self, make, receiver, logger):
        receiver.misbehave({"kind": "status", "status": 404})
        exporter = make()
        handler = PostHogHandler(exporter=exporter)
        own = logging.getLogger("lipservice")
        own.addHandler(handler)
        try:
            exporter.export_log("m")
            exporter.flush(5)
            exporter.flush(5)
        finally:
            own.removeHandler(handler)

        assert exporter.health()["emitted"] == 1


class TestExit:
    """Goal G6: the interpreter ends in time, and what was queued is sent, spooled or counted."""

    program = """
        import logging, sys, time
        from lipservice.export.handler import PostHogHandler
        handler = PostHogHandler(api_key="phc_x", endpoint=sys.argv[1], spool_dir=sys.argv[2] or None)
        log = logging.getLogger("app")
        log.setLevel(logging.DEBUG)
        log.addHandler(handler)
        for n in range(3000):
            log.info("n %d", n)
        print(time.monotonic(), flush=True)
    """

    def exit_seconds(self, done):
        assert done.returncode == 0, done
        assert done.stderr == ""
        return time.monotonic() - float(done.stdout)

    def test_a_receiver_that_is_up_gets_everything(self, receiver):
        done, _ = run_program(self.program, receiver.url, "")

        self.exit_seconds(done)
        assert len(receiver.records()) == 3000

    @pytest.mark.parametrize("kind", ["refused", "hang", "drip"])
    def test_others_are_not_waited_for(self, receiver, kind, tmp_path):
        receiver.misbehave({"kind": kind, "seconds": 20, "bytes": 200} if kind != "refused" else {})
        url = receiver.url if kind != "refused" else "http://127.0.0.1:1/"
        done, _ = run_program(self.program, url, str(tmp_path))
        took = self.exit_seconds(done)

        # 2 s are allowed; the rest is for a machine that is busy with other things.
        assert took < 6.0
        receiver.reset()
        exporter = PostHogOTLPExporter(
            PostHogConfig(api_key="phc_x", endpoint=url, spool_dir=tmp_path)
        )
        exporter._spool.adopt()
        assert exporter._spool.records() == 3000
        exporter._spool.close()

    def test_logging_in_an_atexit_function_is_harmless(self, receiver):
        done, _ = run_program(
            """
            import atexit, logging, sys
            from lipservice.export.handler import PostHogHandler
            handler = PostHogHandler(api_key="phc_x", endpoint=sys.argv[1])
            log = logging.getLogger("app")
            log.addHandler(handler)
            atexit.register(lambda: log.warning("early"))
            log.warning("first")
            atexit.register(lambda: log.warning("late"))
            """,
            receiver.url,
        )

        assert (done.returncode, done.stderr) == (0, "")
        assert "first" in [r["body"] for r in receiver.records()]

    def test_an_exporter_that_logged_nothing_costs_nothing(self, receiver):
        done, _ = run_program(
            """
            import sys, threading
            from lipservice.export.handler import PostHogHandler
            handler = PostHogHandler(api_key="phc_x", endpoint=sys.argv[1])
            print(threading.active_count())
            """,
            receiver.url,
        )

        assert done.stdout.split() == ["1"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
class TestFork:
    def test_forks_under_load_send_everything_once(self, receiver):
        done, _ = run_program(
            """
            import logging, os, sys, threading, time, warnings
            warnings.simplefilter("ignore", DeprecationWarning)
            from lipservice.export.handler import PostHogHandler
            handler = PostHogHandler(api_key="phc_x", endpoint=sys.argv[1], batch_size=7, flush_interval=0.05)
            log = logging.getLogger("app")
            log.setLevel(logging.DEBUG)
            log.addHandler(handler)
            stop = threading.Event()
            sent = [0]
            def load():
                while not stop.is_set():
                    log.info("parent %d", sent[0])
                    sent[0] += 1
                    time.sleep(0.0005)
            thread = threading.Thread(target=load, daemon=True)
            thread.start()
            for n in range(60):
                pid = os.fork()
                if pid == 0:
                    try:
                        for m in range(5):
                            log.info("child %d %d", n, m)
                        handler.exporter.flush(30)
                        health = handler.exporter.health()
                        print(health if health["delivered"] != 5 else "", end="", flush=True)
                        os._exit(0 if health["delivered"] == 5 else 3)
                    except BaseException:
                        os._exit(4)
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                assert status == 0, status
            stop.set()
            thread.join()
            handler.exporter.flush(10)
            print(sent[0])
            """,
            receiver.url,
            timeout=100,
        )

        assert done.returncode == 0, done
        expected = [f"parent {n}" for n in range(int(done.stdout))]
        expected += [f"child {n} {m}" for n in range(60) for m in range(5)]
        assert sorted(r["body"] for r in receiver.records()) == sorted(expected)

    def test_our_threads_import_nothing(self, receiver, tmp_path):
        """A fork in the middle of an import leaves the child half a module, and no way to send."""
        done, _ = run_program(
            """
            import sys, threading
            class Imports:
                found = set()
                def find_spec(self, name, *_):
                    if threading.current_thread() is not threading.main_thread():
                        self.found.add((threading.current_thread().name, name))
            sys.meta_path.insert(0, Imports())
            import logging, os, time
            import lipservice
            from tests.support.policy_server import PolicyServer
            url, spool = sys.argv[1:]
            tls = "https" + url.removeprefix("http").replace("127.0.0.1", "localhost")
            log = logging.getLogger("app")
            log.setLevel(logging.DEBUG)
            def load():
                for n in range(20):
                    log.info(f"hello {n}")
                    try:
                        raise ValueError(n)
                    except ValueError:
                        log.exception("failed %d", n)
                    time.sleep(0.05)
            def export(**settings):
                log.addHandler(lipservice.PostHogHandler(
                    api_key="phc_x", flush_interval=0.01, max_retries=0, **settings
                ))
            export(endpoint=url, spool_dir=spool + "1")
            export(endpoint=tls, spool_dir=spool + "2")
            os.environ["HTTPS_PROXY"] = url.replace("//", "//user:word@")
            export(endpoint=tls)
            load()
            for handler in log.handlers:
                handler.exporter.stop(5)
            with PolicyServer() as server:  # after the exporters: requests imports much that they may need
                client = lipservice.LipServiceClient(server.url, "key", "shop")
                sampler = lipservice.AdaptiveSampler(
                    client, policy_refresh_interval=0.1, pattern_report_interval=0.1
                )
                log.addFilter(lipservice.SamplingFilter(sampler=sampler))
                load()
                sampler.shutdown()
                assert server.counted, "it has reported"
            print(sorted(i for i in Imports.found if i[0].startswith("lipservice")))
            """,
            receiver.url,
            str(tmp_path / "spool"),
        )

        assert (done.stdout, done.stderr) == ("[]\n", "")
        assert receiver.records()

    def test_each_lock_held_at_the_fork(self, receiver):
        """A child that inherits any of our locks locked still logs, flushes and ends."""
        done, _ = run_program(
            """
            import os, sys, warnings
            warnings.simplefilter("ignore", DeprecationWarning)
            from lipservice.export.config import PostHogConfig
            from lipservice.export.exporter import PostHogOTLPExporter
            exporter = PostHogOTLPExporter(PostHogConfig(api_key="phc_x", endpoint=sys.argv[1], flush_interval=0.05))
            exporter.export_log("parent")
            exporter.flush(10)
            locks = [exporter._settling, exporter._worker._starting, exporter._lanes.overflowed._lock, exporter._losses.late._lock]
            import threading
            for lock in locks:
                ready, release = threading.Event(), threading.Event()
                def hold():
                    with lock:
                        ready.set()
                        release.wait()
                thread = threading.Thread(target=hold)
                thread.start()
                ready.wait()
                pid = os.fork()
                if pid == 0:
                    exporter.export_log("child")
                    ok = exporter.flush(10)
                    exporter.stop()
                    os._exit(0 if ok and exporter.health()["delivered"] == 1 else 3)
                release.set()
                thread.join()
                assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            """,
            receiver.url,
        )

        assert done.returncode == 0, done
        assert sorted(r["body"] for r in receiver.records()) == ["child"] * 4 + ["parent"]

    def test_a_preloading_server(self, receiver):
        """The handler made in the master, records in its workers (gunicorn --preload)."""
        done, _ = run_program(
            """
            import logging, multiprocessing, sys, warnings
            warnings.simplefilter("ignore", DeprecationWarning)
            from lipservice.export.handler import PostHogHandler
            handler = PostHogHandler(api_key="phc_x", endpoint=sys.argv[1])
            logging.getLogger().addHandler(handler)
            logging.getLogger("app").warning("master")
            def work(n):
                logging.getLogger("app").warning("worker %d", n)
            context = multiprocessing.get_context("fork")
            workers = [context.Process(target=work, args=(n,)) for n in range(3)]
            for worker in workers: worker.start()
            for worker in workers: worker.join()
            """,
            receiver.url,
        )

        assert done.returncode == 0, done
        assert sorted(r["body"] for r in receiver.records()) == [
            "master",
            "worker 0",
            "worker 1",
            "worker 2",
        ]
        assert len({r["resource"]["process.pid"] for r in receiver.records()}) == 4
