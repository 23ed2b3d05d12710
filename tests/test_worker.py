"""The background thread: started late, never in the way, not to be killed, safe to fork."""

from __future__ import annotations

import ctypes
import gc
import math
import os
import subprocess
import sys
import textwrap
import threading
import weakref
from itertools import pairwise

import pytest

from lipservice import _fork, _worker
from lipservice._complaints import Complaints
from lipservice._worker import OWN_THREADS, Task, Worker, is_own_thread, own_thread
from tests.support.policy_server import wait_for
from tests.support.programs import ROOT, ManualClock, run_program, run_script

FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


def task(run, *, name="task", first=0.0, interval=60.0):
    return Task(name, run, lambda: first, interval)


@pytest.fixture
def stopping():
    """Workers whose threads must have ended when the test has."""
    workers = []
    yield lambda worker: workers.append(worker) or worker
    for worker in workers:
        worker.stop(10.0)


class TestSchedule:
    def test_a_task_runs_when_it_is_due_and_not_before(self):
        clock, runs = ManualClock(), []
        worker = Worker([task(lambda: runs.append(clock()) or 10.0, first=5.0)], clock=clock)

        waits = []
        for _ in range(40):
            waits.append(worker.run_due())
            clock.advance(1.0)

        assert runs == [1005.0, 1015.0, 1025.0, 1035.0]
        assert waits[0] == 5.0

    def test_it_sleeps_until_the_next_task(self):
        clock = ManualClock()
        worker = Worker(
            [task(lambda: 7.0, name="a"), task(lambda: 3.0, name="b", first=2.0)], clock=clock
        )

        assert worker.run_due() == 2.0

    def test_a_late_thread_runs_a_task_once_not_as_often_as_it_was_missed(self):
        clock, runs = ManualClock(), []
        worker = Worker([task(lambda: runs.append(1) or 1.0)], clock=clock)
        worker.run_due()
        clock.advance(86_400.0)
        worker.run_due()

        assert len(runs) == 2

    def test_waking_runs_one_task_before_it_is_due(self):
        clock, runs = ManualClock(), []

        def noting(name):
            return task(lambda: runs.append(name) or 60.0, name=name, first=60.0)

        Worker([noting("a"), noting("b")], clock=clock).run_due("b")

        assert runs == ["b"]

    @pytest.mark.parametrize("delay", [math.nan, -5.0, math.inf, 0.0])
    def test_a_nonsensical_delay_neither_spins_nor_sleeps_for_ever(self, delay):
        worker = Worker([task(lambda: delay)], clock=ManualClock())

        assert 0.0 <= worker.run_due() <= 3600.0


class TestCrashes:
    @pytest.mark.parametrize("error", [ValueError, SystemExit, MemoryError, KeyboardInterrupt])
    def test_a_task_that_raises_is_run_again_within_one_interval(self, error):
        clock, runs = ManualClock(), []

        def run():
            runs.append(clock())
            raise error

        worker = Worker([task(run, interval=30.0)], clock=clock)
        for _ in range(300):
            clock.advance(worker.run_due())

        gaps = [later - earlier for earlier, later in pairwise(runs)]
        assert max(gaps) <= 30.0
        assert gaps[:3] == [1.0, 2.0, 4.0]
        assert worker.health()["crashes"] == 300
        assert worker.health()["last_crash"] == f"task: {error.__name__}"

    def test_another_task_does_not_notice(self):
        clock, runs = ManualClock(), []
        worker = Worker(
            [task(lambda: 1 / 0, name="bad"), task(lambda: runs.append(1) or 5.0, name="good")],
            clock=clock,
        )
        for _ in range(10):
            worker.run_due()
            clock.advance(5.0)

        assert len(runs) == 10

    def test_a_first_delay_that_raises_is_a_crash_like_any_other(self):
        clock, runs = ManualClock(), []
        broken = Task("task", lambda: runs.append(1) or 9.0, lambda: 1 / 0, 30.0)
        worker = Worker([broken], clock=clock)
        worker.run_due()
        clock.advance(1.0)
        worker.run_due()

        assert (runs, worker.health()["crashes"]) == ([1], 1)

    def test_the_thread_outlives_system_exit(self, stopping):
        runs = threading.Semaphore(0)

        def run():
            runs.release()
            raise SystemExit

        worker = stopping(Worker([task(run, interval=0.01)]))
        worker.ensure_started()

        for _ in range(3):
            assert runs.acquire(timeout=20)
        assert worker.health()["running"]

    def test_a_thread_killed_from_outside_is_replaced_by_the_next_call(self, stopping, capfd):
        """By PyThreadState_SetAsyncExc, as debuggers and request time-outs do."""
        ran = threading.Semaphore(0)
        worker = stopping(Worker([task(lambda: ran.release() or 0.01)]))
        worker.ensure_started()
        assert ran.acquire(timeout=20)
        ident = worker._thread.ident

        def is_dead():
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(ident), ctypes.py_object(SystemExit)
            )
            return not worker.health()["running"]

        assert wait_for(is_dead)
        while ran.acquire(blocking=False):
            pass
        worker.ensure_started()

        assert ran.acquire(timeout=20)
        assert worker.health()["starts"] == 2
        assert worker.health()["crashes"] >= 1
        assert capfd.readouterr() == ("", "")


