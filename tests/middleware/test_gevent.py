"""gevent: each greenlet has a context of its own, so that requests do not mix."""

import json
import subprocess
import sys
import textwrap

from tests.middleware.pages import ROOT, Project, ask_concurrently, check_page, check_web, need


def run(script):
    """In a process of its own: a monkey patch cannot be taken back."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_flask_s_page_on_gunicorn_s_gevent_worker(tmp_path):
    need("gunicorn", "flask", "gevent", "curl")
    project = Project("flask", tmp_path)

    with project.web_server("gunicorn", "--worker-class", "gevent", "--workers", "1") as address:
        project.load_as_the_page_does(address)
        asked = ask_concurrently(address, 1000)

    stories = project.stories()
    check_page(stories, 100)
    check_web(stories, asked)


def test_requests_in_greenlets_that_take_turns_at_each_step_tell_their_own_stories():
    need("gevent")
    written = run(
        """
        from gevent import monkey
        monkey.patch_all()
        import json, logging, gevent, lipservice
        from lipservice.policy import SamplingPolicy
        from lipservice.sampler import AdaptiveSampler

        policy = SamplingPolicy(sampling_rate=0.0, keep_first=0)
        sampler = AdaptiveSampler(policy=policy, notices=False)
        written = []
        handler = logging.Handler()
        handler.emit = lambda record: written.append(record.getMessage())
        logger = logging.getLogger("story")
        logger.setLevel("DEBUG")
        logger.addHandler(lipservice.SamplingHandler(handler, sampler=sampler))

        def serve(number):
            with lipservice.request():
                for step in range(3):
                    logger.info("step %d of %d", step, number)
                    gevent.sleep(0)
                if number % 3 == 0:
                    logger.error("end of %d", number)

        gevent.joinall([gevent.spawn(serve, number) for number in range(9)], raise_error=True)
        sampler.shutdown()
        print(json.dumps(written))
        """
    )
    for number in (0, 3, 6):
        own = [line for line in written if line.endswith(f" of {number}")]
        assert own == [f"step {step} of {number}" for step in range(3)] + [f"end of {number}"]
    assert len(written) == 12


def test_a_greenlet_is_in_the_request_it_was_spawned_in_only_if_it_was_given_its_context():
    need("gevent")
    seen = run(
        """
        from gevent import monkey
        monkey.patch_all()
        import concurrent.futures, contextvars, gevent, gevent.pool, json, lipservice, threading
        from lipservice.scope import current_scope

        seen = {}
        with lipservice.request() as scope:
            def is_in():
                return current_scope() is scope
            copy = contextvars.copy_context
            seen["spawn"] = gevent.spawn(is_in).get()
            seen["spawn, given"] = gevent.spawn(copy().run, is_in).get()
            seen["pool"] = gevent.pool.Pool(2).spawn(is_in).get()
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                seen["executor"] = pool.submit(is_in).result()
                seen["executor, given"] = pool.submit(copy().run, is_in).result()
            seen["self"] = is_in()
        print(json.dumps(seen))
        """
    )
    assert seen == {
        "spawn": False,
        "spawn, given": True,
        "pool": False,
        "executor": False,
        "executor, given": True,
        "self": True,
    }
