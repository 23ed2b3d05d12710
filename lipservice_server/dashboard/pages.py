"""
How a page is declared: one decorator that admits, checks and hardens it.

Every page goes through `Pages`: it finds out who looks (a session of a key, or the loopback mode),
binds the page to a service of their team, refuses forms from elsewhere, and answers errors as pages
too. A view is given a `Visit` and shows a template or goes elsewhere.
"""

from __future__ import annotations

import gzip
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from flask import Blueprint, Response, g, redirect, render_template, request

from lipservice_server.api.schemas import ServiceQuery
from lipservice_server.dashboard import guard, numbers, text
from lipservice_server.dashboard.assets import asset_version
from lipservice_server.dashboard.guard import Viewer
from lipservice_server.dashboard.workshop import Kept, Workshop
from lipservice_server.db import Row
from lipservice_server.errors import (
    ForbiddenError,
    InvalidError,
    NotFoundError,
    ServerError,
)
from lipservice_server.runtime import Runtime
from lipservice_server.store import Store
from lipservice_server.store.overview import Overview
from lipservice_server.store.sessions import Sessions

PREFIX: Final = "/dashboard"
_FORM_BYTES: Final = 256 * 1024
_WORTH_COMPRESSING: Final = 1_000
_MOST_CHOICES: Final = 500

View = Callable[..., Response]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Visit:
    """One request for a page, admitted."""

    pages: Pages
    viewer: Viewer
    #: The service that the page is about; None: all of the team's, or none.
    service: Row | None
    now: float

    @property
    def runtime(self) -> Runtime:
        """The server's parts."""
        return self.pages.runtime

    @property
    def store(self) -> Store:
        """The store."""
        return self.pages.runtime.store

    @property
    def overview(self) -> Overview:
        """What the dashboard alone asks of the store."""
        return self.pages.overview

    @property
    def team_id(self) -> int:
        """Of the viewer."""
        return self.viewer.team_id

    @property
    def named(self) -> Row:
        """
        The service.

        Raises:
            InvalidError: The page was asked for without one.
        """
        if self.service is None:
            raise InvalidError("choose a service first", status=400)
        return self.service

    @property
    def name(self) -> str:
        """The service's name."""
        return str(self.named["name"])

    def arg(self, name: str, default: str = "") -> str:
        """A parameter of the address, cut to a length that no honest one has."""
        return request.args.get(name, default)[:4_200].strip()

    def whole(self, name: str, default: int, *, least: int, most: int) -> int:
        """A whole number of the address, brought within its bounds."""
        text_ = self.arg(name)
        number = int(text_) if text_.isascii() and text_.isdecimal() else default
        return min(max(number, least), most)

    def field(self, name: str) -> str:
        """A field of the form."""
        return request.form.get(name, "")[:4_200].strip()

    def show(self, template_file: str, /, *, status: int = 200, **values: Any) -> Response:
        """The page, with what every page needs."""
        return self.pages.render(template_file, self, status=status, **values)

    def go(self, endpoint: str, **query: Any) -> Response:
        """See another page next; of this service, where there is one."""
        response = redirect(self.url(endpoint, **query), 303)
        assert isinstance(response, Response)  # noqa: S101  flask's and ours are one class
        return response

    def url(self, endpoint: str, **query: Any) -> str:
        """The address of a page."""
        own = {"service": self.service["name"]} if self.service is not None else {}
        return address(endpoint, **{**own, **query})

    def tell(self, message: str, undo: Mapping[str, Any] | None = None) -> None:
        """
        Let the next page say what was done.

        *undo* is the form that takes it back: `page` and its fields.
        """
        notice = json.dumps({"text": message, "undo": undo})
        self.pages.sessions.leave_notice(self.viewer.session_hash, notice)


def address(endpoint: str, **query: Any) -> str:
    """The address of a page; parameters that are None or empty are left out."""
    given = {name: str(value) for name, value in query.items() if value not in (None, "")}
    path = f"{PREFIX}/{endpoint}" if endpoint else f"{PREFIX}/"
    return f"{path}?{urlencode(given)}" if given else path


