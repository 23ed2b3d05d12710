"""
LSIG-1, byte by byte, straight from its specification: slow, plain, no cache, no table, no regex.

It shares no line with lipservice.signature and does not fold digits, so that agreement of the two
says something. The numbers in the comments are the steps of the specification.
"""

import xxhash

READ = 4096
DIGITS = b"0123456789"
LOWER = b"abcdefghijklmnopqrstuvwxyz"
UPPER = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"
HEX_LETTERS = b"abcdefABCDEF"
TRAILING = b".:!?"

FROZEN_WORDS = [
    *("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"),
    *("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    *("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
    *("AM", "PM"),
    *("B", "kB", "KB", "MB", "GB", "TB", "PB", "KiB", "MiB", "GiB", "TiB", "byte", "bytes"),
    *("ns", "us", "ms", "s", "sec", "secs", "second", "seconds", "min", "mins"),
    *("minute", "minutes", "hour", "hours", "day", "days"),
]
HOST_ENDINGS = [
    *("com", "net", "org", "edu", "gov", "mil", "int", "info", "biz", "io", "dev", "app", "cloud"),
    *("local", "localdomain", "internal", "intranet", "lan", "home", "corp", "svc", "arpa"),
]


def to_bytes(message):
    """UTF-8 bytes of a str; each lone surrogate (in a str, every surrogate) as EF BF BD."""
    if isinstance(message, bytes):
        return message
    encoded = bytearray()
    for character in message:
        if 0xD800 <= ord(character) <= 0xDFFF:
            encoded += b"\xef\xbf\xbd"
        else:
            encoded += character.encode("utf-8")
    return bytes(encoded)


def is_separator(byte):
    return byte <= 0x20 or byte == 0x7F or byte in b"()[]{}<>\"'`,;|"


def is_letter(byte):
    return byte in LOWER or byte in UPPER or byte >= 0x80


def chunks(data):  # step 1
    found = []
    chunk = bytearray()
    for byte in data:
        if not is_separator(byte):
            chunk.append(byte)
        elif chunk:
            found.append(bytes(chunk))
            chunk = bytearray()
    if chunk:
        found.append(bytes(chunk))
    return found


def parts(chunk):  # step 2
    found = []
    part = bytearray()
    marked = False  # has this part had a digit or a slash?
    for byte in chunk:
        if byte == ord("=") and not marked:
            if part:
                found.append(bytes(part))
            part = bytearray()
            continue
        part.append(byte)
        marked = marked or byte in DIGITS or byte in b"/\\"
    if part:
        found.append(bytes(part))
    return found


def without_trailing(text):
    length = len(text)
    while length > 0 and text[length - 1] in TRAILING:
        length -= 1
    return text[:length]


def length_of_key_prefix(part):  # step 3; 0: there is none
    length = 0
    while length < len(part) and (is_letter(part[length]) or part[length] in b"_-"):
        length += 1
    if length < 2 or length == len(part) or part[length] != ord(":"):
        return 0
    all_hex = True
    for byte in part[:length]:
        if byte not in HEX_LETTERS:
            all_hex = False
    rest = part[length + 1 :]
    if all_hex or len(without_trailing(rest)) == 0 or rest[0] in b"/\\":
        return 0
    return length


def v1(core):
    return any(byte in DIGITS for byte in core)


def v2(core):
    return len(core) >= 8 and all(byte in HEX_LETTERS for byte in core)


def v3(core):
    return any(core == word.encode("ascii") for word in FROZEN_WORDS)


def v4(core):
    return any(core[index] == ord("@") for index in range(1, len(core) - 1))


def v5(core):
    slashes = 0
    for byte in core:
        if byte in b"/\\":
            slashes += 1
    if slashes >= 2:
        return True
    return slashes == 1 and core[0] in b"/\\~." and len(core) > 1


def v6(core):
    labels = [bytearray()]
    for byte in core:
        if byte == ord("."):
            labels.append(bytearray())
        elif byte in LOWER or byte == ord("-"):
            labels[-1].append(byte)
        else:
            return False
    if len(labels) < 2 or any(len(label) == 0 for label in labels):
        return False
    return any(labels[-1] == ending.encode("ascii") for ending in HOST_ENDINGS)


def items(data):  # None: a variable
    found = []
    for chunk in chunks(data):
        for part in parts(chunk):
            rest = part
            while True:
                length = length_of_key_prefix(rest)
                if length == 0:
                    break
                found.append(rest[: length + 1])
                rest = rest[length + 1 :]
            core = without_trailing(rest)
            if any(rule(core) for rule in (v1, v2, v3, v4, v5, v6)):  # step 4
                found.append(None)
            else:
                found.append(rest)
    return found


def key(message):  # step 5
    written = bytearray()
    before = b""
    for item in items(to_bytes(message)[:READ]):
        if item is None and before is None:
            continue
        written += b" "
        written += b"\x00" if item is None else item
        before = item
    return bytes(written)


def template(message):
    shown = bytearray()
    for byte in key(message)[1:]:
        if byte == 0:
            shown += b"<*>"
        else:
            shown.append(byte)
    return shown.decode("utf-8", "replace")


def signature(message):  # step 6
    return f"{xxhash.xxh64(key(message), seed=0).intdigest():016x}"


def percent_message(format_string):
    """The message of a format string: 0 for each conversion, as CPython's own loop parses them."""
    written = ""
    at = 0
    while at < len(format_string):
        if format_string[at] != "%":
            written += format_string[at]
            at += 1
            continue
        if format_string[at + 1 : at + 2] == "%":
            written += "%"
            at += 2
            continue
        end = end_of_conversion(format_string, at + 1)
        if end is None:
            return written + format_string[at:]
        written += "0"
        at = end
    return written


def end_of_conversion(text, at):
    """Where the conversion that goes on at `at`, behind its %, ends; None if it is malformed."""

    def char():
        return text[at] if at < len(text) else "end"

    if char() == "(":
        depth = 1
        at += 1
        while depth > 0:
            if at >= len(text):
                return None
            if text[at] == "(":
                depth += 1
            if text[at] == ")":
                depth -= 1
            at += 1
    while char() in ("-", "+", " ", "#", "0"):
        at += 1
    if char() == "*":
        at += 1
    else:
        while char() in tuple("0123456789"):
            at += 1
    if char() == ".":
        at += 1
        if char() == "*":
            at += 1
        else:
            while char() in tuple("0123456789"):
                at += 1
    if char() in ("h", "l", "L"):
        at += 1
    return at + 1 if char() in tuple("diouxXcrsaeEfFgG") else None
