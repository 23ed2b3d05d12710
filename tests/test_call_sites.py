"""A message that the application formatted itself is counted under the template of its source."""

from __future__ import annotations

import ast
import contextlib
import gc
import itertools
import logging
import os
import random
import subprocess
import sys
import textwrap
import threading
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lipservice import _syntax_trees, call_sites
from lipservice.call_sites import (
    MOST_SITES,
    MOST_WAITING,
    analyse_waiting,
    has_waiting,
    site_at,
)
from lipservice.signature import compute_format_signature, compute_signature
from lipservice.source_templates import SourceTemplate, templates_at

thorough = settings(
    derandomize=True,
    deadline=None,
    max_examples=200,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@pytest.fixture(autouse=True)
def _empty_table():
    call_sites._forget_all()
    yield
    call_sites._forget_all()


@pytest.fixture
def run(tmp_path):
    """Runs a source file that logs, and gives its records."""
    numbers = itertools.count()

    def run(source, **names):
        path = tmp_path / f"app_{next(numbers)}.py"
        path.write_text(textwrap.dedent(source), encoding="utf-8")
        return execute(path, **names)

    return run


def execute(path, **names):
    records = []
    logger = logger_to(records)
    code = compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    exec(code, {"logger": logger, "__name__": "app", **names})
    return records


def logger_to(records):
    """A logger of the standard library, apart from those of the test run."""
    logger = logging.Manager(logging.RootLogger(logging.DEBUG)).getLogger("app")
    logger.addHandler(SimpleNamespace(level=0, handle=records.append))
    return logger


def heal(record, message=None, **options):
    """What a record's line knows of its message, once it was looked at."""
    message = record.msg if message is None else message
    site = site_at(record.pathname, record.lineno, **options)
    site.format_for(message)
    while analyse_waiting():
        pass
    return site.format_for(message)


def reason_of(record, **options):
    return site_at(record.pathname, record.lineno, **options).state().reason


# --- which expressions have a template -------------------------------------------------------

VALUES = {
    "name": "bob",
    "place": "New York",
    "n": 7,
    "x": 1.5,
    "d": {"a": "word", "b": {"c": "deep"}},
    "it": SimpleNamespace(name="thing", size=3, msg="no"),
    "msg": "user eve in",
    "message": "user eve in",
    "text": "user eve in",
    "empty": "",
    "_": lambda text: text,
    "prefix": "[p] {}".format,
    "ok": True,
}

HEALED = [
    ('f"Failed to connect to {place}: {msg}"', "Failed to connect to %s: %s"),
    ('f"replay: {it.msg}"', "replay: %s"),
    ('f"user {name} logged in"', "user %s logged in"),
    ('f"user {name!r:>12} in {n:05d} ms"', "user %s in %s ms"),
    ('f"{name=} seen"', "name=%s seen"),
    ('f"{x:{n}.{n}} of {x!s}"', "%s of %s"),
    ("f\"user {'const'!r} {'const':>9} {name}\"", "user %s %s %s"),
    ("f'''user {d[\"a\"]} in'''", "user %s in"),
    ("f\"user {d['b']['c']} in\"", "user %s in"),
    ('f"{{{name}}} is at 100% {place}"', "{%s} is at 100%% %s"),
    ('rf"path \\{name}\\d\\{{x}}"', "path \\%s\\d\\{x}"),
    ('f"tab\\t{name}\\n\\N{EURO SIGN}\\x41"', "tab\t%s\n€A"),
    ('F"a {name} " "100% " f"b {place}" \'c\'', "a %s 100%% b %sc"),
    ('f"user {name if ok else place} in"', "user %s in"),
    ("f\"user {', '.join(c for c in name)} in\"", "user %s in"),
    ("f\"sum {(lambda a: a + 1)(n)} of {f'{n} items'} left\"", "sum %s of %s items left"),
    ("f\"outer {f'inner {name:>5} text'} end\"", "outer inner %s text end"),
    ('"user %s in" % name', "user %s in"),
    ('"user %(a)-10s of %(b)r: 100%%" % d', "user %s of %s: 100%%"),
    ('"%d of %5.2f and %i" % (n, x, n)', "%s of %s and %s"),
    ('"%*d of %.*f" % (n, n, n, x)', "%s of %s"),
    ('"user {} in".format(name)', "user %s in"),
    ('"user {0} in {1!r:>{2}} {0}".format(name, place, n)', "user %s in %s %s"),
    ('"item {it.name}: {d[a]} {{}} 5%".format(it=it, d=d)', "item %s: %s {} 5%%"),
    ('"user " + name + " in"', "user %s in"),
    ('"user " + str(n) + f" of {place}" + " %d%%" % n', "user %s of %s %s%%"),
    ('name + " logged in"', "%s logged in"),
    ('("user %s" + " in %s") % (name, place)', "user %s in %s"),
    ('("user {}" " in {}").format(name, place)', "user %s in %s"),
    ('f"user {name} has " + "%s" % n + " items"', "user %s has %s items"),
    ('(said := f"user {name} in")', "user %s in"),
    ('f"user {empty}{empty} in"', "user %s%s in"),
    ('f"größe {name} Ω"', "größe %s Ω"),
    ('u"user %s in" % name', "user %s in"),
    ('msg=f"user {name} in"', "user %s in"),
    ('f"user {name} in", exc_info=False, extra={"k": f"v {n}"}', "user %s in"),
    ('f"\\d odd escape {name}"', "\\d odd escape %s"),
    ('"\\d odd escape %s" % name', "\\d odd escape %s"),
    ('f"user {name} in" if ok else f"none {n}"', "user %s in"),
    ('f"none" if not ok else "" if not n else f"user {name} in"', "user %s in"),
    ('(said := "none" if not ok else f"user {name} in")', "user %s in"),
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::SyntaxWarning")
@pytest.mark.parametrize(("argument", "expected"), HEALED, ids=[each[0] for each in HEALED])
def test_the_format_of_a_string_building_expression(run, argument, expected):
    (record,) = run(f"logger.info({argument})", **VALUES)

    found = heal(record)

    assert compute_format_signature(found) == compute_format_signature(expected)
    assert found.count("%s") == expected.count("%s")


NOT_HEALED = [
    ('"nothing to heal"', "constant"),
    ('"con" + "stant"', "constant"),
    ('f"{name}"', "no constant text"),
    ('f"{name}: {n}"', "no constant text"),
    ('f"1 {name} 2"', "no constant text"),
    ('"%s" % name', "no constant text"),
    ('name + "!"', "no constant text"),
    ('f"[worker {n}] {msg}"', "passes a message on"),
    ('f"{message} (took {n} s longer)"', "passes a message on"),
    ('"replay: %s" % msg', "passes a message on"),
    ('"replay: %s of %s" % (msg, n)', "passes a message on"),
    ('"replay: %(a)s" % {"a": msg}', "passes a message on"),
    ('"replay: {0} {a}".format(n, a=text)', "passes a message on"),
    ('"replay: " + str(msg)', "passes a message on"),
    ("name", "not a template"),
    ('_("user {} in").format(name)', "not a template"),
    ('_("user %s in") % name', "not a template"),
    ('f"user {name} in" if ok else name', "not a template"),
    ('"".join(["user", name])', "not a template"),
    ('("user %s in" % name).upper()', "not a template"),
    ('*[f"user {name} in"]', "not a template"),
    ('\n prefix(f"user {name} in")', "not a template"),
    ('prefix(f"user {name} in")', "source does not match"),
    ('dict(a=f"user {name} in")["a"]', "not a template"),
    ('b"user %d in" % n', "not a template"),
    ('"=" * n + "="', "no constant text"),
]


@pytest.mark.parametrize(("argument", "reason"), NOT_HEALED, ids=[each[0] for each in NOT_HEALED])
def test_what_has_no_template_is_left_to_the_message(run, argument, reason):
    (record,) = run(f"logger.info({argument})", **VALUES)

    assert heal(record, str(record.msg)) is None
    assert reason_of(record) == reason


def test_messages_of_one_statement_and_its_format_string_share_a_signature(run):
    records = run(
        """
        for name in ["alice", "bob", "New York 7", "", "%s", "{}", "user x logged in"]:
            logger.info(f"user {name} logged in")
        """
    )

    found = {compute_format_signature(heal(record)) for record in records}

    assert found == {compute_format_signature("user %s logged in")}
    assert len({compute_signature(record.msg) for record in records}) > 4


# --- where the call stands --------------------------------------------------------------------

PLACES = {
    "indented with tabs": "if True:\n\tif True:\n\t\tlogger.info(f'user {name} in')\n",
    "behind a colon": "if True: logger.info(f'user {name} in')\n",
    "over lines": "logger.info(\n    f'user '\n\n    # a comment ) with (\n    f'{name} in',\n)\n",
    "black's chain": "logger.getChild(\n    'a'\n).info(\n    f'user {name} in'\n)\n",
    "a chain in parentheses": "(\n    logger\n    .getChild('a')\n    .info(f'user {name} in')\n)\n",
    "continued by a backslash": "logger \\\n  .info \\\n  (f'user {name} in')\n",
    "another name for the method": "log = logger.info\nlog(\n  f'user {name} in'\n)\n",
    "subscripts": "{'l': [logger.info]}['l'][\n0](\n f'user {name} in')\n",
    "a lambda": "(lambda: logger.info(f'user {name} in'))()\n",
    "a comprehension": "[logger.info(f'user {n} in')\n for n in [name]]\n",
    "an argument of another call": "print(\n  end='',\n  *[] , sep=logger.info(f'user {name} in'),\n)\n",
    "a decorator": "@(lambda f: logger.info(f'user {name} in'))\ndef f(): pass\n",
    "a default": "def f(a=logger.info(f'user {name} in')): pass\n",
    "a condition": "x = 1 and logger.info(f'user {name} in') or 2\n",
    "a triple-quoted string": "logger.info(f'''user\n{name}\n in''')\n",
    "keywords around": "x = [not logger.info(f'user {name} in')if True else None]\n",
    "exception": "try:\n  1/0\nexcept ZeroDivisionError: logger.exception(f'user {name} in')\n",
    "unicode names": "größe = logger; größe.info(f'user {name} in')\n",
    "log with a level": "logger.log(20, f'user {name} in', stacklevel=1)\n",
    "a trailing comma": "logger.info(f'user {name} in',)\n",
    "no end of line": "logger.info(f'user {name} in')",
    "form feed": "\x0c\nlogger.info(f'user {name} in')\n",
    "nested quotes": "logger.info(f'user {\"a)\" and name} in')\n",
    "carriage returns": "x = 1\r\nlogger.info(\r\n  f'user {name} in')\r\n",
    "several lines of code behind": "logger.info(f'user {name} in')\n" + "x = [1,\n2]\n" * 200,
    "the middle of a logical line": "x = [\n 1], logger.info(f'user {name} in')\n",
}


@pytest.mark.parametrize("source", PLACES.values(), ids=PLACES)
def test_the_call_is_found_wherever_it_stands(tmp_path, source):
    path = tmp_path / "app.py"
    path.write_bytes(source.encode())
    (record,) = execute(path, name="bob")

    assert heal(record).replace("\n", " ").split() == ["user", "%s", "in"]


def test_only_calls_that_begin_in_the_line_count():
    lines = [
        "logger.getChild(",
        "  f'child {name}'",
        ").info(f'user {name}')",
        "handler",
        "(f'guest {name}')",
    ]

    found = [templates_at(lines, line) for line in range(1, 6)]

    assert [each and [template.format for template in each] for each in found] == [
        ["child %s"],
        None,
        ["user %s"],
        None,
        None,
    ]


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        (r"f'\d {x}'", r"\d %s"),
        (r"f'\{x} \w{x:\d}'", r"\%s \w%s"),
        (r"'\d \477 %s' % x", None),
        (r"'a \q' + x", r"a \q%s"),
        (r"rf'\d {x}'", r"\d %s"),
        (r"f'a {x} ' + y[b'\d\N']", "a %s %s"),
        (r"f'a {1if x else 2} b'", None),
        (r"f'a {x:{1if x else 2}} b'", None),
    ],
)
def test_the_compiler_has_nothing_to_warn_of(argument, expected):
    # Warnings are errors here: one would cost the template.
    found = templates_at([f"logger.info({argument})"], 1)

    assert (found[0].format if expected else None) == expected


