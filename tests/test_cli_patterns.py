"""`lipservice patterns`: the patterns of logs, and the logging calls that split them."""

from __future__ import annotations

import io
import json
import logging
import os
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lipservice import call_sites
from lipservice.call_sites import analyse_waiting, site_at
from lipservice.cli.logging_calls import find_calls, python_files
from lipservice.cli.main import main
from lipservice.cli.patterns import SiteFinder
from lipservice.signature import compute_signature


@pytest.fixture
def run(capsys, monkeypatch):
    """Runs the command in this process: its exit code, output and errors."""
    monkeypatch.setenv("COLUMNS", "100")

    def run(*arguments):
        code = main(["patterns", *map(str, arguments)])
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def source(tmp_path):
    """Writes a Python file below a folder and gives its path."""

    def write(text, name="src/app.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


def json_of(run, *arguments, code=0):
    got, out, err = run(*arguments, "--json")
    assert (got, err) == (code, "")
    return json.loads(out)


# --- the patterns of logs ---------------------------------------------------------------------

LOG = (
    "2024-01-02 15:00:00,000 INFO app request 1 served in 3 ms to a client far away\n" * 5
    + "2024-01-02 15:00:01,000 WARNING app disk 1 is full\n" * 6
    + "2024-01-02 15:00:01,000 ERROR app disk 2 is full\n"
)


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "app.log"
    path.write_text(LOG)
    return path


def test_the_patterns_of_a_log_come_with_the_most_bytes_first(run, log):
    document = json_of(run, log)

    assert document["schema_version"] == 1
    assert document["input"]["records"] == 12
    assert (
        document["input"]["bytes"]
        == len(LOG)
        == sum(each["bytes"] for each in document["patterns"])
    )
    first, second = document["patterns"]
    assert first["template"].endswith("request <*> served in <*> to a client far away")
    assert first["records"] == 5
    assert second["template"].endswith("disk <*> is full")
    assert second["severities"] == {"WARNING": 6, "ERROR": 1}
    message = second["template"].replace("<*>", "1")
    assert second["signature"] == compute_signature(message)


def test_people_get_a_table_and_a_sum(run, log):
    code, out, _ = run(log)

    lines = out.splitlines()
    assert code == 0
    assert lines[0].split() == ["bytes", "records", "severity", "signature", "template"]
    assert lines[2].split()[2:4] == ["7", "WARNING+"]
    assert lines[-1] == f"2 patterns; 12 records, {len(LOG)} bytes"


@pytest.mark.parametrize(("top", "rows"), [(0, 0), (1, 1), (5, 2)])
def test_top_bounds_the_rows_and_not_the_sum(run, log, top, rows):
    document = json_of(run, log, "--top", top)

    assert (len(document["patterns"]), document["pattern_count"]) == (rows, 2)
    _, out, _ = run(log, "--top", top)
    assert len(out.splitlines()) == 2 + rows
    assert out.splitlines()[-1].startswith("2 patterns")


def test_the_logs_may_come_by_standard_input(run, monkeypatch):
    monkeypatch.setattr(
        "sys.stdin", SimpleNamespace(buffer=io.BytesIO(LOG.encode()), isatty=lambda: False)
    )

    assert json_of(run, "-")["input"]["records"] == 12


def test_an_empty_log_has_no_patterns(run, tmp_path):
    (tmp_path / "empty.log").touch()

    assert run(tmp_path / "empty.log") == (0, "No log records were found.\n", "")


def test_what_a_log_says_cannot_move_the_cursor(run, tmp_path):
    (tmp_path / "app.log").write_bytes(b"evil \x1b[2J\x1b[31m text\n")

    assert "\x1b" not in run(tmp_path / "app.log")[1]


# --- call sites -------------------------------------------------------------------------------


def test_each_call_that_formats_its_message_is_a_line_that_editors_open(run, source):
    path = source(
        "import logging\n"
        "logger = logging.getLogger(__name__)\n"
        "logger.info('constant')\n"
        "logger.info('user %s in', name)\n"
        "logger.info(f'user {name} logged in from {place}')\n"
        "logger.info('load ' + str(load))\n"
        "logger.info(f'{name}')\n"
        "logger.info(message)\n"
    )
    code, out, err = run("--call-sites", path)

    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"{path}:7: <*> | f-string, 1 variable, not healed: no constant text | "
        'logger.info("%s", name)',
        f"{path}:5: user <*> logged in from <*> | f-string, 2 variables, healed | "
        'logger.info("user %s logged in from %s", name, place)',
        f'{path}:6: load <*> | concatenation, 1 variable, healed | logger.info("load %s", load)',
        "3 of 6 logging calls in 1 file format their messages themselves; healed at run time: 2",
    ]


