"""
One line of a log -> when, how severe, and the message that the application gave to its logger.

A `LineParser` knows the formats below and learns which of them a log has: the one that fitted
last is tried first. Formats are ordered from strict to loose, by the first character of a line.
The message is what stands behind timestamp, level, process, thread and logger, so that its
pattern equals the one that the sampler sees inside the application. Where it cannot be told
whether a word is a logger's name or the message's, it stays: a pattern that is split costs a
little budget, one that mixes two statements hides one of them.

Nothing raises, whatever the line.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from lipservice.simulation.levels import (
    ANY_LEVEL,
    LOWER_LEVEL,
    SEVERITY_OF_WORD,
    UPPER_LEVEL,
    severity_of_priority,
    severity_of_status,
    severity_of_text,
)
from lipservice.simulation.structured import Fields, read_json, read_logfmt
from lipservice.simulation.timestamps import Years, read_offset, read_time

#: What a line is: no format fits; a record begins; the record above goes on.
UNKNOWN: Final = 0
RECORD: Final = 1
FOLLOWS: Final = 2

#: (what it is, seconds since 1970 or None, severity or None, message). A plain tuple, because
#: one is made for every line.
Line = tuple[int, "float | None", "str | None", str]

_Finish = Callable[["LineParser", "re.Match[str]", Line], "Line | None"]

# --- pieces ---------------------------------------------------------------------------------

_ZONE = r"(?:\s?(?P<zone>Z|UTC|GMT|[+-]\d\d:?\d\d)(?![\w:]))?"
_ISO = r"(?P<time>\d{4}[-/]\d\d[-/]\d\d(?:T|,? )\d\d:\d\d:\d\d)(?:[.,:]\d+)?" + _ZONE
_CLOCK = r"(?P<time>\d\d:\d\d:\d\d)(?:[.,]\d+)?"
_ISO_OR_CLOCK = r"(?P<time>(?:\d{4}[-/]\d\d[-/]\d\d(?:T|,? ))?\d\d:\d\d:\d\d)(?:[.,:]\d+)?" + _ZONE
ANY_TIME = (
    r"(?P<time>\d{4}[-/.]\d\d?[-/.]\d\d?(?:T|,? )\d\d?:\d\d:\d\d|\d{8}[T ]?\d\d:?\d\d:?\d\d"
    r"|\d\d[ /-][A-Z][a-z]{2}[ /-]\d{4}[: ]\d\d:\d\d:\d\d"
    r"|\d\d?/\d\d?/\d{4},? \d\d?:\d\d:\d\d(?: [AP]M)?|\d\d?\.\d\d?\.\d{4},? \d\d?:\d\d:\d\d"
    r"|(?:[A-Z][a-z]{2},? )?[A-Z][a-z]{2} +\d\d?,? (?:\d{4},? )?\d\d?:\d\d:\d\d"
    r"(?: [AP]M)?(?: \d{4})?"
    r"|\d\d:\d\d:\d\d|1\d{9}(?:\d{3}){0,3})(?:[.,:]\d+)?" + _ZONE
)
_LEVEL = f"(?P<level>{ANY_LEVEL})"
_SHOUTED = f"(?P<level>{UPPER_LEVEL})"
_DOTTED = r"(?:[A-Za-z_][\w$-]*(?:[./]|::))+[\w$<>-]+"
# A logger's name behind the level: dotted, or a source position, with or without punctuation.
_NAME = rf"(?:{_DOTTED}(?::[\w<>]+)?(?::\d+)?|[\w$<>-]+:\d+)(?:\s*[:|]\s+|\s+-\s+|\s+(?=\S)|$)"
_BEHIND_LEVEL = rf"[\]>)|:,\s-]*(?:\d+\s+)?(?:\[[^\[\]]*\][\s:|-]*)?(?:{_NAME}|--?\s+)?[|:\s]*"
# What may stand between a timestamp and a level: brackets, numbers, names with a dot or a
# digit, and at most one plain word. Lines are not to be trusted: everything is bounded, and what
# separates cannot be part of what is separated, so that there is one way to match.
_GAP = r"(?:\s{0,10}[|,;]\s{0,10}|\s{1,10}(?:[:-]{1,2}\s{1,10})?)"
_FIELD = r"(?:(?=[^\s|,;]{0,60}[./\d:@\]>)}])[^\s|,;]{1,120}|[\[({<][^\])}>]{0,200}[\])}>])"
_FIELDS = rf":?(?:\[[^\]]{{0,200}}\])?(?:{_GAP}{_FIELD}){{0,4}}?(?:{_GAP}[a-z_][\w-]{{0,60}})?:?"
_TAG = r"(?:(?P<tag>(?:-- )?[^\s:\[\]]+(?: [\d.]+)?(?:\[[^\]]*\])?):(?:\s+|$))?"
_SYSLOG_BODY = (
    r"(?P<time>[A-Z][a-z]{2} [ \d]?\d(?: \d{4})? \d\d:\d\d:\d\d)(?:\.\d+)?:? (?P<host>[\w.:@/-]+) "
    + _TAG
)


# --- what a match alone does not say --------------------------------------------------------


def _access(parser: LineParser, match: re.Match[str], line: Line) -> Line:
    """An access log has no level; its status is one. The client's name and agent stay out."""
    del parser
    status = match["status"]
    if match["zone"] is None:  # werkzeug: the application's own logger wrote the whole line
        return (RECORD, line[1], severity_of_status(status), match.string)
    return (RECORD, line[1], severity_of_status(status), f"{match['message']} {status}")