def test_a_number_that_runs_into_a_word_is_not_read():
    assert templates_at(["logger.info('user ' + str(1if x else 2))"], 1) is None
    assert templates_at(["logger.info('user ' + str(1 if x else 0x1f + 1_0e5j + .5))"], 1)


def test_a_template_matches_from_end_to_end():
    (template,) = templates_at(["logger.info(f'ab {x} ba')"], 1)

    assert template.matches("ab  ba")
    assert template.matches("ab any ba ba")
    assert not template.matches("ab ba")
    assert template.message("x") == "ab x ba"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="f-strings of PEP 701")
def test_f_strings_may_hold_their_own_quotes():
    lines = ["logger.info(f'user {d['a']} {f'{f'{1}'}'} {\"}\"} in', f'x')"]

    assert [each.format for each in templates_at(lines, 1)] == ["user %s %s } in", "x"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "latin-1", "cp1251"])
def test_the_encoding_of_a_source_is_followed(tmp_path, encoding):
    word = "größe" if encoding != "cp1251" else "размер"
    path = tmp_path / "app.py"
    path.write_bytes(
        f"# -*- coding: {encoding} -*-\nlogger.info(f'{word} {{name}}')\n".encode(encoding)
    )
    (record,) = execute(path, name="bob")

    assert heal(record) == f"{word} %s"


