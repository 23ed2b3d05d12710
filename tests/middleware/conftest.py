import pytest

from tests.middleware.stories import telling


@pytest.fixture
def story():
    """The application's log: see `Story`."""
    with telling() as told:
        yield told
