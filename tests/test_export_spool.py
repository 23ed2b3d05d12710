"""The spool survives restarts, never grows beyond its bounds, and no file on disk can hurt."""

from __future__ import annotations

import os
import random
import stat
import subprocess
import sys
import textwrap

import pytest

from lipservice._answers import HTTPAnswer, Problem
from lipservice.export import spool as spool_module
from lipservice.export.config import PostHogConfig
from lipservice.export.spool import destination
from tests.support.export_bench import Bench, spool_files

REFUSED = HTTPAnswer(problem=Problem("connection", "refused"))


def bench_of(folder, **settings):
    return Bench(spool_dir=folder, max_retries=0, **settings)


def spooled(folder, *messages, **settings):
    """A process that could not send, and is gone."""
    bench = bench_of(folder, **settings)
    bench.network.default = REFUSED
    bench.log(*messages)
    bench.exporter.stop()
    return bench


def restarted(folder, **settings):
    bench = bench_of(folder, **settings)
    bench.flush()
    return bench


class TestRestart:
    def test_what_could_not_be_sent_is_sent_by_the_next_process(self, tmp_path):
        first = spooled(tmp_path, *map(str, range(25)))
        second = restarted(tmp_path)

        assert first.health()["spooled"] == 25
        assert sorted(second.network.bodies(), key=int) == [str(n) for n in range(25)]
        assert second.health()["recovered"] == 25
        assert second.balance() == (25, 25)
        assert spool_files(tmp_path) == []

    def test_it_is_sent_once(self, tmp_path):
        spooled(tmp_path, "a")
        restarted(tmp_path).exporter.stop()

        assert restarted(tmp_path).network.bodies() == []

    def test_resource_of_the_process_that_logged(self, tmp_path):
        spooled(tmp_path, "a", service_name="old")

        (got,) = restarted(tmp_path, service_name="new").network.acknowledged

        assert got["resource"]["service.name"] == "old"

    def test_facts_and_everything_else_of_the_record_survive(self, tmp_path):
        first = bench_of(tmp_path)
        first.network.default = REFUSED
        first.exporter.export_log(
            "pay 5",
            "ERROR",
            lipservice_signature="f" * 16,
            lipservice_weight=4.0,
            lipservice_rate=0.25,
            n=1,
        )
        first.exporter.stop()

        (got,) = restarted(tmp_path).network.acknowledged

        assert got["severity_number"] == 17
        assert got["attributes"] == {
            "n": 1,
            "lip_sig": "f" * 16,
            "lip_weight": 4.0,
            "lip_rate": 0.25,
            "lip_template": "pay <*>",
        }

    def test_records_of_another_destination_are_left_alone(self, tmp_path):
        spooled(tmp_path, "a", team_id=1)

        assert restarted(tmp_path, team_id=2).network.bodies() == []
        assert restarted(tmp_path, team_id=1, api_key="phc_other").network.bodies() == []
        assert restarted(tmp_path, team_id=1).network.bodies() == ["a"]

    def test_a_process_that_lives_keeps_its_files(self, tmp_path):
        living = bench_of(tmp_path)
        living.network.default = REFUSED
        living.log("a")
        living.flush()

        assert living.health()["spooled"] == 1
        other = restarted(tmp_path)
        assert other.network.bodies() == []
        living.network.default = 200
        living.turn(31)
        assert living.network.bodies() == ["a"]
        assert living.balance() == (1, 1)

    def test_old_records_say_their_time(self, tmp_path):
        spooled(tmp_path, "a")
        second = bench_of(tmp_path)
        second.wall += 23.5 * 3600
        second.flush()

        (got,) = second.network.acknowledged
        assert got["attributes"]["lip_time"].startswith("20")

    def test_young_records_do_not(self, tmp_path):
        spooled(tmp_path, "a")

        assert "lip_time" not in restarted(tmp_path).network.acknowledged[0]["attributes"]

    def test_killed_in_the_middle_nothing_acknowledged_is_sent_again(self, tmp_path):
        """A real process, killed while its spool is being sent."""
        spooled(tmp_path, *map(str, range(40)))
        program = textwrap.dedent("""
            import os, sys
            from tests.support.export_bench import Bench
            bench = Bench(spool_dir=sys.argv[1], max_retries=0)
            real, count = bench.network.__call__, []
            def post(*args):
                answer = real(*args)
                print(*bench.network.bodies(), flush=True)
                count.append(1)
                return answer
            bench.exporter._post = post
            settle = bench.exporter._settle
            def settle_and_die(*args):
                settle(*args)
                if len(count) == 2:
                    os.kill(os.getpid(), 9)
            bench.exporter._settle = settle_and_die
            bench.flush()
        """)
        killed = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        sent = killed.stdout.splitlines()[-1].split()
        rest = restarted(tmp_path).network.bodies()

        assert killed.returncode == -9, killed.stderr
        assert sorted([*sent, *rest], key=int) == [str(n) for n in range(40)]