def test_the_caller_of_a_wrapper_is_healed_where_the_wrapper_names_it(run):
    record, other = run(
        """
        def log(text):
            logger.info(text, stacklevel=2)

        log(f"user {name} in")
        log(
            name
        )
        """,
        name="bob",
    )

    assert heal(record) == "user %s in"
    assert heal(other) is None


def test_a_logger_that_formats_braces_itself():
    lines = [
        "logger.info('user {} in {place:>5}', name, place=place)",
        "logger.info('user {} in')",
        "logger.opt(lazy=True).info('user {} in', lambda: f'x {1}')",
        "logger.info(f'user {name} {{}}', n)",
        "logger.info(f'user {name}', extra=1)",
        "logger.info('odd {', n)",
        "logger.info('%d {}', n)",
        "logger.info('no field', n)",
    ]
    formats = [
        [each.format for each in templates_at(lines, at + 1, braces=True)]
        for at in range(len(lines))
    ]

    assert formats == [
        ["user %s in %s"],
        ["user {} in"],
        ["user %s in"],
        ["user %s %s"],
        ["user %s"],
        [],
        ["%%d %s"],
        ["no field"],
    ]


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("'user %s in', name", ["user %s in"]),
        ("'user %s in 100%%', name, exc_info=1", ["user %s in 100%%"]),
        ("msg='user %s in', extra=name", ["user %%s in"]),
        ("'user %s in', **more", ["user %%s in"]),
        ("'user at 100% in', extra=name", ["user at 100%% in"]),
        ("f'user {name} has %d', n", ["user %s has %%d", "user %s has %s"]),
        ("f'user {name} in', n", ["user %s in"]),
        ("'100% of user', n", ["100%sf user"]),
        ("'at 5%', n", ["at 5%%"]),
        ("20, 'user %s in', name", ["user %s in"]),
    ],
)
def test_a_format_string_with_arguments_behind_it_may_have_been_filled_in(call, expected):
    found = templates_at([f"logger.info({call})"], 1)

    assert [each.format for each in found] == expected


def test_with_and_without_braces_are_two_sites_of_one_line(run):
    (record,) = run("logger.info('user {} in'.format('bob'))")

    plain = site_at(record.pathname, record.lineno)
    braced = site_at(record.pathname, record.lineno, braces=True)

    assert plain is not braced
    assert plain is site_at(record.pathname, record.lineno)


# --- strings that were put into a name first --------------------------------------------------

NAMED = {
    "the line before": """
        text = f"user {name} in"
        logger.info(text)
    """,
    "with a type": """
        text: str
        text: str = f"user {name} in"
        logger.info(text)
    """,
    "several lines, and other uses": """
        text = (
            f"user {name}"
            " in"
        )
        kept.append(text)
        print("", end="", file=None) if text == "" else dict(text=text)
        logger.log(20, text, exc_info=False)
    """,
    "by a keyword": """
        text = "user %s in" % name
        logger.info(msg=text)
    """,
    "two ways": """
        if n:
            text = f"user {name} in"
        else:
            text = "nobody"
        if ok:
            try:
                logger.info(text)
            finally:
                pass
    """,
    "a conditional": """
        text = f"user {name} in" if ok else f"nobody but {name}"
        logger.info(text)
    """,
    "a walrus": """
        if text := f"user {name} in":
            logger.info(text)
    """,
    "below the call": """
        text = "none"
        while True:
            if text != "none":
                logger.info(text)
                break
            text = f"user {name} in"
    """,
    "odd escapes": """
        ' an odd one \\d'
        text = f"user {name} in"
        logger.info(text)
    """,
    "a text at the margin behind it": """
        said = f"user {name} in"
        logger.info(said)
        '''
(a text)'''
    """,
    "a chain of targets": """
        text = other = f"user {name} in"
        logger.info(other)
    """,
    "an inner function": """
        def before(said): pass
        def inner(
            more=1,
        ) -> None:
            said = f"user {name} in"
            (logger
                .info(said))
        inner()
    """,
    "a coroutine": """
        async def inner():
            said = f"user {name} in"
            logger.info(said)
        try:
            inner().send(None)
        except StopIteration:
            pass
    """,
}


