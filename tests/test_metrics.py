"""The ledger as OpenTelemetry metrics and Prometheus text: exact, and no counter ever falls."""

from __future__ import annotations

import gc
import gzip
import logging
import os
import random
import subprocess
import sys
import textwrap
import threading
from collections import Counter, defaultdict
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import prometheus_client
import pytest
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.sdk import metrics as otel_metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    InMemoryMetricReader,
    PeriodicExportingMetricReader,
)
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics_text
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families

import lipservice
from lipservice.exceptions import ConfigurationError
from lipservice.export.losses import process_losses
from lipservice.integrations.stdlib import SamplingFilter
from lipservice.metrics import PrometheusCollector, accounts, instrument, prometheus_text
from lipservice.metrics.accounts import Accounts, BySeverity, Records
from lipservice.policy import SamplingPolicy
from lipservice.sampler import AdaptiveSampler, samplers
from tests.support.export_bench import Bench


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def policy(name="1", rate=0.1, **kw):
    return SamplingPolicy(policy_id=name, sampling_rate=rate, **{"keep_first": 3, **kw})


def sampler(seed=1, size=10_000, first=None, service=None, clock=None):
    made = AdaptiveSampler(
        max_pattern_cache_size=size,
        policy=policy() if first is None else first,
        notices=False,
        rng=random.Random(seed),
        clock=clock or Clock(),
    )
    made._after_slow_path = lambda: None  # no background thread: the test ticks
    made.service_name = service
    return made


def log(made, times=1000, text="user {} logged in", severity="INFO"):
    for n in range(times):
        made.should_sample(text.format(n), severity)