def _priority(parser: LineParser, match: re.Match[str], line: Line) -> Line:
    wrapped = _syslog(parser, match, line)
    if wrapped[0] == RECORD and wrapped[2] is None:
        return (RECORD, wrapped[1], severity_of_priority(int(match["pri"])), wrapped[3])
    return wrapped


def _syslog(parser: LineParser, match: re.Match[str], line: Line) -> Line:
    del match
    return _wrapped(parser, line)


def _wrapped(parser: LineParser, line: Line) -> Line:
    """Syslog may carry an application's own format within its message."""
    inner = parser.parse_wrapped(line[3])
    if inner is None:
        return (RECORD, line[1], line[2] or _hint(line[3]), line[3])
    return (inner[0], inner[1] or line[1], inner[2] or line[2], inner[3])


def _envelope(parser: LineParser, match: re.Match[str], line: Line) -> Line:
    """Container run times put their own columns before a line of any other format."""
    del match
    inner = parser.parse_inner(line[3])
    return (inner[0], inner[1] or line[1], inner[2] or line[2], inner[3])


def _cri(parser: LineParser, match: re.Match[str], line: Line) -> Line:
    if parser.take_partial(match["flag"] == "P"):
        return (FOLLOWS, line[1], None, line[3])
    return _envelope(parser, match, line)


def _postgres(parser: LineParser, match: re.Match[str], line: Line) -> Line:
    del parser
    if match["level"] in {"DETAIL", "HINT", "STATEMENT", "CONTEXT", "QUERY", "LOCATION"}:
        return (FOLLOWS, line[1], None, line[3])
    return line


def _console(parser: LineParser, match: re.Match[str], line: Line) -> Line:
    """structlog's console and logrus: the event, padded, then keys and values."""
    del parser, match
    return (RECORD, line[1], line[2], _KEYS_BEHIND_EVENT.split(line[3], maxsplit=1)[0])


def _rich(parser: LineParser, match: re.Match[str], line: Line) -> Line:
    """Rich puts the place of the call at the right margin."""
    del parser, match
    message, _, place = line[3].rstrip().rpartition("  ")
    if message and _PLACE.fullmatch(place.strip()):
        return (RECORD, line[1], line[2], message.rstrip())
    return line


def _kafka(parser: LineParser, match: re.Match[str], line: Line) -> Line:
    """Kafka's log4j layout ends with the logger in parentheses."""
    del parser, match
    message, _, logger = line[3].rstrip().rpartition(" (")
    if message and _LOGGER_IN_PARENTHESIS.fullmatch(logger):
        return (RECORD, line[1], line[2], message)
    return line


