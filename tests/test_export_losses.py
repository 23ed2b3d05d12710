"""What an exporter lost is told by signature, severity, policy, rule and reason, to the record."""

from __future__ import annotations

import gc
import logging
import os
import random
import subprocess
import sys
import textwrap
import threading
from collections import Counter

import pytest

from lipservice._answers import HTTPAnswer
from lipservice.export.config import PostHogConfig
from lipservice.export.exporter import PostHogOTLPExporter, exporters
from lipservice.export.handler import PostHogHandler
from lipservice.export.losses import Loss, Losses, by_reason, of_entries, process_losses
from lipservice.export.otlp import whose
from lipservice.integrations.stdlib import SamplingFilter
from lipservice.policy import SamplingPolicy
from lipservice.sampler import AdaptiveSampler
from tests.support.export_bench import Bench
from tests.support.otlp_receiver import Receiver
from tests.test_export_accounting import run

ATTRIBUTES = ("signature", "weight", "rate", "template", "rule", "policy")


def stamped(signature="0123456789abcdef", policy="7", rule="rate"):
    return {
        "lipservice_signature": signature,
        "lipservice_policy": policy,
        "lipservice_rule": rule,
        "lipservice_weight": 10.0,
        "lipservice_rate": 0.1,
    }


def gains(before, after):
    return {key: n - before.get(key, 0) for key, n in after.items() if n != before.get(key, 0)}


@pytest.mark.parametrize("part", range(2))
def test_the_sums_are_those_of_health_in_random_runs(part, tmp_path):
    for seed in range(5000 + part * 150, 5150 + part * 150):
        bench, _ = run(seed, tmp_path)

        assert by_reason(bench.exporter.losses()) == bench.health()["dropped"]


def test_each_record_of_a_dropped_batch_is_told_under_its_own_signature():
    bench = Bench(attributes=ATTRIBUTES)
    draw = random.Random(5)
    expected = Counter()
    for _ in range(200):
        signature = f"{draw.randrange(20):016x}"
        severity = draw.choice(["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"])
        policy, rule = draw.choice(["7", "8"]), draw.choice(["rate", "first", "error"])
        bench.exporter.export_log("x", severity, **stamped(signature, policy, rule))
        expected[Loss(signature, severity, policy, rule, "bad_request")] += 1
    bench.network.default = 400
    bench.flush()
    losses = bench.exporter.losses()
    (reason,) = {loss.reason for loss in losses}

    assert losses == {loss._replace(reason=reason): n for loss, n in expected.items()}


def test_what_a_record_does_not_carry_is_not_known():
    bench = Bench(attributes=("signature", "weight"))
    bench.exporter.export_log("x", "INFO", **stamped())
    bench.exporter.export_log("lip_sig is in the text only", "INFO", lip="lip_sig")
    bench.network.default = 400
    bench.flush()

    assert sorted(loss[:4] for loss in bench.exporter.losses()) == [
        ("", "INFO", None, ""),
        ("0123456789abcdef", "INFO", None, ""),
    ]


def test_a_full_queue_and_a_stopped_exporter_tell_severities_only():
    bench = Bench(max_queue_size=10)
    for n in range(15):
        bench.exporter.export_log(str(n), "DEBUG", **stamped())
    for n in range(4):
        bench.exporter.export_log(str(n), "WARNING", **stamped())
    bench.flush()
    bench.exporter.stop()
    bench.exporter.export_log("late", "ERROR")
    bench.exporter.miss()

    assert bench.exporter.losses() == {
        Loss("", "DEBUG", None, "", "overflow"): 9,
        Loss("", "ERROR", None, "", "stopped"): 1,
        Loss("", "UNKNOWN", None, "", "internal"): 1,
    }


def test_a_severity_number_that_is_none_is_counted_all_the_same():
    bench = Bench(max_queue_size=1)
    for number in (0, 25, -1, 9):
        bench.exporter.submit((1.0, number, *[""] * 11))

    assert bench.exporter.losses() == {
        Loss("", "UNKNOWN", None, "", "overflow"): 2,
        Loss("", "INFO", None, "", "overflow"): 1,
    }