class TestOutage:
    def test_what_would_overflow_goes_to_disk_while_the_receiver_is_away(self, tmp_path):
        bench = bench_of(tmp_path, max_queue_size=40, batch_size=10)
        bench.network.default = REFUSED
        for burst in range(20):
            bench.log(*[f"{burst}-{n}" for n in range(20)])
            bench.turn(0.01)

        assert "overflow" not in bench.health()["dropped"]
        bench.network.default = 200
        for _ in range(3):
            bench.turn(31)
        assert len(bench.network.bodies()) == 400
        assert bench.balance() == (400, 400)

    def test_a_refused_key_spools_what_was_in_hand(self, tmp_path):
        bench = bench_of(tmp_path)
        bench.network.default = 401
        bench.log("a")
        bench.flush()

        assert bench.health()["spooled"] == 1
        bench.exporter.stop()
        assert restarted(tmp_path).network.bodies() == ["a"]

    def test_a_bad_record_in_the_spool_is_found_and_dropped(self, tmp_path):
        spooled(tmp_path, *[f"{n}{'bad' if n == 3 else ''}" for n in range(10)])
        second = bench_of(tmp_path)
        second.network.poison = "bad"
        second.flush()

        assert len(second.network.bodies()) == 9
        assert second.health()["dropped"] == {"refused": 1}
        assert spool_files(tmp_path) == []
        assert second.balance() == (10, 10)


class TestBounds:
    def test_bytes_are_bounded_and_the_oldest_go_first(self, tmp_path):
        bench = bench_of(tmp_path, spool_max_bytes=20_000, batch_size=5)
        bench.network.default = REFUSED
        for n in range(30):
            bench.log(*[f"{n} " + "x" * 500] * 5)
            bench.turn(31)

        assert sum(path.stat().st_size for path in spool_files(tmp_path)) <= 20_000
        assert bench.health()["dropped"]["spool_full"] > 0
        assert bench.balance() == (150, 150)
        bench.exporter.stop()
        kept = {int(b.split()[0]) for b in restarted(tmp_path).network.bodies()}
        assert max(kept) == 29
        assert min(kept) == 30 - len(kept)

    def test_too_old_records_are_given_up_and_counted(self, tmp_path):
        spooled(tmp_path, "a", "b")
        late = bench_of(tmp_path, spool_max_age=3600.0)
        late.wall += 3700
        late.flush()

        assert late.network.bodies() == []
        assert late.health()["dropped"] == {"spool_expired": 2}
        assert late.balance() == (2, 2)

    def test_files_are_the_owners_alone(self, tmp_path):
        spooled(tmp_path, "a")

        (file,) = spool_files(tmp_path)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700

    def test_the_key_is_not_in_the_name(self):
        assert "secret" not in destination(PostHogConfig(api_key="phc_secret"))


def corruptions():
    draw = random.Random(5)

    def cut(at):
        return lambda content: content[: int(len(content) * at)]

    def flip(content):
        changed = bytearray(content)
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
        return bytes(changed)

    yield from [cut(at) for at in (0, 0.01, 0.05, 0.3, 0.5, 0.9, 0.999)]
    yield from [flip] * 60
    yield lambda content: bytes(len(content))
    yield lambda content: b"\xff" * len(content)
    yield lambda content: content + b"more"
    yield lambda content: content.replace(b"LIPSPOOL\x01", b"LIPSPOOL\x02")
    yield lambda _content: b"{}"


class TestCorruption:
    @pytest.mark.parametrize("corrupt", list(corruptions()))
    def test_a_damaged_file_never_hurts_and_is_never_sent(self, tmp_path, corrupt):
        spooled(tmp_path, "good", batch_size=1)
        spooled(tmp_path, "bad", batch_size=1)
        victim = next(path for path in spool_files(tmp_path) if b"bad" in path.read_bytes())
        victim.write_bytes(corrupt(victim.read_bytes()))

        after = restarted(tmp_path)

        assert after.network.bodies() == ["good"]
        assert after.health()["dropped"] == {"spool_corrupt": 1}
        assert after.balance() == (2, 2)
        assert spool_files(tmp_path) == []

    @pytest.mark.parametrize(
        "name",
        [
            "x.batch",
            "-.batch",
            "1-2-9999999999999999999.batch",
            "0-0-0.batch",
            "a-b-c-d.batch",
            "\u0661-2-3.batch",
        ],
    )
    def test_foreign_names(self, tmp_path, name):
        spooled(tmp_path, "good")
        (spool_files(tmp_path)[0].parent / name).write_bytes(b"what?")

        assert restarted(tmp_path).network.bodies() == ["good"]

    def test_a_folder_where_a_file_should_be(self, tmp_path):
        bench = spooled(tmp_path, "good")
        (spool_files(tmp_path)[0].parent / "000000000000001-000001-1.batch").mkdir()
        (tmp_path / destination(bench.exporter.config) / "stray").write_text("x")

        assert restarted(tmp_path).network.bodies() == ["good"]

    def test_a_file_half_written_when_its_process_died(self, tmp_path):
        spooled(tmp_path, "good")
        (spool_files(tmp_path)[0].parent / "000000000000001-000001-1.tmp").write_bytes(b"LIPSP")

        assert restarted(tmp_path).network.bodies() == ["good"]

    def test_a_folder_that_cannot_be_made(self, tmp_path):
        (tmp_path / "spool").write_text("a file")
        bench = spooled(tmp_path / "spool", "a")

        assert bench.health()["dropped"] == {"spool_failed": 1}
        assert "spool" in bench.said[-1]
        assert bench.balance() == (1, 1)

    def test_a_full_disk(self, tmp_path, monkeypatch):
        def full(*_args):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(spool_module, "_write_whole", full)
        bench = spooled(tmp_path, "a")

        assert bench.health()["dropped"] == {"spool_failed": 1}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_neither_sends_nor_keeps_the_parents_files(tmp_path):
    parent = bench_of(tmp_path)
    parent.network.default = REFUSED
    parent.log("a")
    parent.flush()
    (file,) = spool_files(tmp_path)

    pid = os.fork()
    if pid == 0:
        try:
            parent.network.default = 200
            parent.flush()
            os._exit(len(parent.network.bodies()) + parent.health()["spooled"])
        except BaseException:
            os._exit(99)

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert file.exists()
