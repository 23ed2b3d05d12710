"""
A shop's month of logs, as its services would have reported it, for the dashboard's tests and pictures.

The counts are drawn with a fixed seed; rates and reasons are those that the real planning gives for
them, so that every page shows numbers that fit together. `seed_many` makes the large service.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path

from lipservice.optimizer import PatternVolume
from lipservice.planning import expected_outcome, plan_policy
from lipservice.signature import compute_signature, compute_template
from lipservice_server.app import create_app, runtime_of
from lipservice_server.config import Settings
from lipservice_server.generation import Wish, generate_policy
from lipservice_server.keys import make_key

DAY = 86_400
DAYS = 30


@dataclass(frozen=True)
class Line:
    severity: str
    template: str
    daily: float
    size: int
    #: Days ago that it was first logged.
    since: float = 400.0
    #: Its volume of the last two days, in times.
    jump: float = 1.0
    #: Share of its records that are at ERROR.
    errors: float = 0.0


CHECKOUT = [
    Line("DEBUG", "cache lookup key=cart:<*> hit=<*> in <*> us", 2_450_000, 148),
    Line(
        "DEBUG",
        "SQL <*> rows in <*> ms: SELECT id, sku, qty FROM cart_item WHERE cart_id = <*>",
        1_240_000,
        231,
    ),
    Line("DEBUG", "pricing rule <*> evaluated for sku <*>: no match", 1_080_000, 172),
    Line("DEBUG", "pricing rule <*> evaluated for sku <*>: matched, discount <*>", 214_000, 181),
    Line("INFO", "GET /api/cart/<*> 200 in <*> ms", 1_910_000, 205),
    Line("INFO", "POST /api/cart/<*>/items 201 in <*> ms", 384_000, 214),
    Line("INFO", "health check passed in <*> ms", 259_200, 131),
    Line("INFO", "metrics scraped by <*> in <*> ms", 86_400, 130),
    Line("INFO", "cart <*> recalculated: <*> items, total <*> EUR", 702_000, 190),
    Line("INFO", "session <*> opened for customer <*> from <*>", 318_000, 221),
    Line("INFO", "session <*> expired after <*> s idle", 296_000, 164),
    Line("INFO", "customer <*> logged in from <*>", 148_000, 198),
    Line("INFO", "customer <*> logged out", 91_000, 141),
    Line("INFO", "order <*> created for customer <*>: <*> items, <*> EUR", 61_400, 268),
    Line("INFO", "order <*> paid with <*> in <*> ms", 58_900, 233),
    Line("INFO", "order <*> handed to fulfilment as <*>", 58_700, 219),
    Line("INFO", "invoice <*> written to s3://invoices/<*>.pdf (<*> bytes)", 58_600, 244),
    Line("INFO", "mail <*> queued for <*>", 117_000, 176),
    Line("INFO", "stock of sku <*> reserved: <*> left", 176_000, 169),
    Line("INFO", "stock reservation <*> released", 102_000, 150),
    Line("INFO", "coupon <*> applied to cart <*>: -<*> EUR", 22_700, 182),
    Line("INFO", "coupon <*> refused for cart <*>: expired", 4_100, 177),
    Line("INFO", "feature flag <*> is on for customer <*>", 830_000, 158),
    Line("INFO", "worker <*> started with pid <*>", 96, 140),
    Line("INFO", "worker <*> stopped after <*> requests", 96, 151),
    Line("INFO", "configuration reloaded in <*> ms", 24, 133),
    Line("INFO", "schema migration <*> applied in <*> ms", 1.2, 160),
    Line(
        "INFO",
        "address of customer <*> checked against postal register: valid",
        71_000,
        207,
        since=5.4,
    ),
    Line("INFO", "express checkout with <*> offered to customer <*>", 43_500, 199, since=2.2),
    Line(
        "WARNING",
        "payment provider <*> answered in <*> ms, slower than <*> ms",
        6_900,
        241,
        jump=5.6,
    ),
    Line("WARNING", "retry <*> of <*> for POST https://pay.example/<*>", 2_350, 252, jump=7.9),
    Line("WARNING", "stock of sku <*> is below <*>", 8_800, 158),
    Line("WARNING", "cart <*> has a stale price for sku <*>, recalculating", 3_900, 187, jump=2.6),
    Line("WARNING", "connection pool of <*> is exhausted, waited <*> ms", 410, 190, jump=3.4),
    Line("WARNING", "login of customer <*> failed: wrong password (<*> of <*>)", 12_600, 229),
    Line("WARNING", "token of session <*> is about to expire and was not refreshed", 1_850, 203),
    Line("WARNING", "rate limit reached for <*>: <*> requests in <*> s", 970, 196),
    Line("WARNING", "deprecated field <*> in request of client <*>", 3_300, 172, since=0.7),
    Line("WARNING", "3-D Secure challenge <*> not answered within <*> s", 690, 214, since=1.4),
    Line("ERROR", "payment of order <*> declined by <*>: <*>", 1_420, 480),
    Line("ERROR", "payment of order <*> failed: timeout after <*> ms", 118, 1_900, jump=4.2),
    Line("ERROR", "could not reserve sku <*>: optimistic lock failed <*> times", 64, 1_720),
    Line("ERROR", "unhandled exception in POST /api/checkout/<*>", 21, 4_300),
    Line(
        "ERROR", "invoice <*> could not be rendered: missing tax rate for <*>", 9, 2_100, since=3.1
    ),
    Line("CRITICAL", "circuit to payment provider <*> is open", 2.6, 620, since=1.1),
]

OTHERS = {
    "catalog": (14_200_000, ["product <*> read from cache in <*> us", "product <*> rendered for locale <*>", "image <*> resized to <*>x<*> in <*> ms",
                "GET /api/products/<*> 200 in <*> ms", "search index refreshed: <*> documents", "price list <*> imported: <*> changes"]),
    "payments": (1_900_000, ["authorization <*> approved by <*> in <*> ms", "webhook <*> received from <*>", "refund <*> of <*> EUR booked",
                 "settlement file <*> read: <*> lines", "card <*> tokenised as <*>"]),
    "search": (9_700_000, ["query <*> answered with <*> hits in <*> ms", "shard <*> answered in <*> ms", "suggestion for <*> from cache",
               "segment <*> merged: <*> documents", "synonyms of <*> loaded"]),
    "notifications": (2_600_000, ["mail <*> sent to <*> in <*> ms", "push <*> delivered to device <*>", "template <*> rendered in <*> ms",
                      "mail <*> bounced: <*>", "digest <*> skipped for <*>: nothing new"]),
    "edge-gateway": (31_000_000, ["<*> <*> HTTP/2 200 <*> bytes in <*> ms from <*>", "upstream <*> chosen for <*>", "TLS session <*> resumed",
                     "connection <*> closed by peer after <*> s", "route <*> matched in <*> us"]),
}  # fmt: skip


def grown(daily: float) -> float:
    """What is logged on the way of each request grows with the shop; what is rare does not."""
    return daily * (24 if daily > 20_000 else 6 if daily > 1_000 else 1)


def signature_of(template: str) -> str:
    return compute_signature(template.replace("<*>", "0"))


def template_of(template: str) -> str:
    return compute_template(template.replace("<*>", "0"))


def others(name: str) -> list[Line]:
    total, templates = OTHERS[name]
    lines = [
        Line("DEBUG" if n == 1 else "INFO", text, total / (1.9**n) / 2.1, 120 + 17 * n)
        for n, text in enumerate(templates)
    ]
    return [
        *lines,
        Line("WARNING", f"{name} took <*> ms, more than <*> ms", total / 9_000, 180),
        Line("ERROR", f"{name} failed for request <*>: <*>", total / 60_000, 900),
    ]


def seed_shop(runtime, now: float) -> tuple[int, str]:
    """Fill the store; the team's id and an admin key."""
    store = runtime.store
    begin = now - (DAYS + 60) * DAY
    team_id = store.teams.create("default", now=begin)
    key = add_key(runtime, team_id, "Ada, administration", ["admin"], None, begin)
    add_key(runtime, team_id, "checkout, production", ["ingest"], "checkout", begin)
    add_key(runtime, team_id, "catalog, production", ["ingest"], "catalog", begin + DAY)
    add_key(runtime, team_id, "Grafana, read only", ["read"], None, begin + 2 * DAY)
    old = add_key(runtime, team_id, "CI, until March", ["ingest"], None, begin + 3 * DAY)
    store.keys.revoke(
        team_id, store.keys.live_one(old.split("_")[2])["id"], actor="command line", now=now - DAY
    )
    store.teams.update(team_id, {"price_per_gb": 2.5}, actor="command line", now=begin)
    for seed, (name, lines) in enumerate(
        [("checkout", CHECKOUT), *((name, others(name)) for name in OTHERS)]
    ):
        seed_service(runtime, team_id, name, lines, now, random.Random(seed))
    service(runtime, team_id, "checkout", now)
    for row in store.services.all(team_id):
        store.rollups.find_risers(row["id"], now=now)
    return team_id, key


