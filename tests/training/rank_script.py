"""A person's script, unchanged, under ``torchrun``: the ranks share one store."""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers import TinyLM

import scaling_nb as snb

folder = Path(sys.argv[1])
warnings.simplefilter("ignore", snb.ScalingWarning)
result = snb.find_optimal(
    TinyLM,
    size="width",
    sizes=[4, 6, 8, 12],
    model_kwargs={"vocab_size": 16},
    dataset=np.random.default_rng(0).integers(0, 16, 100_000),
    tokens_per_sample=8,
    batch_size=8,
    optimizer={"lr": 1e-2},
    device="cpu",
    compute_budgets=[1e6, 2e6, 4e6],
    plan_options={"min_steps": 10, "tokens_per_param": (0.1, 1e6), "max_epochs": 10.0},
    store=folder / "runs.db",
    progress=False,
)
losses = dict(zip(result.runs.run_ids, result.runs.L.tolist(), strict=True))
(folder / f"rank{os.environ['RANK']}.json").write_text(json.dumps([losses, len(result.plan.runs)]))
