"""
How well patterns find the statements of real applications' logging calls, and what healing costs.

    python contrib/benchmarks/call_sites.py [NAME ...] [--cache FOLDER] [--messages N] [--json FILE]

The sources of large open-source applications come from PyPI into a folder outside the repository:
their wheels, which are unpacked and never run. Every logging call in them (tests left out) makes N
messages with seeded values for its variables, which go through what an adapter does: those
of a call with arguments by its format string, the others through `site_at`, `analyse_waiting` and
`format_for` against the real source, and by LSIG-1 where there is no format.

What the true statement of a message is can be told in two ways, and GA is shown for both:

format     its format string, every conversion as `%s`. Calls of one and the same format string are
           one statement: no one could tell their messages apart, and whoever reads a table of
           patterns wants to see them as one. All other figures are by this one.
call       its call, strictly: two calls of one format string are then always a miss.

What a call that is given the result of another function logs is not known: such calls are counted
as "other", and make no messages. Figures as in grouping.py; the first messages of a site, until the
background has read its source, are not in them. "ideal" is what every call would reach if it were
written with arguments: where LSIG-1 gives two format strings one signature, healing cannot tell
them apart either. "missed" says why messages are not in a group that is exactly one statement.
"""

import argparse
import json
import random
import re
import shutil
import statistics
import subprocess
import sys
import time
import uuid
from collections import Counter, defaultdict, deque
from pathlib import Path

from grouping import FIGURES, figures

from lipservice import call_sites
from lipservice.cli import logging_calls
from lipservice.exceptions import ConfigurationError
from lipservice.signature import compute_format_signature, compute_signature
from lipservice.source_templates import templates_at

#: name -> the version that was measured
APPLICATIONS = {
    "ansible-core": "2.21.5",
    "apache-airflow-core": "3.3.2",
    "buildbot": "4.3.0",
    "celery": "5.7.0",
    "distributed": "2026.8.0",
    "dvc": "3.67.1",
    "esphome": "2026.10.0",
    "homeassistant": "2025.1.4",
    "jupyter-server": "2.21.1",
    "litellm": "1.110.2",
    "locust": "2.47.0",
    "matrix-synapse": "1.163.2",
    "meltano": "4.4.1",
    "mitmproxy": "12.3.1",
    "mlflow": "3.18.0",
    "octoprint": "1.11.8",
    "prefect": "3.9.1",
    "scrapy": "2.19.0",
}
CACHE = Path.home() / ".cache" / "lipservice-benchmarks" / "call-sites"
SELF = logging_calls.SELF_FORMATTED
#: What is compared: LSIG-1 alone, with healing, and if every call were written with arguments.
WHICH = ("without", "with", "as_arguments")

WORDS = ["alpha", "blue", "cache", "delta", "east", "feature", "green", "hotel", "index", "kernel"]
NAMES = [
    "alice",
    "Bob",
    "Carol Smith",
    "dave_w",
    "Ève",
    "frank",
    "Grace Hopper",
    "svc-deploy",
    "admin",
]
ERRORS = [
    "connection refused by peer",
    "No such file or directory",
    "timed out",
    "KeyError: 'name'",
    "invalid literal for int() with base 10: 'x'",
    "the server closed the connection unexpectedly",
    "expected a mapping, got a list instead",
]


# --- values ----------------------------------------------------------------------------------


def a_path(rng):
    return "/".join(["", *rng.choices(WORDS, k=rng.randint(1, 4))]) + rng.choice(
        ["", ".py", ".log"]
    )


def a_host(rng):
    return f"{rng.choice(WORDS)}-{rng.choice(WORDS)}" + rng.choice(
        [".example.com", ".internal", "", ":8080"]
    )


def a_container(rng):
    words = rng.choices(WORDS, k=rng.randint(0, 4))
    return repr(words if rng.random() < 0.5 else dict(zip(words, reversed(words), strict=True)))


#: What a variable that can be a word holds, and how often.
WORDY = {
    lambda rng: rng.choice(WORDS): 20,
    lambda rng: rng.choice(NAMES): 15,
    lambda rng: str(rng.randrange(10 ** rng.randint(1, 9))): 15,
    a_path: 10,
    a_host: 10,
    lambda rng: str(uuid.UUID(int=rng.getrandbits(128))): 10,
    lambda rng: rng.choice(ERRORS): 10,
    a_container: 7,
    lambda rng: f"{rng.random() * 100:.2f}": 3,
}
NUMBERS = {
    lambda rng: str(rng.randrange(10 ** rng.randint(1, 9))): 3,
    lambda rng: f"{rng.random() * 100:.3f}": 1,
}


