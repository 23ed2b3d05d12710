"""
The log calls of a small shop, and meters that tell what was logged and what was kept.

Used by both applications: one logs through `logging` under gunicorn, one through structlog.
"""

import logging
import random


def serve_requests(log, count, seed):
    """Log what *count* requests would; about 40 records each."""
    rng = random.Random(seed)
    for number in range(count):
        log(
            "debug",
            "cache lookup for session {} took {} us",
            rng.getrandbits(40),
            rng.randrange(99),
        )
        log(
            "info",
            "request {} to /cart/{} served in {} ms",
            number,
            rng.randrange(9999),
            rng.randrange(300),
        )
        for _ in range(rng.randrange(30)):
            log(
                "debug",
                "query {} returned {} rows from table items",
                rng.randrange(10**6),
                rng.randrange(50),
            )
        for _ in range(rng.randrange(20)):
            log("info", "item {} added to cart {}", rng.randrange(999), rng.randrange(999))
        if rng.random() < 0.05:
            log("warning", "slow answer of the payment service: {} ms", rng.randrange(1000, 9999))
        if rng.random() < 0.01:
            log("error", "payment {} was refused by the bank", rng.getrandbits(30))


class Meter:
    """Records, bytes, errors and weights of what comes by while a server's policy is in force."""

    def __init__(self):
        self.records = self.bytes = self.errors = 0
        self.weight = 0.0

    def take(self, level, message, weight):
        self.records += 1
        self.bytes += len(message)
        self.errors += level >= logging.ERROR
        self.weight += weight

    def told(self):
        return {
            "records": self.records,
            "bytes": self.bytes,
            "errors": self.errors,
            "weight": self.weight,
        }


def policy_is_the_server_s(sampler):
    policy = sampler.get_policy()
    return policy is not None and bool(policy.pattern_rates or policy.severity_rates)