def in_a_function(body):
    return (
        "class C:\n  @staticmethod\n  def log(logger, name, n=1, ok=True, kept=[]):\n"
        + textwrap.indent(textwrap.dedent(body).strip("\n"), "    ")
        + "\n\nC.log(logger, name)\n"
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::SyntaxWarning")
@pytest.mark.parametrize("body", NAMED.values(), ids=NAMED)
def test_a_string_that_was_put_into_a_name_first(run, body):
    (record,) = run(in_a_function(body), name="bob")

    assert heal(record) == "user %s in"


UNKNOWN = {
    "a parameter": "logger.info(name)",
    "a parameter that is replaced": "if not ok: name = f'user {n} in'\nlogger.info(name)",
    "what a call returns": "said = f'user {name} in'\nsaid = said.strip()\nlogger.info(said)",
    "what is added to": "said = f'user {name}'\nsaid += ' in'\nlogger.info(said)",
    "a loop": "said = f'user {name} in'\nfor said in [said]:\n  logger.info(said)",
    "several targets": "said, other = f'user {name} in', 1\nlogger.info(said)",
    "an exception": (
        "said = f'user {name} in'\ntry: raise ValueError(said)\n"
        "except ValueError as said:\n  logger.info(said)"
    ),
    "with": (
        "import contextlib\nsaid = f'user {name} in'\n"
        "with contextlib.nullcontext(said) as said:\n  logger.info(said)"
    ),
    "a parameter within": "said = f'user {name} in'\ndef f(said): logger.info(said)\nf(said)",
    "a closure": "said = f'user {name} in'\ndef f():\n  logger.info(said)\nf()",
    "nonlocal": ("said = f'user {name} in'\ndef f():\n  nonlocal said\n  logger.info(said)\nf()"),
    "nonlocal within": (
        "said = f'user {name} in'\ndef f():\n  nonlocal said\n  said = said\nlogger.info(said)"
    ),
    "a global beside a local within": ("def f():\n  said = f'user {name} in'\nlogger.info(said)"),
    "a lambda's": "said = f'user {name} in'\n(lambda said: logger.info(said))(said)",
    "global": "global said\nsaid = f'user {name} in'\nlogger.info(said)",
    "deleted": "said = f'user {name} in'\nif not ok: del said\nlogger.info(said)",
    "imported": (
        "if not ok: from os import name as said\nsaid = f'user {n} in'\nlogger.info(said)"
    ),
    "matched": "said = f'user {name} in'\nmatch said:\n  case said:\n    logger.info(said)",
    "a comprehension": "said = f'user {name} in'\n[logger.info(said) for said in [said]]",
}


@pytest.mark.parametrize("body", UNKNOWN.values(), ids=UNKNOWN)
def test_a_name_that_could_hold_something_else_is_left_to_its_message(run, body):
    (record,) = run(in_a_function(body), name="bob", said="user bob in")

    assert heal(record, str(record.msg)) is None
    assert reason_of(record) == "not a template"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("if not ok: said = f'user {name}'\nelse: said = f'user {name} in'", "ambiguous"),
        ("said = f'{name}: {n}'", "no constant text"),
        ("text = name\nsaid = f'[worker {n}] {text}'", "passes a message on"),
        ("said = 'no user in'", "constant"),
    ],
)
def test_what_was_put_into_a_name_is_judged_as_if_it_stood_in_the_call(run, body, reason):
    (record,) = run(in_a_function(body + "\nlogger.info(said)"), name="bob")

    assert heal(record) is None
    assert reason_of(record) == reason


def test_a_name_outside_of_any_function_is_left_to_its_message(run):
    (record,) = run("said = f'user {name} in'\nlogger.info(said)", name="bob")

    assert heal(record) is None


@pytest.mark.parametrize("filling", ["x = 1\n" * 300, f"x = '''{'y' * 20_000}'''\n"])
def test_a_function_that_is_very_long_is_not_read(run, filling):
    body = f"said = f'user {{name}} in'\n{filling}logger.info(said)"
    (record,) = run(in_a_function(body), name="bob")

    assert heal(record) is None
    assert reason_of(record) == "not a template"


# --- several templates in one line ------------------------------------------------------------


def test_each_statement_of_a_line_has_its_own_format(run):
    records = run(
        "logger.info(f'user {name} in'); logger.info(f'load {n}'); logger.info('x')", **VALUES
    )

    assert [heal(each) for each in records] == ["user %s in", "load %s", None]


def test_a_message_that_two_templates_could_have_made_is_left_to_itself(run):
    records = run(
        "for name in ['a', 'b in c']: logger.info(f'user {name}') or logger.info(f'user {name} in {n}')",
        **VALUES,
    )

    first, second, third, fourth = records
    assert heal(first) == "user %s"
    assert [heal(each) for each in (second, third, fourth)] == [None, None, None]


def test_a_line_whose_first_message_is_ambiguous_is_given_up(run):
    _, record = run("logger.info(f'user {name}'); logger.info(f'user {name} in')", **VALUES)

    assert heal(record) is None
    assert reason_of(record) == "ambiguous"


def test_the_same_template_twice_is_one(run):
    records = run("logger.info(f'user {name} in'); logger.info('user %s in' % n)", **VALUES)

    assert [heal(each) for each in records] == ["user %s in"] * 2


# --- what is not to be trusted ----------------------------------------------------------------


def test_a_source_that_changed_before_it_was_read_heals_nothing(run):
    (record,) = run("logger.info(f'user {name} in')", **VALUES)
    Path(record.pathname).write_text("logger.info(f'guest {name} in')")

    assert heal(record) is None
    assert reason_of(record) == "source does not match"


def test_messages_that_do_not_match_any_more_give_the_site_up(run):
    (record,) = run("logger.info(f'user {name} in')", **VALUES)
    assert heal(record) == "user %s in"
    site = site_at(record.pathname, record.lineno)

    for _ in range(3):
        for _ in range(7):
            assert site.format_for("guest eve in") is None
        assert site.format_for("user eve in") == "user %s in"
    for _ in range(8):
        assert site.format_for("guest eve in") is None

    assert site.format_for("user eve in") is None
    assert site.state()[2:4] == ("not healed", "source does not match")


def test_constant_text_counts_from_end_to_end_and_in_order(run):
    (record,) = run("logger.info(f'ab {name} cd {n} ef {n} ab')", **VALUES)
    assert heal(record) == "ab %s cd %s ef %s ab"
    site = site_at(record.pathname, record.lineno)

    for message in (
        "ab x ef 1 cd 1 ab",
        "ab x cd 1 ef 1 ab.",
        " ab x cd 1 ef 1 ab",
        "ab  cd  ef ab",
        "",
    ):
        assert site.format_for(message) is None
    assert site.format_for("ab  cd  ef  ab") == "ab %s cd %s ef %s ab"


def test_ends_that_overlap_are_no_match(run):
    (record,) = run("logger.info(f'abc{n}cba')", **VALUES)
    assert heal(record) is None  # nothing constant is left beside the number
    (record,) = run("logger.info(f'in bc {n} bc in')", **VALUES)
    assert heal(record)

    assert site_at(record.pathname, record.lineno).format_for("in bc in") is None


def test_a_trusted_site_still_looks_at_the_ends(run):
    (record,) = run("logger.info(f'user {name} in {place} now')", **VALUES)
    (other,) = run("logger.info(f'in bc {n} bc in')", **VALUES)
    heal(other)
    for _ in range(100):
        assert site_at(other.pathname, 1).format_for("in bc  bc in")
    assert site_at(other.pathname, 1).format_for("in bc in") is None
    heal(record)
    site = site_at(record.pathname, record.lineno)
    for _ in range(100):
        assert site.format_for("user a in b now") == "user %s in %s now"

    assert site.format_for("The user a in b now") is None
    assert site.format_for("user a in b now!") is None
    assert site.format_for("user a out b now") is None