def service(runtime, team_id: int, name: str, now: float) -> None:
    """What people and jobs did with the service lately."""
    store = runtime.store
    actor = "key " + store.keys.all(team_id)[-1]["prefix"]
    changes = {
        "max_logs_per_minute": 40_000,
        "cost_target": 0.08,
        "words": ["refund", "chargeback"],
    }
    store.services.update(team_id, name, changes, actor=actor, now=now - 19 * DAY)
    store.patterns.pin(
        team_id, name, signature_of("health check passed in <*> ms"), rate=0.001, protected=False,
        reason="Nobody has looked at these since 2024", actor=actor, now=now - 12 * DAY,
    )  # fmt: skip
    store.patterns.pin(
        team_id, name, signature_of("schema migration <*> applied in <*> ms"), rate=1.0,
        protected=True, reason="Auditors ask for them", actor=actor, now=now - 9 * DAY,
    )  # fmt: skip
    generate_policy(
        runtime, team_id, name, Wish(cost_target=0.05, activate=False), actor="regeneration"
    )


def add_key(runtime, team_id, name, scopes, service_name, now) -> str:
    key, prefix = make_key("test")
    runtime.store.keys.add(
        team_id, name=name, prefix=prefix, hashed=runtime.ring.hash(key), scopes=scopes,
        service_name=service_name, expires_at=None, actor="command line", now=now,
    )  # fmt: skip
    return key


