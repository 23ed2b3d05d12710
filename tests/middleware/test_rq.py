"""RQ: whatever becomes of a job, its story is its own."""

import logging

import pytest

from tests.middleware.pages import need, redis_server

need("rq", "redis")

import redis  # noqa: E402
from rq import Queue, Retry, SimpleWorker  # noqa: E402

import lipservice  # noqa: E402
from lipservice.middleware.jobs import recorded  # noqa: E402
from lipservice.scope import current_scope  # noqa: E402

_told = []  # a job is found by its name: it has no arguments that are functions


@pytest.fixture
def connection(tmp_path, story):
    _told.append(story)
    logging.getLogger("rq.worker").propagate = False
    with redis_server(tmp_path) as port, redis.Redis(port=port) as connection:
        yield connection
    _told.clear()


def work(queue):
    worker = SimpleWorker([queue], connection=queue.connection)
    worker.work(burst=True, logging_level="CRITICAL")
    assert current_scope() is None


@recorded("job")
def job(kind, name):
    assert current_scope().name == "job"
    _told[0](name)
    if kind == "bad":
        raise LookupError(name)


@recorded()
def once_more(name, tries):
    _told[0](f"{name} {len(tries)}")
    return Retry(max=1) if name == "again" and not _told[1:] and _told.append(name) is None else 1


@recorded()
def endless(name):
    import time

    _told[0](name)
    time.sleep(60)


@recorded()
def at_once():
    _told.append(current_scope())


def test_jobs_tell_their_own_stories(connection, story):
    queue = Queue(connection=connection)
    for number in range(6):
        queue.enqueue(job, "good" if number % 3 else "bad", f"u{number}")

    work(queue)

    story.check("u0", "u3")


def test_a_job_that_asks_for_another_try_is_a_failure(connection, story):
    queue = Queue(connection=connection)
    queue.enqueue(once_more, "again", [])

    work(queue)

    story.check("again 0")


def test_a_job_s_timeout_is_a_failure(connection, story):
    queue = Queue(connection=connection)
    queue.enqueue(endless, "u1", job_timeout=1)
    queue.enqueue(job, "good", "u2")

    work(queue)

    story.check("u1")


def test_a_job_that_is_run_at_once_belongs_to_the_request_that_it_is_called_in(connection):
    queue = Queue(connection=connection, is_async=False)
    with lipservice.request() as scope:
        queue.enqueue(at_once)
        assert current_scope() is scope

    assert _told[1] is scope