def otel(made=None, *, patterns=False, delta=False, limit=None):
    """A function that collects: name -> attributes -> value."""
    kinds = (otel_metrics.ObservableCounter, otel_metrics.ObservableUpDownCounter)
    temporality = dict.fromkeys(kinds, AggregationTemporality.DELTA) if delta else None
    reader = InMemoryMetricReader(preferred_temporality=temporality)
    provider = MeterProvider([reader])
    instrument(provider, sampler=made, patterns=patterns)

    def collect():
        data = reader.get_metrics_data()
        return {
            metric.name: {
                frozenset(point.attributes.items()): point.value
                for point in metric.data.data_points
            }
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    collect.provider = provider
    return collect


def scraped(made=None, *, patterns=False):
    """name -> labels -> value, as Prometheus reads it."""
    return parsed(prometheus_text(made, patterns))


def parsed(text, families=text_string_to_metric_families):
    values = defaultdict(dict)
    for family in families(text):
        for sample in family.samples:
            labels = frozenset((k, v) for k, v in sample.labels.items() if v)
            assert labels not in values[sample.name]
            values[sample.name][labels] = sample.value
    return values


def total(values, **labels):
    """Sum of the series that have these labels, with or without OpenTelemetry's prefix."""
    wanted = set(labels.items())
    return sum(
        value
        for key, value in values.items()
        if wanted <= {(name.removeprefix("lipservice."), each) for name, each in key}
    )


def by_outcome(records, ended=()):
    sums = Counter()
    for values in (records, dict(ended)):
        for outcome in ("kept", "dropped"):
            sums[outcome] += int(total(values, outcome=outcome))
    return sums


def of_totals(made):
    totals = made.totals()
    return Counter(kept=totals.kept, dropped=totals.dropped + totals.capped - totals.shadowed)


def assert_exact(made, values):
    """Prometheus's sums are the sampler's totals."""
    records, ended = values["lipservice_records_total"], values.get("lipservice_ended_records", {})
    assert by_outcome(records, ended) == of_totals(made)
    held = int(total(values.get("lipservice_held_records", {})))
    assert held == made.totals().held
    assert sum(by_outcome(records, ended).values()) + held == made.totals().seen
    assert int(total(values["lipservice_seen_records_total"])) == made.totals().seen


class Watch:
    """Looks like Prometheus does: no series falls while it is there; increases are added up."""

    def __init__(self):
        self.before = {}
        self.ever = {}
        self.increase = Counter()

    def look(self, series):
        for key, value in series.items():
            assert value >= self.ever.get(key, 0), f"{dict(key)} fell to {value}"
            self.increase[dict(key).get("outcome")] += value - self.ever.get(key, 0)
            self.ever[key] = value
        self.before = series


# ---------------------------------------------------------------------- what is told


def test_both_ways_tell_the_ledger_by_outcome_rule_severity_policy_and_service():
    made = sampler(service="shop")
    log(made)
    log(made, 5, severity="ERROR", text="boom {}")
    kept = sum(entry.kept for entry in made.ledger() if entry.rule == "rate")
    expected = {
        ("kept", "first", "INFO"): 3,
        ("kept", "rate", "INFO"): kept,
        ("dropped", "rate", "INFO"): 997 - kept,
        ("kept", "error", "ERROR"): 5,
    }
    labels = {
        key: {
            "outcome": key[0],
            "rule": key[1],
            "severity": key[2],
            "policy": "1",
            "service": "shop",
        }
        for key in expected
    }

    assert scraped(made)["lipservice_records_total"] == {
        frozenset(labels[key].items()): n for key, n in expected.items()
    }
    assert otel(made)()["lipservice.records"] == {
        frozenset((f"lipservice.{k}", v) for k, v in labels[key].items()): n
        for key, n in expected.items()
    }


def test_without_a_policy_its_label_is_none():
    made = AdaptiveSampler(notices=False)
    log(made, 10)

    (labels,) = scraped(made)["lipservice_records_total"]
    assert dict(labels)["policy"] == "none"


def test_patterns_are_told_by_signature_and_severity():
    made = sampler()
    log(made)
    log(made, 50, text="cache {} is cold")
    values = scraped(made, patterns=True)["lipservice_pattern_records_total"]

    assert values == {
        key: value
        for key, value in otel_as_prometheus(otel(made, patterns=True)()).items()
        if value
    }
    for entry in made.ledger():
        of_it = total(values, signature=entry.signature, severity=entry.severity)
        assert of_it == sum(e.seen for e in made.ledger() if e.signature == entry.signature)
    assert not scraped(made)["lipservice_pattern_records_total"]
    assert "lipservice.pattern_records" not in otel(made)()


def otel_as_prometheus(values):
    return {
        frozenset((k.removeprefix("lipservice."), v) for k, v in key): value
        for key, value in values["lipservice.pattern_records"].items()
    }


def test_the_limit_is_a_rule_of_its_own():
    made = sampler(first=policy(rate=1.0, max_logs_per_minute=20))
    log(made, 500)
    values = scraped(made)

    assert total(values["lipservice_records_total"], rule="limit", outcome="dropped") > 0
    assert_exact(made, values)


def test_shadow_mode_keeps_everything_and_tells_what_it_would_have_dropped():
    made = sampler(first=policy(mode="shadow"))
    log(made)
    values = scraped(made)

    assert total(values["lipservice_records_total"], outcome="dropped") == 0
    assert total(values["lipservice_records_total"], outcome="kept") == 1000
    assert total(values["lipservice_shadowed_records_total"]) == made.totals().shadowed > 800
    assert total(otel(made)()["lipservice.shadowed_records"]) == made.totals().shadowed


def test_a_record_in_doubt_stays_under_no_policy_when_the_policy_changes(swallowed):
    made = sampler()
    watch = Watch()
    for name in "123":
        made.apply_policy(policy(name))
        made.decide_message("x", Unspeakable())
        watch.look(scraped(made)["lipservice_records_total"])
    swallowed.clear()

    assert total(watch.before, rule="doubt", policy="none", severity="UNKNOWN") == 3
    assert total(watch.before, rule="doubt") == 3


class Unspeakable:
    def __str__(self):
        raise RuntimeError

    __hash__ = None


def test_requests_hold_release_and_let_go():
    made = sampler(first=policy(rate=1e-9, keep_first=0))
    logger, written = logger_with(made)
    collect = otel(made)
    with lipservice.request("GET /"):
        for n in range(7):
            logger.info("step %d", n)
        during, during_otel = scraped(made), collect()
    let_go = scraped(made)
    with lipservice.request("GET /"):
        for n in range(5):
            logger.info("step %d", n)
        logger.error("failed")
        logger.info("step %d", 5)
    after = scraped(made)

    assert total(during["lipservice_held_records"]) == 7
    assert total(during_otel["lipservice.held_records"]) == 7
    assert total(during["lipservice_records_total"]) == 0
    assert total(let_go["lipservice_records_total"], outcome="dropped") == 7
    assert total(after["lipservice_records_total"], outcome="dropped") == 7
    assert total(after["lipservice_records_total"], outcome="kept") == len(written) == 7
    assert total(after["lipservice_released_records_total"]) == 6
    assert total(collect()["lipservice.released_records"]) == 6
    for values in (during, let_go):
        assert int(total(values["lipservice_seen_records_total"])) == 7
    assert_exact(made, after)


def logger_with(made):
    written = []
    handler = logging.Handler()
    handler.emit = written.append
    handler.addFilter(SamplingFilter(sampler=made))
    logger = logging.getLogger(f"tests.metrics.{id(handler)}")
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    return logger, written


def test_losses_are_told_by_reason_and_severity_and_of_patterns_by_signature():
    made = sampler()
    before = Counter(process_losses())
    was = total(scraped(made)["lipservice_lost_records_total"]) if before else 0
    bench = Bench(batch_size=1, attributes=("signature",))
    bench.network.default = 400
    bench.exporter.export_log("x", "WARNING", lipservice_signature="ab" * 8)
    bench.flush()
    ((loss, _),) = (Counter(process_losses()) - before).items()
    values = scraped(made, patterns=True)
    lost = values["lipservice_lost_records_total"]

    assert total(lost) == was + 1
    assert total(lost, reason=loss.reason, severity="WARNING") >= 1
    of_it = {"signature": "ab" * 8, "reason": loss.reason, "severity": "WARNING"}
    assert total(values["lipservice_pattern_lost_records_total"], **of_it) == 1
    assert total(otel(made)()["lipservice.lost_records"]) == was + 1
    del bench
    gc.collect()
    assert total(scraped(made)["lipservice_lost_records_total"]) == was + 1


# ---------------------------------------------------------------------- no counter falls


@pytest.mark.parametrize("seed", range(6))
def test_policies_come_and_go_and_every_record_is_booked_once(seed):
    """Looks at random times between logging and policy changes, roll-backs among them."""
    draw = random.Random(seed)
    made = sampler(seed)
    cumulative, delta, watch = otel(made), otel(made, delta=True), Watch()
    deltas = Counter()
    for _ in range(120):
        step = draw.random()
        if step < 0.5:
            log(
                made,
                draw.randrange(60),
                draw.choice(["a {}", "b {}"]),
                draw.choice(["INFO", "ERROR"]),
            )
        elif step < 0.7:
            made.apply_policy(policy(str(draw.randrange(8)), draw.random()))
        elif step < 0.85:
            values = scraped(made)
            watch.look(values["lipservice_records_total"])
            assert_exact(made, values)
        else:
            add_deltas(deltas, delta())
            cumulative()
    log(made, 100)
    values = scraped(made)
    watch.look(values["lipservice_records_total"])
    add_deltas(deltas, delta())
    last = cumulative()

    assert_exact(made, values)
    assert watch.increase == of_totals(made)
    assert deltas == of_totals(made)
    assert by_outcome(last["lipservice.records"], last.get("lipservice.ended_records", ())) == (
        of_totals(made)
    )


def add_deltas(sums, values):
    for key, value in values.get("lipservice.records", {}).items():
        assert value >= 0, dict(key)
        sums[dict(key)["lipservice.outcome"]] += value


def test_a_policy_of_long_ago_ends_and_no_rise_is_made_up():
    made = sampler()
    log(made)
    scraped(made)
    for name in "2345":
        made.apply_policy(policy(name))
        log(made, 10)
        values = scraped(made)
    records = values["lipservice_records_total"]

    assert {dict(key)["policy"] for key in records if records[key]} == {"3", "4", "5"}
    assert total(records, policy="earlier") == 0
    assert total(values["lipservice_ended_records"]) == 1010
    assert_exact(made, values)


def test_what_came_and_went_between_two_looks_is_told_as_earlier():
    made = sampler()
    for name in "23456":
        log(made, 100)
        made.apply_policy(policy(name))
    values = scraped(made)

    assert total(values["lipservice_records_total"], policy="earlier") == 300
    assert_exact(made, values)


def test_a_policy_that_comes_back_goes_on_where_it_was():
    made = sampler()
    collect, delta = otel(made), otel(made, delta=True)
    log(made, 500)
    before = collect()["lipservice.records"]
    delta()
    for name in "2345":
        made.apply_policy(policy(name))
        log(made, 10)
        collect()
        delta()
    made.apply_policy(policy("1"))
    log(made, 200)
    after = collect()["lipservice.records"]
    back = {key: value for key, value in after.items() if ("lipservice.policy", "1") in key}

    assert total(back, rule="rate") == 497 + 200
    assert all(value > before[key] for key, value in back.items())
    assert total(delta()["lipservice.records"]) == 200
    assert_exact(made, scraped(made))


def test_policies_are_not_told_apart_beyond_what_the_sdk_remembers():
    made = sampler()
    collect, seen, watch = otel(made), set(), Watch()
    for n in range(150):
        made.apply_policy(policy(f"p{n}"))
        log(made, 20)
        records = collect()["lipservice.records"]
        watch.look({frozenset((k[11:], v) for k, v in key): n for key, n in records.items()})
        seen |= records.keys()

    assert len({dict(key)["lipservice.policy"] for key in seen}) == 64 + 2  # "earlier", "other"
    assert watch.increase == of_totals(made)
    assert "otel.metric.overflow" not in {name for key in seen for name, _ in key}


def test_evicted_patterns_end_and_every_record_is_booked_once():
    clock = Clock()
    made = sampler(size=200, clock=clock)
    watch, delta, deltas = Watch(), otel(made, patterns=True, delta=True), Counter()
    words = [f"{a}{b}" for a in "abcdefghij" for b in "klmnopqrstuvwxyz"]
    draw = random.Random(3)
    for n in range(30):
        for word in draw.sample(words, 60):
            log(made, 5, f"{word} {{}} came", "INFO" if n % 3 else "ERROR")
        watch.look(scraped(made, patterns=True)["lipservice_pattern_records_total"])
        for key, value in delta().get("lipservice.pattern_records", {}).items():
            assert value >= 0
            deltas[dict(key)["lipservice.outcome"]] += value
        clock.now += 400
        made.tick()
    values = scraped(made, patterns=True)
    watch.look(values["lipservice_pattern_records_total"])
    evicted = {e.signature for e in made.ledger()}

    assert "evicted" in evicted
    assert watch.increase == of_totals(made)
    for key, value in delta()["lipservice.pattern_records"].items():
        deltas[dict(key)["lipservice.outcome"]] += value
    assert deltas == of_totals(made)
    assert_exact(made, values)


def test_what_is_remembered_of_ended_policies_is_bounded(monkeypatch):
    monkeypatch.setattr(accounts, "_MOST_ENDED", 10)
    made = sampler()
    for n in range(40):
        made.apply_policy(policy(f"p{n}"))
        log(made, 20)
        assert_exact(made, scraped(made))
    (books,) = accounts.shared_accounts(made)._books.values()

    assert len(accounts.shared_accounts(made)._ended_policies) <= 10
    assert max(map(len, books.by_policy.parts.values())) <= 4  # three policies and "earlier"


@pytest.mark.parametrize("patterns", [False, True])
def test_threads_that_log_while_it_is_scraped(patterns):
    """Exact at the end, and no counter falls in between, whatever else happens to policies."""
    made = sampler()
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    done, failures = threading.Event(), []

    def write(number):
        for n in range(12_000):
            made.should_sample(
                f"user {n} logged in" if n % 3 else f"w{'abcdefghij'[n % 10]} came", "INFO"
            )
            if n % 50 == 0:
                made.should_sample("boom", "ERROR")

    def change():
        for n in range(60):
            made.apply_policy(policy(f"p{n}", (n % 10) / 10))

    def scrape(name, look):
        watch = Watch()
        try:
            while not done.is_set():
                watch.look(look()[name])
            watch.look(look()[name])
        except BaseException as error:
            failures.append(error)
        watches.append(watch)

    watches = []
    name = "lipservice_pattern_records_total" if patterns else "lipservice_records_total"
    looks = [lambda: scraped(made, patterns=patterns)] * 2
    scrapers = [threading.Thread(target=scrape, args=(name, look)) for look in looks]
    log(made, 10)
    writers = [threading.Thread(target=write, args=(n,)) for n in range(3)]
    writers.append(threading.Thread(target=change))
    try:
        for thread in (*scrapers, *writers):
            thread.start()
        for thread in writers:
            thread.join()
        done.set()
        for thread in scrapers:
            thread.join()
    finally:
        sys.setswitchinterval(before)

    assert not failures, failures
    assert made.totals().seen == 10 + 3 * (12_000 + 240)
    assert_exact(made, scraped(made))
    assert sum(of_totals(made).values()) == made.totals().seen
    if patterns:
        assert by_outcome(scraped(made, patterns=True)[name]) == of_totals(made)


def test_requests_that_hold_and_release_while_it_is_scraped():
    made = sampler(first=policy(rate=1e-9, keep_first=0))
    logger, written = logger_with(made)
    logger.info("first of its level")
    logger.error("first of its level")
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    done, watch, failures = threading.Event(), Watch(), []

    def serve():
        for n in range(250):
            with lipservice.request("GET /"):
                for step in range(4):
                    logger.info("step %d", step)
                if n % 2:
                    logger.error("failed")

    def scrape():
        try:
            while not done.is_set():
                watch.look(scraped(made)["lipservice_records_total"])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=serve) for _ in range(3)]
    scraper = threading.Thread(target=scrape)
    try:
        for thread in (scraper, *threads):
            thread.start()
        for thread in threads:
            thread.join()
        done.set()
        scraper.join()
    finally:
        sys.setswitchinterval(before)
    # Between its decision and its hold a record counts as dropped. A counter that ran ahead by
    # those of a look is caught up with by the next ones.
    for failed in (False, True):
        with lipservice.request("GET /"):
            for step in range(10):
                logger.info("step %d", step)
            if failed:
                logger.error("failed")
    values = scraped(made)
    watch.look(values["lipservice_records_total"])

    assert not failures, failures
    assert_exact(made, values)
    assert total(values["lipservice_records_total"], outcome="kept") == len(written)
    assert total(values["lipservice_released_records_total"]) == 3 * 125 * 4 + 10