def seed_service(runtime, team_id, name, lines, now, chance) -> None:
    store, db = runtime.store, runtime.store.db
    service_id = store.services.ensure(team_id, name, now=now - (DAYS + 60) * DAY)
    versions = make_versions(store, team_id, name, lines, now)
    today = int(now) // DAY
    daily, hourly, totals, patterns = [], [], {}, []
    for line in lines:
        signature = signature_of(line.template)
        sums = [0, 0, 0, 0, 0]
        for day in range(today - DAYS + 1, today + 1):
            counts = day_counts(line, signature, day, now, versions, chance)
            if counts[0] == 0:
                continue
            daily.append((service_id, day, signature, *counts))
            sums = [a + b for a, b in zip(sums, counts, strict=True)]
            add_hours(line, signature, service_id, day, counts, now, hourly, totals)
        first = max(now - line.since * DAY, now - (DAYS + 59) * DAY)
        rate = rate_of(line, signature, versions, now)
        patterns.append(
            (
                service_id,
                signature,
                template_of(line.template),
                line.severity,
                int(first),
                int(now - chance.random() * min(DAY / line.daily, DAY)),
                *sums,
                rate,
                int(now),
                *sums,
            )
        )
    with db.transaction():
        db.execute_many(f"INSERT INTO pattern_day VALUES ({','.join('?' * 8)})", daily)
        db.execute_many(f"INSERT INTO pattern_hour VALUES ({','.join('?' * 8)})", hourly)
        db.execute_many(
            f"INSERT INTO service_hour VALUES ({','.join('?' * 8)})",
            [(service_id, hour, *sums, 12) for hour, sums in totals.items()],
        )
        db.execute_many(
            "INSERT INTO pattern (service_id, signature, template, severity, first_seen, last_seen, count, kept,"
            " bytes, kept_bytes, errors, rate, reported_at, rolled_count, rolled_kept, rolled_bytes,"
            f" rolled_kept_bytes, rolled_errors) VALUES ({','.join('?' * 18)})",
            patterns,
        )
        records = sum(row[6] for row in patterns)
        db.execute(
            "UPDATE service SET records = ?, last_report_at = ? WHERE id = ?",
            records, int(now) - 41, service_id,
        )  # fmt: skip
        add_instances(db, service_id, name, lines, now, chance)


