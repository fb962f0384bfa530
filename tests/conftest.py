"""Small real models and data that train in milliseconds."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

# Tiny models are slower with more threads, and the machine may be busy.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Clusters that tests start on this machine need no tokens, and the processes must agree on that.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")
# A shell that starts tests in the background lets them ignore interrupts, and all they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
# No clock decides a test, and a run of the tests finds what the last one found; for what it does
# not find there is `pytest --hypothesis-profile explore`.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None)
settings.load_profile("steady")
# Test helpers live beside the tests, and importlib mode adds no folder to the path.
sys.path.insert(0, str(Path(__file__).parent))


def pytest_configure(config: pytest.Config) -> None:
    """Have processes that share the tests begin with the browser's, as collected.

    By itself xdist begins with files of many tests, and ends waiting for those of a few long ones.
    """
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


@pytest.fixture
def tokens() -> np.ndarray:
    """Token ids of a first-order Markov chain over 11 symbols: learnable, and instant."""
    rng = np.random.default_rng(0)
    steps = rng.choice([1, 1, 1, 2, 3], size=40_000)
    return (np.cumsum(steps) % 11).astype(np.uint8)


@pytest.fixture
def tiny_recipe(tokens):
    """A recipe that trains a step in about a millisecond."""
    from helpers import TinyLM

    from scaling_nb import Recipe

    return Recipe(
        TinyLM,
        size="width",
        sizes=[2, 4, 8, 16],
        model_kwargs={"vocab_size": 11},
        dataset=tokens,
        batch_size=4,
        tokens_per_sample=8,
        optimizer={"lr": 1e-2},
        warmup_steps=5,
        eval_tokens=512,
    )