def _monolog(parser: LineParser, match: re.Match[str], line: Line) -> Line:
    """Monolog's line ends with context and extra, each a JSON object or `[]`."""
    del parser, match
    message = line[3].rstrip()
    for _ in range(2):
        start = message.rfind(" {") if message.endswith("}") else message.rfind(" []")
        if start < 0 or not message.endswith(("}", " []")):
            break
        message = message[:start]
    return (RECORD, line[1], line[2], message)


def _json(parser: LineParser, match: re.Match[str], line: Line) -> Line | None:
    del line
    return _line_of_fields(parser, read_json(match.string))


def _logfmt(parser: LineParser, match: re.Match[str], line: Line) -> Line | None:
    del line
    return _line_of_fields(parser, read_logfmt(match.string))


def _line_of_fields(parser: LineParser, fields: Fields | None) -> Line | None:
    if fields is None:
        return None
    found: Line = (RECORD, fields.seconds, fields.severity, fields.message)
    if fields.envelope == "message":
        return _wrapped(parser, found)
    if not fields.envelope:
        return found
    if parser.take_partial(fields.partial):
        return (FOLLOWS, fields.seconds, None, fields.message)
    inner = parser.parse_inner(fields.message)
    return (inner[0], inner[1] or found[1], inner[2] or found[2], inner[3])


# A run of blanks is looked at once, from its start: no line can make this slow.
_KEYS_BEHIND_EVENT: Final = re.compile(r"(?<!\s)(?:\s{2,}|\s(?=[A-Za-z_][\w.]*=\S))")
_PLACE: Final = re.compile(r"[\w.<>-]+:\d+")
_LOGGER_IN_PARENTHESIS: Final = re.compile(r"[\w.$]+\)")
_HINT: Final = re.compile(r"\W{0,2}([A-Za-z]{3,11})(?:\]|:(?!:)|\s+-\s)")


def _hint(message: str) -> str | None:
    """Severity that a message without a level begins with: `error: ...`, `[warn] ...`."""
    match = _HINT.match(message)
    return None if match is None else SEVERITY_OF_WORD.get(match[1])


class LineFormat:
    """
    One format: a regular expression for what stands before the message. Immutable.

    Groups: `time` and `zone`, `level` (or `level2`, `level3` in other branches), and `message`
    where something stands behind it. `loose` names the format that sees more than this one.
    """

    __slots__ = ("_finish", "_levels", "_match", "_picks", "_yearless", "loose", "name", "starts")

    def __init__(
        self,
        name: str,
        starts: str,
        pattern: str,
        *,
        finish: _Finish | None = None,
        yearless: bool = False,
        loose: str = "",
    ) -> None:
        present = re.compile(pattern).groupindex
        wanted = ("time", "zone", "level", "message")
        # Groups that never take part answer None, so that one call fetches all four.
        absent = "".join(f"(?:(?P<{group}>(?!)))?" for group in wanted if group not in present)
        compiled = re.compile(pattern + absent, re.ASCII | re.DOTALL)
        self.name = name
        self.starts = starts
        self.loose = loose
        self._match = compiled.match
        self._picks = tuple(compiled.groupindex[group] - 1 for group in wanted)
        self._levels = tuple(group for group in ("level2", "level3") if group in present)
        self._finish = finish
        self._yearless = yearless

    def parse(self, text: str, parser: LineParser) -> Line | None:
        """The line's parts, or None if it has another format."""
        match = self._match(text)
        if match is None:
            return None
        groups = match.groups()
        at_time, at_zone, at_level, at_message = self._picks
        time, zone, level, message = (
            groups[at_time], groups[at_zone], groups[at_level], groups[at_message]
        )  # fmt: skip
        if message is None:
            message = text[match.end() :]
        seconds = None
        if time is not None:
            seconds = parser.seconds_of(time, zone, yearless=self._yearless)
        if level is None and self._levels:
            level = next((match[group] for group in self._levels if match[group]), None)
        severity = self._severity(level, message)
        if self._finish is None:
            return (RECORD, seconds, severity, message)
        return self._finish(parser, match, (RECORD, seconds, severity, message))

    def _severity(self, level: str | None, message: str) -> str | None:
        if level is not None:
            return SEVERITY_OF_WORD.get(level) or severity_of_text(level)
        return None if self._finish else _hint(message)