def test_two_readers_and_a_scrape_tell_the_same():
    made = sampler()
    log(made)
    first, second = otel(made), otel(made)
    first()
    log(made)

    assert first() == second() == first()
    assert by_outcome(first()["lipservice.records"]) == of_totals(made)
    assert by_outcome(scraped(made)["lipservice_records_total"]) == of_totals(made)


# ---------------------------------------------------------------------- samplers come and go


def test_a_sampler_that_is_collected_takes_nothing_from_its_services_counters():
    first, second, both = sampler(service="twins"), sampler(service="twins"), Watch()
    log(first, 300)
    log(second, 200)
    both.look(of_service(scraped()["lipservice_records_total"], "twins"))
    first.shutdown()
    del first
    gc.collect()
    log(second, 10)
    values = scraped()
    both.look(of_service(values["lipservice_records_total"], "twins"))

    assert total(both.before) == 510
    assert total(values["lipservice_seen_records_total"], service="twins") == 510


def of_service(records, service):
    return {key: value for key, value in records.items() if ("service", service) in key}


def test_a_sampler_that_is_alone_and_collected_ends_its_series():
    made = sampler(service="alone")
    log(made, 100)
    assert total(of_service(scraped()["lipservice_records_total"], "alone")) == 100
    del made
    gc.collect()
    values = scraped()

    assert of_service(values["lipservice_records_total"], "alone") == {}
    assert total(values["lipservice_ended_records"], service="alone") == 100