def test_the_json_has_the_same_and_more(run, source):
    path = source("logger.info(f'user {name} has {len(items):>5} items in {place}')\n")

    document = json_of(run, "--call-sites", path)

    assert document["call_sites"] == [
        {
            "path": str(path),
            "line": 1,
            "kind": "f-string",
            "template": "user <*> has <*> items in <*>",
            "variables": 3,
            "word_variables": 2,
            "healed": True,
            "reason": None,
            "replacement": 'logger.info("user %s has %5s items in %s", name, len(items), place)',
            "signatures": 0,
            "records": 0,
            "bytes": 0,
        }
    ]
    assert [
        document[name] for name in ("files", "logging_calls", "call_site_count", "healed_count")
    ] == [1, 1, 1, 1]


def test_without_logs_the_calls_with_most_words_come_first(run, source):
    path = source(
        "logger.info(f'a {len(x)} {len(y)} {z:d} {t:.2f}')\n"
        "logger.info(f'b {name} {place}')\n"
        "logger.info(f'c {name}')\n"
    )

    assert [each["line"] for each in json_of(run, "--call-sites", path)["call_sites"]] == [2, 3, 1]
    assert len(json_of(run, "--call-sites", path, "--top", 1)["call_sites"]) == 1


@pytest.mark.parametrize(
    ("text", "code"), [("logger.info(f'a {b}')", 1), ("logger.info('a %s', b)", 0)]
)
def test_check_fails_where_a_call_formats_its_own_message(run, source, text, code):
    path = source(text)

    assert run("--call-sites", path, "--check")[0] == code
    assert run("--call-sites", path, "--check", "--json")[0] == code
    assert run("--call-sites", path)[0] == 0


LOGGERS = """\
import logging
import logging as L
import structlog as sl
from logging import getLogger, warning as warn_of
from loguru import logger as loud
from celery.utils.log import get_task_logger
tasks = get_task_logger(__name__)
events = sl.get_logger()
class A:
    journal = getLogger("a")
    def __init__(self): self.diary = logging.getLogger("b")
LOG.info(f"a {b}")
_logger.debug(f"a {b}")
self.logger.warning(f"a {b}")
self._log.error(f"a {b}")
app.logger.critical(f"a {b}")
access_log.info(f"a {b}")
auditLogger.exception(f"a {b}")
requestLog.fatal(f"a {b}")
logging.log(10, f"a {b}")
L.info(f"a {b}")
logging.getLogger("x").info(f"a {b}")
getLogger().getChild("x").info(f"a {b}")
logger.bind(a=1).info(f"a {b}")
logger.opt(lazy=True).bind(a=1).success(f"a {b}")
loud.trace(f"a {b}")
tasks.info(f"a {b}")
events.info(f"a {b}")
await events.ainfo(f"a {b}")
self.journal.info(f"a {b}")
self.diary.info(f"a {b}")
warn_of(f"a {b}")
log.msg(f"a {b}")
logger.info(msg=f"a {b}")
logger.info(event=f"a {b}")
get_logger(__name__).warn(f"a {b}")
"""

NO_LOGGERS = """\
import numpy as np
np.log(f"a {b}")
math.log(2, f"a {b}")
dialog.info(f"a {b}")
catalog.error(f"a {b}")
blog.debug(f"a {b}")
self.info(f"a {b}")
messages.error(request, f"a {b}")
parser.error(f"a {b}")
warnings.warn(f"a {b}")
info(f"a {b}")
logger.setLevel(f"a {b}")
logger.handlers.append(f"a {b}")
logger.isEnabledFor(f"a {b}")
logger().info(f"a {b}")
logger.info()
logger.info(*[f"a {b}"])
logger.info(**{"msg": f"a {b}"})
"""


def test_what_is_a_logger():
    lines = LOGGERS.splitlines()

    assert [call.line for call in find_calls("app.py", lines)] == list(range(12, len(lines) + 1))


