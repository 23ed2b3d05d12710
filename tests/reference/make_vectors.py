"""
Writes tests/conformance/01-signature.json.

    python -m tests.reference.make_vectors ../shared/conformance/lsig1_vectors.json

Expected values come from the published vectors; those of the cases that are ours, and every key,
come from the reference beside this file. A published value that the reference does not reproduce
stops it. Long keys and templates are left out: the signature says it.
"""

import json
import sys
from pathlib import Path

from tests.reference import lsig1

TARGET = Path(__file__).resolve().parents[1] / "conformance" / "01-signature.json"
LONGEST_KEY = 200

#: What the published vectors do not say: bytes that are no text, and each rule at its edges.
OUR_INPUTS = [
    {"hex": "efbfbd61"},
    {"hex": "ff31ff"},
    {"hex": "ff20c3"},
    {"hex": "656420a0623a31"},
    {"text": "éx", "repeat": 1366},
    {"text": "ab,", "repeat": 1366},
    {"text": "xy:", "repeat": 1366},
    {"text": "a=", "repeat": 2049},
    {"text": "Sunday, sunday SUNDAY Sun."},
    {"text": "Bytes bytes bytes: byte=B"},
    {"text": "sec: s:s min:sec ms:5"},
    {"text": "é:1 éé:1 e-:1 --:1 e_é:x"},
    {"text": "key:... key:.x key:. key:7..."},
    {"text": "fe:fe fee:7 feg:7 Fe:x"},
    {"text": "key:/x key:\\x key:x/y/z key:~/x"},
    {"text": "one:two:three:4 one:two:3:four"},
    {"text": "=1=a= a==b a=/=b /=a 1=a=b"},
    {"text": "x\\y=z x/y=z x=y\\z=v \\=a"},
    {"text": "k=v:1 key=val:1 a=key:1"},
    {"text": "deadbee. deadbeef. deadbeef: DEADbeef-"},
    {"text": "@ @@ a@@ @@@ a@b@ mail:a@b"},
    {"text": "\\ \\x x\\ x\\y \\\\ a\\b/c // .. ./ ~/ ../"},
    {"text": "a-b.com -.com a.b.com a.comx com.a a_b.com A.com a.com:x"},
    {"text": "x.svc!? x.lan..: .x.lan x..lan"},
    {"text": "1 , 2 | a ; 3 < 4 >"},
    {"text": "* *1 <*> %s %d% 0"},
]
OUR_FORMATS = [
    "%(a(b)c)s done %(user)-5d",
    "%",
    "100%",
    "%d%",
    "%y %d",
    "%d %(open",
    "%*.*f of %5.1e",
    "%ld %lld",
    "%#x%+i%% % d",
    "%%s %%%s",
    "%5% %s",
]


def main(published_file):
    published = json.loads(Path(published_file).read_text(encoding="utf-8"))
    document = {
        "spec": published["spec"],
        "hash": published["hash"],
        "messages": [
            *(_message({"text": case["message"]}, case) for case in published["messages"]),
            *(_message(_repeated(case["repeat"]), case) for case in published["long"]),
            *(_message(given, {}) for given in OUR_INPUTS),
        ],
        "percent_formats": [
            *(_format(case["format"], case) for case in published["percent_formats"]),
            *(_format(format_string, {}) for format_string in OUR_FORMATS),
        ],
        "same": published["same"],
        "different": published["different"],
    }
    TARGET.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _repeated(text_and_times):
    text, times = text_and_times
    return {"text": text, "repeat": times}


def _message(given, expected):
    data = bytes.fromhex(given["hex"]) if "hex" in given else given["text"] * given.get("repeat", 1)
    return {"input": given, **_agreed(data, expected)}


def _format(format_string, expected):
    message = lsig1.percent_message(format_string)
    return {"format": format_string, "message": message, **_agreed(message, expected)}


def _agreed(data, expected):
    key = lsig1.key(data)
    ours = {"signature": lsig1.signature(data)}
    if len(key) <= LONGEST_KEY:
        ours = {"template": lsig1.template(data), "key_hex": key.hex(), **ours}
    for name in expected.keys() & ours.keys():
        if expected[name] != ours[name]:
            raise ValueError(f"{data!r}: {name} is {ours[name]!r}, published {expected[name]!r}")
    return ours


if __name__ == "__main__":
    main(*sys.argv[1:])
