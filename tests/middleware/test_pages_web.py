"""
The code of the web pages in docs/how-to/requests-in, run by their own commands: real servers with
two worker processes, and requests at the same time.
"""

import re

import pytest

from tests.middleware.pages import PAGES, Project, ask_concurrently, check_page, check_web, need

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


def test_an_access_log_that_is_handed_over_is_kept_or_dropped_with_its_request(tmp_path):
    """By the two snippets of docs/how-to/middleware.md, "The access log"."""
    need("uvicorn", "fastapi", "curl")
    text = (PAGES.parent / "middleware.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text.split("## The access log")[1], re.DOTALL)
    project = Project("fastapi", tmp_path)
    project.replace("app.add_middleware(SamplingASGIMiddleware)\n", blocks[0])
    with (tmp_path / "app.py").open("a", encoding="utf-8") as file:
        file.write(blocks[1])
    project.commands = [line.replace("app:app", "app:served") for line in project.commands]

    with project.web_server("uvicorn") as address:
        failed, kept, dropped = ask_concurrently(address, 1000)

    logged = re.findall(r'"GET /cart/(\d+) HTTP/1.1" (\d+)', project.log.read_text("utf-8"))
    assert sorted((int(number), code) for number, code in logged) == sorted(
        [*((number, "200") for number in kept), *((number, "500") for number in failed)]
    )
    assert dropped
    check_web(project.stories(), (failed, kept, dropped))
