"""Flask: names by rule, streamed answers, files."""

import io
import wsgiref.util

import pytest

from tests.middleware.pages import need

need("flask")

import flask  # noqa: E402
from werkzeug.middleware.dispatcher import DispatcherMiddleware  # noqa: E402
from werkzeug.test import run_wsgi_app  # noqa: E402

from lipservice.middleware.wsgi import SamplingWSGIMiddleware  # noqa: E402
from lipservice.scope import current_scope  # noqa: E402
from tests.support.open_requests import open_requests  # noqa: E402


@pytest.fixture
def app(story):
    app = flask.Flask("story")
    app.logger.disabled = True
    app.scopes = []

    @app.get("/<kind>/<unit>")
    def view(kind, unit):
        app.scopes.append(current_scope())
        story(unit)
        if kind == "bad":
            raise LookupError(unit)
        return "fine"

    @app.get("/stream/<kind>/<unit>")
    def stream(kind, unit):
        app.scopes.append(current_scope())

        def parts():
            story(unit, "begin")
            yield flask.request.path  # the context of Flask's request is there, too
            story(unit, "work", "end")
            if kind == "bad":
                raise LookupError(unit)

        return flask.Response(flask.stream_with_context(parts()))

    @app.get("/file")
    def file():
        return flask.send_file(io.BytesIO(b"fine"), mimetype="text/plain")

    app.wsgi_app = SamplingWSGIMiddleware(app.wsgi_app)
    return app


def test_requests_are_called_by_their_rule_and_failed_ones_tell_their_story(app, story):
    client = app.test_client()
    assert client.get("/good/u1?key=secret").status_code == 200
    assert client.get("/bad/u2").status_code == 500

    story.check("u2")
    assert [scope.name for scope in app.scopes] == ["GET /<kind>/<unit>"] * 2


def test_a_streamed_answer_belongs_to_its_request(app, story):
    client = app.test_client()
    assert client.get("/stream/good/u1").data == b"/stream/good/u1"
    with pytest.raises(LookupError):
        client.get("/stream/bad/u2").get_data()

    story.check("u2")
    assert app.scopes[0].name == "GET /stream/<kind>/<unit>"
    assert not open_requests()


def test_a_path_that_no_rule_matches_is_called_by_itself():
    app = flask.Flask("story")
    seen = []
    app.register_error_handler(404, lambda error: (seen.append(current_scope()), 404) and ("", 404))
    app.wsgi_app = SamplingWSGIMiddleware(app.wsgi_app)
    app.test_client().get("/nowhere?key=secret")

    assert seen[0].name == "GET /nowhere"


def test_a_name_that_the_application_gives_stays():
    app = flask.Flask("story")
    seen = []

    @app.get("/<unit>")
    def view(unit):
        flask.request.environ["lipservice.request"].name = "checkout"
        seen.append(current_scope())
        return unit

    app.wsgi_app = SamplingWSGIMiddleware(app.wsgi_app)
    app.test_client().get("/u1")

    assert seen[0].name == "checkout"


def test_below_another_application_the_rule_is_the_name(app):
    outer = SamplingWSGIMiddleware(DispatcherMiddleware(flask.Flask("outer"), {"/shop": app}))
    environ = {"PATH_INFO": "/shop/good/u1"}
    wsgiref.util.setup_testing_defaults(environ)
    run_wsgi_app(outer, environ)

    assert app.scopes[0].name == "GET /<kind>/<unit>"


def test_a_file_is_still_sent_by_the_server(app):
    environ = {"PATH_INFO": "/file", "wsgi.file_wrapper": wsgiref.util.FileWrapper}
    wsgiref.util.setup_testing_defaults(environ)
    answer = app(environ, lambda *_: None)

    assert isinstance(answer, wsgiref.util.FileWrapper)
    answer.close()


def test_flask_s_test_client_still_keeps_its_context(app):
    with app.test_client() as client:
        client.get("/good/u1")
        assert flask.request.path == "/good/u1"