@pytest.mark.parametrize("message", [None, 7, b"user bob in", ["user"], object()])
def test_a_message_that_is_no_text_is_no_trouble(run, message):
    (record,) = run("logger.info(f'user {name} in')", **VALUES)
    site = site_at(record.pathname, record.lineno)
    assert site.format_for(message) is None
    heal(record)

    assert site.format_for(message) is None


def test_a_message_longer_than_an_example_is_healed_all_the_same(run):
    (record,) = run("logger.info(f'user {name} in')", name="x" * 100_000)

    assert heal(record) == "user %s in"
    assert site_at(record.pathname, record.lineno).format_for("another") is None


# --- sources that are none --------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["<generated>", "<stdin>", "", "no/such.py", "/", "a\0b", "x" * 5000, "\ud800"]
)
def test_a_path_without_a_source(path):
    site = site_at(path, 1)
    if site is None:
        assert len(path) > 4096
        return
    analyse_waiting()

    assert site.format_for("user bob in") is None
    assert site.state().reason == "no source"


@pytest.mark.parametrize("line", [0, -1, 2, 10**9])
def test_a_line_that_the_file_does_not_have(tmp_path, line):
    (tmp_path / "a.py").write_text("logger.info(f'user {name} in')")
    site = site_at(str(tmp_path / "a.py"), line)
    analyse_waiting()

    assert site.format_for("user bob in") is None
    assert site.state().reason == "no call found"


@pytest.mark.parametrize("path", [None, 7, b"a.py", ["a"], Path("a.py")])
def test_what_is_no_path_has_no_site(path):
    assert site_at(path, 1) is None
    assert site_at("a.py", "1") is None
    assert site_at("a.py", None) is None
    assert not has_waiting()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_and_devices_are_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.py")
    paths = [str(tmp_path / "pipe.py"), "/dev/zero", "/dev/stdin", str(tmp_path)]
    for path in paths:
        site_at(path, 1)

    assert analyse_waiting() == 0
    assert {site_at(path, 1).state().reason for path in paths} == {"no source"}


def test_files_that_cannot_be_decoded_or_are_too_large(tmp_path):
    (tmp_path / "bytes.py").write_bytes(b"logger.info(f'\xff {name}')")
    (tmp_path / "odd.py").write_bytes(b"# coding: no-such-codec\nlogger.info(f'a {name}')")
    (tmp_path / "large.py").write_bytes(b"logger.info(f'a {name}')\n" + b"#" * 2**21)
    (tmp_path / "nul.py").write_bytes(b"logger.info(f'a {name}\0')")
    for name in ("bytes", "odd", "large", "nul"):
        site_at(str(tmp_path / f"{name}.py"), 1)
    analyse_waiting()

    assert all(each.state == "not healed" for each in call_sites.call_sites())


@pytest.mark.parametrize(
    "line",
    [
        "logger.info(" + "(" * 500,
        "logger.info(" + "(" * 500 + "f'a {b}'" + ")" * 501,
        "logger.info(" + "-" * 3000 + "f'a {b}')",
        "logger.info('a' + " * 300 + "f'a {b}'" + ")" * 300,
        "logger.info(" + " + ".join(["f'a {b}'"] * 400) + ")",
        "logger.info(f'" + "{f\"{f'" * 50 + "')",
        "logger.info(f'{" + "[" * 2000,
        "logger.info('%" + "0" * 4000 + "' % x)",
        "logger.info('" + "\\'" * 4000,
        "logger.info('''" + "''\\'" * 3000,
        "logger.info(f'{x:" + "{y:" * 500 + "'",
        ")" * 5000 + "logger.info(f'a {b}')",
        "logger.info(1if x else f'a {b}')",
        "logger.info(f'a {b}'" + "\n," * 5000 + ")",
        "logger.info(f'\\N{' )",
        "\0logger.info(f'a {b}')",
    ],
    ids=range(16),
)
def test_a_line_that_is_hard_to_read_takes_bounded_work(line):
    began = time.thread_time()

    found = templates_at(line.split("\n"), 1)

    assert found is None or all(each.format.strip() for each in found)
    assert time.thread_time() - began < 30  # it is milliseconds; a runaway would take hours


def test_a_module_in_a_zip_file_is_read(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "lib.zip", "w") as file:
        file.writestr(
            "zipped_app.py", "def go(logger, name):\n    logger.info(f'user {name} in')\n"
        )
    monkeypatch.syspath_prepend(str(tmp_path / "lib.zip"))
    import zipped_app

    monkeypatch.setitem(sys.modules, "zipped_app", zipped_app)
    (record,) = run_in(lambda logger: zipped_app.go(logger, "bob"))

    assert record.pathname.endswith(str(Path("lib.zip", "zipped_app.py")))
    assert heal(record) == "user %s in"


def test_code_of_a_notebook_is_read_from_linecache(monkeypatch):
    import linecache

    source = "logger.info(f'user {name} in')\n"
    monkeypatch.setitem(linecache.cache, "<cell 1>", (len(source), None, [source], "<cell 1>"))
    code = compile(source, "<cell 1>", "exec")
    (record,) = run_in(lambda logger: exec(code, {"logger": logger, "name": "bob"}))

    assert heal(record) == "user %s in"


def run_in(call):
    records = []
    call(logger_to(records))
    return records


@pytest.mark.parametrize(
    ("source", "formats"),
    [
        ('logger.info("user {} did {}", "bob", n)', ["user %s did %s"]),
        ('logger.log("LOUD", "user {}", "bob")', ["LOUD", "user %s"]),
        ('logger.info("no braces", "bob")', ["no braces", "bob"]),
        ('logger.info("user {}", f"{name} the {title}")', ["user %s", "%s the %s"]),
        ('logger.info("user {}", "bob"); logger.info("eve")', ["user %s", "eve"]),
    ],
)
def test_a_constant_that_fills_in_a_format_in_braces_is_no_message(source, formats):
    """It would have each message of the line compared with all of its templates."""
    found = templates_at([source], 1, braces=True)

    assert [each.format for each in found] == formats


# --- bounds, threads, forks -------------------------------------------------------------------


def test_sites_and_those_that_wait_are_bounded():
    for line in range(1, MOST_WAITING + 100):
        site_at("no/such.py", line)
    assert len(call_sites.call_sites()) == MOST_WAITING
    assert site_at("no/such.py", 10**6) is None

    for line in range(1, MOST_SITES + 100):
        site_at("no/such.py", line)
        if line % 500 == 0:
            analyse_waiting(10_000)

    assert len(call_sites.call_sites()) == MOST_SITES
    assert site_at("no/such.py", 1) is not None
    assert site_at("no/other.py", 1) is None


