"""One line, and what the sampler keeps of all three frameworks is in a real OTLP receiver."""

import asyncio
import logging

import pytest

import lipservice
from lipservice.exceptions import ConfigurationError
from tests.support.otlp_receiver import Receiver


@pytest.fixture(scope="module")
def receiver():
    with Receiver() as running:
        yield running


def configure(receiver, **more):
    lipservice.configure_adaptive_logging(
        service_name="checkout",
        downstream_handler=logging.NullHandler(),
        posthog_api_key="phc_test",
        posthog_team_id="12345",
        posthog_endpoint=receiver.url,
        **{"posthog_options": {"flush_interval": 0.1}, **more},
    )


def by_body(records):
    return {record["body"]: record for record in records}


def test_logging_and_structlog_arrive_with_their_fields_and_weights(receiver):
    receiver.reset()
    configure(receiver)
    logging.getLogger("shop").info("order %d placed", 17, extra={"amount": 12.5})
    lipservice.get_logger("shop").warning("stock is low", item="tea", left=3)
    try:
        raise LookupError("no such cart")
    except LookupError:
        logging.getLogger("shop").exception("cart is lost")

    asyncio.run(_shut_down())

    records = by_body(receiver.records())
    assert set(records) == {"order 17 placed", "stock is low", "cart is lost"}
    order, stock, cart = (
        records[body] for body in ("order 17 placed", "stock is low", "cart is lost")
    )
    assert order["attributes"]["amount"] == 12.5
    assert stock["attributes"]["item"] == "tea"
    assert stock["attributes"]["left"] == 3
    assert cart["attributes"]["exception.type"] == "LookupError"
    assert order["resource"]["service.name"] == "checkout"
    assert {str(record["resource"]["team_id"]) for record in records.values()} == {"12345"}


async def _shut_down():
    await lipservice.shutdown()


def test_what_the_sampler_drops_is_not_sent_and_the_weights_say_how_much_it_was(receiver):
    receiver.reset()
    configure(receiver, max_logs_per_minute=200, keep_first=0)
    logger = logging.getLogger("shop")
    for number in range(600):
        logger.info("request %d served", number)
    logger.error("it failed")
    lipservice.shutdown()

    records = receiver.records()
    requests = [record for record in records if record["body"].startswith("request")]
    weights = [record["attributes"].get("lip_weight", 1.0) for record in requests]
    assert 50 < len(requests) <= 200
    assert max(weights) > 1.0
    assert sum(weights) > 1.5 * len(requests)  # an estimate of 600, give or take 120
    assert len(records) - len(requests) == 1


def test_loguru_reaches_it_by_a_sink_of_its_own(receiver):
    from loguru import logger

    receiver.reset()
    config = lipservice.PostHogConfig(
        api_key="phc_test", endpoint=receiver.url, service_name="checkout", flush_interval=0.1
    )
    sink = lipservice.PostHogSink(config)
    identifier = logger.add(sink, filter=lipservice.LoguruFilter(cost_target=0.5))
    logger.bind(item="tea").info("stock is {}", "low")
    logger.remove(identifier)

    (record,) = receiver.wait_for(1)
    assert record["body"] == "stock is low"
    assert record["attributes"]["item"] == "tea"


@pytest.mark.parametrize(
    "wrong", [{"posthog_api_key": "phx_personal"}, {"posthog_endpoint": "nonsense"}]
)
def test_a_wrong_parameter_is_refused_and_nothing_has_changed(receiver, wrong):
    handlers = list(logging.getLogger().handlers)
    good = {
        "posthog_api_key": "phc_test",
        "posthog_endpoint": receiver.url,
    }
    with pytest.raises(ConfigurationError):
        lipservice.configure_adaptive_logging(service_name="checkout", **{**good, **wrong})

    assert logging.getLogger().handlers == handlers