def make_versions(store, team_id, name, lines, now):
    """Three versions, as the planning makes them: (active since, policy)."""
    volumes = [
        PatternVolume(
            signature=signature_of(line.template), template=template_of(line.template), severity=line.severity,
            count=7 * grown(line.daily), mean_bytes=line.size,
        )
        for line in lines if line.since > 20
    ]  # fmt: skip
    versions = [(0.0, None)]
    for number, (ago, target) in enumerate(((21, 0.25), (14.4, 0.12), (6.2, 0.08)), 1):
        at = now - ago * DAY
        policy = plan_policy(
            volumes, target, policy_id=f"{name}-{number}", version=number,
            created_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at)),
        )  # fmt: skip
        kept = expected_outcome(volumes, policy).kept_share
        store.policies.add(
            team_id, name, policy, activate=True, actor="regeneration", now=at, cost_target=target,
            cost_reduction=1 - kept, details={"summary": "", "provider": "builtin"},
        )  # fmt: skip
        versions.append((at, policy))
    return versions


def rate_of(line, signature, versions, at) -> float:
    policy = [policy for since, policy in versions if since <= at][-1]
    return 1.0 if policy is None else policy.rate_for(signature, line.severity)


def day_counts(line, signature, day, now, versions, chance):
    """count, kept, bytes, kept_bytes, errors of one day."""
    middle = day * DAY + DAY / 2
    ago = (now - day * DAY) / DAY
    if ago > line.since + 1:
        return [0, 0, 0, 0, 0]
    volume = grown(line.daily) * (0.78 if time.gmtime(middle).tm_wday >= 5 else 1.06)
    volume *= 1 + 0.004 * (DAYS - ago)
    if ago < 2 and line.jump > 1:
        volume *= line.jump
    part = share_of_day(now) if day == int(now) // DAY else 1.0
    if line.since < ago:
        part *= max(0.05, line.since + 1 - ago)
    expected = volume * part
    count = max(0, round(chance.gauss(expected, math.sqrt(expected) + 0.04 * expected)))
    rate = rate_of(line, signature, versions, middle)
    kept = (
        count
        if rate >= 1
        else min(count, round(chance.gauss(count * rate, math.sqrt(count * rate * (1 - rate)))))
    )
    kept = max(kept, min(count, 30))
    errors = count if line.severity in ("ERROR", "CRITICAL") else 0
    return [count, kept, count * line.size, kept * line.size, errors]


def curve(hour: int) -> float:
    return (
        0.25
        + math.exp(-(((hour - 12.5) / 4.2) ** 2))
        + 0.85 * math.exp(-(((hour - 20) / 2.4) ** 2))
    )


def share_of_day(now: float) -> float:
    passed = (now % DAY) / 3600
    done = sum(curve(h) * min(1.0, max(0.0, passed - h)) for h in range(24))
    return done / sum(curve(h) for h in range(24))


def add_hours(line, signature, service_id, day, counts, now, hourly, totals) -> None:
    last = int(now) // 3600
    hours = [h for h in range(24) if day * 24 + h <= last]
    weights = [curve(h) * (now % 3600 / 3600 if day * 24 + h == last else 1) for h in hours]
    done, used = [0, 0, 0, 0, 0], 0.0
    for hour, weight in zip(hours, weights, strict=True):
        used += weight
        upto = [round(value * used / sum(weights)) for value in counts]
        part = [a - b for a, b in zip(upto, done, strict=True)]
        done = upto
        at = day * 24 + hour
        sums = totals.setdefault(at, [0, 0, 0, 0, 0])
        totals[at] = [a + b for a, b in zip(sums, part, strict=True)]
        if at > last - 72 and part[0]:
            hourly.append((service_id, at, signature, *part))


def add_instances(db, service_id, name, lines, now, chance) -> None:
    minute = sum(grown(line.daily) for line in lines) / 1440
    for number in range(6 if name == "checkout" else 4):
        silent = number == 5
        share = minute / 5 * chance.uniform(0.8, 1.2)
        health = {"reports_failed": int(number == 2), "queue": chance.randrange(40)}
        health |= {"dropped_by_limit": 1_240 * (number == 3), "exported": chance.randrange(10**6)}
        db.execute(
            "INSERT INTO instance VALUES (?, ?, ?, ?, 'python', ?, 600, ?, ?, ?, ?, ?)",
            service_id, f"{name}-7d9f-{chance.randrange(16**5):05x}:{chance.randrange(8, 40)}",
            int(now - 9 * DAY), int(now - (7_900 if silent else chance.randrange(20, 580))),
            "0.9.2" if silent else "1.0.0", share, 1290, int(share * 60 * 24 * 9),
            int(share * 60 * 24 * 9 * 0.09), json.dumps(health),
        )  # fmt: skip