def maker(rng, *, word):
    """What makes the values of a variable: of one kind, and sometimes empty."""
    kinds = WORDY if word else NUMBERS
    kind = rng.choices(list(kinds), weights=list(kinds.values()))[0]
    return lambda: "" if word and rng.random() < 0.03 else kind(rng)


def messages_of(call, number, rng):
    """Messages that a call could log; with arguments, the format strings of its records."""
    if call.percent and call.kind == logging_calls.ARGUMENTS:
        return [call.template.format] * number
    given = given_template(call) if call.percent else call.template.format
    gaps = given.replace("%%", "").count("%s")
    words = [variable.word for variable in call.variables]
    if len(words) != gaps:
        words = [True] * gaps
    makers = [maker(rng, word=word) for word in words]
    return [given % tuple(make() for make in makers) for _ in range(number)]


def given_template(call):
    """The format that makes the format string that a call gives its logger."""
    found = templates_at(logging_calls.read_source(call.path), call.line, percent=True) or []
    given = next((each for each in found if each.format == call.template.format), call.template)
    return given.message("\0").replace("%", "%%").replace("\0", "%s")


# --- sources ---------------------------------------------------------------------------------


def fetch(name, version, cache):
    """The folder of an application's sources, from PyPI if they are not there yet."""
    folder = cache / f"{name}-{version}"
    if folder.is_dir():
        return folder
    temporary = cache / f".{name}-{version}"
    shutil.rmtree(temporary, ignore_errors=True)
    # Wheels only, and without dependencies: they are unpacked, and no code of theirs runs.
    options = ["--no-deps", "--only-binary", ":all:", "--python-version", "3.12"]
    options.append("--ignore-requires-python")
    command = [*_installer(), "install", *options, "--target", str(temporary), f"{name}=={version}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        shutil.rmtree(temporary, ignore_errors=True)
        raise RuntimeError((done.stderr.strip().splitlines() or ["pip failed"])[-1])
    temporary.rename(folder)
    return folder


def _installer():
    for command in (
        [sys.executable, "-m", "pip"],
        ["uv", "pip"],
        ["python3", "-m", "pip"],
        ["pip"],
    ):
        with_version = [*command[: 3 if "-m" in command else 1], "--version"]
        try:
            if subprocess.run(with_version, capture_output=True, check=False).returncode == 0:
                return command
        except OSError:
            continue
    raise RuntimeError("needs pip or uv")


def calls_of(folder):
    """All logging calls of an application, and how many files this Python cannot parse."""
    calls, unparsed = [], 0
    for path in logging_calls.python_files([str(folder)], tests=False):
        try:
            calls += logging_calls.find_calls(path, logging_calls.read_source(path))
        except ConfigurationError:
            unparsed += 1
    return calls, unparsed


# --- judging ---------------------------------------------------------------------------------


def judge(calls, number, seed):
    """Figures of one application without and with healing, and what became of its sites."""
    rng = random.Random(seed)
    scored = [call for call in calls if call.template is not None]
    made = [(call, messages_of(call, number, rng)) for call in scored]
    meet(made)
    groups = {which: [] for which in WHICH}
    for call, messages in made:
        groups["without"] += [signature_without(call, message) for message in messages]
        groups["with"] += [signature_with(call, message) for message in messages]
        groups["as_arguments"] += [compute_format_signature(call.template.format)] * len(messages)
    statements = [call.template.format for call, messages in made for _ in messages]
    by_call = [(call.place, call.template.format) for call, messages in made for _ in messages]
    own = [call for call in scored if call.kind in SELF]
    return {
        "kinds": dict(Counter(call.kind for call in calls)),
        "statements": len({call.template.format for call in scored}),
        **{which: figures(groups[which], statements) for which in WHICH},
        "by_call": {which: figures(groups[which], by_call) for which in WHICH},
        "missed": missed(made, groups["with"], groups["as_arguments"]),
        "under_its_format": sum(map(str.__eq__, groups["with"], groups["as_arguments"]))
        / len(statements),
        "self_formatted": len(own),
        "healed": sum(not outcome(call) for call in own),
        "reasons": dict(Counter(filter(None, (outcome(call) for call in own)))),
        "self_formatted_without": figures(*of_kind(made, groups["without"], SELF)) if own else None,
        "self_formatted_with": figures(*of_kind(made, groups["with"], SELF)) if own else None,
    }, made


def words_of(call):
    return tuple(re.findall(r"\w+", call.template.format.replace("%s", " ")))


def missed(made, found, ideal):
    """Shares of the messages that are not in a group that is one statement, by cause."""
    calls = [call for call, messages in made for _ in messages]
    statements_in, signatures_of = defaultdict(set), defaultdict(set)
    for call, signature in zip(calls, found, strict=True):
        statements_in[signature].add(call.template.format)
        signatures_of[call.template.format].add(signature)
    words_in, formats_in = defaultdict(set), defaultdict(set)
    for call, signature in zip(calls, ideal, strict=True):
        formats_in[signature].add(call.template.format)
        words_in[signature].add(words_of(call))
    causes = Counter()
    for call, signature, own in zip(calls, found, ideal, strict=True):
        if len(statements_in[signature]) == len(signatures_of[call.template.format]) == 1:
            continue
        if signature != own:
            causes[f"not healed: {outcome(call) or 'some of its messages'}"] += 1
        elif len(words_in[own]) > 1:
            causes["LSIG-1: a constant looks like a value, or runs into one"] += 1
        elif len(formats_in[own]) > 1:
            causes["LSIG-1: the same words, other values or marks"] += 1
        else:
            causes["beside messages that are not healed"] += 1
    return {cause: number / len(calls) for cause, number in causes.most_common()}


def meet(made):
    """Let every site be met, and analysed in the background."""
    call_sites._forget_all()
    for call, messages in made:
        if looks_at_its_site(call):
            if site_of(call) is None:
                while call_sites.analyse_waiting():
                    pass
            if (site := site_of(call)) is not None:
                for message in messages[:3]:
                    site.format_for(message)
    while call_sites.analyse_waiting():
        pass


def looks_at_its_site(call):
    """Whether an adapter does: a format string that is always the same it knows by then."""
    return call.kind != logging_calls.ARGUMENTS or call.braces


def site_of(call):
    return call_sites.site_at(call.path, call.line, braces=call.braces, percent=call.percent)


def signature_without(call, message):
    return compute_format_signature(message) if call.percent else compute_signature(message)


def signature_with(call, message):
    site = site_of(call) if looks_at_its_site(call) else None
    found = site.format_for(message) if site is not None else None
    return signature_without(call, message) if found is None else compute_format_signature(found)


def outcome(call):
    """Why a call that formats its own messages is not healed; "" where it is."""
    site = site_of(call)
    if site is None:
        return "table full"
    state = site.state()
    return "" if state.state == call_sites.HEALED else state.reason or state.state


def of_kind(made, groups, kinds):
    """Groups and statements of the messages of some kinds of calls."""
    found, statements, at = [], [], 0
    for call, messages in made:
        if call.kind in kinds:
            found += groups[at : at + len(messages)]
            statements += [call.template.format] * len(messages)
        at += len(messages)
    return found, statements


# --- costs -----------------------------------------------------------------------------------


def costs(made, rounds=9):
    """ns a message of healed f-string sites, interleaved; and ms of an analysis."""
    healable = [
        (call, messages)
        for call, messages in made
        if call.kind in SELF and not call.reason and not call.percent
    ]
    while call_sites.analyse_waiting():
        pass
    known = [(call, message) for call, messages in healable for message in messages]
    random.Random(1).shuffle(known)
    texts = [message for _, message in known]
    few = known[:50] * (len(known) // 50)
    few_texts = [message for _, message in few]
    contenders = {
        "an empty function": lambda: deque(map(nothing, texts), maxlen=0),
        "signature of the message": lambda: deque(map(compute_signature, texts), maxlen=0),
        "site and format": lambda: deque((ask(*each) for each in known), maxlen=0),
        "signature, message seen before": lambda: deque(
            map(compute_signature, few_texts), maxlen=0
        ),
        "site and format, message seen before": lambda: deque(
            (ask(*each) for each in few), maxlen=0
        ),
    }
    taken = {name: [] for name in contenders}
    for round_ in range(rounds + 1):
        for name, run_once in contenders.items():
            start = time.thread_time_ns()
            run_once()
            if round_:
                taken[name].append((time.thread_time_ns() - start) / len(known))
    ns = {name: statistics.median(each) for name, each in taken.items()}
    return {
        "ns": ns,
        "ratio": ns["site and format"] / ns["signature of the message"],
        "ratio_seen_before": ns["site and format, message seen before"]
        / ns["signature, message seen before"],
    }


def ask(call, message):
    return call_sites.site_at(call.path, call.line).format_for(message)


def nothing(message):
    """The cost of the loop and of a call."""


def analysis_times(made):
    """Milliseconds of processor time of each analysis, the file's reading among them."""
    call_sites._forget_all()
    times = []
    for call, messages in made:
        if call.percent:
            continue
        site = site_of(call)
        if site is not None and call_sites.has_waiting():
            site.format_for(messages[0])
            start = time.thread_time_ns()
            call_sites.analyse_waiting(1)
            times.append((time.thread_time_ns() - start) / 1e6)
    return times


# --- report ----------------------------------------------------------------------------------


def run(names=(), cache=CACHE, messages=20, seed=1):
    """Judge. The answer maps each application, and "overall", to its figures."""
    cache.mkdir(parents=True, exist_ok=True)
    found, skipped, times, everything = {}, {}, [], []
    for name in names or APPLICATIONS:
        try:
            folder = fetch(name, APPLICATIONS[name], cache)
        except (RuntimeError, OSError) as error:
            skipped[name] = str(error)
            continue
        calls, unparsed = calls_of(folder)
        found[name], made = judge(calls, messages, seed)
        found[name]["files_not_parsed"] = unparsed
        times += analysis_times(made)
        everything += [pair for pair in made if pair[0].kind in SELF]
    meet(everything)
    return {
        "benchmark": "call_sites",
        "messages_a_call": messages,
        "applications": found,
        "overall": overall(list(found.values())),
        "cost": costs(everything),
        "analysis_ms": {
            "median": statistics.median(times),
            "p99": statistics.quantiles(times, n=100)[98],
            "max": max(times),
        },
        "skipped": skipped,
    }


def overall(results):
    """Means over the applications, each with the weight of its statements."""
    total = sum(result["statements"] for result in results)
    reasons, kinds = Counter(), Counter()
    for result in results:
        reasons.update(result["reasons"])
        kinds.update(result["kinds"])

    def mean(value_of):
        return sum(value_of(result) * result["statements"] for result in results) / total

    own = [result for result in results if result["self_formatted"]]

    def mean_of_own(which, figure):
        weights = [result["self_formatted"] for result in own]
        return sum(
            result[which][figure] * weight for result, weight in zip(own, weights, strict=True)
        ) / sum(weights)

    return {
        "kinds": dict(kinds),
        "statements": total,
        "self_formatted": sum(result["self_formatted"] for result in results),
        "healed": sum(result["healed"] for result in results),
        "reasons": dict(reasons),
        **means(mean, lambda result: result),
        "by_call": means(mean, lambda result: result["by_call"]),
        "under_its_format": mean(lambda result: result["under_its_format"]),
        "missed": {
            cause: mean(lambda result, cause=cause: result["missed"].get(cause, 0.0))
            for cause in sorted({cause for result in results for cause in result["missed"]})
        },
        **{
            which: {name: mean_of_own(which, name) for name in FIGURES}
            for which in ("self_formatted_without", "self_formatted_with")
        },
    }


def means(mean, figures_of):
    """Means of each figure, with and without healing."""
    return {
        which: {
            name: mean(lambda result, which=which, name=name: figures_of(result)[which][name])
            for name in FIGURES
        }
        for which in WHICH
    }


def table(result):
    """The figures as text."""
    return "\n".join(_rows(result))


def _rows(result):
    head = f"{'':20}{'calls':>7}{'own':>6}{'healed':>8}"
    figure_names = [f"{w} {f}" for w in ("LSIG-1", "healed", "ideal") for f in FIGURES]
    yield head + "".join(f"{name:>14}" for name in figure_names)
    for name, each in [*result["applications"].items(), ("overall", result["overall"])]:
        row = (
            f"{name:20}{sum(each['kinds'].values()):7}{each['self_formatted']:6}{each['healed']:8}"
        )
        yield row + "".join(f"{each[which][figure]:14.4f}" for which in WHICH for figure in FIGURES)
    all_ = result["overall"]
    for truth, each in (
        ("format string", all_),
        ("call", all_["by_call"]),
    ):
        values = ", ".join(
            f"{label} {each[which]['GA']:.4f}"
            for label, which in zip(("LSIG-1", "healed", "ideal"), WHICH, strict=True)
        )
        yield f"GA by {truth}: {values}"
    yield f"messages under the signature of their format string: {all_['under_its_format']:.4f}"
    yield "missed, healed, by format string:"
    for cause, share in sorted(all_["missed"].items(), key=lambda each: -each[1]):
        yield f"  {share:8.3%}  {cause}"
    yield f"kinds of calls: {all_['kinds']}"
    yield f"not healed: {all_['reasons']}"
    own = [
        f"{f} {all_['self_formatted_without'][f]:.4f} -> {all_['self_formatted_with'][f]:.4f}"
        for f in FIGURES
    ]
    yield "calls that format their own messages alone: " + ", ".join(own)
    ns = ", ".join(f"{name} {value:.0f}" for name, value in result["cost"]["ns"].items())
    yield f"ns a message: {ns}; ratio {result['cost']['ratio']:.2f},"
    yield f"  of messages that were seen before {result['cost']['ratio_seen_before']:.2f}"
    yield "ms an analysis: " + ", ".join(f"{k} {v:.3f}" for k, v in result["analysis_ms"].items())
    for name, reason in result["skipped"].items():
        yield f"skipped {name}: {reason}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[*APPLICATIONS, []])
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--messages", type=int, default=20)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    result = run(arguments.names, arguments.cache, arguments.messages)
    print(table(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