def test_what_is_none():
    assert find_calls("app.py", NO_LOGGERS.splitlines()) == []


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        ("logger.info('a')", "constant"),
        ("logger.info('a' 'b')", "constant"),
        ("logger.info('a' + 'b')", "constant"),
        ("logger.info(f'a' f'b')", "constant"),
        ("logger.info('a %s', b)", "arguments"),
        ("logger.info('a %s' + 'b', b)", "arguments"),
        ("logger.log(10, 'a %s', b)", "arguments"),
        ("logger.info('a', extra={'b': b})", "constant"),
        ("logger.info(f'a {b}')", "f-string"),
        ("logger.info(f'a {b} %s', c)", "f-string"),
        ("logger.info('a %s' % b)", "% operator"),
        ("logger.info('a {}'.format(b))", "str.format"),
        ("logger.info('a ' + b)", "concatenation"),
        ("logger.info(b)", "other"),
        ("logger.info(_('a %s') % b)", "other"),
        ("logger.info(f'a {b}' if b else c)", "other"),
        ("from loguru import logger; logger.info('a ' + '{}', b)", "arguments"),
    ],
)
def test_kinds_of_calls(call, kind):
    assert [each.kind for each in find_calls("app.py", [call])] == [kind]


def test_a_call_that_may_log_several_messages_is_told_once_for_each():
    lines = [
        "def f(a, b, c):",
        "    text = f'a {a}' if b else 'none'",
        "    logger.info(text); logger.info(c); logger.info('%s of %s' % (a, b) if c else 'no b')",
    ]

    calls = find_calls("app.py", lines)

    assert [(call.kind, call.template and call.template.format) for call in calls] == [
        ("f-string", "a %s"),
        ("constant", "none"),
        ("other", None),
        ("% operator", "%s of %s"),
        ("constant", "no b"),
    ]
    assert [call.reason for call in calls] == [""] * 5
    assert [call.replacement for call in calls] == [""] * 5
    assert len({call.place for call in calls}) == 3


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("logger.info('100%')", "100%%"),
        ("logger.info('a %s of %d', b, c)", "a %s of %s"),
        ("logger.info('a ' + '%s', b)", "a %s"),
        ("logger.info(f'a {b} of %5.1f', c)", "a %s of %s"),
        ("logger.info('malformed %', b)", "malformed %%"),
        ("from loguru import logger; logger.info('a {} %s', b)", "a %s %%s"),
    ],
)
def test_the_template_of_a_call_with_arguments_is_that_of_its_format_string(call, expected):
    assert [each.template.format for each in find_calls("app.py", [call])] == [expected]


VALUES = {
    "name": "bob",
    "n": 7,
    "x": 3.14159,
    "d": {"a": "word", "b": [1, 2]},
    "it": SimpleNamespace(name="thing", size=3),
    "ok": True,
    "error": ValueError("no such thing"),
}
REPLACED = [
    ("f'user {name} in'", '"user %s in", name'),
    (
        "f'user {name!r} in {n:d} {n:05d} {x:.2f} {x:8.3f}'",
        '"user %r in %d %05d %.2f %8.3f", name, n, n, x, x',
    ),
    ("f'[{name:>9}|{name:<9}|{name:9}|{n:>4}]'", '"[%9s|%-9s|%-9s|%4s]", name, name, name, n'),
    ("f'{n:,} at {x:^9} {x:e}'", "\"%s at %s %e\", format(n, ','), format(x, '^9'), x"),
    (
        "f'{name!r:>12} {n + 1} {name=}'",
        "\"%s %s name=%r\", format(repr(name), '>12'), n + 1, name",
    ),
    ("f'100% of {n} {{x}}'", '"100%% of %s {x}", n'),
    ("f'say \"{name}\"'", "'say \"%s\"', name"),
    ('f\'outer {f"inner {name}"} {"const"}\'', '"outer inner %s const", name'),
    ("f'{error}: {type(error).__name__}'", '"%s: %s", error, type(error).__name__'),
    ("'user %s in %d ms, 100%%' % (name, n)", '"user %s in %d ms, 100%% ".strip(), name, n'),
    ("'user %-8s|%5.1f' % (name, x)", '"user %-8s|%5.1f", name, x'),
    ("'user %s in' % name", '"user %s in", name'),
    ("'{} of {!r} {:>4}'.format(name, d, n)", '"%s of %r %4s", name, d, n'),
    (
        "'{1} {0} {it.name} {d[a]} {d[b][1]}'.format(name, n, it=it, d=d)",
        "\"%s %s %s %s %s\", n, name, it.name, d['a'], d['b'][1]",
    ),
    ("'user ' + name + ' has ' + str(n) + ' of ' + repr(d)", '"user %s has %s of %r", name, n, d'),
    ("'sum ' + str(n + n) + f' {x:.1f}'", '"sum %s %.1f", n + n, x'),
    ("'user ' + name, exc_info=False", '"user %s", name, exc_info=False'),
    ("msg=f'user {name}'", '"user %s", name'),
]