def test_metrics_do_not_keep_a_sampler_alive():
    made = sampler()
    log(made, 10)
    collect, collector = otel(made), PrometheusCollector(made)
    collect()
    list(collector.collect())
    gone = accounts.weakref.ref(made)
    del made
    gc.collect()

    assert gone() is None
    assert "lipservice.held_records" not in collect()
    told = {family.name: family.samples for family in collector.collect()}
    assert told["lipservice_records"] == told["lipservice_held_records"] == []
    assert sum(sample.value for sample in told["lipservice_ended_records"]) == 10


def test_after_shutdown_it_still_tells_and_counts():
    made = sampler()
    log(made, 100)
    made.shutdown()
    log(made, 11)

    assert_exact(made, scraped(made))


def test_a_ledger_that_cannot_be_read_leaves_the_last_values(monkeypatch, caplog):
    made = sampler()
    log(made, 100)
    collect = otel(made)
    before, text = collect(), prometheus_text(made)

    def broken(*, patterns):
        raise RuntimeError("no ledger today")

    monkeypatch.setattr(made, "ledger", broken)

    assert collect() == before
    assert prometheus_text(made) == text
    assert "no ledger today" in caplog.text


def test_names_of_any_text_break_neither_a_scrape_nor_an_export():
    """`os.environ` has lone surrogates where a variable is not UTF-8; a policy's JSON may, too."""
    name = 'sh"op\\\n\udcff{}#é\u2028'
    made = sampler(first=policy(name), service=name)
    log(made, 100)
    others = sampler(first=policy("x" * 100_000), service="y" * 100_000)
    log(others, 10)
    readable = name.replace("\udcff", "?")

    for families in (text_string_to_metric_families, openmetrics_families):
        text = prometheus_text if families is text_string_to_metric_families else _openmetrics
        values = parsed(text(made), families)["lipservice_records_total"]
        assert total(values, service=readable, policy=readable) == 100
    assert len(prometheus_text(others)) < 20_000
    reader = InMemoryMetricReader()
    instrument(MeterProvider([reader]), sampler=made)
    encoded = encode_metrics(reader.get_metrics_data()).SerializeToString()
    assert readable.encode() in encoded


