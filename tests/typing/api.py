"""The public API as its users write it: type-checked (`tox -e typing`), never run."""

from __future__ import annotations

import logging
import sys
from datetime import datetime, timezone
from typing import Any

from typing_extensions import assert_type

import lipservice
from lipservice.performance import LRUSignatureCache, OptimizedSignatureComputer, memory_profile

lipservice.configure_adaptive_logging(
    service_name="my-api",
    lipservice_url="https://lipservice.company.com",
    api_key="key",
    policy_refresh_interval=300,
    pattern_report_interval=600,
    downstream_handler=logging.StreamHandler(),
    use_structlog=True,
    posthog_api_key="phc_xxx",
    posthog_team_id="12345",
    posthog_endpoint="https://app.posthog.com",
    cost_target=0.1,
)
lipservice.shutdown()


async def stop() -> None:
    await lipservice.shutdown()


client = lipservice.LipServiceClient("http://localhost:8000", "key", "my-api")
sampler = lipservice.AdaptiveSampler(
    client,
    policy_refresh_interval=300,
    pattern_report_interval=600,
    max_pattern_cache_size=10000,
)
assert_type(sampler.should_sample("message", "INFO"), bool)
assert_type(sampler.get_policy(), "lipservice.SamplingPolicy | None")
assert_type(sampler.get_pattern_stats(), "dict[str, lipservice.PatternStats]")
assert_type(sampler.health(), "dict[str, Any]")
assert_type(sampler.totals(), lipservice.Totals)
sampler.boost("a message", severity="INFO", minutes=5)
print(sampler.explain("a message").rule)

logging.getLogger().addFilter(lipservice.SamplingFilter(service_name="checkout", cost_target=0.1))
logging.getLogger().addHandler(lipservice.SamplingHandler(logging.StreamHandler(), sampler=sampler))
logging.setLoggerClass(lipservice.SamplingLogger)
logging.setLoggerClass(lipservice.sampling_logger_class(sampler))
processor = lipservice.SamplingProcessor(sampler)
wrapper: type[Any] = lipservice.sampling_bound_logger(sampler=sampler)
sink = lipservice.SamplingSink(sys.stderr, sampler)
keep = lipservice.LoguruFilter(cost_target=0.1)

with lipservice.request("GET /cart", trace_id="0" * 31 + "1") as scope:
    assert_type(scope.failed, bool)
    lipservice.keep_request()

config = lipservice.PostHogConfig(api_key="phc_xxx", team_id="12345")
exporter = lipservice.PostHogOTLPExporter(config)
exporter.start()
exporter.export_log(
    "message", "INFO", datetime.now(timezone.utc), lipservice.LogContext(), user_id=123
)
exporter.stop()
handler: logging.Handler = lipservice.PostHogHandler(config, level=logging.NOTSET)

cache = LRUSignatureCache(max_size=10000, max_memory_mb=50)
assert_type(cache.get("message"), "str | None")
cache.put("message", "0123456789abcdef")
assert_type(cache.get_stats(), "dict[str, Any]")
cache.clear()
assert_type(OptimizedSignatureComputer(cache_size=10000).compute_signature("message"), str)
assert_type(memory_profile(sampler), "dict[str, int]")