@pytest.mark.parametrize(("argument", "replacement"), REPLACED, ids=[each[0] for each in REPLACED])
def test_the_replacement_logs_the_same_message(argument, replacement):
    call = f"logger.info({argument})"

    (found,) = find_calls("app.py", [call])

    if ".strip()" not in replacement:
        assert found.replacement == f"logger.info({replacement})"
    assert message_of(found.replacement) == message_of(call)


@pytest.mark.parametrize(
    "argument",
    [
        "f'{x:{n}.{n}f} wide'",
        "'%(a)s in' % d",
        "'%*d in' % (n, n)",
        "'{} in'.format(*[name])",
        "'{a} in'.format(**d)",
        "'{:{}} in'.format(name, n)",
        "f'user {name} %s', n",
        "(said := f'user {name}')",
        "('a %s' + ' b') % name",
    ],
)
def test_there_is_no_replacement_where_it_is_not_sure(argument):
    (found,) = find_calls("app.py", [f"logger.info({argument})"])

    assert found.replacement == ""
    assert found.kind in {"f-string", "% operator", "str.format"}


def test_an_f_string_beside_arguments_is_said_to_heal_where_it_does():
    plain, braced = find_calls("app.py", ["logger.info(f'{name} %s', n)"]) + find_calls(
        "app.py", ["from loguru import logger; logger.info(f'user {name} {{}}', n)"]
    )

    assert (plain.reason, braced.reason) == ("no constant text", "")

    plain, odd = find_calls(
        "app.py",
        ["logger.info(f'user {name} has %s', n)", "logger.info(f'user {name} has %{n}d', n)"],
    )
    assert (plain.kind, plain.reason, plain.template.format) == ("f-string", "", "user %s has %s")
    assert (odd.kind, odd.reason) == ("f-string", "not a template")


def test_loguru_gets_braces():
    lines = [
        "from loguru import logger",
        "logger.bind(a=1).info(f'user {name!r} is {{100%}} {n:5d}')",
    ]

    (found,) = find_calls("app.py", lines)

    assert found.replacement == 'logger.bind(a=1).info("user {!r} is {{100%}} {:5d}", name, n)'


def message_of(call, **names):
    (record,) = records_of(compile(call, "<call>", "exec"), **names)
    return record.getMessage()


def records_of(code, **names):
    records = []
    logger = logging.Manager(logging.RootLogger(logging.DEBUG)).getLogger("app")
    logger.addHandler(SimpleNamespace(level=0, handle=records.append))
    exec(code, {"logger": logger, **VALUES, **names})
    return records


# --- what heals at run time -------------------------------------------------------------------

AT_RUN_TIME = """\
logger.info(f'user {name} in')
logger.info(f'{name}')
logger.info(f'{name}: {n}')
logger.info(f'a {name}'); logger.info(f'b {name}')
logger.info(f'a {name}'); logger.info(f'a {name} b')
logger.info(
    f'user {name} '
    f'in {n}',
)
(logger
  .getChild('x')
  .info('user ' + name))
logger.info('load %s' % n)
x = [
  1], logger.info(f'user {name} out')
(logger
  .info)(f'user {name} lost')
'''
'''; logger.info(f'user {name} in a string')
"""


