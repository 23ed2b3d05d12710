"""
What the export to PostHog costs, beside OpenTelemetry's own pipeline, in one run.

    python contrib/benchmarks/export.py [--records N] [--rounds N] [--json FILE]

Each figure is measured in a process of its own (an import or a thread of one pipeline must not
weigh on another), the pipelines take turns, medians are told. All send to the same kind of real
HTTP receiver in yet another process, 30,000 records of 100 characters and 4 attributes, batches of
512 (OpenTelemetry's default), gzip on.

    null       logging with a NullHandler: what everybody pays
    lipservice logging, PostHogHandler
    direct     PostHogOTLPExporter.export_log
    otel       LoggingHandler, BatchLogRecordProcessor, OTLPLogExporter over HTTP
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from measuring import print_table

ROOT = Path(__file__).resolve().parents[2]
PIPELINES = ("null", "lipservice", "direct", "otel")
TEXT = "x" * 60
BATCH = 512


def run(records: int = 30_000, rounds: int = 5) -> dict[str, Any]:
    """Measure all pipelines; medians by pipeline and figure, and the ratios that the goals name."""
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in PIPELINES}
    for _ in range(rounds):
        for name in PIPELINES:
            taken[name].append(_in_a_process("burst", name, records))
    stalls: dict[str, list[dict[str, float]]] = {name: [] for name in PIPELINES if name != "direct"}
    for _ in range(max(1, rounds // 2)):
        for name, found in stalls.items():
            found.append(_in_a_process("paced", name, 10_000))
    medians = {
        name: {figure: statistics.median(r[figure] for r in results) for figure in results[0]}
        for name, results in taken.items()
    }
    for name, results in stalls.items():
        for figure in ("stall_ms", "late_ms"):
            medians[name][figure] = statistics.median(r[figure] for r in results)
    full = [_in_a_process("full", "lipservice", records)["p99_us"] for _ in range(rounds)]
    return {
        "records": records,
        "rounds": rounds,
        "pipelines": medians,
        "full_queue_p99_us": statistics.median(full),
        **_ratios(medians),
    }


def _ratios(medians: dict[str, dict[str, float]]) -> dict[str, float]:
    null, ours, theirs = medians["null"], medians["lipservice"], medians["otel"]
    caller = ours["caller_us"] - null["caller_us"]
    cpu = ours["cpu_us"] - null["cpu_us"]
    return {
        "caller_us": caller,
        "caller_cheaper_by": (theirs["caller_us"] - null["caller_us"]) / caller,
        "caller_of_logging": caller / null["caller_us"],
        "cpu_us": cpu,
        "cpu_cheaper_by": (theirs["cpu_us"] - null["cpu_us"]) / cpu,
        "faster_by": ours["per_second"] / theirs["per_second"],
    }


def report(results: dict[str, Any]) -> None:
    """Print the table of *results*."""
    rows = []
    for name, figures in results["pipelines"].items():
        rows.append(
            (
                name,
                f"{figures['caller_us']:.2f}",
                f"{figures['cpu_us']:.2f}",
                f"{figures['per_second']:,.0f}",
                f"{figures['stall_ms']:.2f}" if "stall_ms" in figures else "-",
                f"{figures['memory_mb']:.1f}",
                f"{figures['delivered']:,.0f}",
            )
        )
    header = (
        "pipeline",
        "caller us",
        "all CPU us",
        "records/s",
        "stall ms",
        "MB more",
        "delivered",
    )
    print_table(f"export of {results['records']:,} records", header, rows)
    print_table(
        "LipService beyond logging itself, against OpenTelemetry",
        ("figure", "value", "goal"),
        [
            ("caller, us a record", f"{results['caller_us']:.2f}", "<= 2"),
            ("caller, times cheaper", f"{results['caller_cheaper_by']:.1f}", ">= 10"),
            ("caller, part of a log call", f"{results['caller_of_logging']:.2f}", "-"),
            ("all CPU, us a record", f"{results['cpu_us']:.2f}", "<= 7"),
            ("all CPU, times cheaper", f"{results['cpu_cheaper_by']:.1f}", ">= 6"),
            ("records a second, times", f"{results['faster_by']:.1f}", "-"),
            ("log call, queue full, p99 us", f"{results['full_queue_p99_us']:.0f}", "<= 50"),
        ],
    )


def _in_a_process(what: str, pipeline: str, records: int) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, "--measure", what, pipeline, str(records)],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


# ---------------------------------------------------------------------- in the measured process


def _measure(what: str, pipeline: str, records: int) -> dict[str, float]:
    sys.path.insert(0, str(ROOT))
    from tests.support.otlp_receiver import Receiver

    if what == "full":
        return _full(records)
    with Receiver() as receiver:
        log, flush = _pipeline(pipeline, receiver.url)
        for n in range(500):
            log(n)
        flush()
        receiver.reset()
        if what == "paced":
            return _paced(log, flush, records)
        result = _burst(log, flush, records)
        result["delivered"] = receiver.stats()["records"]
        return result


def _burst(log: Any, flush: Any, records: int) -> dict[str, float]:
    import resource

    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started, cpu, caller = time.perf_counter(), time.process_time(), time.thread_time()
    for n in range(records):
        log(n)
    caller = time.thread_time() - caller
    flush()
    cpu, took = time.process_time() - cpu, time.perf_counter() - started
    return {
        "caller_us": caller / records * 1e6,
        "cpu_us": cpu / records * 1e6,
        "per_second": records / took,
        "memory_mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024,
    }


def _paced(log: Any, flush: Any, per_second: int) -> dict[str, float]:
    """One log call every 100 us for two seconds: how long the longest takes."""
    durations = []
    pause, due = 1.0 / per_second, time.perf_counter()
    late = 0.0
    for n in range(2 * per_second):
        due += pause
        while (now := time.perf_counter()) < due:
            if due - now > 60e-6:
                time.sleep(20e-6)
        late = max(late, now - due)
        log(n)
        durations.append(time.perf_counter() - now)
    flush()
    return {"stall_ms": max(durations) * 1e3, "late_ms": late * 1e3}


def _full(records: int) -> dict[str, float]:
    """A log call while nobody takes the records and the queue is full."""
    from lipservice.export import PostHogConfig, PostHogOTLPExporter

    config = PostHogConfig(api_key="phc_x", endpoint="http://127.0.0.1:9/", max_queue_size=1000)
    exporter = PostHogOTLPExporter(config)
    durations = []
    for n in range(records):
        started = time.perf_counter()
        exporter.export_log("m", user_id=n)
        durations.append(time.perf_counter() - started)
    exporter.stop(0.0)
    return {"p99_us": statistics.quantiles(durations, n=100)[98] * 1e6}


def _pipeline(name: str, url: str) -> tuple[Any, Any]:
    import logging

    if name == "direct":
        exporter = _exporter(url)

        def export(n: int) -> None:
            exporter.export_log(
                f"{TEXT} user bob bought thing of {n:08d} items",
                "INFO",
                user_id=n,
                path="/api/items",
                ms=12.5,
                cached=True,
            )

        return export, lambda: exporter.flush(60)

    logger = logging.getLogger("shop.cart")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    flush = _attach(logger, name, url)

    def log(n: int) -> None:
        logger.info(
            "%s user bob bought thing of %08d items",
            TEXT,
            n,
            extra={"user_id": n, "path": "/api/items", "ms": 12.5, "cached": True},
        )

    return log, flush


def _exporter(url: str) -> Any:
    from lipservice.export import PostHogConfig, PostHogOTLPExporter

    config = PostHogConfig(
        api_key="phc_x", endpoint=url, team_id="1", batch_size=BATCH, max_queue_size=200_000
    )
    return PostHogOTLPExporter(config)


def _attach(logger: Any, name: str, url: str) -> Any:
    import logging
    import warnings

    if name == "null":
        logger.addHandler(logging.NullHandler())
        return lambda: None
    if name == "lipservice":
        from lipservice.export import PostHogHandler

        exporter = _exporter(url)
        logger.addHandler(PostHogHandler(exporter=exporter))
        return lambda: exporter.flush(60)

    warnings.simplefilter("ignore")
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
    from opentelemetry.sdk.resources import Resource

    provider = LoggerProvider(Resource.create({"service.name": "shop"}), shutdown_on_exit=False)
    exporter = OTLPLogExporter(
        endpoint=url, headers={"Authorization": "Bearer phc_x"}, compression=Compression.Gzip
    )
    provider.add_log_record_processor(
        BatchLogRecordProcessor(exporter, max_queue_size=200_000, max_export_batch_size=BATCH)
    )
    logger.addHandler(LoggingHandler(logger_provider=provider))
    return provider.force_flush


def main() -> None:
    """Run and print; `--json` writes the figures to a file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--records", type=int, default=30_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        what, pipeline, records = arguments.measure
        print(json.dumps(_measure(what, pipeline, int(records))))
        return
    results = run(arguments.records, arguments.rounds)
    report(results)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
