"""One training curve: loss against tokens, and whether its points are worth comparing.

A loss read off in the middle of a schedule is higher than that of a run whose learning rate had
decayed by then (Hoffmann et al. 2022, §3.1 and appendix B). So a curve says which it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import RunsError
from .records import TOKENS, RunTable

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Curve:
    """The losses of one run along the way.

    Attributes
    ----------
    run_id : str
    N : float, parameters
    tokens : ndarray, shape (n_points,), tokens
        Seen so far, strictly ascending.
    loss : ndarray, shape (n_points,), nats per token
    flops : ndarray, shape (n_points,), FLOP
        Spent so far.
    decayed : bool
        True if every point is the loss of a schedule that had decayed by then, such as one
        cooldown for each point; False for a curve as it is logged, where only the end counts.
    unit : str
        What ``tokens`` counts, as the table of runs says.
    """

    run_id: str
    N: float
    tokens: Array = field(repr=False)
    loss: Array = field(repr=False)
    flops: Array = field(repr=False)
    decayed: bool = False
    unit: str = TOKENS

    def __post_init__(self) -> None:
        for name in ("tokens", "loss", "flops"):
            values = np.array(getattr(self, name), dtype=float)
            values.flags.writeable = False
            object.__setattr__(self, name, values)
        if not self.tokens.shape == self.loss.shape == self.flops.shape or self.tokens.ndim != 1:
            raise RunsError(
                f"curve {self.run_id!r} has tokens {self.tokens.shape}, loss {self.loss.shape} and "
                f"flops {self.flops.shape}. Give it three arrays of one length."
            )
        if (np.diff(self.tokens) <= 0).any() or not self.N > 0:
            raise RunsError(
                f"curve {self.run_id!r} needs N > 0 and tokens that ascend. Sort its points, and "
                "drop those that were logged twice."
            )

    @classmethod
    def of(
        cls,
        run_id: str,
        n_params: float,
        tokens: ArrayLike,
        loss: ArrayLike,
        *,
        flops_per_token: float | None = None,
        decayed: bool = False,
        unit: str = TOKENS,
    ) -> Self:
        """Make a curve from what is logged, FLOP being tokens × FLOP per token (default 6·N)."""
        seen = np.asarray(tokens, float)
        per_token = 6.0 * n_params if flops_per_token is None else flops_per_token
        return cls(
            run_id=run_id,
            N=float(n_params),
            tokens=seen,
            loss=np.asarray(loss, float),
            flops=seen * per_token,
            decayed=decayed,
            unit=unit,
        )


def curves_of(
    runs: RunTable,
    logged: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    decayed: bool = False,
) -> tuple[Curve, ...]:
    """Return the curves of the runs that count, from what a store has logged.

    Parameters
    ----------
    runs : RunTable
        Gives N, and FLOP per token as C / D.
    logged : mapping of run_id to (tokens, loss)
        Runs without an entry are left out. Where a resumed run has logged the same tokens twice,
        the later loss counts.
    decayed : bool
        See :class:`Curve`.
    """
    curves = []
    for run in runs:
        tokens, loss = (np.asarray(x, float) for x in logged.get(run.run_id, ((), ())))
        last = len(tokens) - 1 - np.unique(tokens[::-1], return_index=True)[1]
        if len(last):
            curves.append(
                Curve.of(
                    run.run_id,
                    run.N,
                    tokens[last],
                    loss[last],
                    flops_per_token=run.C / run.D,
                    decayed=decayed,
                    unit=runs.unit,
                )
            )
    return tuple(curves)