def _openmetrics(made):
    registry = prometheus_client.CollectorRegistry()
    registry.register(PrometheusCollector(made))
    return openmetrics_text(registry).decode()


def test_a_signature_that_a_record_made_up_is_not_told():
    before = process_losses()
    bench = Bench()
    bench.exporter.export_log("x", "INFO", lipservice_signature="ada@example.org")
    bench.exporter.export_log("x", "INFO", lipservice_signature="overflow")
    bench.exporter.export_log("x", "INFO", lipservice_signature=f"{7:016x}")
    bench.network.default = 400
    bench.flush()
    lost = Counter()
    for loss, records in process_losses().items():
        lost[loss.signature] += records - before.get(loss, 0)
    lost += Counter()  # only what has risen

    assert lost == {"": 1, "overflow": 1, f"{7:016x}": 1}
    assert "ada@example.org" not in prometheus_text(patterns=True)


def test_samplers_that_come_and_go_while_they_are_told():
    switching, stop, wrong = sys.getswitchinterval(), threading.Event(), []
    held = [sampler() for _ in range(50)]

    def come_and_go():
        while not stop.is_set():
            AdaptiveSampler(notices=False)

    def tell():
        for _ in range(2000):
            if len(samplers()) < len(held):
                wrong.append(1)

    sys.setswitchinterval(1e-6)
    try:
        others = [threading.Thread(target=come_and_go) for _ in range(2)]
        tellers = [ThreadThatRaises(target=tell) for _ in range(2)]
        for thread in (*others, *tellers):
            thread.start()
        for thread in tellers:
            thread.join()
    finally:
        sys.setswitchinterval(switching)
        stop.set()
    for thread in others:
        thread.join()
    assert ([thread.error for thread in tellers], wrong) == ([None, None], [])


