"""
What holds for every test: the process is left as it was found.

Logging, structlog, loguru and LipService have state of the whole process. It is put back after
each test, so that order does not matter. A LipService thread that outlives its test fails it, and
so does an error that LipService swallowed, as it has to in an application: see `swallowed`.
"""

from __future__ import annotations

import gc
import logging
import sys
import threading
import time

import pytest

# Its loggers have to be there before the first test: those that a test makes are taken away after
# it, and a module that keeps one would log into the void.
import lipservice.cli.demo_shop  # noqa: F401


@pytest.fixture(autouse=True)
def _logging_as_it_was():
    before = _LoggingState()
    yield
    before.restore()


@pytest.fixture(autouse=True, scope="module")
def _logging_as_it_was_before_the_module():
    """What a module's own fixtures start (a worker of celery's, say) configures logging, too."""
    before = _LoggingState()
    yield
    before.restore()


class _LoggingState:
    """What `logging` keeps for the whole process."""

    def __init__(self):
        manager = logging.Logger.manager
        self.classes = (logging.getLoggerClass(), manager.loggerClass)
        self.factory = logging.getLogRecordFactory()
        self.disable = manager.disable
        self.levels = (dict(logging._nameToLevel), dict(logging._levelToName))
        self.flags = (logging.raiseExceptions, logging.lastResort, logging.logThreads)
        self.registry = dict(manager.loggerDict)
        self.loggers = {logger: _parts_of(logger) for logger in _loggers()}

    def restore(self):
        manager = logging.Logger.manager
        logging.setLoggerClass(self.classes[0])
        manager.loggerClass = self.classes[1]
        logging.setLogRecordFactory(self.factory)
        logging.disable(self.disable)
        for now, then in zip(
            (logging._nameToLevel, logging._levelToName), self.levels, strict=True
        ):
            now.clear()
            now.update(then)
        logging.raiseExceptions, logging.lastResort, logging.logThreads = self.flags
        logging.captureWarnings(False)
        # With its placeholders: a new parent finds the children that are there through them.
        manager.loggerDict.clear()
        manager.loggerDict.update(self.registry)
        for logger, parts in self.loggers.items():
            _put_back(logger, *parts)


def _loggers():
    known = logging.Logger.manager.loggerDict.values()
    return [logging.root, *(each for each in known if isinstance(each, logging.Logger))]


def _parts_of(logger):
    return (
        logger.level,
        list(logger.handlers),
        list(logger.filters),
        logger.propagate,
        logger.disabled,
        logger.parent,
    )


def _put_back(logger, level, handlers, filters, propagate, disabled, parent):
    logger.setLevel(level)  # also forgets which levels were on
    # pytest puts its own handlers on the root logger and takes them off by itself.
    logger.handlers[:] = [each for each in logger.handlers if each in handlers]
    logger.handlers += [
        each
        for each in handlers
        if each not in logger.handlers and not type(each).__module__.startswith("_pytest")
    ]
    logger.filters[:] = filters
    logger.propagate = propagate
    logger.disabled = disabled
    logger.parent = parent


@pytest.fixture(autouse=True)
def _frameworks_as_they_were():
    loguru = sys.modules.get("loguru")
    handlers = set(loguru.logger._core.handlers) if loguru else {0}
    yield
    structlog = sys.modules.get("structlog")
    if structlog is not None:
        structlog.reset_defaults()
        structlog.contextvars.clear_contextvars()
    loguru = sys.modules.get("loguru")
    if loguru is not None:
        for number in set(loguru.logger._core.handlers) - handlers:
            loguru.logger.remove(number)
        loguru.logger.configure(extra={}, patcher=None, activation=[("", True)])


@pytest.fixture(autouse=True)
def _no_sampler_or_thread_is_left():
    before = set(_own_threads())
    yield
    configure = sys.modules.get("lipservice.configure")
    if configure is not None and configure._setup.sampler is not None:
        configure.shutdown()
    settings = sys.modules.get("lipservice._settings")
    if settings is not None:
        settings.forget_samplers()
    left = _wait_for_end(before)
    assert not left, f"LipService threads outlive the test: {left}"


def _own_threads():
    return [
        each
        for each in threading.enumerate()
        if each.name == "lipservice" or each.name.startswith("lipservice-export")
    ]


def _wait_for_end(before):
    """Threads of LipService that a moment later still run, though nothing holds them."""
    left = [each for each in _own_threads() if each not in before]
    until = time.monotonic() + 10.0
    while left and time.monotonic() < until:
        # A worker's thread ends when its sampler is collected, which it holds while it works.
        gc.collect()
        left[0].join(0.05)
        left = [each for each in left if each.is_alive()]
    return left


class Swallowed(list):
    """
    Errors that LipService met and did not let out, as (where, error).

    A test that causes them on purpose takes this fixture, looks at it and clears it.
    """


@pytest.fixture(autouse=True)
def swallowed(monkeypatch):
    """Makes visible what an application must not see; fails the test if anything is left in it."""
    errors = Swallowed()
    engine = sys.modules.get("lipservice._engine")
    if engine is not None:
        monkeypatch.setattr(
            engine.DecisionEngine, "_decide_in_doubt", _telling_doubts(errors, engine)
        )
    worker = sys.modules.get("lipservice._worker")
    if worker is not None:
        monkeypatch.setattr(worker.Worker, "_note", _telling_crashes(errors, worker))
    yield errors
    assert not errors, f"LipService swallowed {errors}"


def _telling_doubts(errors, engine):
    original = engine.DecisionEngine._decide_in_doubt

    def decide_in_doubt(self, decide, text, severity, error):
        decision = original(self, decide, text, severity, error)
        if getattr(decision, "rule", None) == "doubt":
            errors.append(("decision", error))
        return decision

    return decide_in_doubt


def _telling_crashes(errors, worker):
    original = worker.Worker._note

    def note(self, where, error):
        if "tick" in self._tasks:  # a sampler's worker: those of the worker's own tests may crash
            errors.append((where, error))
        original(self, where, error)

    return note
