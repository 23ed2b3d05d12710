"""huey: whatever becomes of a task, its story is its own."""

import contextlib
import logging

import pytest

from tests.middleware.pages import need, wait_for

need("huey")

import huey as huey_module  # noqa: E402
from huey.exceptions import CancelExecution  # noqa: E402

import lipservice  # noqa: E402
from lipservice.middleware.jobs import instrument_huey  # noqa: E402
from lipservice.scope import current_scope  # noqa: E402
from tests.support.open_requests import open_requests  # noqa: E402


@pytest.fixture
def huey():
    huey = huey_module.MemoryHuey("story")
    instrument_huey(huey)
    instrument_huey(huey)  # changes nothing
    logging.getLogger("huey").propagate = False
    return huey


@contextlib.contextmanager
def consumer(huey):
    consumer = huey.create_consumer(workers=3, periodic=False, initial_delay=0.01, max_delay=0.05)
    consumer.start()
    try:
        yield
    finally:
        consumer.stop(graceful=True)


def run_one(huey):
    """What a consumer's thread does with the next task."""
    with contextlib.suppress(Exception):
        huey.execute(huey.dequeue())


def test_tasks_at_once_tell_their_own_stories(story, huey):
    @huey.task()
    def unit(kind, name):
        story(name)
        names.add(current_scope().name)
        if kind == "bad":
            raise LookupError(name)

    names = set()
    with consumer(huey):
        for number in range(9):
            unit("good" if number % 3 else "bad", f"u{number}")
        wait_for(lambda: not len(huey) and len(story.written) == 9)

    story.check("u0", "u3", "u6")
    assert names == {"unit"}


def test_each_try_of_a_task_is_a_request_and_a_retry_is_a_failure(story, huey):
    @huey.task(retries=1, context=True)
    def again(task):
        seen.append(current_scope())
        story(f"try {2 - task.retries}")
        if task.retries:
            raise LookupError

    seen = []
    again()
    run_one(huey)
    run_one(huey)

    story.check("try 1")
    assert seen[0] is not seen[1]


def test_a_task_that_another_hook_cancels_leaves_nothing_open(story, huey):
    @huey.pre_execute("another")
    def cancel(task):
        if task.args == ("cancelled",):
            raise CancelExecution

    @huey.task()
    def unit(name):
        story(name)
        raise LookupError

    unit("cancelled")
    unit("u1")
    run_one(huey)
    assert current_scope() is None
    assert not open_requests()
    run_one(huey)

    story.check("u1")


def test_a_task_whose_result_cannot_be_stored_leaves_nothing_open(story, huey, monkeypatch):
    @huey.task()
    def unit(name):
        story(name)
        return name

    def away(*_):
        raise ConnectionError

    unit("u1")
    monkeypatch.setattr(huey, "put_result", away)  # post_execute is not called then
    run_one(huey)

    assert current_scope() is None
    assert not open_requests()
    story.check()


def test_a_task_that_is_run_at_once_belongs_to_the_request_that_it_is_called_in(story):
    huey = huey_module.MemoryHuey("story", immediate=True)
    instrument_huey(huey)

    @huey.task()
    def unit():
        story("u1", "work")
        seen.append(current_scope())

    seen = []
    with lipservice.request("GET /order") as scope:
        story("u1", "begin")
        unit()
        assert current_scope() is scope
        story("u1", "end")
        lipservice.keep_request()

    assert seen == [scope]
    story.check("u1")


def test_a_task_is_left_as_it_was(huey):
    @huey.task()
    def unit():
        ran.append(current_scope())

    ran = []
    task = unit.s()
    for _ in range(2):
        huey.execute(task)

    assert len(ran) == 2
    assert "execute" not in vars(task)


def test_what_a_stale_request_left_in_a_worker_s_thread_is_not_joined(story, huey):
    @huey.task()
    def unit(name):
        story(name)
        raise LookupError

    unit("u1")
    with lipservice.request("stale") as stale:
        story("stale")
        run_one(huey)
        assert current_scope() is stale
        assert not stale.failed

    story.check("u1")