class TestStarting:
    def test_constructing_starts_nothing(self):
        before = threading.active_count()
        worker = Worker([task(lambda: 60.0)])

        assert threading.active_count() == before
        assert not worker.health()["running"]

    def test_many_callers_at_once_start_one_thread(self, stopping):
        started = threading.Semaphore(0)
        worker = stopping(Worker([task(lambda: started.release() or 60.0)]))
        barrier = threading.Barrier(64)

        def call():
            barrier.wait()
            for _ in range(100):
                worker.ensure_started()

        threads = [threading.Thread(target=call) for _ in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert started.acquire(timeout=20)
        assert worker.health()["starts"] == 1

    def test_it_is_a_daemon_with_a_name(self, stopping):
        seen = []
        done = threading.Event()

        def run():
            seen.append(threading.current_thread())
            done.set()
            return 60.0

        stopping(Worker([task(run)], name="lipservice-test")).ensure_started()

        assert done.wait(20)
        assert (seen[0].daemon, seen[0].name) == (True, "lipservice-test")

    def test_a_thread_that_cannot_be_started_is_tried_again_after_a_while(
        self, stopping, monkeypatch
    ):
        clock, tries = ManualClock(), []

        def start(_thread):
            tries.append(clock())
            raise RuntimeError("can't start new thread")

        worker = stopping(Worker([task(lambda: 60.0)], clock=clock))
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", start)
            for _ in range(200):
                worker.ensure_started()
                clock.advance(0.5)
        failures = worker.health()["start_failures"]
        clock.advance(60.0)
        worker.ensure_started()

        gaps = [later - earlier for earlier, later in pairwise(tries)]
        assert gaps == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
        assert failures == 7
        assert worker.health()["running"]

    def test_a_start_that_is_interrupted_is_made_up_for_and_leaves_one_thread(
        self, stopping, monkeypatch
    ):
        """Ctrl-C while the new thread is waited for: it may or may not run already."""
        ran = threading.Semaphore(0)
        worker = stopping(Worker([task(lambda: ran.release() or 0.01)]))
        start = threading.Thread.start

        def interrupted(thread):
            start(thread)
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", interrupted)
            with pytest.raises(KeyboardInterrupt):
                worker.ensure_started()
        first = worker._thread
        worker.ensure_started()
        first.join(20)

        assert not first.is_alive()
        while ran.acquire(blocking=False):
            pass
        assert ran.acquire(timeout=20)
        assert worker.health()["running"]

    def test_a_call_that_interrupts_a_start_does_not_wait_for_it(self, stopping):
        """As a signal handler that logs, in the middle of the first call."""
        worker = stopping(Worker([task(lambda: 60.0)]))
        assert worker._starting.acquire()
        worker.ensure_started()
        running = worker.health()["running"]
        worker._starting.release()

        assert not running


class TestOwnThreads:
    def test_the_worker_knows_itself(self, stopping):
        seen = []
        done = threading.Event()

        def run():
            seen.append(is_own_thread())
            done.set()
            return 60.0

        worker = stopping(Worker([task(run)]))
        worker.ensure_started()

        assert done.wait(20)
        assert seen == [True]
        assert not is_own_thread()
        assert worker.stop(20)
        assert worker._thread.ident not in OWN_THREADS

    def test_any_block_can_count_as_one(self):
        with own_thread():
            assert is_own_thread()
        assert not is_own_thread()


class TestStopping:
    def test_makes_the_final_call_in_the_thread_with_its_deadline(self):
        clock, calls = ManualClock(), []
        worker = Worker(
            [task(lambda: 60.0)],
            final=lambda until: calls.append((until, is_own_thread())),
            clock=clock,
        )
        worker.ensure_started()

        assert worker.stop(2.0)
        assert calls == [(1002.0, True)]

    def test_is_final(self):
        calls = []
        worker = Worker([task(lambda: 60.0)], final=calls.append)
        worker.ensure_started()
        worker.stop(20)
        worker.ensure_started()
        worker.stop(20)

        assert (len(calls), worker.health()["running"]) == (1, False)

    def test_returns_although_a_task_never_does(self):
        """pytest's time-out would end it otherwise."""
        entered, release = threading.Event(), threading.Event()

        def hang():
            entered.set()
            release.wait(100)
            return 60.0

        worker = Worker([task(hang)])
        worker.ensure_started()
        assert entered.wait(20)
        ended = worker.stop(0.05)
        release.set()

        assert not ended
        assert worker.stop(20)

    def test_runs_no_task_once_it_was_asked(self):
        runs = []
        entered, release = threading.Event(), threading.Event()

        def first():
            entered.set()
            release.wait(20)
            return 60.0

        worker = Worker([task(first, name="a"), task(lambda: runs.append(1) or 60.0, name="b")])
        worker.ensure_started()
        assert entered.wait(20)
        worker.stop(0.0)
        release.set()

        assert worker.stop(20)
        assert runs == []

    def test_a_final_call_that_raises_is_counted(self):
        def final(_until):
            raise SystemExit

        worker = Worker([task(lambda: 60.0)], final=final)
        worker.ensure_started()

        assert worker.stop(20)
        assert worker.health()["last_crash"] == "final: SystemExit"

    def test_a_worker_that_never_ran_has_nothing_to_do(self):
        calls = []

        assert Worker([], final=calls.append).stop(0.0)
        assert calls == []

    def test_from_its_own_thread_it_does_not_wait_for_itself(self):
        results = []
        done = threading.Event()

        def run():
            results.append(worker.stop(20))
            done.set()
            return 60.0

        worker = Worker([task(run)])
        worker.ensure_started()

        assert done.wait(20)
        assert results == [False]
        assert worker.stop(20)


class TestAbandoning:
    def test_an_owner_that_nobody_holds_is_collected_and_its_thread_ends(self):
        class Owner:
            """Its worker's task refers back to it, as a sampler's does."""

            def __init__(self):
                self.ran = threading.Event()
                self.worker = Worker([task(self.run)])

            def run(self):
                self.ran.set()
                return 60.0

        owner = Owner()
        owner.worker.ensure_started()
        assert owner.ran.wait(20)
        thread = owner.worker._thread
        gone = weakref.ref(owner)
        del owner

        def is_gone():
            gc.collect()  # again if the thread held it in the very moment
            return gone() is None

        assert wait_for(is_gone)
        thread.join(20)
        assert not thread.is_alive()
        assert thread.ident not in OWN_THREADS

    def test_the_registers_forget_it(self):
        worker = Worker([])
        key = id(worker)
        assert key in _fork._live
        del worker
        gc.collect()

        assert key not in _fork._live


class TestReentrance:
    def test_signals_finalizers_and_the_collector_may_call_in_anywhere(self):
        """10,000 of each, with a collection at every allocation; a deadlock would be killed."""
        run_script("""
            import faulthandler, gc, signal, time
            from lipservice._worker import Task, Worker
            faulthandler.dump_traceback_later(60, exit=True)

            worker = Worker([Task("t", lambda: 60.0, lambda: 0.0, 60.0)])

            class Finalized:
                def __del__(self):
                    self.me = [self]
                    worker.wake("t")
                    worker.ensure_started()

            def handler(*_):
                worker.wake("t")
                worker.ensure_started()
                worker.health()

            signal.signal(signal.SIGALRM, handler)
            signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
            gc.set_threshold(1)
            for _ in range(10_000):
                item = Finalized()
                item.cycle = item
                del item
                worker.wake("t")
                worker.ensure_started()
            signal.setitimer(signal.ITIMER_REAL, 0)
            gc.set_threshold(700)
            assert worker.health()["starts"] == 1
            assert worker.stop(30)
        """)

    def test_a_stop_under_loggings_own_lock_does_not_wait_for_ever(self):
        """opentelemetry-python#3193: dictConfig holds it while it closes handlers that flush."""
        out = run_script("""
            import faulthandler, logging
            from lipservice._complaints import Complaints
            from lipservice._worker import Task, Worker
            faulthandler.dump_traceback_later(60, exit=True)

            def final(until):
                logging.getLogger("never.seen.before").warning("needs the lock to be made")
                Complaints().warn("kind", "needs it too, with a logger that has no cached level")

            logging.getLogger().addHandler(logging.NullHandler())
            worker = Worker([Task("t", lambda: 60.0, lambda: 0.0, 60.0)], final=final)
            worker.ensure_started()
            with logging._lock:
                print(worker.stop(0.2))
            print(worker.stop(30))
        """)

        assert out == "False\nTrue\n"


@FORKS
class TestForking:
    def test_a_child_runs_its_own_thread_and_the_parent_goes_on(self):
        """Also when the fork comes in the middle of a task."""
        run_script("""
            import os, threading, time
            from lipservice._worker import OWN_THREADS, Task, Worker

            working, go_on, ran = threading.Event(), threading.Event(), threading.Semaphore(0)

            def run():
                working.set()
                go_on.wait(20)
                ran.release()
                return 0.01

            worker = Worker([Task("t", run, lambda: 0.0, 60.0)])
            worker.ensure_started()
            assert working.wait(20) and OWN_THREADS
            child = os.fork()
            if child == 0:
                ok = not OWN_THREADS and not worker.health()["running"]
                working, go_on, ran = threading.Event(), threading.Event(), threading.Semaphore(0)
                go_on.set()
                worker.ensure_started()
                ok = ok and ran.acquire(timeout=20) and worker.health()["starts"] == 1
                os._exit(0 if ok else 1)
            assert os.waitpid(child, 0)[1] == 0
            go_on.set()
            assert ran.acquire(timeout=20) and ran.acquire(timeout=20)
            assert worker.health()["starts"] == 1
            assert worker.stop(20)
        """)

    def test_a_child_of_a_host_that_runs_no_fork_hooks_does_too(self):
        """uWSGI without py-call-uwsgi-fork-hooks: the fork happens in C."""
        run_script("""
            import ctypes, os, threading
            from lipservice._worker import Task, Worker

            ran = threading.Semaphore(0)
            worker = Worker([Task("t", lambda: ran.release() or 60.0, lambda: 0.0, 60.0)])
            other = Worker([Task("t", lambda: 60.0, lambda: 0.0, 60.0)])
            worker.ensure_started()
            other.ensure_started()
            assert ran.acquire(timeout=20)
            worker._starting.acquire()  # as if another thread were about to start it
            child = ctypes.PyDLL(None).fork()
            if child == 0:
                worker.ensure_started()
                ok = ran.acquire(timeout=20) and not other.health()["running"]
                os._exit(0 if ok else 1)
            assert os.waitpid(child, 0)[1] == 0
        """)

    def test_a_thousand_forks_under_load_with_each_lock_held(self):
        """Threads wake, start and stop workers all the while; a child that hangs is killed."""
        out = run_script("""
            import faulthandler, os, signal, sys, threading, time
            from lipservice._worker import Task, Worker
            faulthandler.dump_traceback_later(90, exit=True)

            worker = Worker([Task("t", lambda: 0.01, lambda: 0.0, 60.0)])
            worker.ensure_started()
            over = threading.Event()

            def churn():
                while not over.is_set():
                    short = Worker([Task("t", lambda: 60.0, lambda: 0.0, 60.0)])
                    short.ensure_started()
                    for _ in range(20):
                        worker.wake("t")
                    short.stop(5)
                    time.sleep(0.001)

            churning = threading.Thread(target=churn)
            churning.start()
            hangs = failures = 0
            for number in range(1000):
                held = worker._starting if number % 2 else None
                if held:
                    held.acquire()
                child = os.fork()
                if child == 0:
                    signal.alarm(20)
                    worker.ensure_started()
                    ok = worker.health()["running"] and worker.stop(15)
                    os._exit(0 if ok else 1)
                if held:
                    held.release()
                status = os.waitpid(child, 0)[1]
                hangs += os.WIFSIGNALED(status)
                failures += os.WIFEXITED(status) and os.WEXITSTATUS(status)
            over.set()
            churning.join()
            print(hangs, failures, worker.health()["starts"], worker.health()["running"])
        """)

        assert out.split() == ["0", "0", "1", "True"]

    def test_starting_other_programs_changes_nothing(self):
        run_script("""
            import subprocess, sys, threading
            from lipservice._worker import Task, Worker

            ran = threading.Semaphore(0)
            worker = Worker([Task("t", lambda: ran.release() or 0.01, lambda: 0.0, 60.0)])
            worker.ensure_started()
            for _ in range(20):
                subprocess.run(["true"], check=True, preexec_fn=lambda: None)
            while ran.acquire(blocking=False):
                pass
            assert ran.acquire(timeout=20)
            assert worker.health()["starts"] == 1
            worker.stop(20)
        """)

    def test_an_object_that_was_collected_does_not_disturb_a_fork(self):
        run_script("""
            import gc, os
            from lipservice._fork import on_fork

            class Resettable:
                was_reset = False
                def _reset_after_fork(self):
                    self.was_reset = True

            class Broken(Resettable):
                def _reset_after_fork(self):
                    raise RuntimeError

            objects = [Resettable() for _ in range(100)]
            broken, last = Broken(), Resettable()
            for item in (*objects, broken, last):
                on_fork(item)
            del objects, item
            gc.collect()
            child = os.fork()
            if child == 0:
                os._exit(0 if last.was_reset else 1)
            assert os.waitpid(child, 0)[1] == 0
            assert not last.was_reset
        """)

    @pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
    def test_children_of_multiprocessing_make_their_final_call(self, method, tmp_path):
        """They leave by os._exit, which passes atexit by."""
        script = tmp_path / "main.py"
        script.write_text(
            textwrap.dedent("""
            import multiprocessing, os, sys, threading
            from lipservice._worker import Task, Worker

            ran = threading.Semaphore(0)

            def final(until):
                with open(sys.argv[2] + f"/{os.getpid()}", "a") as file:
                    file.write("final")

            worker = Worker([Task("t", lambda: ran.release() or 60.0, lambda: 0.0, 60.0)], final=final)

            def child():
                worker.ensure_started()
                assert ran.acquire(timeout=20)

            if __name__ == "__main__":
                context = multiprocessing.get_context(sys.argv[1])
                process = context.Process(target=child)
                process.start()
                process.join()
                print(process.exitcode, process.pid)
            """)
        )
        code, pid = run_program(script, method, tmp_path).split()
        assert (code, (tmp_path / pid).read_text()) == ("0", "final")


class TestExit:
    @pytest.mark.parametrize("ending", ["", "sys.exit(0)"])
    def test_the_final_call_is_made(self, ending):
        out = run_script(f"""
            import sys
            from lipservice._worker import Task, Worker
            worker = Worker([Task("t", lambda: 60.0, lambda: 0.0, 60.0)], final=lambda until: print("final"))
            worker.ensure_started()
            {ending}
        """)

        assert out == "final\n"

    def test_a_task_and_a_final_call_that_hang_do_not_keep_the_process(self):
        """Nor do ten such workers: all share one deadline. The hang would last 1,000 s each."""
        run_script("""
            import time
            from lipservice._worker import Task, Worker
            workers = []
            for number in range(10):
                hang = lambda *_: time.sleep(1000)
                quick = lambda: 60.0
                tasks = [Task("t", hang if number % 2 else quick, lambda: 0.0, 60.0)]
                workers.append(Worker(tasks, final=hang))
                workers[-1].ensure_started()
            time.sleep(0.1)
        """)

    def test_a_stop_that_timed_out_is_not_waited_for_again(self, monkeypatch):
        waited = []
        release = threading.Event()
        worker = Worker([task(lambda: release.wait(100) and 60.0)])
        worker.ensure_started()
        worker.stop(0.01)
        monkeypatch.setattr(worker, "_await_end", waited.append)
        monkeypatch.setattr(_worker, "_exiting", False)
        monkeypatch.setattr(_worker, "_workers", {1: weakref.ref(worker)})
        _worker._at_exit()
        monkeypatch.undo()
        release.set()

        assert waited == []
        assert worker.stop(20)

    def test_nothing_is_started_any_more(self):
        """In atexit, where newer Pythons refuse it and older ones hang."""
        out = run_script("""
            import atexit, threading
            from lipservice._worker import Task, Worker

            late = Worker([Task("t", lambda: 60.0, lambda: 0.0, 60.0)])

            @atexit.register
            def log_something():
                before = threading.active_count()
                late.ensure_started()
                print(threading.active_count() - before, late.health()["running"])

            early = Worker([Task("t", lambda: 60.0, lambda: 0.0, 60.0)])
            early.ensure_started()
        """)

        assert out == "0 False\n"

    def test_a_worker_does_not_keep_a_process_whose_main_thread_raised(self):
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "from lipservice._worker import Task, Worker\n"
                "w = Worker([Task('t', lambda: 60.0, lambda: 0.0, 60.0)])\n"
                "w.ensure_started()\n"
                "raise ZeroDivisionError",
            ],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=ROOT,
            check=False,
        )

        assert done.returncode == 1
        assert done.stderr.strip().endswith("ZeroDivisionError")


