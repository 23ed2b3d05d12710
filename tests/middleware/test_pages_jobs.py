"""
The code of the job pages in docs/how-to/requests-in, run by their own commands: real workers on a
real Redis.
"""

import re

import pytest

from tests.middleware.pages import Project, check_page, need, redis_server, wait_for


@pytest.fixture
def redis(tmp_path):
    need("redis")
    import redis

    with redis_server(tmp_path) as port, redis.Redis(port=port) as connection:
        yield connection


def port_of(connection):
    return connection.connection_pool.connection_kwargs["port"]


@pytest.mark.parametrize("pool", ["prefork", "gevent"])
def test_celery_s_page_with_two_workers(pool, tmp_path, redis):
    need("celery", "gevent")
    project = Project("celery", tmp_path)
    project.replace("localhost:6379", f"127.0.0.1:{port_of(redis)}")

    with project.running([*project.command("celery"), "--pool", pool]):
        project.run(project.command("python"))
        # The last ones run on: a worker that is told to end finishes them.
        wait_for(lambda: not redis.llen("celery") and not redis.hlen("unacked"))

    check_page(project.stories(), 100)
    # Each process has told at its end what it saw: two records a task, and how it ended.
    told = re.findall(r"kept [\d,]+ of ([\d,]+) records", project.log.read_text("utf-8"))
    assert sum(int(seen.replace(",", "")) for seen in told) >= 300, told


def test_rq_s_page_with_a_process_for_each_job(tmp_path, redis):
    need("rq")
    project = Project("rq", tmp_path)
    project.replace("localhost:6379", f"127.0.0.1:{port_of(redis)}")

    project.run(project.command("python"))
    command = [*project.command("rq"), "--url", f"redis://127.0.0.1:{port_of(redis)}"]
    with project.running(command):
        wait_for(lambda: not redis.llen("rq:queue:default"))

    check_page(project.stories(), 20)


def test_huey_s_page_with_four_threads(tmp_path):
    need("huey")
    project = Project("huey", tmp_path)

    with project.running(project.command("huey_consumer")):
        project.run(project.command("python"))
        done = tmp_path / "huey.log"
        wait_for(lambda: done.exists() and done.read_text("utf-8").count(" executed in ") == 99)

    check_page(project.stories(), 100)


def test_the_lambda_page_by_x_ray_s_traces(tmp_path):
    project = Project("aws-lambda", tmp_path)

    project.log.write_text(project.run(project.command("python")), encoding="utf-8")

    check_page(project.stories(), 100)
