"""
The shop of `lipservice demo`: a small, real web application that logs as applications do.

A WSGI application over an SQLite data base and a cache, with a background job and a heartbeat.
It knows nothing of LipService: it calls `logging`, and that is all.
"""

from __future__ import annotations

import logging
import random
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qs

PRODUCTS: Final = 400
_CACHED: Final = 60
#: Share of the payments that the provider refuses, and of the searches without an index.
_REFUSED: Final = 0.06
_UNINDEXED: Final = 0.01
_SLOW_MS: Final = 20.0
_ADJECTIVES: Final = ("red", "blue", "small", "large", "wooden", "silent", "warm", "old")
_NOUNS: Final = ("chair", "lamp", "table", "kettle", "clock", "mug", "shelf", "mirror")

_web: Final = logging.getLogger("shop.web")
_database: Final = logging.getLogger("shop.db")
_cache: Final = logging.getLogger("shop.cache")
_payments: Final = logging.getLogger("shop.payments")
_jobs: Final = logging.getLogger("shop.jobs")

_StartResponse = Callable[[str, list[tuple[str, str]]], object]


class PaymentRefusedError(Exception):
    """The provider does not take the card."""


class Database:
    """Products and orders, in memory; one connection, guarded by a lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(":memory:", check_same_thread=False)
        self._connection.executescript(
            "CREATE TABLE products"
            " (id INTEGER PRIMARY KEY, name TEXT, price INTEGER, stock INTEGER);"
            "CREATE TABLE orders (id INTEGER PRIMARY KEY, product INTEGER, state TEXT);"
        )
        self._connection.executemany(
            "INSERT INTO products VALUES (?, ?, ?, ?)",
            (
                (number, f"{_ADJECTIVES[number % 8]} {_NOUNS[number // 8 % 8]}", 100 + number, 500)
                for number in range(1, PRODUCTS + 1)
            ),
        )

    def query(self, sql: str, *values: object) -> list[Any]:
        """Run one statement and log what it took."""
        started = time.perf_counter()
        with self._lock:
            rows = self._connection.execute(sql, values).fetchall()
        took = (time.perf_counter() - started) * 1000
        _database.debug("query %s took %.2f ms and gave %d rows", sql, took, len(rows))
        if took > _SLOW_MS:
            _database.warning("slow query, %.0f ms: %s", took, sql)
        return rows

    def close(self) -> None:
        """Forget everything."""
        with self._lock:
            self._connection.close()


class ProductCache:
    """The products that were asked for last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[int, Any] = OrderedDict()

    def get(self, number: int) -> Any | None:
        """The product, if it is known."""
        with self._lock:
            found = self._known.get(number)
            if found is not None:
                self._known.move_to_end(number)
        _cache.debug("cache %s for product %d", "miss" if found is None else "hit", number)
        return found

    def put(self, number: int, product: Any) -> None:
        """Remember a product, and forget the one that was not asked for the longest."""
        forgotten = None
        with self._lock:
            self._known[number] = product
            if len(self._known) > _CACHED:
                forgotten, _ = self._known.popitem(last=False)
        if forgotten is not None:
            _cache.debug("cache is full, evicted product %d", forgotten)


class Shop:
    """The WSGI application."""

    def __init__(self, rng: random.Random) -> None:
        self._database = Database()
        self._products = ProductCache()
        self._rng = rng
        self.requests = 0

    def __call__(self, environ: dict[str, Any], start_response: _StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        started = time.perf_counter()
        self.requests += 1
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        _web.debug("request %s %s from %s", method, path, environ.get("REMOTE_ADDR"))
        try:
            status, body = self._route(method, path, environ.get("QUERY_STRING", ""))
        except Exception:
            _web.exception("request %s %s failed", method, path)
            status, body = HTTPStatus.INTERNAL_SERVER_ERROR, "sorry"
        took = (time.perf_counter() - started) * 1000
        _web.info("%s %s answered %d in %.1f ms", method, path, status, took)
        start_response(f"{status.value} {status.phrase}", [("Content-Type", "text/plain")])
        return [body.encode()]

    def close(self) -> None:
        """End the shop."""
        self._database.close()

    def _route(self, method: str, path: str, query: str) -> tuple[HTTPStatus, str]:
        parts = path.strip("/").split("/")
        if path == "/health":
            _web.debug("health check is ok")
            return HTTPStatus.OK, "ok"
        if parts[0] == "product" and len(parts) == 2 and parts[1].isdigit():
            return self._show(int(parts[1]))
        if path == "/search":
            return self._search(parse_qs(query).get("q", [""])[0])
        if method == "POST" and parts[0] == "buy" and len(parts) == 2:
            return self._buy(int(parts[1]))
        _web.warning("no page at %s", path)
        return HTTPStatus.NOT_FOUND, "no such page"

    def _show(self, number: int) -> tuple[HTTPStatus, str]:
        product = self._products.get(number)
        if product is None:
            rows = self._database.query("SELECT name, price FROM products WHERE id = ?", number)
            if not rows:
                _web.warning("product %d does not exist", number)
                return HTTPStatus.NOT_FOUND, "no such product"
            product = rows[0]
            self._products.put(number, product)
        return HTTPStatus.OK, f"{product[0]} for {product[1]}"

    def _search(self, words: str) -> tuple[HTTPStatus, str]:
        if self._rng.random() < _UNINDEXED:
            # What a missing index does: every product against every other.
            self._database.query(
                "SELECT count(*) FROM products a JOIN products b ON a.name || b.id LIKE ?",
                f"%{words}%",
            )
        rows = self._database.query(
            "SELECT id FROM products WHERE name LIKE ? LIMIT 20", f"%{words}%"
        )
        _web.info(f"search for {words!r} found {len(rows)} products")
        return HTTPStatus.OK, str(len(rows))

    def _buy(self, number: int) -> tuple[HTTPStatus, str]:
        self._database.query("UPDATE products SET stock = stock - 1 WHERE id = ?", number)
        self._database.query("INSERT INTO orders (product, state) VALUES (?, 'new')", number)
        (order,) = self._database.query("SELECT max(id) FROM orders")[0]
        _payments.info("order %d placed for product %d", order, number)
        try:
            self._charge(order)
        except PaymentRefusedError:
            _payments.exception("payment of order %d failed, order is cancelled", order)
            return HTTPStatus.PAYMENT_REQUIRED, "refused"
        _payments.info("order %d paid", order)
        return HTTPStatus.OK, "thank you"

    def _charge(self, order: int) -> None:
        _payments.debug("asking the provider for order %d, attempt %d", order, 1)
        if self._rng.random() < _REFUSED:
            raise PaymentRefusedError(f"card of order {order} refused: insufficient funds")


class BackgroundJobs:
    """What goes on in an application without any request: a heartbeat, a job, one rare warning."""

    #: Seconds between two heartbeats.
    HEARTBEAT: Final = 0.05

    def __init__(self, shop: Shop, rare_after: float) -> None:
        self._shop = shop
        self._rare_after = rare_after
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="shop-jobs", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait for it."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        started = time.monotonic()
        beats = 0
        warned = False
        while not self._stopped.wait(self.HEARTBEAT):
            beats += 1
            _jobs.info("heartbeat %d, %d requests so far", beats, self._shop.requests)
            if beats % 20 == 0:
                _jobs.info("stock synchronised: %d products checked", PRODUCTS)
            if not warned and time.monotonic() - started > self._rare_after:
                warned = True
                _jobs.warning("certificate of the payment provider expires in %d days", 6)
