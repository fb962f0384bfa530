"""A small sweep in a process of its own, which tests kill: STORE, and how often to checkpoint."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))


def recipe(sizes=(2, 4, 8)):
    import numpy as np
    from helpers import TinyLM

    from scaling_nb import Recipe

    steps = np.random.default_rng(0).choice([1, 1, 1, 2, 3], size=40_000)
    tokens = (np.cumsum(steps) % 11).astype(np.uint8)
    return Recipe(TinyLM, size="width", sizes=sizes, model_kwargs={"vocab_size": 11},
                  dataset=tokens, batch_size=4, tokens_per_sample=8, flops="6ND",
                  optimizer={"lr": 1e-2}, warmup_steps=5, eval_tokens=512)  # fmt: skip


def plan_of(recipe, factor=1):
    from helpers import tiny_plan

    return tiny_plan(recipe, [factor * b for b in (1e6, 2e6, 4e6)], reuse="cooldown")


def train(store: str, factor: float = 1.0, every: float = 0.02) -> None:
    from scaling_nb import Sweep

    made = recipe()
    sweep = Sweep(made, plan_of(made, factor), store=store, checkpoint_every=every).start()
    print("training", flush=True)
    sweep.wait()
    print("done", flush=True)


if __name__ == "__main__":
    train(sys.argv[1], *map(float, sys.argv[2:]))
