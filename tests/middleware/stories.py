"""An application's log at the rate 0: only of a failed unit of work anything is seen."""

from __future__ import annotations

import contextlib
import gc
import logging
import random

from lipservice.integrations.stdlib import SamplingFilter
from lipservice.policy import SamplingPolicy
from lipservice.sampler import AdaptiveSampler
from tests.support.open_requests import open_requests

STEPS = ("begin", "work", "end")


class Story:
    """The application's logger, and what its handler got."""

    def __init__(self, sampler):
        self.written = []
        self._handler = logging.Handler()
        self._handler.emit = lambda record: self.written.append(record.getMessage())
        self._handler.addFilter(SamplingFilter(sampler=sampler))
        self.logger = logging.getLogger("middleware.story")
        self.logger.setLevel(logging.DEBUG)
        self.logger.propagate = False
        self.logger.addHandler(self._handler)

    def __call__(self, unit, *steps):
        """Tell *steps* of *unit*, or a whole story."""
        for step in steps or STEPS:
            self.logger.info("%s of %s", step, unit)

    def check(self, *failed):
        """Exactly the failed units told their story, each whole and in order."""
        for unit in failed:
            own = [line for line in self.written if line.endswith(f" of {unit}")]
            assert own == [f"{step} of {unit}" for step in STEPS], unit
        assert len(self.written) == len(STEPS) * len(failed), self.written

    def detach(self):
        self.logger.removeHandler(self._handler)


@contextlib.contextmanager
def telling():
    """A `Story`; afterwards no request may be open."""
    sampler = AdaptiveSampler(
        policy=SamplingPolicy(sampling_rate=0.0, keep_first=0), notices=False, rng=random.Random(1)
    )
    story = Story(sampler)
    try:
        yield story
    finally:
        story.detach()
        sampler.shutdown()
    if open_requests():
        gc.collect()  # what a traceback holds
    assert not open_requests()