def seed_many(
    runtime, team_id: int, name: str, now: float, *, patterns=100_000, days=90, every=1
) -> None:
    """
    A service of many patterns with counts of many days, Zipf-distributed.

    With *every* = 1 each pattern has a count on each day; above, those of the long tail have one on
    each *every*-th.
    """
    store, db = runtime.store, runtime.store.db
    chance = random.Random(5)
    service_id = store.services.ensure(team_id, name, now=now - (days + 30) * DAY)
    verbs = [
        "opened",
        "closed",
        "read",
        "written",
        "moved",
        "merged",
        "refused",
        "queued",
        "retried",
        "sent",
    ]
    nouns = [
        "order",
        "cart",
        "invoice",
        "session",
        "shard",
        "segment",
        "payment",
        "coupon",
        "parcel",
        "token",
    ]
    places = ["cache", "disk", "queue", "index", "ledger", "mirror", "archive"]
    words = [f"{n} <*> {v} in {p}" for n in nouns for v in verbs for p in places]
    named = [
        f"{words[i % len(words)]} by step{_word(i // len(words))} after <*> ms"
        for i in range(patterns)
    ]
    signatures = [f"{chance.getrandbits(64):016x}" for _ in named]
    severities = [
        chance.choices(("DEBUG", "INFO", "WARNING", "ERROR"), (40, 50, 8, 2))[0] for _ in named
    ]
    today = int(now) // DAY
    volumes = [max(1, int(40_000_000 / (i + 10) ** 1.05)) for i in range(patterns)]
    tail = patterns // 20
    order = sorted(range(patterns), key=signatures.__getitem__)
    for day in range(today - days + 1, today + 1):
        with db.transaction():
            db.execute_many(
                f"INSERT INTO pattern_day VALUES ({','.join('?' * 8)})",
                [
                    (service_id, day, signatures[i], n, n // 10, n * 180, n * 18, 0)
                    for i in order
                    if i < tail or (i + day) % every == 0
                    for n in (volumes[i] * (6 if i % 997 == 5 and day > today - 2 else 1),)
                ],
            )
    with db.transaction():
        db.execute_many(
            "INSERT INTO pattern (service_id, signature, template, severity, first_seen, last_seen, count, kept, bytes,"
            " kept_bytes, errors, rate, reported_at, rolled_count, rolled_kept, rolled_bytes, rolled_kept_bytes,"
            f" rolled_errors) VALUES ({','.join('?' * 18)})",
            [
                (service_id, signatures[i], named[i], severities[i],
                 int(now - (days + 20 if i % 500 else 3) * DAY), int(now - 600), *(s := _sums(volumes[i], days)), 0.1, int(now), *s)
                for i in order
            ],
        )  # fmt: skip
        total = sum(volumes)
        db.execute_many(
            f"INSERT INTO service_hour VALUES ({','.join('?' * 8)})",
            [
                (
                    service_id,
                    hour,
                    total // 24,
                    total // 240,
                    total // 24 * 180,
                    total // 240 * 180,
                    total // 1200,
                    40,
                )
                for hour in range((today - days + 1) * 24, int(now) // 3600 + 1)
            ],
        )
        db.execute(
            "UPDATE service SET records = ?, last_report_at = ? WHERE id = ?",
            total * days,
            int(now),
            service_id,
        )
    store.rollups.find_risers(service_id, now=now)


def _sums(volume: int, days: int) -> tuple[int, int, int, int, int]:
    return volume * days, volume // 10 * days, volume * days * 180, volume // 10 * days * 180, 0


def _word(number: int) -> str:
    letters = ""
    while True:
        number, digit = divmod(number, 20)
        letters += "bcdfghjklmnprstvwxza"[digit]
        if not number:
            return letters


def main() -> None:
    parser = argparse.ArgumentParser(description="Fill a new data directory with the shop's month.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--many", action="store_true", help="with the service of 100,000 patterns")
    given = parser.parse_args()
    runtime = runtime_of(create_app(Settings(data_dir=str(given.directory))))
    runtime.watcher.look()
    now = time.time()
    team_id, key = seed_shop(runtime, now)
    if given.many:
        seed_many(runtime, team_id, "monolith", now)
        generate_policy(runtime, team_id, "monolith", Wish(cost_target=0.1), actor="regeneration")
        generate_policy(
            runtime,
            team_id,
            "monolith",
            Wish(cost_target=0.05, activate=False),
            actor="regeneration",
        )
    print(key)


if __name__ == "__main__":
    main()
