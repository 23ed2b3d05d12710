"""The application for any WSGI server: `gunicorn lipservice_server.wsgi:app`."""

from __future__ import annotations

from lipservice_server.app import create_app, runtime_of
from lipservice_server.logs import set_up_logging

app = create_app()
set_up_logging(runtime_of(app).settings.log_level)