def test_a_site_that_found_the_queue_full_comes_in_later():
    for line in range(MOST_WAITING):
        site_at("no/such.py", line)
    assert site_at("late.py", 1) is None
    analyse_waiting(10)

    assert site_at("late.py", 1) is not None


def test_the_limit_of_an_analysis_is_kept():
    for line in range(10):
        site_at("no/such.py", line)

    assert [analyse_waiting(limit) for limit in (0, -1, 4, 4, 4)] == [10, 10, 6, 2, 0]
    assert not has_waiting()


def test_nothing_is_read_before_the_background_does(run, monkeypatch):
    (record,) = run("logger.info(f'user {name} in')", **VALUES)
    monkeypatch.setattr(call_sites, "read_lines", lambda path: pytest.fail("read in the hot path"))

    site = site_at(record.pathname, record.lineno)

    assert site.format_for(record.msg) is None
    assert has_waiting()
    assert site.state().state == "waiting"


def test_an_example_is_bounded_and_does_not_outlive_the_analysis(run):
    (record,) = run("logger.info(f'user {name} in')", **VALUES)
    site = site_at(record.pathname, record.lineno)
    site.format_for("x" * 2000)
    assert site._example is None
    site.format_for(record.msg)
    assert site._example == record.msg
    analyse_waiting()

    assert site._example is None
    assert not call_sites._files


def test_a_file_is_read_once_for_its_sites(run, monkeypatch):
    records = run(
        "\n".join(f"logger.info(f'user {{name}} in {word}')" for word in "abcde"), **VALUES
    )
    read, real = [], call_sites.read_lines
    monkeypatch.setattr(call_sites, "read_lines", lambda path: read.append(path) or real(path))
    for record in records:
        site_at(record.pathname, record.lineno)
    analyse_waiting()

    assert len(read) == 1


def test_threads_that_meet_a_site_at_once_get_the_same(run):
    (record,) = run("logger.info(f'user {name} in')", **VALUES)
    start = threading.Barrier(8)
    met, done = [], threading.Event()

    def log():
        start.wait()
        for line in range(1, 400):
            met.append((line, site_at(record.pathname, line)))
            site_at(record.pathname, 1).format_for(record.msg)

    def analyse():
        while not done.is_set():
            analyse_waiting(3)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        background = threading.Thread(target=analyse)
        background.start()
        threads = [threading.Thread(target=log) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
        done.set()
        background.join()

    assert len({(line, id(site)) for line, site in met}) == 399
    analyse_waiting(1000)
    assert not has_waiting()
    assert site_at(record.pathname, 1).format_for(record.msg) == "user %s in"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_forked_in_the_middle_of_an_analysis_does_it_itself(run, monkeypatch):
    (record,) = run("logger.info(f'user {name} in')", **VALUES)
    site = site_at(record.pathname, record.lineno)
    site.format_for(record.msg)
    children, real = [], call_sites.read_lines

    def fork_here(path):
        monkeypatch.setattr(call_sites, "read_lines", real)
        pid = os.fork()
        if not pid:
            code = 1
            with contextlib.suppress(BaseException):
                analyse_waiting()
                code = 0 if site.format_for(record.msg) == "user %s in" else 2
            os._exit(code)
        children.append(pid)
        return real(path)

    monkeypatch.setattr(call_sites, "read_lines", fork_here)
    analyse_waiting()

    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0]
    assert site.format_for(record.msg) == "user %s in"


def test_a_child_forked_while_a_site_was_added_adds_it_itself(run):
    (record,) = run("logger.info(f'user {name} in')", **VALUES)
    half_added = call_sites.CallSite(record.pathname, record.lineno)
    call_sites._every[record.pathname, record.lineno, False] = half_added

    assert heal(record) == "user %s in"
    assert site_at(record.pathname, record.lineno) is half_added
    assert not has_waiting()


def test_a_finalizer_that_logs_in_the_middle_is_no_trouble(run):
    (record,) = run("logger.info(f'user {name} in')", **VALUES)

    class Noisy:
        def __init__(self):
            self.me = self

        def __del__(self):
            site_at(record.pathname, record.lineno).format_for(record.msg)
            analyse_waiting(1)

    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for line in range(2, 200):
            Noisy()
            site_at(record.pathname, line).format_for("x")
            analyse_waiting(1)
    finally:
        gc.set_threshold(*threshold)

    assert site_at(record.pathname, 1).format_for(record.msg) == "user %s in"