class ThreadThatRaises(threading.Thread):
    error = None

    def run(self):
        try:
            super().run()
        except BaseException as error:
            self.error = error


@pytest.mark.parametrize("which", ["one", "all"])
def test_an_application_that_is_made_twice_goes_on_counting(which):
    """A factory that calls `instrument` again: what the ledger has moved is not told as new."""
    made = sampler(service=f"twice {which}")
    collect = otel(made if which == "one" else None)
    for version in range(6):
        made.apply_policy(policy(str(version)))
        log(made, 100)
        collect()
    before = collect()

    instrument(collect.provider, sampler=made if which == "one" else None, patterns=True)

    after = collect()
    assert total(before["lipservice.records"], policy="earlier", service=f"twice {which}") == 0
    assert {name: after[name] for name in before} == before
    assert total(after["lipservice.pattern_records"]) >= 600


def test_a_second_call_replaces_what_the_first_one_said():
    first, second = sampler(), sampler()
    log(first, 10)
    log(second, 20)
    collect = otel(first)
    instrument(collect.provider, sampler=second)

    assert total(collect()["lipservice.records"]) == 20
    instrument(collect.provider, sampler=first, patterns=True)
    assert total(collect()["lipservice.pattern_records"]) == 10


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: prometheus_text("shop"), "sampler"),
        (lambda: PrometheusCollector(sampler=object()), "sampler"),
        (lambda: PrometheusCollector([]), "sampler"),
        (lambda: instrument(MeterProvider(), sampler=3), "sampler"),
        (lambda: instrument("here"), "meter_provider"),
    ],
)
def test_what_is_wrong_is_named(call, named):
    with pytest.raises(ConfigurationError, match=f"^{named} is "):
        call()


