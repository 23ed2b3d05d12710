"""Jobs: a decorator for any function (RQ, cron), and hooks for Celery, huey and AWS Lambda."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from typing import Any, TypeVar, cast

from lipservice.middleware._trace import from_x_ray
from lipservice.scope import RecorderLimits, request

_Function = TypeVar("_Function", bound=Callable[..., Any])


def recorded(
    name: str | None = None, *, limits: RecorderLimits | None = None
) -> Callable[[_Function], _Function]:
    """
    `@recorded()` above a function or coroutine function: each call is a request of its own.

    The decorator for RQ's jobs, cron jobs and scripts. A call has failed when it logs an ERROR or
    raises.

    Args:
        name: What a call is called; default: the function's qualified name.
        limits: Bounds of its flight recorder; default: `RecorderLimits()`.
    """

    def decorate(function: _Function) -> _Function:
        called = name or f"{function.__module__}.{function.__qualname__}"
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def run_async(*args: Any, **kwargs: Any) -> Any:
                async with request(called, limits=limits):
                    return await function(*args, **kwargs)

            return cast("_Function", run_async)

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            with request(called, limits=limits):
                return function(*args, **kwargs)

        return cast("_Function", run)

    return decorate


def lambda_handler(function: _Function) -> _Function:
    """
    `@lambda_handler` above an AWS Lambda handler: each invocation is a request.

    It is called as the function is, and decided by X-Ray's trace id where there is one.
    """

    @functools.wraps(function)
    def handle(event: Any, context: Any) -> Any:
        name = getattr(context, "function_name", None) or function.__name__
        trace_id = from_x_ray(os.environ.get("_X_AMZN_TRACE_ID"))
        with request(name, trace_id=trace_id):
            return function(event, context)

    return cast("_Function", handle)


def instrument_celery(*, limits: RecorderLimits | None = None) -> None:
    """
    Open a request around each task of this process's Celery workers; call it once at import.

    A task has failed when it logs an ERROR or raises (also for a retry).
    """
    from celery import signals  # noqa: PLC0415 - optional

    running: dict[str, request] = {}

    def begin(task_id: str = "", task: Any = None, **_: Any) -> None:
        running[task_id] = unit = request(getattr(task, "name", None), limits=limits)
        unit.__enter__()

    def fail(task_id: str = "", **_: Any) -> None:
        unit = running.get(task_id)
        if unit is not None and unit.scope is not None:
            unit.scope.keep()

    def retry(request: Any = None, **_: Any) -> None:
        fail(getattr(request, "id", ""))

    def end(task_id: str = "", **_: Any) -> None:
        unit = running.pop(task_id, None)
        if unit is not None:
            unit.__exit__(None, None, None)

    for signal, hook in (
        (signals.task_prerun, begin),
        (signals.task_failure, fail),
        (signals.task_retry, retry),
        (signals.task_postrun, end),
    ):
        signal.connect(hook, weak=False)


def instrument_huey(huey: Any, *, limits: RecorderLimits | None = None) -> None:
    """
    Open a request around each task that *huey*'s consumer runs.

    A task has failed when it logs an ERROR or raises.
    """
    running: dict[str, request] = {}

    def begin(task: Any) -> None:
        running[task.id] = unit = request(task.name, limits=limits)
        unit.__enter__()

    def end(task: Any, _value: Any, error: Any) -> None:
        unit = running.pop(task.id, None)
        if unit is not None:
            if error is not None and unit.scope is not None:
                unit.scope.keep()
            unit.__exit__(None, None, None)

    huey.pre_execute("lipservice begin")(begin)
    huey.post_execute("lipservice end")(end)
