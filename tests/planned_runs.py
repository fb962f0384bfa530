"""Exact runs of a known law at planned budgets, seven sizes around each minimum."""

from __future__ import annotations

import numpy as np
import pandas as pd

from scaling_nb import ChinchillaLaw, RunTable

LAW = ChinchillaLaw()
TRUE = {"E": 1.7, "A": 400.0, "B": 1500.0, "alpha": 0.34, "beta": 0.37}


def runs(shift: float = 0.0, budgets=(1e18, 1e19, 1e20), **more) -> RunTable:
    sizes, tokens, planned = [], [], []
    for budget in budgets:
        best = np.sqrt(budget / 6 / 12)
        n = best * np.exp(np.linspace(-1.5, 1.5, 7) + shift)
        sizes.append(n)
        tokens.append(budget / 6 / n)
        planned.append(np.full(7, budget))
    n, d = np.concatenate(sizes), np.concatenate(tokens)
    columns = {"N": n, "D": d, "loss": LAW.predict(TRUE, n, d), "budget": np.concatenate(planned)}
    return RunTable.from_frame(pd.DataFrame({**columns, **more}))
