"""The Chinchilla law over runs with noise, as a solver sees it."""

from __future__ import annotations

import numpy as np

from scaling_nb.fit.objective import Objective
from scaling_nb.fit.problem import make_problem
from scaling_nb.laws import ChinchillaLaw, Constraints

LAW = ChinchillaLaw()


def problem(objective="log-huber", *, seed=0, n=40, floor=1.7, constraints=None):
    """Return a problem, the grid's starts and weights of one."""
    rng = np.random.default_rng(seed)
    inputs = {"N": 10 ** rng.uniform(7, 10, n), "D": 10 ** rng.uniform(9, 11, n)}
    params = {"E": floor, "A": 400.0, "B": 1500.0, "alpha": 0.34, "beta": 0.37}
    loss = LAW.loss(params, inputs) * np.exp(0.02 * rng.standard_normal(n))
    constraints = constraints or Constraints()
    surface = LAW.surface(inputs, constraints)
    made = make_problem(surface, LAW.param_names, loss, Objective(objective), constraints)
    return made, made.free(surface.starts(loss, np.ones(n), constraints)), np.ones(n)
