"""f-strings and templates share one signature, in every framework and form."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import logging.handlers
import queue
import random
import warnings

import pytest
import structlog
from loguru import logger as loguru_logger
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs import export as otel_export

import lipservice
from lipservice.call_sites import analyse_waiting, has_waiting
from lipservice.export.opentelemetry import SamplingLogRecordProcessor
from lipservice.integrations.loguru import LoguruFilter, SamplingSink
from lipservice.integrations.stdlib import SamplingFilter, SamplingHandler, sampling_logger_class
from lipservice.integrations.structlog import SamplingProcessor, sampling_bound_logger
from lipservice.policy import SamplingPolicy
from lipservice.sampler import AdaptiveSampler
from lipservice.signature import compute_format_signature, compute_signature

TEMPLATE = compute_format_signature("user %s logged in")
SOURCE = """
def f_string(logger, name):
    logger.info(f"user {name} logged in")

def over_lines(logger, name):
    logger.warning(
        f"user {name}"
        " logged in",
    )

def brace_format(logger, name):
    logger.info("user {} logged in".format(name))

def percent(logger, name):
    logger.info("user %s logged in" % name)

def concatenated(logger, name):
    logger.info("user " + name + " logged in")

def caught(logger, name):
    try:
        raise LookupError
    except LookupError:
        logger.exception(f"user {name} logged in")

def by_level(logger, name):
    logger.log(20, f"user {name} logged in")

def arguments(logger, name):
    logger.info("user %s logged in", name)

def by_name(logger, name):
    text = f"user {name} logged in"
    logger.info(text)

def beside_arguments(logger, name):
    logger.info(f"user {name} logged %s", "in")

def conditional(logger, name):
    logger.info(f"user {name} logged in" if name else "nobody logged in")
