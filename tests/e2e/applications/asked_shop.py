"""
An application that logs when it is told to: for each line of its standard input, so many records of
two statements in three loggers. It answers in a line what was kept of them, and by which rule.
"""

import json
import logging
import sys
from collections import Counter

import lipservice

STATEMENTS = ("item %d added", "cart of session %d saved")
LOGGERS = ("shop.cart", "shop.cart.items", "shop.search")


class Kept(logging.Handler):
    """What came through."""

    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)

    def take(self):
        records, self.records = self.records, []
        return records


class Told(logging.Handler):
    """What the logger `lipservice` says."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


kept, told = Kept(), Told()
kept.addFilter(lipservice.SamplingFilter())  # everything from LIPSERVICE_* variables
shop = logging.getLogger("shop")
shop.setLevel(logging.INFO)
shop.addHandler(kept)
logging.getLogger("lipservice").setLevel(logging.INFO)
logging.getLogger("lipservice").addHandler(told)
sampler = lipservice.default_sampler()

for line in sys.stdin:
    for number in range(int(line)):
        for name in LOGGERS:
            for statement in STATEMENTS:
                logging.getLogger(name).info(statement, number)
    records = kept.take()
    policy, totals = sampler.get_policy(), sampler.totals()
    answer = {
        "policy": policy.version if policy else None,
        "kept": Counter(f"{each.name} {each.msg}" for each in records),
        "how": sorted({(each.lipservice_rule, each.lipservice_weight) for each in records}),
        "told": told.lines,
        "totals": (totals.seen, totals.kept, totals.dropped),
        "boosted": sum(each.seen for each in sampler.ledger() if each.rule == "boosted"),
    }
    print(json.dumps(answer), flush=True)
