"""A worker that logs through structlog, until its standard input ends; then tells what it kept."""

import json
import logging
import sys
import threading

import structlog
from shop import Meter, policy_is_the_server_s, serve_requests

from lipservice import SamplingProcessor

sampling = SamplingProcessor()
sampler = sampling.sampler
seen, kept = Meter(), Meter()


def meter(which):
    def processor(_logger, name, event_dict):
        if policy_is_the_server_s(sampler):
            level = getattr(logging, name.upper())
            which.take(level, event_dict["event"], event_dict.get("lipservice_weight", 1.0))
        return event_dict

    return processor


class Nowhere:
    """The end of the chain."""

    def msg(self, message):
        pass

    debug = info = warning = error = msg


structlog.configure(
    processors=[meter(seen), sampling, meter(kept), structlog.processors.JSONRenderer()],
    logger_factory=lambda *_: Nowhere(),
)
logger = structlog.get_logger()


def log(level, template, *values):
    getattr(logger, level)(template.format(*values))


done = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), done.set()), daemon=True).start()
rounds = 0
while not done.is_set():
    serve_requests(log, 20, rounds)
    rounds += 1
    done.wait(0.01)
policy = sampler.get_policy()
print(
    json.dumps(
        {
            "policy": policy.version if policy else None,
            "seen": seen.told(),
            "kept": kept.told(),
            "health": sampler.health(),
        }
    )
)
