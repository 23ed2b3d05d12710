"""Celery: whatever becomes of a task, its story is its own."""

import pytest

from tests.middleware.pages import Project, need, redis_server, wait_for
from tests.support.open_requests import open_requests

need("celery")

import celery  # noqa: E402
from celery import signals  # noqa: E402
from celery.contrib.testing.worker import start_worker  # noqa: E402
from celery.exceptions import Ignore, Reject  # noqa: E402

import lipservice  # noqa: E402
from lipservice.middleware.jobs import instrument_celery  # noqa: E402
from lipservice.scope import current_scope  # noqa: E402

_told = []  # the story of the test that runs


@pytest.fixture(scope="module")
def tasks():
    """Tasks by name, and a worker with three threads that runs them."""
    app = celery.Celery(
        "story", broker="memory://", backend="cache+memory://", set_as_current=False
    )
    app.conf.update(worker_hijack_root_logger=False, broker_connection_retry_on_startup=False)
    app.conf.broker_transport_options = {"polling_interval": 0.01}
    hooked = (
        signals.task_prerun,
        signals.task_failure,
        signals.task_retry,
        signals.task_postrun,
    )
    before = [list(signal.receivers or ()) for signal in hooked]
    instrument_celery()
    instrument_celery()  # changes nothing
    for function in (unit, again, refuse, eager, nested, randomness, leave_open):
        app.task(name=function.__name__, bind=True, max_retries=1, shared=False)(function)
    options = {"pool": "threads", "concurrency": 3, "loglevel": "CRITICAL"}
    with start_worker(app, perform_ping_check=False, **options):
        yield app.tasks
    for signal, receivers in zip(hooked, before, strict=True):
        signal.receivers = receivers
        signal.sender_receivers_cache.clear()


@pytest.fixture(autouse=True)
def _every_request_ends(story):
    _told[:] = [story]
    yield
    wait_for(lambda: not open_requests())


def unit(_task, kind, name):
    _told[0](name)
    if kind == "bad":
        raise LookupError(name)
    return current_scope().name


def again(task):
    _told[0](f"try {task.request.retries}")
    _told.append(current_scope())
    if task.request.retries == 0:
        raise task.retry(countdown=0)


def refuse(task, kind):
    _told[0](kind)
    _told.append(kind)
    raise Ignore if kind == "ignored" else Reject("no", requeue=False)


def eager(_task):
    _told[0]("u1", "work")
    _told.append(current_scope())


def nested(task, attempt):
    _told[0](f"try {attempt}")
    if attempt == 0:  # as an eager retry does, in older versions of Celery
        task.apply((1,), task_id=task.request.id)
        raise LookupError


def randomness(_task):
    return current_scope().randomness


def leave_open(_task):
    _told[0]("left open")
    lipservice.request(root=True).__enter__()
    _told.append(current_scope())


def test_tasks_at_once_tell_their_own_stories(story, tasks):
    results = [tasks["unit"].delay("good" if n % 3 else "bad", f"u{n}") for n in range(9)]
    names = {result.get(timeout=30, interval=0.02, propagate=False) for result in results}

    story.check("u0", "u3", "u6")
    assert "unit" in names


def test_each_try_of_a_task_is_a_request_and_a_retry_is_a_failure(story, tasks):
    tasks["again"].delay().get(timeout=30, interval=0.02)

    story.check("try 0")
    assert _told[1] is not _told[2]


def test_a_task_that_is_ignored_or_rejected_is_no_failure(story, tasks):
    tasks["refuse"].delay("ignored")
    tasks["refuse"].delay("rejected")
    wait_for(lambda: len(_told) == 3 and not open_requests())

    story.check()


def test_an_eager_task_belongs_to_the_request_that_it_is_called_in(story, tasks):
    with lipservice.request("GET /order") as scope:
        story("u1", "begin")
        tasks["eager"].apply()
        assert current_scope() is scope
        assert scope.name == "GET /order"
        story("u1", "end")
        lipservice.keep_request()

    story.check("u1")
    assert _told[1] is scope
    tasks["eager"].apply()  # outside of one it is its own
    assert _told[2].name == "eager"
    assert current_scope() is None


def test_a_task_that_runs_within_itself_under_the_same_id_ends_what_it_began(story, tasks):
    tasks["nested"].apply((0,))

    assert current_scope() is None
    assert not open_requests()
    story.check("try 0", "try 1")  # both are one story


def test_a_traceparent_among_the_headers_decides(tasks):
    header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    result = tasks["randomness"].apply_async(headers={"traceparent": header})
    assert result.get(timeout=30, interval=0.02) == 0xCE929D0E0E4736
    odd = tasks["randomness"].apply_async(headers={"traceparent": "odd"})
    assert odd.get(timeout=30, interval=0.02) != 0xCE929D0E0E4736


def test_what_a_task_left_open_in_a_worker_s_thread_is_not_joined(story, tasks):
    for _ in range(6):  # each of the three threads
        tasks["leave_open"].delay().get(timeout=30, interval=0.02)
    for kind in ("good", "bad"):
        for number in range(6):
            result = tasks["unit"].delay(kind, f"{kind} {number}")
            result.get(timeout=30, interval=0.02, propagate=False)

    story.check(*(f"bad {number}" for number in range(6)))
    for scope in _told[1:]:
        scope.close()


TASKS = """
import logging, os, time
import lipservice
from celery import Celery, signals
from celery.exceptions import SoftTimeLimitExceeded
from lipservice.middleware.jobs import instrument_celery
from tests.support.open_requests import open_requests

app = Celery("shop", broker="redis://localhost:6379", backend="redis://localhost:6379")
logger = logging.getLogger("shop")
instrument_celery()

@signals.setup_logging.connect
def set_up_logging(**_):
    lipservice.configure_adaptive_logging(service_name="shop", policy_file="policy.json")

def tell(number):
    logger.info("cart %d is loaded", number)
    logger.info("prices of cart %d are up to date", number)

@app.task
def good(number):
    tell(number)

@app.task(soft_time_limit=1)
def endless(number):
    tell(number)
    try:
        time.sleep(60)
    except SoftTimeLimitExceeded:
        raise LookupError(f"cart {number} is lost")

@app.task(time_limit=1)
def killed(number):
    tell(number)
    time.sleep(60)
"""


def test_prefork_workers_tell_of_soft_time_limits_and_survive_hard_ones(tmp_path):
    project = Project("celery", tmp_path)
    (tmp_path / "tasks.py").write_text(TASKS, encoding="utf-8")
    (tmp_path / "policy.json").write_text('{"sampling_rate": 0, "keep_first": 0}', encoding="utf-8")
    (tmp_path / "send.py").write_text(
        "import tasks\n"
        "tasks.killed.delay(4).get(timeout=50, propagate=False)\n"
        "for n in (1, 2): tasks.good.delay(n)\n"
        "tasks.endless.delay(3).get(timeout=50, propagate=False)\n"
        "for n in (5, 6): tasks.good.delay(n).get(timeout=50)\n",
        encoding="utf-8",
    )
    with redis_server(tmp_path) as port:
        project.replace("localhost:6379", f"127.0.0.1:{port}")
        command = project.command("celery")
        command[command.index("--concurrency") + 1] = "1"
        with project.running(command):
            project.run(project.command("python"))

    stories = project.stories()
    assert stories.pop(3)[:3] == ["loaded", "prices", "lost"]
    assert stories == {}