def test_importing_it_starts_nothing_and_imports_little():
    code = (
        "import sys, threading; before = set(sys.modules); import lipservice.call_sites; "
        "print(threading.active_count(), sorted({'inspect', 'requests'} "
        "& (set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "1 []\n"


# --- what people see --------------------------------------------------------------------------


def test_people_see_the_sites_that_heal_most_first_and_constants_last(run):
    records = run(
        """
        logger.info("constant")
        logger.info(name)
        for _ in range(3): logger.info(f"user {name} in")
        for _ in range(5): logger.info(f"guest {name} in"); logger.info(f"load {n}")
        """,
        **VALUES,
    )
    for record in records:
        heal(record)
    site_at("waiting.py", 1)

    seen = call_sites.call_sites()

    assert [(each.line, each.state, each.reason, each.template) for each in seen] == [
        (5, "healed", "", "guest <*> in | load <*>"),
        (4, "healed", "", "user <*> in"),
        (3, "not healed", "not a template", ""),
        (1, "waiting", "", ""),
        (2, "not healed", "constant", ""),
    ]
    assert [each.healed for each in seen] == [2 * 10 - 1, 2 * 3 - 1, 0, 0, 0]  # heal() asks twice


# --- any template, any value, any way to write it ---------------------------------------------

LITERALS = st.text(
    st.sampled_from("abXYZ019 .,:;%{}[]()'\"\\\n\t=+-_#@/é€\U0001f600"), min_size=1, max_size=12
)
WORDS = st.sampled_from(
    ["user ", " logged in", "load: ", " of ", "%", "%%", "100% ", "{", "}}", "%s"]
)
CONSTANTS = st.one_of(WORDS, LITERALS)
ANY_VALUES = st.one_of(
    st.integers(-(10**6), 10**6),
    st.floats(allow_nan=False),
    st.text(max_size=20),
    st.sampled_from(["bob", "New York", "", "user bob", "logged in", "/var/log/x", None, [1, "a"]]),
)
PIECES = st.lists(st.one_of(CONSTANTS, st.tuples(ANY_VALUES)), min_size=1, max_size=6)


def as_f_string(pieces, rng):
    written = []
    for piece, name in pieces:
        if name is None:
            written.append(repr(piece).replace("{", "{{").replace("}", "}}"))
            written[-1] = f"f{written[-1]}"
        else:
            written.append("f'{" + name + rng.choice(["", "!s", "!r", "!s:>9", "!s:<{9}"]) + "}'")
    return rng.choice([" ", "\n "]).join(written)


def as_percent(pieces, rng):
    text = "".join(
        piece.replace("%", "%%") if name is None else rng.choice(["%s", "%r", "%-8s"])
        for piece, name in pieces
    )
    names = [name for _, name in pieces if name]
    return f"{text!r} % ({' '.join(each + ',' for each in names)})"


def as_format(pieces, rng):
    fields = rng.choice([["{}", "{!r}"], ["{NAME}", "{NAME!s:>7}"]])
    text = "".join(
        piece.replace("{", "{{").replace("}", "}}")
        if name is None
        else rng.choice(fields).replace("NAME", name)
        for piece, name in pieces
    )
    names = [name for _, name in pieces if name]
    given = names if fields[0] == "{}" else [f"{name}={name}" for name in names]
    return f"{text!r}.format({', '.join(given)})"


def as_sum(pieces, rng):
    terms = [repr(piece) if name is None else f"str({name})" for piece, name in pieces]
    return rng.choice([" + ", "\n   + "]).join(terms)


def as_mixture(pieces, rng):
    cut = rng.randrange(len(pieces) + 1)
    parts = [part for part in (pieces[:cut], pieces[cut:]) if part]
    ways = [as_f_string, as_percent, as_format]
    return " + ".join(f"({rng.choice(ways)(part, rng)})" for part in parts)


WAYS = [as_f_string, as_percent, as_format, as_sum, as_mixture]
LAYOUTS = [
    "logger.info({})\n",
    "if True:\n\tlogger.info({})\n",
    "logger.info(\n  {},\n)\n",
    "x = 1; logger.log(20, {}); y = (2)\n",
    "logger.getChild(\n 'a').info( # comment\n {})\n",
    "[logger.info({}) for _ in [1]]\n",
    "logger.info({}, extra={{'a': f'b {{1}}'}})\n",
]


@thorough
@given(
    pieces=PIECES,
    way=st.sampled_from(WAYS),
    layout=st.sampled_from(LAYOUTS),
    seed=st.integers(0, 99),
)
@example(pieces=["user ", ("bob",), " in"], way=as_f_string, layout=LAYOUTS[0], seed=0)
@example(pieces=["%s", (1,), "%%"], way=as_percent, layout=LAYOUTS[2], seed=1)
@example(pieces=["a{", ("}",), "}b"], way=as_format, layout=LAYOUTS[3], seed=2)
def test_a_healed_message_has_the_signature_of_the_format_that_made_it(
    tmp_path, pieces, way, layout, seed
):
    call_sites._forget_all()
    rng = random.Random(seed)
    values = {f"v{at}": piece[0] for at, piece in enumerate(pieces) if type(piece) is tuple}
    named = [(piece, f"v{at}" if type(piece) is tuple else None) for at, piece in enumerate(pieces)]
    reference = "".join(piece.replace("%", "%%") if name is None else "%s" for piece, name in named)
    path = tmp_path / "app.py"
    path.write_text(layout.format(way(named, rng)), encoding="utf-8", newline="")
    (record,) = execute(path, **values)

    found = heal(record)

    has_words = SourceTemplate(reference, varies=True, head="", middles=(), tail="").has_words()
    if not values or not has_words:
        assert found is None
        return
    assert found is not None, record.msg
    assert compute_format_signature(found) == compute_format_signature(reference)


CONVERSIONS = {
    False: {"%s": 1, "%d": 1, "%5.2f": 1, "%-4s": 1, "%r": 1, "%x": 1, "%c": 1, "%*d": 2, "%%": 0},
    True: {"%(a)s": 0, "%(a)05d": 0, "%(a b)r": 0, "%%": 0},
}
MAPPING = {"a": 65, "a b": "x"}
BESIDE = st.booleans().flatmap(
    lambda named: st.lists(
        st.one_of(
            CONSTANTS.filter(lambda text: "%" not in text),
            st.tuples(ANY_VALUES),
            st.sampled_from(sorted(CONVERSIONS[named])),
        ),
        min_size=1,
        max_size=7,
    )
)


@thorough
@given(pieces=BESIDE)
@example(pieces=["user ", ("bob",), " has ", "%d"])
@example(pieces=["%%", ("5",), "d of ", "%s"])
@example(pieces=["at ", ("%s",), " of ", "%s"])
@example(pieces=["at ", ("%",), "% of ", "%s"])
def test_an_f_string_beside_arguments_has_the_format_that_makes_its_message(tmp_path, pieces):
    call_sites._forget_all()
    values = {f"v{at}": piece[0] for at, piece in enumerate(pieces) if type(piece) is tuple}
    texts = [piece for piece in pieces if type(piece) is str]
    counts = {**CONVERSIONS[False], **CONVERSIONS[True]}
    named = any(text in CONVERSIONS[True] and text != "%%" for text in texts)
    arguments = [65] * sum(counts.get(text, 0) for text in texts)
    written = "".join(
        f"f'{{v{at}}}' "
        if type(piece) is tuple
        else "f" + repr(piece).replace("{", "{{").replace("}", "}}") + " "
        for at, piece in enumerate(pieces)
    )
    given = repr(MAPPING) if named else f"*{arguments or [65]}"
    path = tmp_path / "app.py"
    path.write_text(f"logger.info({written}, {given})\n", encoding="utf-8", newline="")
    (record,) = execute(path, **values)

    found = heal_format(record)

    has_percent = any("%" in str(value) for value in values.values())
    if has_percent or not values:
        assert found is None
    elif found is None:
        assert reason_of(record, percent=True) == "no constant text"
    elif arguments or named:
        filled = [
            str(piece[0])
            if type(piece) is tuple
            else piece % (MAPPING if named else (65,) * counts[piece])
            for piece in pieces
            if type(piece) is tuple or counts.get(piece) or piece.startswith("%(")
        ]
        assert found % tuple(filled) == record.getMessage()


def heal_format(record):
    """What a line knows of a format string, once a second one came from it."""
    site = site_at(record.pathname, record.lineno, percent=True)
    assert site.format_for(record.msg) is None
    assert not has_waiting()
    assert site.format_for("another of this line: %s") is None
    assert has_waiting()
    analyse_waiting()
    return site.format_for(record.msg)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ('f"user {name} has %d", n', "user %s has %s"),
        ('f"user {name} has %d of 100%%", n', "user %s has %s of 100%%"),
        ('"user {} has %d".format(name), n', "user %s has %s"),
        ('"user %s has %%d" % name, n', "user %s has %s"),
        ('"user " + name + " has %d", n', "user %s has %s"),
        ('f"user {name} has %(a)s", d', "user %s has %s"),
        ('f"user {name} has %d", *[n]', "user %s has %s"),
        ('f"user {name}{empty} has %5.*f", n, x', "user %s%s has %s"),
        ('f"user {name} " "has %d", n, exc_info=False', "user %s has %s"),
        ('f"user {name} has %d" if ok else f"nobody has %d", n', "user %s has %s"),
    ],
)
def test_an_f_string_beside_arguments_is_healed(run, call, expected):
    record, by_level = run(f"logger.info({call}); logger.log(20, {call})", **VALUES)

    assert heal_format(record) == expected
    assert site_at(by_level.pathname, 1, percent=True).format_for(by_level.msg) == expected


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ('"user %s has %d", name, n', "constant"),
        ("msg, n", "not a template"),
        ('f"user %{n}s in", name', "not a template"),
        ('f"user {name} %{n}.2f", x', "not a template"),
        ('f"{name}: %s", n', "no constant text"),
        ('f"user {d} is at 5%{empty}%", n', "not a template"),
        ('f"user %({name})s in", {"bob": 1}', "not a template"),
        ('f"[{n}] %s", f"user {name} in"', "no constant text"),
        ('f"{msg} (%s)", n', "no constant text"),
        ('f"user {percent} in %d", n', "source does not match"),
    ],
)
def test_a_format_string_that_is_in_doubt_is_left_as_it_is(run, call, reason):
    (record,) = run(f"logger.info({call})", **VALUES, percent="50%% of a")

    assert heal_format(record) is None
    assert reason_of(record, percent=True) == reason