def test_nothing_is_imported_or_started_before_it_is_used():
    code = """
import sys, threading
import lipservice.metrics
assert not {"opentelemetry", "prometheus_client"} & set(sys.modules), sys.modules
from lipservice.metrics import prometheus_text
prometheus_text()
assert "opentelemetry" not in sys.modules
assert "lipservice.export" not in sys.modules
assert threading.active_count() == 1
"""
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_starts_at_zero_and_the_parent_goes_on():
    script = """
    import os
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from lipservice.metrics import instrument, prometheus_text
    from lipservice.policy import SamplingPolicy
    from lipservice.sampler import AdaptiveSampler

    made = AdaptiveSampler(policy=SamplingPolicy(policy_id="1", sampling_rate=0.5), notices=False)
    reader = InMemoryMetricReader()
    instrument(MeterProvider([reader]))

    def by_text():
        lines = prometheus_text().splitlines()
        return sum(float(l.split()[-1]) for l in lines if l.startswith("lipservice_records_total"))

    def by_reader():
        data = reader.get_metrics_data()
        return sum(
            point.value
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics if metric.name == "lipservice.records"
            for point in metric.data.data_points
        )

    def log(times):
        for n in range(times):
            made.should_sample(f"user {n} came", "INFO")

    log(1000)
    assert by_text() == by_reader() == 1000
    pid = os.fork()
    if pid == 0:
        ok = by_text() == by_reader() == 0
        log(30)
        os._exit(0 if ok and by_text() == by_reader() == 30 else 3)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    log(5)
    assert by_text() == by_reader() == 1005
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


# ---------------------------------------------------------------------- real readers


def test_a_registry_takes_the_collector_once_and_serves_it():
    made = sampler(service='a "quoted"\\\nname')
    log(made, 40)
    registry = prometheus_client.CollectorRegistry(auto_describe=True)
    collector = PrometheusCollector(made, patterns=True)
    registry.register(collector)
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(PrometheusCollector(made))
    answer = SimpleNamespace(status=None)
    app = prometheus_client.make_wsgi_app(registry)
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/metrics", "QUERY_STRING": ""}
    body = b"".join(app(environ, lambda status, _headers: vars(answer).update(status=status)))
    values = parsed(body.decode())
    opened = parsed(openmetrics_text(registry).decode(), openmetrics_families)

    assert answer.status == "200 OK"
    assert total(values["lipservice_records_total"], service='a "quoted"\\\nname') == 40
    assert opened == values
    registry.unregister(collector)
    assert b"lipservice" not in prometheus_client.generate_latest(registry)


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.requests.append(ExportMetricsServiceRequest.FromString(body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_args):
        pass


def test_over_the_wire_with_the_otlp_exporter():
    made = sampler(service="shop")
    server = HTTPServer(("127.0.0.1", 0), Receiver)
    server.requests = []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    exporter = OTLPMetricExporter(endpoint=f"http://127.0.0.1:{server.server_port}/v1/metrics")
    provider = MeterProvider([PeriodicExportingMetricReader(exporter, 3_600_000)])
    try:
        instrument(provider, sampler=made)
        log(made, 500)
        provider.force_flush()
        log(made, 70)
        provider.shutdown()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    (scope,) = server.requests[-1].resource_metrics[0].scope_metrics
    metrics = {metric.name: metric for metric in scope.metrics}
    records, held = metrics["lipservice.records"], metrics["lipservice.held_records"]
    attributes = {
        attribute.key: attribute.value.string_value
        for attribute in records.sum.data_points[0].attributes
    }

    assert scope.scope.name == "lipservice"
    assert (records.sum.is_monotonic, records.unit) == (True, "{record}")
    assert records.sum.aggregation_temporality == 2  # cumulative
    assert not held.sum.is_monotonic
    assert sum(point.as_int for point in records.sum.data_points) == 570
    assert set(attributes) == {
        *("lipservice.outcome", "lipservice.rule", "lipservice.severity"),
        *("lipservice.policy", "lipservice.service"),
    }


# ---------------------------------------------------------------------- the accounts alone


@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_ledger_moves_the_sums_are_the_ledgers(seed):
    """Amounts that grow, move in parts, vanish and come back, against plain sums."""
    draw = random.Random(seed)
    book, ended, parts, highest = accounts._Book("rest"), Counter(), Counter(), Counter()
    for _ in range(300):
        step, part = draw.random(), draw.choice("abcdef")
        if step < 0.6:
            parts[part] += draw.randrange(20)
        elif step < 0.9:
            moved = parts[part] if draw.random() < 0.7 else draw.randint(0, parts[part])
            parts[part] -= moved
            parts["rest"] += moved
        else:
            parts["rest"] += draw.randrange(3)
        if draw.random() < 0.4:
            book.book({"g": {k: v for k, v in parts.items() if v}}, ended)
            told = book.parts["g"]
            assert sum(told.values()) + sum(ended.values()) == sum(parts.values())
            for name in told:
                assert told[name] + ended["g", name] >= highest[name]
                highest[name] = told[name] + ended["g", name]


def test_a_look_that_sees_less_for_once_changes_nothing():
    book, ended = accounts._Book("rest"), Counter()
    book.book({"g": {"a": 10, "b": 5}}, ended)
    book.book({"g": {"a": 10}}, ended)
    book.book({}, ended)
    book.book({"g": {"a": 11, "b": 5}}, ended)

    assert book.parts["g"]["a"] + ended["g", "a"] == 11
    assert book.parts["g"]["b"] + ended["g", "b"] == 5


def test_a_snapshot_has_typed_keys():
    made = sampler(service="shop")
    log(made, 1)
    snapshot = Accounts(made).snapshot(patterns=False)

    assert snapshot.records == {Records("kept", "first", "INFO", "1", "shop"): 1}
    assert snapshot.seen == {BySeverity("INFO", "shop"): 1}