"""
HOW = ("f_string", "over_lines", "brace_format", "percent", "concatenated", "caught", "by_level")
HOW += ("by_name", "conditional")


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "application.py"
    path.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("application", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def sampler():
    sampler = AdaptiveSampler(
        policy=SamplingPolicy(keep_first=0), notices=False, rng=random.Random(1)
    )
    yield sampler
    sampler.shutdown()


class Form:
    """A logger of one framework and form, and the signatures of what it let pass."""

    def __init__(self):
        self.signatures = []

    def add(self, stamps):
        self.signatures.append(stamps["lipservice_signature"])


def logging_form(kind):
    def make(sampler, form):
        class Collect(logging.Handler):
            def emit(self, record):
                form.add(vars(record))

        cls = sampling_logger_class(sampler) if kind == "early" else logging.Logger
        logger = cls("application", logging.DEBUG)
        handler = Collect()
        if kind == "filter":
            handler.addFilter(SamplingFilter(sampler=sampler))
        if kind == "handler":
            handler = SamplingHandler(handler, sampler=sampler)
        logger.addHandler(handler)
        return logger

    return make


def structlog_form(kind):
    def make(sampler, form):
        def collect(_logger, _name, event):
            form.add(event)
            raise structlog.DropEvent

        wrapper = structlog.make_filtering_bound_logger(0)
        processors = [collect]
        if kind == "early":
            wrapper = sampling_bound_logger(wrapper, sampler)
        elif kind == "early stdlib":
            wrapper = sampling_bound_logger(structlog.stdlib.BoundLogger, sampler)
        else:
            processors.insert(0, SamplingProcessor(sampler))
        under = logging.Logger("application", logging.DEBUG)
        return structlog.wrap_logger(under, wrapper_class=wrapper, processors=processors)

    return make


def loguru_form(kind):
    def make(sampler, form):
        def collect(message):
            form.add(message.record["extra"])

        if kind == "filter":
            loguru_logger.add(collect, filter=LoguruFilter(sampler), catch=False)
        else:
            loguru_logger.add(SamplingSink(collect, sampler), catch=False)
        return loguru_logger

    return make


FORMS = {
    "logging filter": logging_form("filter"),
    "logging handler": logging_form("handler"),
    "logging early": logging_form("early"),
    "structlog processor": structlog_form("processor"),
    "structlog early": structlog_form("early"),
    "structlog early stdlib": structlog_form("early stdlib"),
    "loguru filter": loguru_form("filter"),
    "loguru sink": loguru_form("sink"),
}


@pytest.fixture(params=FORMS)
def form(request, sampler):
    form = Form()
    loguru_logger.remove()
    form.logger = FORMS[request.param](sampler, form)
    yield form
    loguru_logger.remove()


@pytest.mark.parametrize("boosted", ["", "another", "application"])
@pytest.mark.parametrize("scoped", [False, True], ids=["", "in a request"])
@pytest.mark.parametrize("how", HOW)
def test_a_message_that_was_formatted_has_the_template_s_signature(
    form, source, how, scoped, boosted, sampler
):
    log = getattr(source, how)
    log(form.logger, "bob")
    while analyse_waiting():
        pass
    form.signatures.clear()
    if boosted:
        sampler.boost(logger=boosted)

    with lipservice.request() if scoped else contextlib.nullcontext():
        for name in ("eve", "bob", "ada lovelace", "17"):
            log(form.logger, name)

    assert form.signatures == [TEMPLATE] * 4


@pytest.mark.parametrize("kind", [kind for kind in FORMS if "loguru" not in kind])
def test_a_format_string_counts_even_where_it_was_filled_in_before(sampler, source, kind):
    # structlog's filtering logger fills it in before any processor, a QueueHandler before others.
    form = Form()
    logger = FORMS[kind](sampler, form)
    source.arguments(logger, "bob")
    while analyse_waiting():
        pass
    for name in ("eve", "ada lovelace", "17"):
        source.arguments(logger, name)

    assert form.signatures[1:] == [TEMPLATE] * 3


@pytest.mark.parametrize("boosted", ["", "application", "another"])
@pytest.mark.parametrize("scoped", [False, True], ids=["", "in a request"])
@pytest.mark.parametrize("kind", [*(kind for kind in FORMS if "loguru" not in kind), "positional"])
def test_an_f_string_beside_arguments_has_the_signature_of_the_whole_format(
    sampler, source, kind, scoped, boosted
):
    form = Form()
    if boosted:  # every logger's records are asked for by another way then
        sampler.boost(logger=boosted, minutes=5)
    logger = {**FORMS, "positional": structlog_with_positional_args}[kind](sampler, form)
    for name in ("bob", "eve"):  # the second one raises the suspicion
        source.beside_arguments(logger, name)
    while analyse_waiting():
        pass
    form.signatures.clear()

    with lipservice.request() if scoped else contextlib.nullcontext():
        for name in ("eve", "ada lovelace", "17", "alice"):
            source.beside_arguments(logger, name)

    assert form.signatures == [compute_format_signature("user %s logged %s")] * 4


def structlog_with_positional_args(sampler, form):
    """structlog's logger for logging gives a processor the format string and its arguments."""

    def collect(_logger, _name, event):
        form.add(event)
        raise structlog.DropEvent

    return structlog.wrap_logger(
        logging.Logger("application", logging.DEBUG),
        wrapper_class=structlog.stdlib.BoundLogger,
        processors=[SamplingProcessor(sampler), collect],
    )


@pytest.mark.parametrize("kind", ["logging filter", "logging early"])
def test_a_format_string_that_never_changes_is_looked_up_once(sampler, kind, monkeypatch):
    import lipservice.integrations.stdlib as adapter

    asked = []
    real = adapter.site_at
    monkeypatch.setattr(adapter, "site_at", lambda *a, **k: asked.append(a) or real(*a, **k))
    logger = FORMS[kind](sampler, Form())
    for number in range(20):
        logger.warning("counted to %d", number)

    assert len(asked) == 1
    assert not has_waiting()


def test_what_a_queue_handler_has_filled_in_is_healed_behind_the_queue(sampler, source):
    form = Form()
    behind = logging_form("filter")(sampler, form)
    records = queue.SimpleQueue()
    logger = logging.Logger("application")
    logger.addHandler(logging.handlers.QueueHandler(records))
    for name in ("bob", "eve", "ada lovelace"):
        source.arguments(logger, name)
    for _ in range(3):
        behind.handle(records.get())
        while analyse_waiting():
            pass

    assert form.signatures == [compute_signature("user bob logged in"), TEMPLATE, TEMPLATE]