def test_a_value_with_a_percent_sign_is_left_to_itself_however_many_were_healed(run):
    (record,) = run('logger.info(f"user {name} has %d", n)', **VALUES)
    heal_format(record)
    site = site_at(record.pathname, 1, percent=True)

    for _ in range(100):
        assert site.format_for("user eve has %d") == "user %s has %s"
        assert site.format_for("user e%% has %d") is None
        assert site.format_for("user %s has %d") is None


def test_a_format_string_that_is_always_the_same_costs_no_look_at_the_source(run):
    (record,) = run('logger.info(f"user {name} has %d", n)', **VALUES)
    for _ in range(10):
        assert site_at(record.pathname, 1, percent=True).format_for(record.msg) is None

    assert not has_waiting()
    assert call_sites.call_sites() == []


def test_calls_with_arguments_leave_room_for_the_others():
    for line in range(MOST_SITES + 10):
        site_at("no/such.py", line, percent=True)

    assert site_at("no/such.py", MOST_SITES + 1, percent=True) is None
    assert site_at("no/such.py", MOST_SITES + 1) is not None
    for line in range(MOST_WAITING + 10):
        for text in ("a %s", "b %s"):
            site_at("no/such.py", line, percent=True).format_for(text)
    assert analyse_waiting(0) == MOST_WAITING


@thorough
@given(pieces=PIECES, message=st.one_of(st.text(max_size=30), st.lists(CONSTANTS).map("".join)))
def test_a_message_is_never_given_a_format_that_could_not_make_it(tmp_path, pieces, message):
    call_sites._forget_all()
    named = [(piece, f"v{at}" if type(piece) is tuple else None) for at, piece in enumerate(pieces)]
    path = tmp_path / "app.py"
    path.write_text(
        f"logger.info({as_f_string(named, random.Random(1)).replace(chr(10), ' ')})\n",
        encoding="utf-8",
        newline="",
    )

    site = site_at(str(path), 1)
    analyse_waiting()
    found = site.format_for(message)

    constants = [piece for piece, name in named if name is None]
    if found is not None:
        at = 0
        for constant in constants:
            at = message.index(constant, at) + len(constant)


@pytest.mark.skipif(not _syntax_trees.DEPTH_IS_SHARED, reason="of Pythons with issue 106905")
def test_while_another_thread_may_be_in_a_syntax_tree_no_site_is_analysed(run):
    """It would end with a SystemError in the application: the parser's depth is shared."""
    (record,) = run("logger.info(f'user {name} in')", **VALUES)
    site_at(record.pathname, record.lineno).format_for(record.msg)

    class Finalized:
        def __init__(self):
            self.cycle = self

        def __del__(self):
            inside.set()
            done.wait(20)

    def collect_slowly():
        Finalized()
        gc.collect()

    inside, done = threading.Event(), threading.Event()
    thread = threading.Thread(target=collect_slowly)
    thread.start()
    assert inside.wait(20)
    left = [analyse_waiting()]
    done.set()
    thread.join()
    left.append(analyse_waiting())

    assert left == [1, 0]
    assert site_at(record.pathname, record.lineno).format_for(record.msg) == "user %s in"


def test_an_application_that_makes_syntax_trees_meanwhile_notices_nothing(run):
    """With finalizers that let other threads in wherever a tree is being made."""
    failed, done = [], threading.Event()
    source = "\n".join(f"x{n} = [1, {n}, f(a.b, *c)]" for n in range(60))

    class Finalized:
        def __init__(self):
            self.cycle = self

        def __del__(self):
            time.sleep(0)

    def work():
        try:
            while not done.is_set():
                for _ in range(20):
                    Finalized()
                ast.parse(source)
                time.sleep(0.001)  # else it would be collecting whenever another gets a turn
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    usual = gc.get_threshold()
    gc.set_threshold(50)
    thread.start()
    try:
        for _ in range(8):
            call_sites._forget_all()
            for number in range(20):
                (record,) = run("\n" * number + "logger.info(f'user {name} in')", **VALUES)
                site_at(record.pathname, record.lineno).format_for(record.msg)
            while analyse_waiting():
                time.sleep(0)
    finally:
        gc.set_threshold(*usual)
        done.set()
        thread.join()

    assert failed == []