def test_what_the_shutdown_leaves_in_the_queue_is_told_by_signature():
    bench = Bench(attributes=ATTRIBUTES, batch_size=5)
    bench.network.default = 503
    for n in range(12):
        bench.exporter.export_log("x", "INFO", **stamped(f"{n % 2:016x}"))
    bench.exporter.stop()
    losses = bench.exporter.losses()

    assert {loss.reason for loss in losses} == {"shutdown"}
    assert sorted((loss.signature, n) for loss, n in losses.items()) == [
        ("0" * 16, 6),
        (f"{1:016x}", 6),
    ]
    assert {(loss.policy, loss.rule) for loss in losses} == {("7", "rate")}


def test_partly_rejected_batches_do_not_guess():
    bench = Bench(attributes=ATTRIBUTES, batch_size=4)
    bench.network.answers = [
        HTTPAnswer(200, {}, b"\x0a\x02\x08\x01"),
        HTTPAnswer(200, {}, b"\x0a\x02\x08\x04"),
    ]
    for _ in range(8):
        bench.exporter.export_log("x", "INFO", **stamped())
    bench.flush()

    assert bench.exporter.losses() == {
        Loss("", "UNKNOWN", None, "", "rejected"): 1,
        Loss("0123456789abcdef", "INFO", "7", "rate", "rejected"): 4,
    }


def test_the_spool_tells_whose_it_gave_up(tmp_path):
    bench = Bench(
        attributes=ATTRIBUTES, spool_dir=tmp_path, spool_max_age=60, max_retries=0, batch_size=3
    )
    bench.network.default = 503
    for n in range(6):
        bench.exporter.export_log("x", "INFO", **stamped(f"{n // 3:016x}"))
    bench.flush()
    for _ in range(4):
        bench.turn(60.0)
    losses = bench.exporter.losses()

    assert {loss[:3]: n for loss, n in losses.items()} == {
        ("0" * 16, "INFO", "7"): 3,
        (f"{1:016x}", "INFO", "7"): 3,
    }
    assert {loss.reason for loss in losses} == {"spool_expired"}


def test_a_spool_file_that_cannot_be_read_is_counted_as_its_name_says(tmp_path):
    bench = Bench(attributes=ATTRIBUTES, spool_dir=tmp_path, max_retries=0, batch_size=3)
    bench.network.default = 503
    for _ in range(3):
        bench.exporter.export_log("x", "INFO", **stamped())
    bench.flush()
    (path,) = tmp_path.rglob("*.batch")
    path.write_bytes(path.read_bytes()[:-9])
    bench.turn(60.0)

    assert bench.exporter.losses() == {Loss("", "UNKNOWN", None, "", "spool_corrupt"): 3}


def test_two_thousand_losses_are_told_apart_and_the_rest_is_counted():
    losses = Losses()
    for n in range(5000):
        losses.add({Loss(f"{n:016x}", ("INFO", "ERROR")[n % 2], "1", "rate", "timeout"): 2})
    counts = losses.counts()

    assert len(counts) == 2002
    assert counts["other", "INFO", None, "", "timeout"] == 3000
    assert by_reason(counts) == {"timeout": 10_000}


@pytest.mark.parametrize("seed", range(3))
def test_bytes_that_are_no_record_raise_nothing(seed):
    draw = random.Random(seed)
    bench = Bench(attributes=ATTRIBUTES)
    bench.exporter.export_log("x" * 200, "INFO", **stamped())
    bench.exporter._take_from_lanes()
    ((_, item),) = bench.exporter._pending[0].items
    assert whose(item) == (9, "0123456789abcdef", "7", "rate")
    for _ in range(3000):
        broken = bytearray(item)
        for _ in range(draw.choice([1, 3])):
            broken[draw.randrange(len(broken))] = draw.randrange(256)
        whose(bytes(broken[: draw.choice([len(broken), draw.randrange(1, len(broken))])]))


def test_entries_of_any_make_are_counted():
    odd = [(), (1.0, "x", *[None] * 12), (1.0, 9, "", "", "", None, None, ([], 1), "", 0, "")]

    assert sum(of_entries("internal", odd).values()) == 3


