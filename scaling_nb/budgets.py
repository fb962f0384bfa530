"""IsoFLOP budgets read off the runs' compute, where no column names them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SLICE_SPREAD = 1.35
"""Runs of one IsoFLOP slice lie within this factor of each other in C."""
MIN_SLICE_SIZES = 3
MIN_SLICED_SHARE = 0.75
"""Share of the runs that must fall into slices before a table counts as IsoFLOP."""
_MIN_JUMP = 2.0
_MIN_GAP = 0.05
_NOISE_GAP = 1e-4


def infer_budgets(n_params: Array, compute: Array) -> Array:
    """Return each run's IsoFLOP budget, by clustering ln C; all NaN where C does not cluster.

    ln C is cut where the sorted gaps between neighbours jump by the largest factor; the cut
    stands if clusters span less than :data:`SLICE_SPREAD`, have three sizes, and hold most runs.

    Parameters
    ----------
    n_params : ndarray, shape (n_runs,), parameters
    compute : ndarray, shape (n_runs,), FLOP

    Returns
    -------
    ndarray, shape (n_runs,), FLOP
        The cluster's geometric mean, rounded to three digits; NaN outside every cluster.
    """
    budgets = np.full(len(compute), np.nan)
    if len(compute) < MIN_SLICE_SIZES:
        return budgets
    order = np.argsort(compute, kind="stable")
    log_c = np.log(compute[order])
    log_n = np.round(np.log(n_params[order]), 3)
    gaps = np.diff(log_c)
    ends = [0, *(np.flatnonzero(gaps > _cut(gaps)) + 1).tolist(), len(order)]
    for lo, hi in pairwise(ends):
        n_sizes = len(set(log_n[lo:hi].tolist()))
        if log_c[hi - 1] - log_c[lo] <= np.log(SLICE_SPREAD) and n_sizes >= MIN_SLICE_SIZES:
            budgets[order[lo:hi]] = float(f"{np.exp(log_c[lo:hi].mean()):.3g}")
    if np.isfinite(budgets).mean() < MIN_SLICED_SHARE:
        return np.full(len(compute), np.nan)
    return budgets


def _cut(gaps: Array) -> float:
    """Return the gap in ln C that separates slices."""
    width = np.sort(np.maximum(gaps, _NOISE_GAP))
    jumps = np.where(width[1:] > _MIN_GAP, width[1:] / width[:-1], 0.0)
    if not len(jumps) or jumps.max() < _MIN_JUMP:
        return float(np.log(SLICE_SPREAD))
    at = int(np.argmax(jumps))
    return float(np.sqrt(width[at] * width[at + 1]))
