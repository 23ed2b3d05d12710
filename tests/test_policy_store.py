"""Policies on disk: whatever happened to the file, a good policy or none, and never an exception."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lipservice import _policy_store
from lipservice._policy_store import CachedPolicy, PolicyCache, PolicyFile
from lipservice.exceptions import ConfigurationError
from lipservice.policy import SamplingPolicy
from tests.support.programs import run_script

IDENTITY = ("https://lipservice.example.com", "checkout", "lip_live_s3cr3t")
POLICY = SamplingPolicy.from_dict(
    {
        "policy_id": "policy_123",
        "version": 7,
        "sampling_rate": 0.1,
        "patterns": ["payment", "größe"],
        "max_logs_per_minute": 1000,
        "severity_rates": {"WARNING": 0.5, "INFO": 0.1},
        "pattern_rates": {"00000000000000aa": 0.25},
        "keep_first": 3,
        "mode": "shadow",
        "reasoning": "because",
        "created_at": "2026-11-23T12:00:00Z",
    }
)
NEWER = replace(POLICY, version=8, sampling_rate=0.2)
needs_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may do this"
)


@pytest.fixture
def cache(tmp_path):
    return PolicyCache(tmp_path / "cache", IDENTITY)


@pytest.fixture
def stored(cache):
    assert cache.save(POLICY, '"etag"') is None
    return cache


def is_refused(cache):
    """Whether the file is not used, and the reason is said in words."""
    cached, reason = cache.load()
    return cached is None and bool(reason) and "the cached policy is not used: " in reason


class TestKeeping:
    def test_nothing_is_there_at_first(self, cache):
        assert cache.load() == (None, None)

    def test_what_was_stored_comes_back(self, stored):
        assert stored.load() == (CachedPolicy(POLICY, '"etag"'), None)

    def test_the_last_one_replaces_the_others(self, stored):
        stored.save(NEWER, None)

        assert stored.load() == (CachedPolicy(NEWER, None), None)
        assert len(list(stored.path.parent.iterdir())) == 1

    def test_only_its_owner_may_read_it(self, stored):
        assert stored.path.stat().st_mode & 0o777 == 0o600
        assert stored.path.parent.stat().st_mode & 0o777 == 0o700

    def test_nothing_secret_is_written(self, stored):
        written = stored.path.read_bytes() + str(stored.path).encode()

        assert b"s3cr3t" not in written
        assert hashlib.sha256(b"lip_live_s3cr3t").hexdigest()[:8].encode() not in written

    @pytest.mark.parametrize("place", [0, 1, 2])
    def test_another_server_service_or_key_has_another_file(self, stored, place):
        other = list(IDENTITY)
        other[place] += "2"
        cache = PolicyCache(stored.path.parent, tuple(other))

        assert cache.load() == (None, None)

    @pytest.mark.parametrize("place", [0, 1, 2])
    def test_nor_does_it_take_ours_under_its_own_name(self, stored, place):
        other = list(IDENTITY)
        other[place] += "2"
        cache = PolicyCache(stored.path.parent, tuple(other))
        cache.path.write_bytes(stored.path.read_bytes())

        assert is_refused(cache)

    def test_what_a_killed_writer_left_is_removed_but_not_what_one_is_writing(self, stored):
        old, new = (stored.path.with_name(f".{stored.path.name}.{n}.tmp") for n in (1, 2))
        old.write_bytes(b"half")
        new.write_bytes(b"half")
        os.utime(old, (1, 1))
        stored.save(NEWER, None)

        assert (old.exists(), new.exists()) == (False, True)


class TestCorruption:
    def test_each_truncation(self, stored):
        content = stored.path.read_bytes()
        for length in range(len(content)):
            stored.path.write_bytes(content[:length])
            assert is_refused(stored), length

    def test_a_flipped_bit_anywhere(self, stored):
        """Each bit of the head, one of each byte of the body: refused, or still the right policy."""
        content = stored.path.read_bytes()
        head = content.index(b"\n") + 1
        for place in range(len(content)):
            for bit in range(8) if place < head else [place % 8]:
                changed = bytearray(content)
                changed[place] ^= 1 << bit
                stored.path.write_bytes(changed)
                cached, reason = stored.load()
                assert reason or cached == CachedPolicy(POLICY, '"etag"'), (place, bit)

    def test_random_damage(self, stored):
        rng = random.Random(20261123)
        content = stored.path.read_bytes()
        for _ in range(500):
            changed = bytearray(content)
            start = rng.randrange(len(changed))
            length = rng.randrange(1, 200)
            changed[start : start + length] = rng.choice(
                [bytes(length), rng.randbytes(length), b"", changed[:length], b"9" * length]
            )
            stored.path.write_bytes(changed)
            assert bytes(changed) == content or is_refused(stored)

    @given(content=st.binary(max_size=2000))
    def test_any_bytes(self, tmp_path_factory, content):
        cache = PolicyCache(tmp_path_factory.getbasetemp(), IDENTITY)
        cache.path.write_bytes(content)

        assert is_refused(cache)

    @pytest.mark.parametrize(
        "content",
        [b"", b"\0" * 4096, b"null\nnull", b"[]\n[]", b'{"a":' + b"[" * 100_000, b"\xff\xfe{}\n{}",
         b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94\x8c\x06system\x94\x93\x94."],
        ids=["empty", "zeroes", "nulls", "lists", "nested", "utf16", "pickle"],
    )  # fmt: skip
    def test_something_else_in_its_place(self, stored, content):
        stored.path.write_bytes(content)

        assert is_refused(stored)

    def test_another_version_of_the_format(self, stored):
        head, body = stored.path.read_bytes().split(b"\n", 1)
        head = json.dumps({**json.loads(head), "version": 2}).encode()
        stored.path.write_bytes(head + b"\n" + body)

        assert is_refused(stored)

    def test_a_document_that_is_wrong_although_it_is_ours(self, stored, monkeypatch):
        """Written by a newer or buggy version of ourselves."""
        document = {**POLICY.to_dict(), "sampling_rate": 7}
        monkeypatch.setattr(SamplingPolicy, "to_dict", lambda _: document)
        stored.save(POLICY, None)

        assert is_refused(stored)

    def test_after_any_of_it_the_next_policy_is_stored(self, stored):
        stored.path.write_bytes(b"garbage")
        stored.save(NEWER, None)

        assert stored.load() == (CachedPolicy(NEWER, None), None)


class TestOddPlaces:
    """None of these may be waited for."""

    def test_a_folder_in_its_place(self, stored):
        stored.path.unlink()
        stored.path.mkdir()

        assert is_refused(stored)
        assert "cannot be cached" in stored.save(POLICY, None)
        assert list(stored.path.parent.iterdir()) == [stored.path]

    def test_a_pipe_in_its_place(self, stored):
        stored.path.unlink()
        os.mkfifo(stored.path)

        assert is_refused(stored)
        assert stored.save(POLICY, None) is None

    @pytest.mark.parametrize("device", ["/dev/zero", "/dev/full", "/dev/tty"])
    def test_a_link_to_a_device(self, stored, device):
        stored.path.unlink()
        stored.path.symlink_to(device)

        assert is_refused(stored)

    def test_a_link_to_itself(self, stored):
        stored.path.unlink()
        stored.path.symlink_to(stored.path)

        assert is_refused(stored)

    def test_a_file_that_is_too_large(self, stored, monkeypatch):
        monkeypatch.setattr(_policy_store, "MAX_FILE_BYTES", 100)

        assert "larger than 100 bytes" in stored.load()[1]

    @pytest.mark.parametrize("folder", ["/dev/full", "/proc/nowhere", "\0", "x" * 5000])
    def test_a_folder_that_cannot_be_one(self, folder):
        cache = PolicyCache(folder, IDENTITY)

        assert "cannot be cached" in cache.save(POLICY, None)
        assert cache.load()[0] is None

    @needs_root
    def test_a_file_of_another_user(self, stored):
        """Root may read anything; it must not obey anything."""
        os.chown(stored.path, 12345, 12345)
        if os.geteuid() == 0:
            assert "belongs to another user" in stored.load()[1]

    @needs_root
    def test_no_permission(self):
        out = run_script("""
            import os, tempfile
            from lipservice._policy_store import PolicyCache
            from lipservice.policy import SamplingPolicy

            with tempfile.TemporaryDirectory(dir="/tmp") as folder:
                cache = PolicyCache(folder, ("a", "b", "c"))
                assert cache.save(SamplingPolicy(), None) is None
                os.chmod(folder, 0o755)
                os.seteuid(65534)
                print(cache.load())
                print(cache.save(SamplingPolicy(), None).partition(": ")[2])
                os.seteuid(0)
        """)

        assert out.splitlines() == [
            "(None, 'the cached policy is not used: Permission denied')",
            "Permission denied",
        ]


class TestFullDisk:
    def test_a_limit_on_the_size_of_files(self, tmp_path):
        """The last good policy stays, and no half of the new one."""
        out = run_script(
            """
            import os, resource, signal, sys
            from lipservice._policy_store import PolicyCache
            from lipservice.policy import SamplingPolicy

            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            cache = PolicyCache(sys.argv[1], ("a", "b", "c"))
            good = SamplingPolicy(sampling_rate=0.5)
            assert cache.save(good, None) is None
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
            print(cache.save(SamplingPolicy(sampling_rate=0.25), None).partition(": ")[2])
            assert cache.load()[0].policy == good
            print(len(os.listdir(sys.argv[1])))
            """,
            tmp_path,
        )

        assert out.splitlines() == ["File too large", "1"]

    @needs_root
    def test_a_file_system_that_is_full(self, tmp_path):
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", tmp_path],
            capture_output=True,
            check=False,
        )
        if mounted.returncode:
            pytest.skip("no tmpfs can be mounted here")
        try:
            cache = PolicyCache(tmp_path, IDENTITY)
            assert cache.save(POLICY, None) is None
            (tmp_path / "filler").write_bytes(bytes(8192))

            reason = cache.save(replace(NEWER, reasoning="x" * 50_000), None)

            assert "No space left on device" in reason
            assert cache.load() == (CachedPolicy(POLICY, None), None)
            assert len(list(tmp_path.iterdir())) == 2
            (tmp_path / "filler").unlink()
            assert cache.save(NEWER, None) is None
        finally:
            subprocess.run(["umount", tmp_path], check=True)


def test_several_writers_and_a_reader_see_whole_policies(tmp_path):
    """Four processes write; one of them is killed in the middle, again and again."""
    out = run_script(
        """
        import os, signal, sys, time
        from lipservice._policy_store import PolicyCache
        from lipservice.policy import SamplingPolicy

        cache = PolicyCache(sys.argv[1], ("a", "b", "c"))
        policies = [SamplingPolicy(version=n, reasoning="x" * n * 1000) for n in range(1, 5)]
        cache.save(policies[0], None)

        def write(policy):
            child = os.fork()
            if child == 0:
                while True:
                    cache.save(policy, None)
            return child

        writers = [write(policy) for policy in policies]
        seen, killed = set(), 0
        until = time.monotonic() + 60
        while (len(seen) < 4 or killed < 20) and time.monotonic() < until:
            for _ in range(20):
                cached, reason = cache.load()
                assert reason is None, reason
                assert cached.policy in policies
                seen.add(cached.policy.version)
            os.kill(writers[0], signal.SIGKILL)
            os.waitpid(writers[0], 0)
            writers[0] = write(policies[0])
            killed += 1
        for writer in writers:
            os.kill(writer, signal.SIGKILL)
            os.waitpid(writer, 0)
        print(sorted(seen))
        """,
        tmp_path,
    )

    assert out == "[1, 2, 3, 4]\n"


class TestPolicyFile:
    @pytest.fixture
    def path(self, tmp_path):
        path = tmp_path / "policy.json"
        path.write_text(json.dumps(POLICY.to_dict()))
        return path

    @staticmethod
    def later(path, text):
        """Write *text* with a time stamp of its own, as an edit some seconds later has."""
        before = path.stat().st_mtime_ns if path.exists() else 0
        path.write_text(text)
        os.utime(path, ns=(before + 10**10, before + 10**10))

    def test_the_first_policy(self, path):
        assert PolicyFile(path).load() == POLICY

    @pytest.mark.parametrize(
        ("content", "says"),
        [("", "no JSON"), ("[]", "a JSON list"), ('{"sampling_rate": 2}', "sampling_rate"),
         ('{"sampling_rate": NaN}', "sampling_rate"), ("[" * 100_000, "no JSON")],
    )  # fmt: skip
    def test_a_bad_file_is_named_at_the_start(self, path, content, says):
        path.write_text(content)

        with pytest.raises(ConfigurationError, match=rf"^policy_file .*policy\.json.*{says}"):
            PolicyFile(path).load()

    @pytest.mark.parametrize("place", ["missing.json", ".", "\0"])
    def test_a_file_that_is_none_is_named_at_the_start(self, tmp_path, place):
        with pytest.raises(ConfigurationError, match=r"^policy_file "):
            PolicyFile(tmp_path / place).load()

    def test_an_edit_is_seen_once(self, path):
        file = PolicyFile(path)
        file.load()
        self.later(path, json.dumps(NEWER.to_dict()))

        assert [file.reload() for _ in range(3)] == [(NEWER, None), (None, None), (None, None)]

    def test_a_file_that_nobody_touched_is_not_read_again(self, path, monkeypatch):
        file = PolicyFile(path, now=lambda: path.stat().st_mtime + 60)
        file.load()
        monkeypatch.setattr(_policy_store, "_read_regular_file", lambda *_, **__: 1 / 0)

        assert file.reload() == (None, None)

    def test_an_edit_in_the_same_tick_of_the_clock_is_seen(self, path):
        """Same time stamp, same size, same inode."""
        file = PolicyFile(path)
        file.load()
        stamp = path.stat().st_mtime_ns
        path.write_text(path.read_text().replace('"version": 7', '"version": 8'))
        os.utime(path, ns=(stamp, stamp))

        assert file.reload()[0].version == 8

    def test_a_new_file_renamed_over_it_is_seen(self, path, tmp_path):
        """As editors and Kubernetes do, also with an old time stamp."""
        file = PolicyFile(path, now=lambda: path.stat().st_mtime + 60)
        file.load()
        stamp = path.stat().st_mtime_ns
        new = tmp_path / "new.json"
        new.write_text(path.read_text().replace('"version": 7', '"version": 8'))
        os.utime(new, ns=(stamp, stamp))
        new.replace(path)

        assert file.reload()[0].version == 8

    def test_a_bad_edit_is_said_once_and_the_fix_is_taken(self, path):
        file = PolicyFile(path)
        file.load()
        self.later(path, '{"sampling_rate": 2}')
        answers = [file.reload() for _ in range(5)]
        self.later(path, json.dumps(NEWER.to_dict()))

        assert [policy for policy, _ in answers] == [None] * 5
        complaints = [complaint for _, complaint in answers if complaint]
        assert len(complaints) == 1
        assert "sampling_rate lies between 0 and 1" in complaints[0]
        assert file.reload() == (NEWER, None)

    def test_a_file_caught_in_the_middle_of_its_writing_is_not_complained_of(self, path):
        file = PolicyFile(path)
        file.load()
        text = json.dumps(NEWER.to_dict())
        self.later(path, text[: len(text) // 2])
        half = file.reload()
        self.later(path, text)

        assert half == (None, None)
        assert file.reload() == (NEWER, None)

    def test_a_file_that_goes_and_comes_back(self, path):
        file = PolicyFile(path)
        file.load()
        text = path.read_text()
        path.unlink()
        answers = [file.reload() for _ in range(4)]
        path.write_text(text.replace('"version": 7', '"version": 8'))

        assert [bool(complaint) for _, complaint in answers] == [False, True, False, False]
        assert "No such file" in answers[1][1]
        assert file.reload()[0].version == 8