def test_it_says_what_the_process_will_do(source):
    path = source(AT_RUN_TIME)
    call_sites._forget_all()
    said = {}
    for call in find_calls(str(path), path.read_text().splitlines()):
        said.setdefault(call.line, []).append(not call.reason)

    done = {}
    for record in records_of(compile(path.read_text(), str(path), "exec")):
        site = site_at(record.pathname, record.lineno)
        site.format_for(record.msg)
        analyse_waiting()
        done.setdefault(record.lineno, []).append(site.format_for(record.msg) is not None)
    call_sites._forget_all()

    assert said == done
    assert [done[line] for line in (1, 2, 4, 5)] == [[True], [False], [True, True], [True, False]]
    assert sum(map(sum, done.values())) == 9


# --- measured by logs -------------------------------------------------------------------------


def test_with_logs_the_worst_is_what_split_the_most(run, source, tmp_path):
    path = source(
        "logger.info(f'user {name} of {team} in {place}')\n"
        "logger.info(f'load {name}')\n"
        "logger.info(f'load {name} seen')\n"
        "logger.info(f'idle {name}')\n"
        "logger.info('load ' + other)\n"
    )
    words = ["red", "green", "blue", "grey", "tan"]
    lines = [f"INFO load {word}" for word in words] * 2
    lines += [f"INFO load {word} seen" for word in words[:2]]
    lines += ["INFO user a of b in c", "INFO something else"]
    (tmp_path / "app.log").write_text("\n".join(lines) + "\n")

    document = json_of(run, "--call-sites", path, "--logs", tmp_path / "app.log")

    measured = [
        (each["line"], each["signatures"], each["records"]) for each in document["call_sites"]
    ]
    # Lines 2 and 5 have one template: nobody can tell whose messages they are.
    assert measured == [(2, 5, 10), (5, 5, 10), (3, 2, 2), (1, 1, 1), (4, 0, 0)]
    assert document["input"]["records"] == len(lines)
    assert document["call_sites"][0]["bytes"] == sum(len(line) + 1 for line in lines[:10])
    _, out, _ = run("--call-sites", path, "--logs", tmp_path / "app.log")
    assert (
        f"{path}:2: 5 patterns, 10 records, {document['call_sites'][0]['bytes']} bytes | load <*> | "
        in out
    )


def test_the_index_finds_what_comparing_with_every_template_finds():
    rng = random.Random(7)
    words = ["user", "load", "in", "of", "a", "b-c", "x=", "é", "1", ":", " ", "'"]
    calls = []
    for _ in range(300):
        text = "".join(
            rng.choice([" ", "", ", "]) + rng.choice([*words, "{v}"])
            for _ in range(rng.randint(1, 7))
        )
        calls += find_calls("app.py", [f"logger.info(f{text!r})"])
    finder = SiteFinder(calls)
    found = set()
    for _ in range(2000):
        template = rng.choice(calls).template
        message = template.message(rng.choice(["", "user", " ", "in a", "x", "9", "a_b"]))
        if rng.random() < 0.3:
            message = message.replace(rng.choice("ab i"), rng.choice(["", "z"]))
        fitting = {
            at: len(call.template.message(""))
            for at, call in enumerate(calls)
            if call.template.varies
            and call.template.has_words()
            and call.template.matches(message)
            and finder.representatives[at] == at
        }
        best = max(fitting, key=lambda at: (fitting[at], -at)) if fitting else -1

        at = finder.find(message)

        if at < 0 or calls[at].template.varies:  # constants are filed as well
            assert at == best, message
        found.add(at)
    assert len(found) > 50


# --- files ------------------------------------------------------------------------------------


def test_folders_are_searched_but_for_what_others_wrote(source, tmp_path):
    wanted = [
        source("", f"src/{name}")
        for name in ("a.py", "pkg/b.py", "tests/test_c.py", "pkg/sub/d_test.py")
    ]
    for name in (
        "src/.hidden/x.py",
        "src/node_modules/x.py",
        "src/lib/site-packages/x.py",
        "src/__pycache__/x.py",
        "src/mine/x.py",
        "src/notes.txt",
        "src/pkg/x.pyc",
    ):
        source("", name)
    (tmp_path / "src/mine/pyvenv.cfg").touch()
    (tmp_path / "src/pkg/loop").symlink_to(tmp_path / "src")
    (tmp_path / "src/pkg/link.py").symlink_to(tmp_path / "src/a.py")
    (tmp_path / "src/broken.py").symlink_to(tmp_path / "absent.py")

    found = python_files([str(tmp_path / "src")])

    assert sorted(os.path.realpath(each) for each in found) == sorted(map(str, wanted))
    assert len(python_files([str(tmp_path / "src"), str(tmp_path / "src" / "pkg")])) == len(wanted)
    without = python_files([str(tmp_path / "src")], tests=False)
    assert sorted(map(os.path.realpath, without)) == sorted(map(str, wanted[:2]))