def test_what_opentelemetry_s_handler_has_filled_in_is_healed(sampler, source):
    # Renamed by OpenTelemetry along the versions that we work with.
    name = "InMemoryLogRecordExporter"
    exporter = (getattr(otel_export, name, None) or otel_export.InMemoryLogExporter)()
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(
        SamplingLogRecordProcessor(otel_export.SimpleLogRecordProcessor(exporter), sampler)
    )
    logger = logging.Logger("application", logging.DEBUG)
    with warnings.catch_warnings():  # newer versions deprecate it
        warnings.simplefilter("ignore", DeprecationWarning)
        logger.addHandler(LoggingHandler(logger_provider=provider))
    for name in ("bob", "eve", "ada lovelace"):
        source.arguments(logger, name)
        while analyse_waiting():
            pass
    provider.shutdown()

    kept = [each.log_record.attributes["lip_sig"] for each in exporter.get_finished_logs()]
    assert kept == [compute_signature("user bob logged in"), TEMPLATE, TEMPLATE]


def test_braces_that_loguru_fills_in_count_as_a_template(sampler, tmp_path):
    path = tmp_path / "braces.py"
    path.write_text('def log(logger, name):\n    logger.info("user {} logged in", name)\n')
    scope = {}
    exec(compile(path.read_text(), str(path), "exec"), scope)
    form = Form()
    loguru_logger.remove()
    logger = loguru_form("filter")(sampler, form)
    scope["log"](logger, "eve")
    while analyse_waiting():
        pass
    scope["log"](logger, "bob")
    loguru_logger.remove()

    assert form.signatures == [compute_signature("user eve logged in"), TEMPLATE]


def test_the_worker_analyses_new_sites_soon_and_by_itself(source):
    sampler = AdaptiveSampler(policy=SamplingPolicy(sampling_rate=1.0), notices=False)
    form = Form()
    logger = logging_form("filter")(sampler, form)
    import time

    until = time.monotonic() + 20
    number = 0
    while TEMPLATE not in form.signatures and time.monotonic() < until:
        number += 1
        source.f_string(logger, "name" + "x" * (number % 50))
        time.sleep(0.002)
    sampler.shutdown()

    assert TEMPLATE in form.signatures


def test_where_it_is_switched_off_the_message_decides(source):
    sampler = AdaptiveSampler(policy=SamplingPolicy(), notices=False, call_sites=False)
    form = Form()
    logger = logging_form("filter")(sampler, form)
    for _ in range(2):
        source.f_string(logger, "bob")
        while analyse_waiting():
            pass
    sampler.shutdown()

    assert set(form.signatures) == {compute_signature("user bob logged in")}


def test_a_stack_level_leads_to_the_caller_s_line(sampler, tmp_path):
    path = tmp_path / "levels.py"
    path.write_text(
        "def helper(logger, text):\n"
        "    logger.info(text, stacklevel=2)\n"
        "def log(logger, name):\n"
        '    helper(logger, f"user {name} logged in")\n'
    )
    scope = {}
    exec(compile(path.read_text(), str(path), "exec"), scope)
    for kind in ("filter", "early"):
        form = Form()
        logger = logging_form(kind)(sampler, form)
        scope["log"](logger, "eve")
        while analyse_waiting():
            pass
        scope["log"](logger, "bob")
        assert form.signatures[-1] == TEMPLATE, kind


def test_a_healed_message_in_a_held_record_is_released_with_its_own_text(source):
    sampler = AdaptiveSampler(policy=SamplingPolicy(sampling_rate=0.0, keep_first=0), notices=False)
    stream = io.StringIO()
    handler = SamplingHandler(logging.StreamHandler(stream), sampler=sampler)
    logger = logging.Logger("application")
    logger.addHandler(handler)
    source.f_string(logger, "bob")
    while analyse_waiting():
        pass
    with lipservice.request():
        source.f_string(logger, "eve")
        lipservice.keep_request()
    sampler.shutdown()

    assert stream.getvalue() == "user eve logged in\n"
    assert sampler.explain("user eve logged in").signature == TEMPLATE