_DIGIT = "0123456789"
_LETTER = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

#: Strict before loose; the first that fits wins.
_FORMATS: Final = (
    LineFormat("JSON lines", "{", r"\{", finish=_json),
    LineFormat(
        "nginx error log", _DIGIT,
        r"(?P<time>\d{4}/\d\d/\d\d \d\d:\d\d:\d\d)(?:\.\d+)? "
        r"\[(?P<level>\w+)\] \d+#\d+: (?:\*\d+ )?",
    ),
    # Python
    LineFormat(
        "Python logging (dashes)", _DIGIT,
        rf"{_ISO}(?: - \S+){{0,3}}? - {_LEVEL} - (?:[\w.<>-]+:\d+ - )?",
    ),
    LineFormat("loguru", _DIGIT, rf"{_ISO} \| {_LEVEL}\s*\| [\w.<>-]+:[\w.<>-]+:\d+ - "),
    LineFormat(
        "structlog console", _DIGIT, rf"{_ISO} \[(?P<level>{LOWER_LEVEL}) *\] ", finish=_console
    ),
    LineFormat("Scrapy", _DIGIT, rf"{_ISO} \[[A-Za-z][\w.]*\] {_LEVEL}: "),
    LineFormat("Odoo", _DIGIT, rf"{_ISO} \d+ {_SHOUTED} [\w?.-]+ [\w.]+: "),
    LineFormat(
        "OpenStack (oslo.log)", _DIGIT + _LETTER,
        rf"(?:[^\s\[]+ )?{_ISO} \d+ {_SHOUTED} [\w.$-]+ (?:\[(?:req-[^\]]*|[-\s]+)\] )",
    ),
    LineFormat("gunicorn", "[", rf"\[{_ISO}\] \[\d+\] \[{_LEVEL}\] "),
    LineFormat("Celery", "[", rf"\[{_ISO}: {_LEVEL}/[\w.-]+\] (?:[\w.]+\[[\w-]+\]: )?"),
    LineFormat("Flask", "[", rf"\[{_ISO}\] {_LEVEL} in [\w.]+: "),
    LineFormat("Airflow", "[", rf"\[{_ISO}\] \{{[^}}]*\}} {_LEVEL} - "),
    LineFormat(
        "Tornado, Jupyter", "[",
        r"\[(?P<level>[DIWECF]) (?P<time>\d{6} \d\d:\d\d:\d\d|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)"
        r"(?:\.\d+)?(?: [^\]]*)?\] ",
    ),
    LineFormat("Rich", "[", rf"\[{_CLOCK}\]\s+{_SHOUTED}\s+", finish=_rich),
    LineFormat("AWS Lambda", "[", rf"\[{_SHOUTED}\]\s+{_ISO}\s+[0-9a-f-]{{36}}\s+"),
    LineFormat("Python logging (default)", _LETTER, rf"{_SHOUTED}:(?!//)[\w.<>-]+:(?!:)"),
    LineFormat("Django (verbose)", _LETTER, rf"{_SHOUTED}\s+{_ISO}\s+[\w.]+\s+\d+\s+\d+\s+"),
    LineFormat("uvicorn", _LETTER, rf"{_SHOUTED}:\s{{2,}}"),
    # Java
    LineFormat("Zookeeper", _DIGIT, rf"{_ISO} - {_LEVEL}\s+\[.*?\] - "),
    LineFormat(
        "Spring Boot", _DIGIT,
        rf"{_ISO}\s+{_SHOUTED}\s+\d+\s+---\s+(?:\[[^\]]*\]\s+)+[\w.$\[\]/*-]+\s*:\s",
    ),
    LineFormat(
        "log4j (thread, logger)", _DIGIT,
        rf"{_ISO_OR_CLOCK}\s+{_SHOUTED}\s+\[.{{0,200}}?\]\s+[\w.$/-]+(?::\d+)?\s*(?::|-)(?:\s+|$)",
    ),
    LineFormat(
        "logback", _DIGIT,
        rf"{_ISO_OR_CLOCK}\s+\[.{{0,200}}?\]\s+{_SHOUTED}\s+[\w.$/\[\]-]+(?::\d+)?\s+-\s",
    ),
    LineFormat("HDFS", _DIGIT, rf"(?P<time>\d{{6}} \d{{6}}) \d+ {_SHOUTED} [\w.$-]+: "),
    LineFormat(
        "Tomcat", _DIGIT,
        r"(?P<time>\d\d-[A-Z][a-z]{2}-\d{4} \d\d:\d\d:\d\d)(?:\.\d+)? "
        rf"{_SHOUTED} \[.*?\] [\w.$]+ ",
    ),
    LineFormat("Kafka", "[", rf"\[{_ISO}\] {_SHOUTED} ", finish=_kafka),
    # Containers and orchestration: a line of another format follows
    LineFormat(
        "CRI", _DIGIT, rf"{_ISO} (?:stdout|stderr) (?P<flag>[FP])(?::\w+)*(?: |$)", finish=_cri
    ),
    LineFormat("docker compose", _LETTER, r"[\w.-]{0,80}[_-]\d{1,6}\s+\| ?", finish=_envelope),
    LineFormat("kubectl --prefix", "[", r"\[pod/[^\]]+\] ", finish=_envelope),
    LineFormat(
        "klog, glog", "IWEF",
        r"(?P<level>[IWEF])(?P<time>\d{4}(?:\d{4})? \d\d:\d\d:\d\d)\.\d+\s+\d+ [^\s\]]+:\d+\] ?",
        yearless=True,
    ),
    # Servers and data bases
    LineFormat(
        "access log", "",
        r"(?:\S+ ){3,4}\[(?P<time>\d\d/[A-Z][a-z]{2}/\d{4}[: ]\d\d:\d\d:\d\d)"
        r"(?: (?P<zone>[+-]\d{4}))?\]"
        r' "(?P<message>(?:[^"\\]|\\.)*)" (?P<status>\d{3})(?:\s.*)?$',
        finish=_access,
    ),
    LineFormat(
        "Apache error log", "[",
        r"\[(?P<time>[A-Z][a-z]{2} [A-Z][a-z]{2} +\d+ \d\d:\d\d:\d\d(?:\.\d+)? \d{4})\] "
        r"\[(?:\w*:)?(?P<level>\w+)\] (?:\[pid [^\]]*\] )?(?:\[client [^\]]*\] )?",
    ),
    LineFormat(
        "PostgreSQL", _DIGIT,
        r"(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(?:\.\d+)? [A-Z]{3,5} \[\d+\](?:-\d+)?:? "
        r"(?:[^:\s]+ )?(?P<level>[A-Z]+\d?):  ?",
        finish=_postgres,
    ),
    LineFormat(
        "MySQL", _DIGIT, rf"{_ISO}\s+\d+ \[(?P<level>\w+)\](?: \[MY-\d+\])?(?: \[\w+\])? "
    ),
    LineFormat(
        "Redis", _DIGIT,
        r"\d+:[A-Z] (?P<time>\d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d)(?:\.\d+)? (?P<level>[.*#-]) ",
    ),
    LineFormat(
        "PHP", "[",
        r"\[(?P<time>\d\d-[A-Z][a-z]{2}-\d{4} \d\d:\d\d:\d\d) [\w/]+\] "
        r"PHP (?P<level>[A-Z][a-z]+(?: error)?):  ?",
    ),
    LineFormat(
        "Monolog", "[", rf"\[{_ISO}\] [\w-]+\.(?P<level>[A-Z]+): ", finish=_monolog
    ),
    # Go, Rust, Ruby, .NET
    LineFormat(
        "zap console", _DIGIT,
        rf"{_ISO}\t{_LEVEL}\t(?:(?:[\w./-]+\t)?[\w./@-]+:\d+\t)?(?P<message>[^\t]*)(?:\t\{{.*)?$",
    ),
    LineFormat("env_logger", "[", rf"\[{_ISO}\s+{_SHOUTED}\s+[\w:.-]+\] "),
    LineFormat(
        "logrus (terminal)", "DEFIPTW", rf"{_SHOUTED}\[\d{{4}}\] ", finish=_console
    ),
    LineFormat(
        "Ruby Logger", "DIWEFA", rf"[DIWEFA], \[{_ISO}(?: ?#\d+)?\]\s+{_SHOUTED} -- [^:]*: "
    ),
    LineFormat(
        "Serilog", "[",
        rf"\[{_ISO_OR_CLOCK} (?P<level>VRB|DBG|INF|WRN|ERR|FTL)\] ",
    ),
    # Systems
    LineFormat(
        "Android logcat", _DIGIT,
        r"(?P<time>(?:\d{4}-)?\d\d-\d\d \d\d:\d\d:\d\d)\.\d+\s+\d+\s+\d+\s+"
        r"(?P<level>[VDIWEFA])\s+[^:]*:(?:\s|$)",
        yearless=True,
    ),
    LineFormat("Android logcat (brief)", "VDIWEFA", r"(?P<level>[VDIWEFA])/[^(:]*\(\s*\d+\): "),
    LineFormat("Windows CBS", _DIGIT, rf"{_ISO}, (?P<level>[A-Z][a-z]+)\s+[A-Z]+\s+"),
    LineFormat(
        "Proxifier", "[",
        r"\[(?P<time>\d\d\.\d\d \d\d:\d\d:\d\d)\] \S+(?: \*\d+)? - ",
        yearless=True,
    ),
    LineFormat(
        "syslog (RFC 5424)", "<",
        rf"<(?P<pri>\d{{1,3}})>1 (?:{_ISO}|-) \S+ \S+ \S+ \S+ "
        r"(?:-|(?:\[(?:[^\]\\]|\\.)*\])+)(?: \ufeff?|$)",
        finish=_priority,
    ),
    LineFormat(
        "syslog (RFC 3164)", "<",
        r"<(?P<pri>\d{1,3})>" + _SYSLOG_BODY,
        finish=_priority,
        yearless=True,
    ),
    LineFormat("syslog", _LETTER, _SYSLOG_BODY, finish=_syslog, yearless=True),
    LineFormat(
        "syslog (ISO time)", _DIGIT,
        r"(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(?P<zone>Z|[+-]\d\d:?\d\d) "
        rf"(?:(?!{UPPER_LEVEL}\b)[\w.-]+ )?(?!{ANY_LEVEL}\b)[\w./@()-]+\[[\w.-]+\]: ",
        finish=_syslog,
    ),
    LineFormat(
        "Blue Gene/L", _LETTER + "-",
        r"\S+ (?P<time>\d{10}) \d{4}\.\d\d\.\d\d \S+ \d{4}-\d\d-\d\d-\d\d\.\d\d\.\d\d\.\d+ "
        rf"\S+ \S+ \S+ {_SHOUTED} ",
    ),
    LineFormat(
        "Thunderbird", _LETTER + "-",
        r"\S+ (?P<time>\d{10}) \d{4}\.\d\d\.\d\d \S+ [A-Z][a-z]{2} +\d+ \d\d:\d\d:\d\d \S+ " + _TAG,
        finish=_syslog,
    ),
    LineFormat("HPC", _DIGIT, r"\d+ \S+ \S+ \S+ (?P<time>\d{10}) -?\d+ "),
    LineFormat("kernel ring buffer", "[", r"\[ *\d+\.\d{6}\] "),
    LineFormat("logfmt", _LETTER, r"[A-Za-z_@][\w.@/-]*=", finish=_logfmt),
    # Any other order of the usual columns
    LineFormat(
        "timestamp, level", _DIGIT + _LETTER + "[(<",
        rf"[\[(<]?{ANY_TIME}[\])>]?{_FIELDS}"
        rf"(?:{_GAP}{_SHOUTED}(?![\w.])"
        rf"|(?:{_GAP})?[\[<(]\s{{0,10}}(?P<level2>{ANY_LEVEL})\s{{0,10}}[\]>)]"
        rf"|{_GAP}(?P<level3>{ANY_LEVEL})\s{{0,10}}\|){_BEHIND_LEVEL}",
        yearless=True,
    ),
    LineFormat(
        "level, timestamp", _LETTER + "[",
        rf"\[?{_SHOUTED}\]?[\s:|,-]+[\[(]?{ANY_TIME}[\])]?{_BEHIND_LEVEL}",
        yearless=True,
    ),
    LineFormat(
        "timestamp", _DIGIT + _LETTER + "[(<",
        rf"[\[(<]?{ANY_TIME}[\])>]?(?:[\s|:,-]+|$)",
        yearless=True,
        loose="timestamp, level",
    ),
    LineFormat(
        "level", _LETTER + "[",
        rf"(?:\[\s*(?P<level2>{ANY_LEVEL})\s*\]\s*(?:{_NAME}|\[[^\[\]]*\]\s*)?[:-]?\s*"
        rf"|{_SHOUTED}(?![\w.])(?:\s*[:|-]\s+|\s+)(?:{_NAME})?"
        rf"|(?P<level3>{ANY_LEVEL})(?::\s+|\s+[|-]\s+)(?:{_NAME})?)",
        loose="level, timestamp",
    ),
)  # fmt: skip

