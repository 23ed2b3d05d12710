"""An exporter whose time, network and thread are the test's: deterministic, and fast enough for many runs."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from lipservice._answers import HTTPAnswer, Problem
from lipservice._complaints import Complaints
from lipservice.export.config import PostHogConfig
from lipservice.export.exporter import PostHogOTLPExporter
from lipservice.export.otlp import partial_success
from tests.support.otlp_receiver import records_of


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class NoThread:
    """Stands in for the worker: the test runs its turns."""

    def __init__(self, exporter: PostHogOTLPExporter, clock: Clock) -> None:
        self.exporter = exporter
        self.clock = clock
        self.woken = 0
        self.stopped = False

    def ensure_started(self) -> None:
        pass

    def wake(self, _name: str) -> None:
        self.woken += 1

    def stop(self, timeout: float) -> bool:
        self.stopped = True
        self.exporter._final(self.clock() + timeout)
        return True

    def health(self) -> dict[str, Any]:
        return {"stopped": self.stopped, "starts": 1}


class Network:
    """A receiver in memory that answers what it is told, and remembers what it acknowledged."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.answers: list[HTTPAnswer | int] = []
        self.default: HTTPAnswer | int = 200
        self.poison = ""
        self.most_records = 10**9
        self.acknowledged: list[dict[str, Any]] = []
        self.rejected = 0
        self.sizes: list[int] = []
        self.headers: list[dict[str, str]] = []
        self.seconds: list[float] = []
        self.takes = 0.0

    def __call__(self, body: bytes, headers: Any, seconds: float) -> HTTPAnswer:
        records = records_of(body)
        self.sizes.append(len(records))
        self.headers.append(dict(headers))
        self.seconds.append(seconds)
        self.clock.now += min(self.takes, seconds)
        if self.takes > seconds:
            return HTTPAnswer(problem=Problem("timeout", "no whole answer in time"))
        answer = self.answers.pop(0) if self.answers else self.default
        if not isinstance(answer, HTTPAnswer):
            answer = HTTPAnswer(answer)
        if answer.status == 200:
            if self.poison and any(self.poison in record["body"] for record in records):
                return HTTPAnswer(400)
            if len(records) > self.most_records:
                return HTTPAnswer(413)
            self.acknowledged += records
            self.rejected += min(partial_success(answer.body)[0], len(records))
        return answer

    def bodies(self) -> list[str]:
        return [record["body"] for record in self.acknowledged]


class Bench:
    """The exporter with its surroundings."""

    def __init__(self, seed: int = 0, **settings: Any) -> None:
        self.clock = Clock()
        self.network = Network(self.clock)
        self.said: list[str] = []
        self.wall = 1_790_000_000.0
        settings = {"api_key": "phc_x", "gzip": False, "batch_size": 10, **settings}
        self.exporter = PostHogOTLPExporter(
            PostHogConfig(**settings),
            clock=self.clock,
            now=lambda: self.wall + self.clock.now,
            draw=random.Random(seed).random,
            post=self.network,
            complaints=Complaints(lambda _level, text: self.said.append(text), clock=self.clock),
        )
        self.worker = NoThread(self.exporter, self.clock)
        self.exporter._worker = self.worker

    def log(self, *messages: str, severity: str = "INFO") -> None:
        for message in messages:
            self.exporter.export_log(message, severity)

    def turn(self, seconds: float = 0.0) -> float:
        """Let *seconds* pass and the worker do what is due; returns when it wants to be called."""
        self.clock.now += seconds
        return self.exporter._run()

    def flush(self) -> float:
        self.exporter._flush_all = True
        return self.turn()

    def health(self) -> dict[str, Any]:
        return self.exporter.health()

    def balance(self) -> tuple[int, int]:
        """Both sides of the accounts, which must be equal."""
        health = self.health()
        return (
            health["emitted"] + health["recovered"],
            health["delivered"]
            + sum(health["dropped"].values())
            + health["queued"]
            + health["spooled"],
        )


def spool_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.batch"))