def test_a_file_below_a_folder_that_is_not_python_is_left_out_and_named(run, source):
    source("logger.info(f'a {b}')", "src/good.py")
    bad = source("print 'python 2'", "src/bad.py")
    code, out, err = run("--call-sites", bad.parent)

    assert (code, err) == (0, "")
    assert f"left out: cannot parse {bad}, line 1, as Python 3." in out
    assert out.endswith(
        "1 of 1 logging call in 2 files formats its message itself; healed at run time: 1\n"
    )


def test_of_many_files_that_are_left_out_a_few_are_named_and_the_rest_counted(run, source):
    for number in range(25):
        path = source("print 'python 2'", f"src/bad_{number}.py")
    _, out, _ = run("--call-sites", path.parent)
    document = json_of(run, "--call-sites", path.parent)

    lines = out.splitlines()
    assert sum(line.startswith("left out: cannot parse ") for line in lines) == 10
    assert lines[-2:] == [
        "left out: 15 more files",
        "0 of 0 logging calls in 25 files format their messages themselves; healed at run time: 0",
    ]
    assert len(document["troubles"]) == 25


def test_what_is_not_healed_comes_first_then_what_has_the_most_words(run, source):
    path = source(
        "logger.info(f'user {name} in')\n"
        "logger.info(f'user {name} in from {place}')\n"
        "logger.info(f'{name}: {n}')\n"
        "logger.info(f'{name}')\n"
    )
    _, out, _ = run("--call-sites", path)

    assert [line.removeprefix(f"{path}:")[0] for line in out.splitlines()[:4]] == list("3421")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--call-sites", "no/such.py"], "cannot read no/such.py: No such file or directory"),
        (["--call-sites", "{tmp}/empty"], "there is no Python file in {tmp}/empty"),
        (["--call-sites", "{tmp}/bad.py"], "cannot parse {tmp}/bad.py, line 2, as Python 3."),
        (["--call-sites", "{tmp}/bytes.py"], "cannot read {tmp}/bytes.py: "),
        (["--call-sites", "{tmp}/nul.py"], "cannot "),
        (["--call-sites", "a\0b"], "null "),
        (["app.log", "--call-sites", "x.py"], "name the logs behind --logs"),
        (["app.log", "--check"], "--check needs --call-sites"),
        (["app.log", "--no-tests"], "--no-tests needs --call-sites"),
        (["--logs", "app.log"], "--logs needs --call-sites"),
        (["no/such.log"], "cannot read no/such.log"),
        (["--call-sites", "{tmp}/good.py", "--logs", "no/such.log"], "cannot read no/such.log"),
    ],
    ids=range(12),
)
def test_what_cannot_be_done_is_one_line_and_exit_code_2(run, tmp_path, arguments, said):
    (tmp_path / "empty").mkdir()
    (tmp_path / "good.py").touch()
    (tmp_path / "bad.py").write_text("\nx = (\n")
    (tmp_path / "bytes.py").write_bytes(b"x = '\xff'\n")
    (tmp_path / "nul.py").write_bytes(b"x = '\0'\n")
    code, out, err = run(*(each.replace("{tmp}", str(tmp_path)) for each in arguments))

    assert (code, out) == (2, "")
    assert said.replace("{tmp}", str(tmp_path)) in err
    assert len(err.splitlines()) == 1


def test_it_is_a_subcommand_and_warns_of_nothing_in_the_sources(source):
    path = source("x = 1 is 1\nlogger.info(f'tab\\q {x}')\n")
    done = subprocess.run(
        [sys.executable, "-m", "lipservice.cli.main", "patterns", "--call-sites", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{path}:2: tab\\q <*> | ")


def test_the_documentation_names_every_option():
    page = (Path(__file__).parent.parent / "docs" / "how-to" / "call-sites.md").read_text()

    for option in ("--call-sites", "--logs", "--no-tests", "--check", "--json", "--top"):
        assert option in page