_PLAIN: Final = "plain text"
_COLOURS: Final = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_ANYTHING: Final = tuple(each for each in _FORMATS if not each.starts)
_BY_START: Final = {
    start: tuple(each for each in _FORMATS if not each.starts or start in each.starts)
    for start in _DIGIT + _LETTER + "[({<-"
}
# What syslog may carry that is worth a search: JSON, brackets, a time, `LEVEL:name:`, klog.
_WRAPPED: Final = re.compile(r"[\[{\d]|[A-Z]{4,8}:[\w.]+:|[IWEF]\d{4} |[a-z_]+=\S+ [a-z_]+=")

# A column with the logger's name that no punctuation tells from the message's own words. It is
# one only if (almost) every message of the log seems to begin with it.
_NAME_COLUMNS: Final = (
    re.compile(r"\[[\w.$:/-]+\]\s*[:|-]?\s*"),
    re.compile(r"[A-Za-z_][\w.$-]*\s*:\s+"),
    re.compile(r"[A-Za-z_][\w.$-]*\s+[-|]\s+"),
)
_LEARNED_FROM: Final = 20
_LEARNED_SHARE: Final = 0.95
_TRUSTED_AFTER: Final = 256
_MAX_DEPTH: Final = 4


class LineParser:
    """
    Parses the lines of one log, one after the other. Not for use by several threads.

    Args:
        latest: seconds since 1970 that no line can be later than; it settles the year of
            timestamps that have none (the file's time, or now).
        custom: a format to try before all others.
        depth: how many envelopes lie around the lines.
    """

    def __init__(self, latest: float, custom: LineFormat | None = None, depth: int = 0) -> None:
        self.years = Years(latest)
        self._latest = latest
        self._custom = custom
        #: What is tried before all others.
        self._fronts: tuple[LineFormat, ...] = (custom,) if custom else ()
        self._hits: Counter[LineFormat] = Counter()
        self._columns: dict[LineFormat, re.Pattern[str]] = {}
        self._depth = depth
        self._inner: LineParser | None = None
        self._partial = False
        self._plain = 0
        self._time: str | None = None
        self._zone: str | None = None
        self._seconds: float | None = None

    def parse(self, text: str) -> Line:
        """What *text*, one line without its end, holds. Never raises."""
        if "\x1b" in text:
            text = _COLOURS.sub("", text)
        for front in self._fronts:
            line = front.parse(text, self)
            if line is not None:
                self._hits[front] += 1
                if self._columns and front in self._columns:
                    return self._without_name(front, line)
                return line
        return self._search(text)[0]

    def parse_inner(self, text: str) -> Line:
        """What a line holds that was wrapped into one of this log."""
        if self._depth >= _MAX_DEPTH:
            return (UNKNOWN, None, None, text)
        if self._inner is None:
            self._inner = LineParser(self._latest, self._custom, self._depth + 1)
        return self._inner.parse(text)

    def parse_wrapped(self, text: str) -> Line | None:
        """As `parse_inner`, but None unless *text* surely has a format of its own."""
        if _WRAPPED.match(text) is None:
            return None
        line = self.parse_inner(text)
        return None if line[0] == UNKNOWN else line

    def seconds_of(self, time: str, zone: str | None, *, yearless: bool) -> float | None:
        """Seconds since 1970 of a timestamp; lines that follow each other often share it."""
        if time == self._time and zone == self._zone:
            return self._seconds
        seconds = self.years.date(time) if yearless else read_time(time)
        if seconds is not None and zone:
            seconds -= read_offset(zone)
        self._time, self._zone, self._seconds = time, zone, seconds
        return seconds

    def take_partial(self, partial: bool) -> bool:
        """Whether the line before this one was cut; *partial* says whether this one is."""
        followed, self._partial = self._partial, partial
        return followed

    @property
    def knows_format(self) -> bool:
        """Whether some line had a format."""
        return bool(self._hits)

    def formats(self) -> Counter[str]:
        """How many lines had each format, by name; those within an envelope too."""
        found = Counter({each.name: count for each, count in self._hits.items()})
        if self._plain:
            found[_PLAIN] = self._plain
        return found + self._inner.formats() if self._inner else found

    def count_plain(self) -> None:
        """A line without a format turned out to be a record."""
        self._plain += 1

    def learn(self, lines: Iterable[str]) -> None:
        """Find the columns that only show over many lines; *lines* are the log's first ones."""
        trial = LineParser(self._latest, self._custom, self._depth)
        messages: dict[LineFormat, list[str]] = {}
        for text in lines:
            line, found = trial._search(text)
            if found is not None and found in _WITH_NAME:
                messages.setdefault(found, []).append(line[3])
        self._columns = {
            found: column
            for found, texts in messages.items()
            if (column := _name_column(texts)) is not None
        }

    def _search(self, text: str) -> tuple[Line, LineFormat | None]:
        """Try every format that *text* may have; also says which one it was."""
        for each in _BY_START.get(text[:1], _ANYTHING):
            line = each.parse(text, self)
            if line is not None:
                self._hits[each] += 1
                self._promote(each)
                return (self._without_name(each, line) if each in self._columns else line), each
        return (UNKNOWN, None, None, text), None

    def _promote(self, found: LineFormat) -> None:
        """
        Try *found* first from now on.

        A loose format is promoted only once it has proved itself, and even then behind the one
        that sees what it does not: no level may be missed because most lines have none.
        """
        if self._custom is not None:
            return
        if not found.loose:
            self._fronts = (found,)
        elif self._hits[found] == _TRUSTED_AFTER:
            self._fronts = (*(each for each in _FORMATS if each.name == found.loose), found)

    def _without_name(self, found: LineFormat, line: Line) -> Line:
        match = self._columns[found].match(line[3])
        return line if match is None else (line[0], line[1], line[2], line[3][match.end() :])


_WITH_NAME: Final = frozenset(
    each
    for each in _FORMATS
    if each.name in {"timestamp, level", "level, timestamp", "timestamp", "level"}
)


def _name_column(messages: Sequence[str]) -> re.Pattern[str] | None:
    if len(messages) < _LEARNED_FROM:
        return None
    for column in _NAME_COLUMNS:
        found = [match[0] for text in messages if (match := column.match(text))]
        # Few names for many messages; "Starting: a", "Stopping: b" must not be taken for names.
        if len(found) >= _LEARNED_SHARE * len(messages) and len(set(found)) <= len(found) / 4:
            return column
    return None
