"""
The Python SDK obeys tests/conformance, the folder that every implementation reads.

The vectors are read at import: without them this module fails, it does not skip.
"""

import json
from pathlib import Path

import pytest

from lipservice import signature
from tests.reference import lsig1

FOLDER = Path(__file__).parent / "conformance"
INDEX = json.loads((FOLDER / "index.json").read_text(encoding="utf-8"))
VECTORS = json.loads((FOLDER / "01-signature.json").read_text(encoding="utf-8"))
PUBLISHED = Path(__file__).parents[2] / "shared" / "conformance" / "lsig1_vectors.json"
SUPPORTED_MAJOR = "1"


def shown(case):
    return repr(case["input"])[:60] if "input" in case else repr(case["format"])


def data_of(given):
    return bytes.fromhex(given["hex"]) if "hex" in given else given["text"] * given.get("repeat", 1)


def key_of(data):
    # A str cannot hold bytes that are no UTF-8, so these go in behind the encoding.
    folded = data.translate(signature._FOLD) if isinstance(data, bytes) else signature.fold(data)
    return signature.key_of_folded(folded)


def test_the_spec_version_is_one_that_this_sdk_obeys():
    assert INDEX["spec_version"].split(".")[0] == SUPPORTED_MAJOR


def test_the_index_names_exactly_the_files_of_the_folder():
    assert sorted(file["path"] for file in INDEX["files"]) == sorted(
        path.name for path in FOLDER.glob("[0-9][0-9]-*.json")
    )


@pytest.mark.parametrize("file", INDEX["files"], ids=lambda file: file["path"])
def test_a_file_obeys_its_schema(file):
    jsonschema_rs = pytest.importorskip("jsonschema_rs")
    schema = json.loads((FOLDER / file["schema"]).read_text(encoding="utf-8"))
    document = json.loads((FOLDER / file["path"]).read_text(encoding="utf-8"))

    jsonschema_rs.validator_for(schema).validate(document)


@pytest.mark.parametrize("case", VECTORS["messages"], ids=shown)
def test_a_message_has_its_key_template_and_signature(case):
    key = key_of(data_of(case["input"]))

    assert key.hex() == case.get("key_hex", key.hex())
    assert signature.template_of_key(key) == case.get("template", signature.template_of_key(key))
    assert signature.signature_of_key(key) == case["signature"]


@pytest.mark.parametrize(
    "case", [case for case in VECTORS["messages"] if "text" in case["input"]], ids=shown
)
def test_a_text_has_its_template_and_signature_in_one_call(case):
    text = data_of(case["input"])

    assert signature.compute_signature(text) == case["signature"]
    assert signature.compute_template(text) == case.get(
        "template", signature.compute_template(text)
    )


@pytest.mark.parametrize("case", VECTORS["percent_formats"], ids=shown)
def test_a_percent_format_has_its_message_and_signature(case):
    assert signature.percent_format_to_message(case["format"]) == case["message"]
    assert signature.compute_format_signature(case["format"]) == case["signature"]
    assert signature.compute_template(case["message"]) == case["template"]


@pytest.mark.parametrize("group", VECTORS["same"], ids=lambda group: group[0])
def test_messages_of_one_statement_share_a_signature(group):
    assert len({signature.compute_signature(message) for message in group}) == 1


@pytest.mark.parametrize("group", VECTORS["different"], ids=lambda group: group[-1])
def test_messages_of_several_statements_have_several_signatures(group):
    assert len({signature.compute_signature(message) for message in group}) == len(group)


@pytest.mark.parametrize("case", VECTORS["messages"], ids=shown)
def test_the_reference_obeys_the_vectors_too(case):
    assert lsig1.signature(data_of(case["input"])) == case["signature"]


@pytest.mark.skipif(not PUBLISHED.exists(), reason=f"{PUBLISHED} is not there")
def test_no_published_vector_is_missing():
    published = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    messages = {data_of(case["input"]): case["signature"] for case in VECTORS["messages"]}
    formats = {case["format"]: case["signature"] for case in VECTORS["percent_formats"]}

    for case in published["messages"]:
        assert messages[case["message"]] == case["signature"]
    for case in published["long"]:
        assert messages[case["repeat"][0] * case["repeat"][1]] == case["signature"]
    for case in published["percent_formats"]:
        assert formats[case["format"]] == case["signature"]
    assert VECTORS["same"] == published["same"]
    assert VECTORS["different"] == published["different"]