class Pages:
    """The pages of one app."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.overview = Overview(runtime.store.db, runtime.store.services)
        self.sessions = Sessions(runtime.store.db)
        self.workshop = Workshop(clock=runtime.clock)
        #: Counts of services, of which those of a large one take 100 MB: a worker keeps few.
        self.counts = Kept(2)
        #: What is served for services, by their revision.
        self.served = Kept(16)
        self.blueprint = Blueprint(
            "dashboard", __name__, url_prefix=PREFIX, template_folder="templates"
        )
        self.blueprint.before_app_request(_from_the_root)
        self.blueprint.after_request(_finish)
        self.blueprint.register_error_handler(ServerError, self._problem)
        self.blueprint.register_error_handler(Exception, self._failure)
        for name, function in {**numbers.FILTERS, **text.FILTERS}.items():
            self.blueprint.add_app_template_filter(function, name)

    def page(
        self, rule: str, *, post: bool = False, service: bool = True, whole_team: bool = False
    ) -> Callable[[View], View]:
        """
        Declare a page, or with *post* what a form does.

        *service* says whether it may be about one service, *whole_team* whether a key that belongs
        to one service is refused.
        """

        def declare(view: View) -> View:
            def handle(**path: Any) -> Response:
                visit = self._admit(post=post, service=service)
                if isinstance(visit, Response):
                    return visit
                if whole_team and visit.viewer.service_name is not None:
                    raise ForbiddenError("this page is for keys that belong to the whole team")
                return view(visit, **path)

            self.add(rule, handle, name=view.__name__, post=post)
            return view

        return declare

    def add(self, rule: str, handler: View, *, name: str, post: bool = False) -> None:
        """Add a view that admits by itself."""
        runtime = self.runtime

        def timed(**path: Any) -> Response:
            started = time.perf_counter()
            runtime.watcher.ensure_started()
            request.max_content_length = _FORM_BYTES
            if runtime.settings.dashboard == "loopback":
                guard.check_open(request)
            if post:
                _read_form(runtime)
            with runtime.admission.database.passing(wait=1.0):
                response = handler(**path)
            runtime.metrics.answered(
                f"dashboard {name}", response.status_code, time.perf_counter() - started
            )
            return response

        self.blueprint.add_url_rule(rule, name, timed, methods=["POST" if post else "GET"])

    def render(
        self, template_file: str, visit: Visit | None, /, *, status: int = 200, **values: Any
    ) -> Response:
        """A template as a page."""
        g.rendered = True
        html = render_template(
            template_file,
            visit=visit,
            viewer=visit.viewer if visit else None,
            service=visit.service if visit else None,
            services=self._choices(visit),
            notice=self._notice(visit),
            url=visit.url if visit else address,
            at=address,
            version_of=asset_version,
            now=self.runtime.clock(),
            **values,
        )
        return Response(html, status, mimetype="text/html")

    def begin(self, team_id: int, key_id: int | None) -> str:
        """A new session's id."""
        session_id, now = guard.new_session_id(), self.runtime.clock()
        self.sessions.begin(
            guard.hash_session_id(session_id),
            team_id=team_id,
            key_id=key_id,
            now=now,
            ends_at=now + guard.SESSION_SECONDS,
        )
        g.new_session = session_id
        return session_id

    def _admit(self, *, post: bool, service: bool) -> Visit | Response:
        viewer = self._viewer()
        if viewer is None:
            back = None if post else request.full_path.rstrip("?")
            response = redirect(address("sign-in", next=back), 303)
            assert isinstance(response, Response)  # noqa: S101  flask's and ours are one class
            return response
        if post:
            guard.check_form(request, viewer.csrf)
        else:
            self.runtime.limits.take("request", f"dashboard {viewer.session_hash}")
        found = self._service(viewer) if service else None
        return Visit(self, viewer, found, self.runtime.clock())

    def _viewer(self) -> Viewer | None:
        session_id = guard.read_cookie(request)
        is_open = self.runtime.settings.dashboard == "loopback"
        row = None
        if session_id is not None:
            row = self.sessions.find(guard.hash_session_id(session_id), now=self.runtime.clock())
        if row is not None and (row["key_id"] is None) != is_open:
            row = None
        if row is None and is_open:
            session_id = self.begin(self._open_team(), None)
            row = {"team_id": self._open_team(), "notice": "", "service_name": None, "prefix": ""}
        if row is None or session_id is None:
            return None
        return Viewer(
            team_id=row["team_id"],
            actor="dashboard (loopback)" if is_open else f"key {row['prefix']}",
            service_name=row["service_name"],
            session_hash=guard.hash_session_id(session_id),
            csrf=guard.csrf_token(session_id),
            open=is_open,
            notice=row["notice"],
        )

    def _open_team(self) -> int:
        """The team of the loopback mode: `default`, else the first."""
        teams = {team["name"]: team["id"] for team in self.runtime.store.teams.every()}
        if not teams:
            return self.runtime.store.teams.create("default", now=self.runtime.clock())
        return int(teams.get("default", next(iter(teams.values()))))

    def _service(self, viewer: Viewer) -> Row | None:
        named = request.values.get("service") or viewer.service_name
        if named is None:
            return None
        if viewer.service_name is not None and named != viewer.service_name:
            raise NotFoundError("there is no such service in this team")
        return self.runtime.store.services.require(viewer.team_id, named)

    def _choices(self, visit: Visit | None) -> list[str]:
        """The services to choose from; of very many, the first."""
        if visit is None:
            return []
        if visit.viewer.service_name is not None:
            return [visit.viewer.service_name]
        return self.overview.service_names(visit.team_id, limit=_MOST_CHOICES)

    def _notice(self, visit: Visit | None) -> dict[str, Any] | None:
        """What the last form left to be said; it is said once."""
        if visit is None or not visit.viewer.notice:
            return None
        self.sessions.leave_notice(visit.viewer.session_hash, "")
        notice: dict[str, Any] = json.loads(visit.viewer.notice)
        return notice

    def _problem(self, error: ServerError) -> Response:
        title = _TITLES.get(error.status, "That did not work")
        response = self.render(
            "problem.html", None, status=error.status, title=title, message=error.message
        )
        if error.retry_after is not None:
            response.headers["Retry-After"] = str(max(1, round(error.retry_after)))
        return response

    def _failure(self, error: Exception) -> Response:
        status = getattr(error, "code", None)
        if isinstance(status, int) and status < 500:
            return self._problem(
                InvalidError("the server did not take this request", status=status)
            )
        _log.error("a page failed", exc_info=error)
        return self._problem(ServerError("The server failed; its log says how."))


