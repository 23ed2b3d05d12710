"""A WSGI application on the standard library's logging, for gunicorn with --preload."""

import json
import logging
import os
import random

from shop import Meter, policy_is_the_server_s, serve_requests

from lipservice import SamplingFilter

sampling = SamplingFilter()  # everything from LIPSERVICE_* variables, before gunicorn forks
sampler = sampling.sampler
seen, kept = Meter(), Meter()


class MeterHandler(logging.Handler):
    def __init__(self, meter):
        super().__init__()
        self.meter = meter

    def emit(self, record):
        if policy_is_the_server_s(sampler):
            weight = getattr(record, "lipservice_weight", 1.0)
            self.meter.take(record.levelno, record.getMessage(), weight)


logger = logging.getLogger("shop")
logger.setLevel(logging.DEBUG)
logger.addHandler(MeterHandler(seen))
sampled = MeterHandler(kept)
sampled.addFilter(sampling)
logger.addHandler(sampled)


def log(level, template, *values):
    getattr(logger, level)(template.replace("{}", "%s"), *values)


def app(environ, start_response):
    serve_requests(log, 50, random.getrandbits(32))
    policy = sampler.get_policy()
    body = {
        "pid": os.getpid(),
        "policy": policy.version if policy else None,
        "seen": seen.told(),
        "kept": kept.told(),
        "health": sampler.health(),
    }
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(body).encode()]
