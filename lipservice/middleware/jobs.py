"""Jobs: a decorator for any function (RQ, cron), and hooks for Celery, huey and AWS Lambda."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar, cast

from lipservice.exceptions import ConfigurationError
from lipservice.middleware._trace import from_traceparent, from_x_ray
from lipservice.middleware._unit import leave
from lipservice.scope import RecorderLimits, RequestScope, checked, request

_Function = TypeVar("_Function", bound=Callable[..., Any])

# Where a Celery task's own request (`task.request`) holds ours.
_CARRIED: Final = "lipservice_request"


def recorded(
    name: str | None = None, *, limits: RecorderLimits | None = None
) -> Callable[[_Function], _Function]:
    """
    `@recorded()` above a function or coroutine function: each call is a request of its own, or
    belongs to the one that it is made in.

    The decorator for RQ's jobs, cron jobs and scripts. A call has failed when it logs an ERROR,
    raises, or asks RQ to try again (`return Retry(...)`).

    Args:
        name: What a call is called; default: the function's module and qualified name.
        limits: Bounds of its flight recorder; default: `RecorderLimits()`.

    Raises:
        ConfigurationError: It stands above a generator function, whose body runs after the call,
            or above something that is no function (`@recorded` without parentheses), or *limits*
            is no `RecorderLimits`.
    """
    if name is not None and not isinstance(name, str):
        raise ConfigurationError(f"name is a text, not {name!r:.80}; write @recorded()")
    limits = checked(limits)

    def decorate(function: _Function) -> _Function:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise ConfigurationError(
                f"{function.__qualname__} is a generator function, which runs after its call:"
                " open lipservice.request() around the loop over it"
            )
        called = name or _name_of(function)
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def run_async(*args: Any, **kwargs: Any) -> Any:
                async with request(called, limits=limits) as scope:
                    return _judged(await function(*args, **kwargs), scope)

            return cast("_Function", run_async)

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            with request(called, limits=limits) as scope:
                return _judged(function(*args, **kwargs), scope)

        return cast("_Function", run)

    return decorate


def _name_of(function: Callable[..., Any]) -> str:
    module, name = getattr(function, "__module__", ""), getattr(function, "__qualname__", "")
    return f"{module}.{name or type(function).__name__}"


def _judged(result: Any, scope: RequestScope) -> Any:
    kind = type(result)
    if kind.__name__ == "Retry" and kind.__module__.partition(".")[0] == "rq":
        scope.keep()
    return result


def lambda_handler(function: _Function) -> _Function:
    """
    `@lambda_handler` above an AWS Lambda handler: each invocation is a request.

    It is called as the function is, decided by X-Ray's trace id where there is one, and has failed
    when it logs an ERROR, raises, or returns a `statusCode` from 500 on.
    """

    @functools.wraps(function)
    def handle(event: Any, context: Any) -> Any:
        name = getattr(context, "function_name", None) or _name_of(function)
        trace_id = from_x_ray(os.environ.get("_X_AMZN_TRACE_ID"))
        with request(name, trace_id=trace_id, root=True) as scope:
            answer = function(event, context)
            status = answer.get("statusCode") if isinstance(answer, Mapping) else None
            if isinstance(status, int) and status >= 500:
                scope.keep()
            return answer

    return cast("_Function", handle)


def instrument_celery(*, limits: RecorderLimits | None = None) -> None:
    """
    Open a request around each task that this process's Celery workers run; call it at import.

    It is called by the task's name, decided by a `traceparent` among the message's headers where
    there is one, and has failed when it logs an ERROR or raises (also for a retry). A task that is
    run at once (`task_always_eager`, `apply()`) belongs to the request that it is called in. A
    second call changes nothing.

    Raises:
        ConfigurationError: *limits* is no `RecorderLimits`.
    """
    from celery import signals  # noqa: PLC0415 - optional

    limits = checked(limits)

    def begin(task: Any = None, **_: Any) -> None:
        running = task.request
        unit = request(
            task.name,
            trace_id=from_traceparent(getattr(running, "traceparent", None)),
            limits=limits,
            root=not running.is_eager,
        )
        unit.__enter__()
        # Not by the task's id: an eager retry runs within the task that it repeats.
        setattr(running, _CARRIED, unit)

    def fail(sender: Any = None, **_: Any) -> None:
        # The main process says it of a worker process that was killed, too: nothing is open there.
        unit = vars(sender.request).get(_CARRIED)
        if unit is not None and unit.scope is not None:
            unit.scope.keep()

    def end(task: Any = None, **_: Any) -> None:
        unit = vars(task.request).pop(_CARRIED, None)
        if unit is not None:
            leave(unit)

    for signal, hook in (
        (signals.task_prerun, begin),
        (signals.task_failure, fail),
        (signals.task_retry, fail),
        (signals.task_postrun, end),
    ):
        signal.connect(hook, weak=False, dispatch_uid=f"lipservice {hook.__name__}")


def instrument_huey(huey: Any, *, limits: RecorderLimits | None = None) -> None:
    """
    Open a request around each task that *huey*'s consumer runs.

    It is called by the task's name and has failed when it logs an ERROR or raises (also for a
    retry). A task that is run at once (`immediate=True`) belongs to the request that it is called
    in. A second call only changes *limits*.

    Raises:
        ConfigurationError: *limits* is no `RecorderLimits`.
    """
    limits = checked(limits)

    def record(task: Any) -> None:
        execute = task.execute

        # Not between a hook before and one after: huey leaves that one out when another hook
        # cancels the task, or when its storage is away as the result is to be stored.
        def execute_recorded() -> Any:
            del task.execute  # as it was
            with request(task.name, limits=limits, root=not huey.immediate):
                return execute()

        task.execute = execute_recorded

    huey.pre_execute("lipservice")(record)
