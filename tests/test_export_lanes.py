"""The queue is bounded, drops the least severe first, and counts what it drops, exactly."""

from __future__ import annotations

import random
import signal
import sys
import threading

import pytest

from lipservice.export.lanes import Lanes, Tally

INFO, WARNING, ERROR = 9, 13, 17


def entry(severity=INFO, name=""):
    return (0.0, severity, "", "", name)


def names(entries):
    return [e[4] for e in entries]


def test_the_most_severe_are_taken_first_each_in_order():
    lanes = Lanes(10)
    for severity, name in [
        (INFO, "i1"),
        (ERROR, "e1"),
        (WARNING, "w1"),
        (INFO, "i2"),
        (ERROR, "e2"),
    ]:
        lanes.put(entry(severity, name))

    assert names(lanes.take(4)) == ["e1", "e2", "w1", "i1"]
    assert names(lanes.take(4)) == ["i2"]


def test_the_oldest_of_the_least_severe_goes_first():
    lanes = Lanes(3)
    for severity, name in [
        (INFO, "i1"),
        (INFO, "i2"),
        (ERROR, "e1"),
        (ERROR, "e2"),
        (WARNING, "w1"),
    ]:
        lanes.put(entry(severity, name))

    assert names(lanes.take(9)) == ["e1", "e2", "w1"]
    assert lanes.overflowed.value() == 2


def test_an_error_goes_only_for_an_error():
    lanes = Lanes(2)
    for name in ("e1", "e2", "e3"):
        lanes.put(entry(ERROR, name))
    lanes.put(entry(INFO, "i1"))

    assert names(lanes.take(9)) == ["e2", "e3"]
    assert lanes.overflowed.value() == 2


def test_a_large_entry_takes_its_places():
    lanes = Lanes(10)
    lanes.put(entry(INFO, "a"))
    lanes.put(entry(INFO, "large"), 8)

    assert lanes.places_used() == 9
    assert len(lanes) == 2

    lanes.put(entry(INFO, "b"), 3)  # pushes out the small one and the large one's head

    assert names(lanes.take(9)) == ["b"]
    assert lanes.overflowed.value() == 2


def test_an_entry_larger_than_the_queue_fits_alone():
    lanes = Lanes(4)
    lanes.put(entry(INFO, "a"))
    lanes.put(entry(INFO, "giant"), 1000)

    assert lanes.places_used() <= 4
    assert names(lanes.take(9)) == ["giant"]


def test_a_large_one_that_finds_no_room_is_counted():
    lanes = Lanes(4)
    for _ in range(4):
        lanes.put(entry(ERROR))
    lanes.put(entry(INFO), 2)

    assert lanes.overflowed.value() == 1
    assert len(lanes) == 4


@pytest.mark.parametrize("seed", range(20))
def test_entries_in_equal_entries_out_and_dropped(seed):
    draw = random.Random(seed)
    lanes = Lanes(draw.randint(1, 40))
    put = taken = 0
    for _ in range(500):
        if draw.random() < 0.8:
            lanes.put(entry(draw.choice([INFO, WARNING, ERROR])), draw.choice([1, 1, 1, 3, 50]))
            put += 1
        else:
            taken += len(lanes.take(draw.randint(1, 10)))
        assert lanes.places_used() <= lanes._places + 0

    assert put == taken + lanes.overflowed.value() + len(lanes)


def test_the_count_is_exact_under_threads():
    lanes = Lanes(50)
    taken = []
    done = threading.Event()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def put(severity):
        for n in range(3000):
            lanes.put(entry(severity), 1 + n % 3)

    def take():
        while not done.is_set():
            taken.extend(lanes.take(7))

    try:
        writers = [threading.Thread(target=put, args=(s,)) for s in (INFO, WARNING, ERROR, INFO)]
        reader = threading.Thread(target=take)
        for thread in [*writers, reader]:
            thread.start()
        for thread in writers:
            thread.join()
        done.set()
        reader.join()
    finally:
        sys.setswitchinterval(interval)

    assert len(taken) + lanes.overflowed.value() + len(lanes) == 12_000


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer signal")
def test_put_may_interrupt_itself():
    """A signal handler that logs runs between any two steps of `put`."""
    lanes = Lanes(20)
    interrupts = []

    def handler(*_args):
        interrupts.append(1)
        lanes.put(entry(INFO), 2)

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
    try:
        for _ in range(20_000):
            lanes.put(entry(WARNING), 3)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    assert interrupts
    assert lanes.overflowed.value() + len(lanes) == 20_000 + len(interrupts)


def test_a_tally_counts_exactly_under_threads():
    tally = Tally()
    threads = [
        threading.Thread(target=lambda: [tally.add() for _ in range(5000)]) for _ in range(4)
    ]
    seen = []
    for thread in threads:
        thread.start()
        seen.append(tally.value())
    for thread in threads:
        thread.join()

    assert tally.value() == 20_000
    assert tally.value() == 20_000
    assert seen == sorted(seen)
