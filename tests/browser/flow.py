"""Cells that browser tests run, and what they wait for."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).parents[1]

TABLE = """
import scaling_nb as snb
from scaling_nb.simulation import IsoFlopDesign
law = snb.published["besiroglu_2024"]
runs = snb.simulate(law, IsoFlopDesign(budgets=(1e17, 3e17, 1e18, 3e18)), noise=0.003)
dash = snb.Dashboard(runs=runs, target=1e20)
dash
"""
SWEEP = f"""
import sys
sys.path.insert(0, {str(TESTS)!r})
import threading
import numpy as np, scaling_nb as snb
from torch.nn import functional
from helpers import TinyLM, tiny_plan
# A test that looks at runs while they train clears this, so that they take their time.
hurry = threading.Event()
hurry.set()
def loss_fn(logits, targets):
    hurry.wait(0.02)
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
rng = np.random.default_rng(0)
tokens = (np.cumsum(rng.choice([1, 1, 1, 2, 3], size=40_000)) % 11).astype(np.uint8)
recipe = snb.Recipe(
    TinyLM, size="width", sizes=[2, 4, 8, 16, 32], model_kwargs={{"vocab_size": 11}},
    dataset=tokens, batch_size=4, tokens_per_sample=8, loss_fn=loss_fn, optimizer={{"lr": 1e-2}},
    warmup_steps=5, eval_tokens=512,
)
"""
NEW = (
    SWEEP
    + """
dash = snb.Dashboard(recipe, plan=tiny_plan(recipe, (4e6, 8e6, 1.6e7)), store="NAME.db")
dash
"""
)
AGAIN = (
    SWEEP
    + """
dash = snb.Dashboard.open("NAME.db", recipe)
dash
"""
)
ANSWER = "() => document.querySelector('.snb-answer b')?.textContent.startsWith('C =')"
DRAWN = """(n) => {
  const charts = [...document.querySelectorAll('.snb-chart')].filter((e) => e.offsetParent);
  return charts.length === n && charts.every((e) => e.dataset.drawn);
}"""


def wait(lab, script, argument=None, timeout=60_000):
    lab.page.wait_for_function(script, arg=argument, timeout=timeout)


def answer(lab) -> str:
    """Return the answer in its final words: intervals of few resamples are shown before."""
    wait(
        lab,
        "() => !document.querySelector('.snb-panel').textContent.includes('refining the intervals')"
        " && document.querySelector('.snb-answer b')",
    )
    return lab.page.inner_text(".snb-answer")


def status_says(lab, word, timeout=120_000):
    wait(
        lab,
        "(word) => document.querySelector('.snb-status')?.textContent.includes(word)",
        word,
        timeout,
    )


def assert_clean(lab):
    assert lab.outside == []
    assert lab.errors == []