class TestGevent:
    def test_runs_beside_greenlets_and_leaves_in_time(self):
        pytest.importorskip("gevent")
        out = run_script("""
            from gevent import monkey
            monkey.patch_all()
            import gevent, threading
            from lipservice._worker import Task, Worker, is_own_thread

            seen = []
            worker = Worker(
                [Task("t", lambda: seen.append(is_own_thread()) or 0.01, lambda: 0.0, 60.0)],
                final=lambda until: print("final", is_own_thread()),
            )
            worker.ensure_started()
            beats = 0
            for _ in range(20):
                gevent.sleep(0.01)  # the hub is never blocked by the waiting worker
                beats += 1
                assert not is_own_thread()
            assert len(seen) > 2 and all(seen), seen
            worker.wake("t")
        """)

        assert out == "final True\n"


class TestComplaints:
    def test_each_kind_is_said_once_an_hour(self):
        clock, said = ManualClock(), []
        complaints = Complaints(lambda level, text: said.append((level, text)), clock=clock)
        for _ in range(100):
            complaints.warn("policy", "no policy")
            complaints.warn("report", "no report")
            clock.advance(60.0)

        assert said == [
            (30, "no policy"),
            (30, "no report"),
            (30, "no policy (59 more times since)"),
            (30, "no report (59 more times since)"),
        ]

    def test_a_recovery_is_said_once_and_only_after_a_complaint(self):
        said = []
        complaints = Complaints(lambda level, text: said.append((level, text)))
        complaints.resolve("policy", "good")
        complaints.warn("policy", "bad")
        complaints.resolve("policy", "good")
        complaints.resolve("policy", "good")

        assert said == [(30, "bad"), (20, "good")]

    def test_a_logger_that_raises_is_ignored(self):
        def log(level, text):
            raise RuntimeError

        complaints = Complaints(log)
        complaints.warn("policy", "bad")
        complaints.resolve("policy", "good")

    def test_nothing_is_printed_by_an_application_without_logging(self):
        run_script("""
            from lipservice._complaints import Complaints
            Complaints().warn("policy", "bad")
        """)


def test_a_running_worker_costs_a_caller_no_lock(stopping):
    """`ensure_started` is called a record: while it runs, its start lock may be held for ever."""
    worker = stopping(Worker([task(lambda: 60.0)]))
    worker.ensure_started()
    worker._starting.acquire()
    for _ in range(1000):
        worker.ensure_started()
    worker._starting.release()

    assert worker.health()["starts"] == 1
