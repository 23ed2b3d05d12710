"""The merge of sibling templates: SIGNATURE.md's rule, against a plain reading of it."""

import random
import string
import subprocess
import sys
from collections import defaultdict
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lipservice.families import merge_families
from lipservice.signature import compute_template

NAMES = ("alice", "bob", "carol", "dave", "erin")
seeded = settings(max_examples=100, deadline=None, derandomize=True)
# What one position of a statement may hold.
values = st.sampled_from([("a",), ("b",), ("<*>",), ("c", "d"), tuple("abcde"), (*"abcdef", "<*>")])


@st.composite
def template_sets(draw):
    """Most of the templates that a few short statements make: siblings, ties and near misses."""
    rng = draw(st.randoms(use_true_random=False))
    share = draw(st.sampled_from([0.5, 0.9, 1.0]))
    templates = []
    for statement in draw(st.lists(st.lists(values, min_size=1, max_size=4), max_size=3)):
        made = [" ".join(tokens) for tokens in product(*statement)]
        templates += [template for template in made if rng.random() < share]
    return templates


def merged_plainly(templates):
    """The rule word for word, with whole tuples in the place of numbers."""
    families = {template: template for template in templates}
    for _ in range(3):
        rows = {tuple(name.split(" ")) for name in families.values()}
        values = defaultdict(set)
        for row in rows:
            for position, token in enumerate(row):
                values[without(row, position)].add(token)
        renamed = {" ".join(row): " ".join(blanked(row, values)) for row in rows}
        families = {template: renamed[name] for template, name in families.items()}
    return families


def without(row, position):
    return row[:position], row[position + 1 :]


def blanked(row, values):
    best, widest = 4, row
    for position in range(len(row)):
        number = len(values[without(row, position)])
        result = (*row[:position], "<*>", *row[position + 1 :])
        if number > best and sum(token != "<*>" for token in result) >= 2:
            best, widest = number, result
    return widest


class TestRule:
    def test_five_values_in_one_position_make_a_family(self):
        families = merge_families(f"user {name} logged in" for name in NAMES)

        assert set(families.values()) == {"user <*> logged in"}
        assert set(families) == {f"user {name} logged in" for name in NAMES}

    def test_four_values_do_not(self):
        families = merge_families(f"user {name} logged in" for name in NAMES[:4])

        assert all(template == family for template, family in families.items())

    def test_opposites_stay_apart(self):
        """Two values of one position are what tells statements apart."""
        families = merge_families(["door was opened", "door was closed", "door was locked"])

        assert len(set(families.values())) == 3

    def test_a_variable_counts_as_one_value_and_joins(self):
        templates = [f"user {name} logged in" for name in (*NAMES[:4], "<*>")]

        assert set(merge_families(templates).values()) == {"user <*> logged in"}

    def test_other_lengths_are_no_siblings(self):
        templates = [f"user {name} logged in" for name in (*NAMES[:4], "erin smith")]

        assert len(set(merge_families(templates).values())) == 5

    def test_two_constant_tokens_must_remain(self):
        short = merge_families(f"user {name} <*>" for name in NAMES)
        long = merge_families(f"user {name} <*> left" for name in NAMES)

        assert len(set(short.values())) == 5
        assert set(long.values()) == {"user <*> <*> left"}

    def test_a_second_variable_takes_a_second_round(self):
        cities = ("rome", "oslo", "lima", "bern", "kyiv", "doha")
        templates = [f"user {name} came from {city}" for name in NAMES for city in cities]

        assert set(merge_families(templates).values()) == {"user <*> came from <*>"}

    def test_at_most_three_rounds_are_made(self):
        letters = "abcde"
        templates = [
            f"k1 {a} k2 {b} {c} {d}"
            for a in letters
            for b in letters
            for c in letters
            for d in letters
        ]

        families = set(merge_families(templates).values())

        assert {family.count("<*>") for family in families} == {3}
        assert len(families) == 5

    def test_the_position_with_the_most_values_is_given_up_first(self):
        templates = [f"call to {name} failed" for name in (*NAMES, "frank")]
        templates += [f"call to alice {end}" for end in ("ended", "hung", "rang", "began")]

        families = merge_families(templates)

        assert families["call to alice failed"] == "call to <*> failed"
        assert families["call to alice ended"] == "call to alice <*>"  # five values with "failed"

    def test_of_equals_the_first_position_is_given_up(self):
        families = merge_families(f"k {a} {b}" for a in "abcde" for b in "vwxyz")

        assert set(families.values()) == {f"k <*> {b}" for b in "vwxyz"}

    def test_nothing_comes_of_nothing(self):
        assert merge_families([]) == {}
        assert merge_families(["", " ", "one", "<*>"]) == {t: t for t in ("", " ", "one", "<*>")}


class TestAgainstAPlainReading:
    @seeded
    @given(template_sets())
    def test_same_families(self, templates):
        assert merge_families(templates) == merged_plainly(templates)

    @seeded
    @given(template_sets(), st.randoms(use_true_random=False))
    def test_neither_order_nor_repeats_matter(self, templates, rng):
        shuffled = rng.sample([*templates, *templates], 2 * len(templates))

        assert merge_families(shuffled) == merge_families(templates)

    def test_same_families_on_real_templates(self):
        users = ["root", "admin", "oracle", "test", "guest", "backup"]
        messages = [
            f"Failed password for invalid user {u} from 10.0.0.{i} port 2{i}"
            for i, u in enumerate(users)
        ]
        messages += [
            f"{daemon} startup succeeded" for daemon in ("cups", "syslog", "klogd", "sshd")
        ]
        messages += [f"session {state} for user root" for state in ("opened", "closed")]
        templates = [compute_template(message) for message in messages]

        families = merge_families(templates)

        assert families == merged_plainly(templates)
        assert len(set(families.values())) == 1 + 4 + 2


def test_hash_randomisation_does_not_show():
    """Sets of strings come in another order in every process; the families do not."""
    code = (
        "from lipservice.families import merge_families;"
        "words = [f'{a} {b} {c} {d}' for a in 'abcdef' for b in 'abcdefg' for c in 'ab' for d in 'abcde'];"
        "print(sorted(merge_families(words).items()))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2", "3")
    }

    assert len(outputs) == 1


def test_thirty_thousand_templates_and_every_family_holds_its_members():
    rng = random.Random(11)
    words = ["".join(rng.choices(string.ascii_lowercase, k=6)) for _ in range(2000)]
    statements = [rng.choices(words, k=rng.randint(3, 12)) for _ in range(600)]
    templates = {
        " ".join([statement[0], rng.choice(words), *statement[2:]])
        for statement in statements
        for _ in range(50)
    }

    families = merge_families(templates)

    assert families.keys() == templates
    members = defaultdict(list)
    for template, family in families.items():
        members[family].append(template)
    assert len(members) < 650
    for family, siblings in members.items():
        for sibling in siblings:
            pairs = zip(family.split(" "), sibling.split(" "), strict=True)
            assert all(f in (s, "<*>") for f, s in pairs)


@pytest.mark.parametrize(
    "text", ["a\tb c d", "é ü ß x", "\ud800 a b c", "  leading and trailing  "]
)
def test_any_text_comes_back_as_its_own_family(text):
    assert merge_families([text]) == {text: text}
