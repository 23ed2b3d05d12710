"""`lipservice simulate`, run as a user runs it."""

from __future__ import annotations

import base64
import errno
import gzip
import hashlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lipservice.cli.main import main
from lipservice.policy import SamplingPolicy

COMMAND = [sys.executable, "-m", "lipservice.cli.main"]
DOCS = Path(__file__).parent.parent / "docs" / "how-to" / "simulate.md"


def run(*arguments, stdin=None, **environ):
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        timeout=60,
        env={**os.environ, "COLUMNS": "100", **environ},
        check=False,
    )


def simulated(*arguments, **options):
    """The JSON of a run that went well."""
    done = run("simulate", *arguments, "--json", **options)
    assert (done.returncode, done.stderr) == (0, b"")
    return json.loads(done.stdout)


def shop_lines(records=3000, errors=30):
    """Half an hour of a shop: some loud patterns, some rare ones, errors with tracebacks."""
    for number in range(records):
        time = f"2024-01-02 15:{number * 30 // records:02}:{number % 60:02},{number % 1000:03}"
        kind = number % 20
        if number % (records // errors) == 7 % (records // errors):
            yield f"{time} ERROR shop.pay payment of order {number} failed"
            yield "Traceback (most recent call last):"
            yield '  File "pay.py", line 7, in pay'
            yield f"ValueError: card {number} refused"
        elif number == records // 2:
            yield f"{time} WARNING shop.stock stock of item {number} is low"
        elif kind < 12:
            yield f"{time} DEBUG shop.db query took {number % 97} ms for {number} rows"
        elif kind < 19:
            yield f"{time} INFO shop.web request {number} served in {number % 31} ms"
        else:
            yield f"{time} INFO shop.beat heartbeat {number}"


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "shop.log"
    path.write_text("\n".join(shop_lines()) + "\n", encoding="utf-8")
    return path


class TestCommand:
    def test_it_tells_its_version(self):
        done = run("--version")

        assert done.returncode == 0
        assert re.fullmatch(rb"lipservice \d+\.\d+\.\d+\S*\s*", done.stdout)

    @pytest.mark.parametrize("arguments", [(), ("--help",)])
    def test_help_names_the_commands_and_imports_little(self, arguments):
        code = (
            "import sys; from lipservice.cli.main import main\n"
            "try: main(sys.argv[1:])\n"
            "except SystemExit: pass\n"
            "print({'tqdm', 'xxhash', 'requests', 'lipservice.cli.simulate'} & set(sys.modules))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
        )

        assert "simulate" in done.stdout
        assert done.stdout.endswith("set()\n")

    def test_an_unknown_command_is_wrong_usage(self):
        done = run("dance")

        assert done.returncode == 2
        assert b"dance" in done.stderr


class TestReport:
    def test_it_says_the_result_in_one_sentence(self, log):
        done = run("simulate", log, "--cost-target", "0.1")
        text = " ".join(done.stdout.decode().split())

        assert (done.returncode, done.stderr) == (0, b"")
        assert re.search(
            r"At [\d.]+ % of the bytes you would keep every error and 100 % of the patterns visible;"
            r" this saves \$[\d.]+ a month at \$0\.50 per GB\.",
            text,
        )
        assert "Each new process also keeps its first 10 records of each pattern" in text
        assert "payment of order <*> failed" in text
        assert "AT THE SAME VOLUME" in text

    def test_what_is_counted_adds_up(self, log):
        report = simulated(log)

        assert report["input"]["records"] == 3000
        assert log.stat().st_size == report["input"]["bytes"]
        assert report["input"]["lines"] == 3000 + 3 * 30
        assert sum(row["records"] for row in report["patterns"]) == 3000
        assert log.stat().st_size == sum(row["bytes"] for row in report["patterns"])
        assert log.stat().st_size == sum(s["seen_bytes"] for s in report["timeline"]["slices"])
        assert report["severities"]["ERROR"]["records"] == 30

    def test_the_target_is_kept_and_every_error_is_paid_for_first(self, log):
        report = simulated(log, "--cost-target", "10%")
        errors = [row for row in report["patterns"] if row["severity"] == "ERROR"]

        assert report["outcome"]["kept_share"] <= 0.1
        assert report["outcome"]["kept_share"] > 0.095
        assert {(1.0, 30, True)} == {(r["rate"], r["records"], r["protected"]) for r in errors}
        assert report["uniform"]["kept_bytes"] == pytest.approx(report["outcome"]["kept_bytes"])
        assert report["outcome"]["visible_share"] > report["uniform"]["visible_share"]

    def test_errors_beyond_the_target_are_said_plainly(self, tmp_path):
        path = tmp_path / "bad.log"
        path.write_text("\n".join(shop_lines(errors=1500)), encoding="utf-8")
        text = " ".join(run("simulate", path).stdout.decode().split())

        assert "The target of 10 % cannot be met: what is always kept" in text
        assert simulated(path)["target_missed"] is True

    def test_a_month_is_extrapolated_from_the_time_span(self, tmp_path):
        path = tmp_path / "hour.log"
        lines = [
            f"2024-01-02T{15 + m // 60}:{m % 60:02}:00Z INFO x done {m:03}\n" for m in range(61)
        ]
        path.write_text("".join(lines), encoding="utf-8")
        money = simulated(path, "--price-per-gb", "1000000")["money"]

        assert (money["basis"], money["why_not_extrapolated"]) == ("month", None)
        assert money["seen"] == pytest.approx(len("".join(lines)) / 1e9 * 1e6 * 730)
        assert money["saved"] == pytest.approx(money["seen"] - money["kept"])

    def test_without_times_only_this_input_is_priced(self, tmp_path):
        path = tmp_path / "plain.log"
        path.write_text("something happened 1\n" * 100, encoding="utf-8")
        text = " ".join(run("simulate", path).stdout.decode().split())

        assert "no timestamps found" in text
        assert "on this input" in text
        assert "Not extrapolated to a month: no record has a time." in text

    def test_first_records_are_counted_apart(self, log):
        first = simulated(log, "--keep-first", "3")["first_records"]

        assert first["keep_first"] == 3
        assert first["records"] == 3 * 3  # query, request, heartbeat; the rest is kept anyway
        assert simulated(log, "--keep-first", "0")["first_records"]["records"] == 0

    def test_a_protected_word_keeps_its_patterns_whole(self, log):
        rows = simulated(log, "--protect", "heartbeat", "--cost-target", "0.2")["patterns"]
        (row,) = [row for row in rows if "heartbeat" in row["template"]]

        assert (row["rate"], row["protected"]) == (1.0, True)

    def test_an_empty_file_is_no_error(self, tmp_path):
        (tmp_path / "empty.log").touch()
        done = run("simulate", tmp_path / "empty.log")

        assert done.returncode == 0
        assert b"No log records were found." in done.stdout
        assert simulated(tmp_path / "empty.log")["input"]["records"] == 0

    def test_top_bounds_the_table(self, log):
        done = run("simulate", log, "--top", "2")

        assert b"heartbeat" not in done.stdout
        assert b"3 more patterns" in done.stdout
        assert len(simulated(log, "--top", "2")["patterns"]) == 2

    def test_the_documentation_names_every_key_of_the_json(self, log):
        def keys(value):
            if isinstance(value, dict):
                for key, inner in value.items():
                    yield key
                    yield from () if key in {"policy", "formats", "severities"} else keys(inner)
            elif isinstance(value, list) and value:
                yield from keys(value[0])

        text = DOCS.read_text(encoding="utf-8")

        assert set() == {key for key in keys(simulated(log)) if f"`{key}`" not in text}

    def test_the_documentation_names_every_option(self):
        options = set(re.findall(rb"--[a-z][a-z-]+", run("simulate", "--help").stdout)) - {
            b"--help"
        }
        text = DOCS.read_bytes()

        assert set() == {option for option in options if b"`" + option not in text}


class TestInputs:
    def test_standard_input_is_read_with_and_without_a_dash(self, log):
        expected = simulated(log)["patterns"]

        assert expected == simulated("-", stdin=log.read_bytes())["patterns"]
        assert expected == simulated(stdin=log.read_bytes())["patterns"]
        assert expected == simulated("-", stdin=gzip.compress(log.read_bytes()))["patterns"]

    def test_several_files_are_one_log(self, log, tmp_path):
        packed = tmp_path / "old.log.gz"
        packed.write_bytes(gzip.compress(log.read_bytes()))
        report = simulated(packed, log)

        assert [str(packed), str(log)] == report["input"]["names"]
        assert report["input"]["records"] == 6000

    def test_the_format_of_the_application_can_be_named(self, tmp_path):
        path = tmp_path / "app.log"
        path.write_text("cart~ERROR~it broke 7\ncart~INFO~it works 7\n", encoding="utf-8")
        report = simulated(path, "--log-format", "%(name)s~%(levelname)s~%(message)s")

        assert {("it broke <*>", "ERROR"), ("it works <*>", "INFO")} == {
            (row["template"], row["severity"]) for row in report["patterns"]
        }

    def test_a_message_has_the_signature_that_the_sdk_computes(self, tmp_path):
        from lipservice.signature import compute_signature

        path = tmp_path / "app.log"
        path.write_text("2024-01-02 15:04:05,123 - shop.cart - INFO - added 3 items to cart 17\n")

        (row,) = simulated(path)["patterns"]
        assert [compute_signature("added 3 items to cart 17")] == row["signatures"]


class TestPolicy:
    def test_the_written_policy_is_one_that_the_sampler_reads(self, log, tmp_path):
        path = tmp_path / "policy.json"
        report = simulated(log, "--write-policy", path, "--service-name", "shop")
        policy = SamplingPolicy.from_dict(json.loads(path.read_text(encoding="utf-8")))

        assert policy.policy_id == "shop"
        assert report["policy"] == policy.to_dict()

    def test_looking_at_a_policy_gives_what_planning_it_gave(self, log, tmp_path):
        path = tmp_path / "policy.json"
        planned = simulated(log, "--write-policy", path)
        looked_at = simulated(log, "--policy", path)

        assert planned["outcome"] == looked_at["outcome"]
        assert looked_at["cost_target"] is None

    def test_only_a_policy_is_replaced_unless_forced(self, log, tmp_path):
        path = tmp_path / "policy.json"
        path.write_text('{"precious": true}', encoding="utf-8")
        refused = run("simulate", log, "--write-policy", path)

        assert refused.returncode == 2
        assert b"--force" in refused.stderr
        assert path.read_text(encoding="utf-8") == '{"precious": true}'
        assert run("simulate", log, "--write-policy", path, "--force").returncode == 0
        assert run("simulate", log, "--write-policy", path).returncode == 0
        assert [path.name, log.name] == sorted(p.name for p in tmp_path.iterdir())

    @pytest.mark.parametrize("option", ["--html", "--write-policy"])
    def test_an_input_is_never_replaced(self, log, option):
        before = log.read_bytes()

        assert run("simulate", log, option, log, "--force").returncode == 2
        assert before == log.read_bytes()

    @pytest.mark.parametrize("content", ["nonsense", '{"sampling_rate": 7}', "[" * 100_000, None])
    def test_a_policy_that_cannot_be_read_is_told_in_one_line(self, log, tmp_path, content):
        path = tmp_path / "policy.json"
        if content is not None:
            path.write_text(content, encoding="utf-8")
        done = run("simulate", log, "--policy", path)

        assert (done.returncode, done.stdout) == (2, b"")
        assert done.stderr.count(b"\n") == 1
        assert b"policy.json" in done.stderr


class TestBadUsage:
    @pytest.mark.parametrize(
        "arguments",
        [
            ("absent.log",),
            (".",),
            ("-", "-"),
            ("x", "--cost-target", "1.5"),
            ("x", "--cost-target", "nan"),
            ("x", "--price-per-gb", "-1"),
            ("x", "--top", "many"),
            ("x", "--cost", "0.1"),
            ("x", "--policy", "p.json", "--protect", "w"),
            ("x", "--log-format", "%(levelname)s"),
            ("x", "--html", "no/such/folder/x.html"),
            ("x", "--html", "."),
            ("bad\0name",),
        ],
    )
    def test_it_ends_with_2_and_without_a_traceback(self, arguments):
        if "\0" in arguments[0]:
            assert main(["simulate", *arguments]) == 2
            return
        done = run("simulate", *arguments)

        assert (done.returncode, done.stdout) == (2, b"")
        assert b"Traceback" not in done.stderr
        assert done.stderr.strip()

    def test_a_name_with_a_line_end_stays_one_line(self):
        done = run("simulate", "a\nb\x1b[31m.log", PYTHONIOENCODING="ascii")

        assert done.stderr.count(b"\n") == 1


class TestTerminal:
    def test_nothing_is_coloured_in_a_pipe(self, log):
        assert b"\x1b" not in run("simulate", log).stdout

    def test_colours_are_for_terminals_and_no_color_is_honoured(self, log):
        assert b"\x1b[" in self._on_a_terminal(log)
        assert b"\x1b[3" not in self._on_a_terminal(log, NO_COLOR="1")

    def _on_a_terminal(self, log, **environ):
        control, terminal = pty.openpty()
        environ = {**os.environ, "TERM": "xterm", **environ}
        process = subprocess.Popen(
            [*COMMAND, "simulate", str(log), "--top", "3"],
            stdin=subprocess.DEVNULL, stdout=terminal, stderr=subprocess.DEVNULL, env=environ,
        )  # fmt: skip
        os.close(terminal)
        shown = b""
        try:
            while part := os.read(control, 65536):
                shown += part
        except OSError:  # Linux's way to say that the other end is closed
            pass
        os.close(control)
        assert process.wait(timeout=60) == 0
        return shown

    @pytest.mark.parametrize("columns", [40, 61, 84, 100, 160])
    def test_no_line_is_wider_than_the_terminal(self, log, columns):
        text = run("simulate", log, COLUMNS=str(columns)).stdout.decode()

        assert columns >= max(len(line.rstrip()) for line in text.splitlines())

    def test_an_ascii_terminal_gets_ascii(self, tmp_path):
        path = tmp_path / "app.log"
        path.write_text("ERROR:shop:käse 日本 \x1b[2J \u202e gone\n" * 5, encoding="utf-8")
        done = run("simulate", path, PYTHONIOENCODING="ascii", LC_ALL="C")

        assert done.returncode == 0
        assert done.stdout.isascii()
        assert b"\x1b" not in done.stdout

    def test_a_broken_pipe_is_silent(self, log):
        process = subprocess.Popen(
            [*COMMAND, "simulate", str(log), "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        process.stdout.close()
        _, errors = process.communicate(timeout=60)

        assert (process.returncode, errors) == (0, b"")

    def test_ctrl_c_ends_it_with_130_and_a_line(self):
        process = subprocess.Popen(
            [*COMMAND, "simulate", "-"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        # More than a pipe and one block hold: once it is written, the reader is at work.
        process.stdin.write(b"INFO:shop:one\n" * 40_000)
        process.stdin.flush()
        process.send_signal(signal.SIGINT)
        process.stdin.close()
        output, errors = process.stdout.read(), process.stderr.read()
        process.stdout.close()
        process.stderr.close()

        assert (process.wait(timeout=60), output) == (130, b"")
        assert errors.strip() == b"lipservice: interrupted"


class Page(HTMLParser):
    """Notes what a browser would fetch or run, and whether every element is closed."""

    VOID = frozenset({"meta", "link", "br", "img", "input", "hr"})

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.policy, self.ids = [], set(), set(), "", []
        self.links, self.style = [], ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        found = dict(attributes)
        self.attributes |= set(found)
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found["href"]] if "href" in found else []
        if found.get("http-equiv") == "Content-Security-Policy":
            self.policy = found["content"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert tag == self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] == "style":
            self.style += data


class TestPage:
    def test_it_is_one_file_that_asks_for_nothing(self, log, tmp_path):
        path = tmp_path / "report.html"
        assert run("simulate", log, "--html", path).returncode == 0
        text = path.read_text(encoding="utf-8")
        page = Page(text)
        digest = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()

        assert page.policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}'")
        assert not page.tags & {"script", "link", "img", "iframe", "object", "form", "base"}
        assert not {each for each in page.attributes if each.startswith("on")} | (
            page.attributes & {"style", "src", "srcset"}
        )
        assert "url(" not in page.style
        assert "@import" not in page.style
        assert not re.search(r"https?:", text)

    def test_every_tile_leads_to_its_row(self, log, tmp_path):
        path = tmp_path / "report.html"
        run("simulate", log, "--html", path)
        page = Page(path.read_text(encoding="utf-8"))

        assert page.links
        assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
        assert len(page.ids) == len(set(page.ids))

    def test_log_lines_cannot_write_html(self, tmp_path):
        attack = '</title></style><script>alert(1)</script> "onload=x <img src=x> \u202e &lt;'
        log, path = tmp_path / "app.log", tmp_path / "report.html"
        log.write_text(f"ERROR:shop:{attack}\n{attack}\n" * 20, encoding="utf-8")
        assert run("simulate", log, "--html", path, "--service-name", attack).returncode == 0
        text = path.read_text(encoding="utf-8")
        page = Page(text)

        assert not page.tags & {"script", "img"}
        assert "\u202e" not in text

    def test_a_page_replaces_a_page_but_nothing_else(self, log, tmp_path):
        path = tmp_path / "report.html"
        path.write_text("<!doctype html><p>my own", encoding="utf-8")

        assert run("simulate", log, "--html", path).returncode == 2
        path.unlink()
        assert run("simulate", log, "--html", path).returncode == 0
        assert run("simulate", log, "--html", path).returncode == 0

    def test_a_log_without_anything_still_gives_a_page(self, tmp_path):
        (tmp_path / "empty.log").touch()
        path = tmp_path / "report.html"

        assert run("simulate", tmp_path / "empty.log", "--html", path).returncode == 0
        assert "No log records were found." in path.read_text(encoding="utf-8")


class TestForbiddenFiles:
    """A shell's `/var/log/*.log` has files that only root may read."""

    @pytest.fixture
    def names(self, tmp_path, monkeypatch):
        for name in ("a.log", "secret.log", "z.log"):
            (tmp_path / name).write_text("INFO user 1 logged in\n", encoding="utf-8")
        opened = Path.open

        def refuse(path, *arguments, **options):  # root may read whatever its mode is
            if path.name == "secret.log":
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return opened(path, *arguments, **options)

        monkeypatch.setattr(Path, "open", refuse)
        return [str(tmp_path / name) for name in ("a.log", "secret.log", "z.log")]

    @pytest.mark.parametrize("command", ["simulate", "patterns"])
    def test_they_are_passed_over_and_named(self, command, names, capsys):
        assert main([command, *names, "--json"]) == 0

        told = json.loads(capsys.readouterr().out)
        told = told.get("input", told)
        assert len(told["troubles"]) == 1
        assert "secret.log: Permission denied; passed over" in told["troubles"][0]

    def test_alone_they_are_an_error(self, names, capsys):
        assert main(["simulate", names[1], names[1]]) == 2

        assert "Permission denied" in capsys.readouterr().err
