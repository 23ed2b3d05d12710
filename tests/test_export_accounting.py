"""No record is lost uncounted: emitted + recovered = delivered + dropped + queued + spooled."""

from __future__ import annotations

import random

import pytest

from lipservice._answers import HTTPAnswer, Problem
from tests.support.export_bench import Bench

ANSWERS = [
    *[200] * 6,
    HTTPAnswer(200, {}, b"\x0a\x02\x08\x01"),
    400,
    413,
    408,
    500,
    503,
    404,
    301,
    HTTPAnswer(429, {"retry-after": "20"}),
    HTTPAnswer(503, {"retry-after": "5"}),
    HTTPAnswer(problem=Problem("connection", "refused")),
    HTTPAnswer(problem=Problem("timeout", "no whole answer in time")),
]


def run(seed, folder):
    """One random run; returns the bench and how many records were given to the exporter."""
    draw = random.Random(seed)
    spool = (
        {"spool_dir": folder / str(seed), "spool_max_bytes": 8192} if draw.random() < 0.08 else {}
    )
    bench = Bench(
        seed,
        batch_size=draw.choice([1, 3, 10]),
        max_queue_size=draw.choice([5, 20, 1000]),
        max_retries=draw.choice([0, 1, 3]),
        max_batch_bytes=draw.choice([4096, 1_000_000]),
        **spool,
    )
    bench.network.poison = draw.choice(["", "7"])
    given = 0
    for _ in range(draw.randint(5, 40)):
        step = draw.random()
        if step < 0.55:
            for _ in range(draw.choice([1, 2, 12])):
                text = f"{given} " + "x" * draw.choice([0, 0, 0, 3000])
                bench.log(text, severity=draw.choice(["DEBUG", "INFO", "WARNING", "ERROR"]))
                given += 1
        elif step < 0.75:
            bench.network.answers.append(draw.choice(ANSWERS))
        elif step < 0.9:
            bench.turn(draw.choice([0.0, 1.0, 6.0, 60.0]))
        elif step < 0.97:
            bench.flush()
        elif step < 0.98:
            bench.network.answers.append(401)
        else:
            bench.exporter.stop()
    if draw.random() < 0.5:
        bench.exporter.stop()
    return bench, given


def check(bench, given):
    health = bench.health()
    delivered_ids = [body.split()[0] for body in bench.network.bodies()]

    assert health["emitted"] == given
    assert bench.balance() == (given, given)
    assert len(set(delivered_ids)) == len(delivered_ids), "sent twice after an acknowledgement"
    assert health["delivered"] == len(delivered_ids) - bench.network.rejected


@pytest.mark.parametrize("part", range(10))
def test_a_thousand_random_runs_balance(part, tmp_path):
    for seed in range(part * 100, part * 100 + 100):
        bench, given = run(seed, tmp_path)
        check(bench, given)


def test_no_error_is_dropped_while_anything_less_severe_is_queued():
    bench = Bench(max_queue_size=50)
    for n in range(400):
        bench.log(str(n), severity=["INFO", "WARNING", "DEBUG", "INFO"][n % 4])
    bench.log(*[f"e{n}" for n in range(40)], severity="ERROR")
    bench.log(*[f"i{n}" for n in range(40)])
    bench.flush()

    assert sorted(b for b in bench.network.bodies() if b[0] == "e") == sorted(
        f"e{n}" for n in range(40)
    )
    assert bench.balance() == (480, 480)
