"""
The dashboard: the server's own web page, rendered on the server, made of what the store tells.

`add_dashboard` is its one public name. Every page is declared through `pages.Pages`, which admits,
checks and hardens it; pages are in modules by what they are about, words and numbers in modules of
their own that know nothing of HTTP.
"""

from __future__ import annotations

from flask import Flask

from lipservice_server.dashboard import (
    assets,
    boosts,
    explaining,
    overview,
    patterns,
    people,
    policy,
)
from lipservice_server.dashboard.pages import Pages
from lipservice_server.runtime import Runtime

__all__ = ["add_dashboard"]


def add_dashboard(app: Flask, runtime: Runtime) -> None:
    """Add every page to *app*; nothing where the dashboard is turned off."""
    if runtime.settings.dashboard == "off":
        return
    pages = Pages(runtime)
    assets.add_assets(pages)
    people.add_people(pages)
    overview.add_overview(pages)
    patterns.add_patterns(pages)
    boosts.add_boosts(pages)
    policy.add_policy(pages)
    explaining.add_explaining(pages)
    app.register_blueprint(pages.blueprint)
