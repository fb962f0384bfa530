"""Tables whose fits have many minima: few runs, some twice, some spoiled; and starts to find them.

`benchmarks/optima.py` counts what is missed on them.
"""

from __future__ import annotations

import numpy as np
from referee import table

from scaling_nb.fit.problem import Problem

Runs = tuple[np.ndarray, np.ndarray, np.ndarray]


def subset(
    rng: np.random.Generator, name: str, *, fewest: int = 12, most: int | None = None
) -> Runs:
    """Return N, D and losses of some runs of a table, drawn anew, a part of them spoiled."""
    runs = table(name)
    size = len(runs) if most is None else min(most, len(runs))
    rows = rng.integers(0, len(runs), rng.integers(fewest, size + 1))
    loss = np.array(runs.L[rows])
    if rng.random() < 0.4:
        spoiled = rng.integers(0, len(loss), max(1, len(loss) // 10))
        loss[spoiled] *= rng.uniform(1.5, 6.0, len(spoiled))
    return runs.N[rows], runs.D[rows], loss


def random_law(rng: np.random.Generator) -> Runs:
    """Return N, D and losses of a law nobody published, with little or much noise."""
    k = int(rng.integers(8, 200))
    n = 10 ** rng.uniform(6, 6 + rng.uniform(0.5, 4), k)
    d = n * 10 ** rng.uniform(0, rng.uniform(0.5, 3), k)
    alpha, beta = rng.uniform(0.05, 1.2, 2)
    loss = (
        rng.choice([0.0, 0.5, 1.7])
        + rng.uniform(0.1, 3) * (n / np.exp(np.log(n).mean())) ** -alpha
        + rng.uniform(0.1, 3) * (d / np.exp(np.log(d).mean())) ** -beta
    )
    return n, d, loss * np.exp(10 ** rng.uniform(-4, -0.5) * rng.standard_normal(k))


def random_starts(problem: Problem, rng: np.random.Generator, n: int) -> np.ndarray:
    """Return starts all over the box of Chinchilla's law, shape (n, 5)."""
    exponents = np.exp(rng.uniform(np.log(0.006), np.log(2.9), (2, n)))
    scales = 2.0 * np.exp(rng.uniform(-6, 2, (2, n)))
    floors = rng.uniform(0, problem.observed.min(), n)
    return problem.free(np.column_stack([floors, *scales, *exponents]))
