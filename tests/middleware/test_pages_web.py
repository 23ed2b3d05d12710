"""
The code of the web pages in docs/how-to/requests-in, run by their own commands: real servers with
two worker processes, and requests at the same time.
"""

import pytest

from tests.middleware.pages import Project, ask_concurrently, check_page, check_web, need

SERVERS = [
    ("wsgi", "gunicorn", 200),  # it fails while its answer is being sent
    ("flask", "gunicorn", 500),
    ("django", "gunicorn", 500),
    ("django", "uvicorn", 500),
    ("fastapi", "uvicorn", 500),
    ("starlette", "uvicorn", 200),  # it fails in its background task
    ("asgi", "uvicorn", 200),
]


@pytest.mark.parametrize(("page", "server", "fails"), SERVERS)
def test_a_page_s_application_tells_failed_requests_whole_and_good_ones_whole_or_not_at_all(
    page, server, fails, tmp_path
):
    need(server, "curl", *({page} & {"flask", "django", "fastapi", "starlette"}))
    project = Project(page, tmp_path)

    with project.web_server(server) as address:
        project.load_as_the_page_does(address)
        asked = ask_concurrently(address, 1000, fails=fails)

    stories = project.stories()
    check_page(stories, 100)
    check_web(stories, asked)