_TITLES: Final = {
    400: "Something is missing",
    403: "Not allowed",
    404: "Not found",
    409: "That cannot be done now",
    422: "Something is wrong in the form",
    429: "Too many attempts",
    500: "The server failed",
    503: "Busy for a moment",
}


def read_service_name(name: str) -> str:
    """
    A service's name as the API takes it.

    Raises:
        InvalidError: It is none.
    """
    try:
        return str(ServiceQuery(service_name=name).service_name)
    except ValueError:
        raise InvalidError("a service's name has 1 to 100 characters") from None


def _read_form(runtime: Runtime) -> None:
    """Read the form within its time, before anything is held for it."""
    with runtime.admission.bodies.reading(request.environ.get("gunicorn.socket")):
        request.form  # noqa: B018  the reading is what is wanted


def _from_the_root() -> Response | None:
    """Whoever opens the server's bare address finds the dashboard."""
    if request.path == "/" and request.method == "GET":
        response = redirect(address(""), 303)
        assert isinstance(response, Response)  # noqa: S101  flask's and ours are one class
        return response
    return None


def _finish(response: Response) -> Response:
    session_id = g.pop("new_session", None)
    if session_id is not None:
        guard.set_cookie(response, request, session_id)
    if g.pop("rendered", False) and "gzip" in request.headers.get("Accept-Encoding", ""):
        _compress(response)
    return guard.harden(response, secure=request.is_secure)


def _compress(response: Response) -> None:
    """
    Make a page small for slow lines.

    A secret beside text of the caller's choice can be guessed from lengths (BREACH) by whoever can
    send requests with the cookie; SameSite=Strict leaves that to the user alone.
    """
    body = response.get_data()
    if len(body) >= _WORTH_COMPRESSING:
        response.set_data(gzip.compress(body, 5))
        response.headers["Content-Encoding"] = "gzip"
        response.headers["Vary"] = "Accept-Encoding"