def test_threads_that_lose_at_once_lose_nothing_of_the_count():
    bench = Bench(max_queue_size=50)
    reading = threading.Event()

    def log(severity):
        for _ in range(3000):
            bench.exporter.export_log("x", severity)

    def read():
        while not reading.is_set():
            bench.exporter.losses()

    reader = threading.Thread(target=read)
    threads = [threading.Thread(target=log, args=(name,)) for name in ("DEBUG", "INFO", "ERROR")]
    for thread in (reader, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    reading.set()
    reader.join()
    losses = bench.exporter.losses()
    left = Counter(entry[1] for entry in bench.exporter._lanes.take(100))

    assert sum(losses.values()) + sum(left.values()) == 9000
    for severity, number in (("DEBUG", 5), ("INFO", 9), ("ERROR", 17)):
        assert losses.get(Loss("", severity, None, "", "overflow"), 0) + left[number] == 3000


def test_what_a_collected_exporter_lost_stays_lost():
    before = process_losses()
    bench = Bench()
    bench.exporter.stop()
    bench.log("late", "late too", severity="ERROR")
    assert bench.exporter in exporters()
    first = process_losses()
    del bench
    gc.collect()

    late = Loss("", "ERROR", None, "", "stopped")
    assert gains(before, first) == {late: 2}
    assert gains(before, process_losses()) == {late: 2}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_has_lost_nothing_yet():
    script = """
    import gc, os
    from lipservice.export.config import PostHogConfig
    from lipservice.export.exporter import PostHogOTLPExporter
    from lipservice.export.losses import process_losses
    gone = PostHogOTLPExporter(PostHogConfig(api_key="phc_x", endpoint="http://127.0.0.1:9"))
    kept = PostHogOTLPExporter(PostHogConfig(api_key="phc_x", endpoint="http://127.0.0.1:9"))
    for exporter in (gone, kept):
        exporter.stop()
        exporter.export_log("late")
    del gone, exporter
    gc.collect()
    assert sum(process_losses().values()) == 2
    pid = os.fork()
    if pid == 0:
        ok = process_losses() == kept.losses() == {}
        kept.export_log("late")
        ok = ok and sum(process_losses().values()) == 1
        os._exit(0 if ok else 3)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert sum(process_losses().values()) == 2
    """
    subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(script)],
        timeout=60,
        check=True,
    )


@pytest.fixture(scope="module")
def receiver():
    with Receiver() as started:
        yield started


def test_what_is_kept_is_delivered_or_told_as_lost_for_each_pattern(receiver):
    """A sampler, a real exporter, and a receiver that refuses batches with one bad record."""
    receiver.reset()
    receiver.misbehave({"kind": "poison", "text": "user 13 "}, {"kind": "partial", "rejected": 0})
    sampler = AdaptiveSampler(
        policy=SamplingPolicy(policy_id="p", sampling_rate=0.5), notices=False
    )
    exporter = PostHogOTLPExporter(
        PostHogConfig(
            api_key="phc_x",
            endpoint=receiver.url,
            attributes=ATTRIBUTES,
            batch_size=20,
            max_retries=0,
        )
    )
    handler = PostHogHandler(exporter=exporter)
    handler.addFilter(SamplingFilter(sampler=sampler))
    logger = logging.getLogger("tests.losses")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    for n in range(300):
        logger.info("user %d logged in", n % 30)
        logger.warning("cache %d is cold", n)
    exporter.flush(20)
    exporter.stop()
    sampler.shutdown()
    delivered = Counter(record["attributes"]["lip_sig"] for record in receiver.records())
    lost = Counter()
    for loss, records in exporter.losses().items():
        lost[loss.signature] += records
    kept = {entry.signature: 0 for entry in sampler.ledger()}
    for entry in sampler.ledger():
        kept[entry.signature] += entry.kept

    assert by_reason(exporter.losses()) == exporter.health()["dropped"]
    assert sum(lost.values()) > 0
    assert {sig: delivered[sig] + lost[sig] for sig in kept} == kept
