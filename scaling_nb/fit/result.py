"""A fitted (or published) law: parameters, what the data cannot tell, and the answers it gives."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import FitError, counted
from ..laws import Constraints, Law, PowerLaw
from ..plain_text import plain_text
from ..records import TOKENS, RunTable
from .allocate import Question, answer, percentile_interval
from .allocation import Allocation, Interval, Scope
from .compute import SIX_ND, FlopModel, as_flops, learn_flops
from .frontier import log_tokens_for, optimum, reach
from .held_out import HeldOut
from .notes import FitWarning
from .objective import DEFAULT_DELTA
from .profile import Profile
from .serialise import decode, encode, read

if TYPE_CHECKING:
    import os

    import pandas as pd

Floats = NDArray[np.float64]
FitStatus = Literal["converged", "at_bound", "ill_conditioned", "not_identified", "published"]
"""What the data allow: ``converged``, everything is well determined. ``at_bound``: a parameter
ended on its bound. ``ill_conditioned``: a number came out, but small changes in the runs move it
far or to another optimum. ``not_identified``: the runs cannot tell. ``published``: from a paper."""
TableFormat = Literal["frame", "markdown", "latex"]
_DOUBTS: Mapping[str, str] = {
    "at_bound": "A parameter of the law ended on its bound.",
    "ill_conditioned": "The law is poorly determined by its runs.",
    "not_identified": "The runs do not identify this law.",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LawFit:
    """A law with numbers.

    Attributes
    ----------
    law : Law
    params : mapping of str to float
        Raw units: N in parameters, D in tokens, C in FLOP.
    intervals : mapping of str to (low, high)
        Bootstrap percentiles at ``level``; empty without a bootstrap.
    status : str
        See :data:`FitStatus`.
    warnings : tuple of FitWarning
    objective : str
        ``"log-huber"``, ``"mse"``, or the method's name.
    delta : float
        δ of the Huber loss.
    objective_value : float
        Sum over runs.
    n_runs : int
    data_hash : str
        Content hash of the N, D, C and losses that were fitted.
    source : str
        Paper and table of a published law.
    samples : ndarray, shape (n_samples, n_params), or None
        Bootstrap sample of the parameters.
    resampled : str
        What was resampled: ``"runs"``, ``"groups"``, ``"linearised"`` or empty.
    scope : Scope or None
        Ranges of N, D and C among the runs.
    runs : RunTable or None
        The runs, excluded ones with their reasons.
    excluded : mapping of str to str
        Reason by run_id for each run that was left out; it survives :meth:`to_json`.
    constraints : Constraints
        What was held still.
    flops : FlopModel
        How answers turn N and D into C.
    level : float
        Of every interval.
    profiles : mapping of str to Profile
        Profile likelihood of E and of the exponent a (``"exponent_N"``); empty without a
        bootstrap.
    held_out : HeldOut or None
        How well the smaller budgets predict the largest; None without a bootstrap.
    """

    law: Law
    params: Mapping[str, float]
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    status: FitStatus
    warnings: tuple[FitWarning, ...] = ()
    objective: str = ""
    delta: float = DEFAULT_DELTA
    objective_value: float = float("nan")
    n_runs: int = 0
    data_hash: str = ""
    source: str = ""
    samples: Floats | None = field(default=None, repr=False)
    resampled: str = ""
    scope: Scope | None = None
    runs: RunTable | None = field(default=None, repr=False)
    excluded: Mapping[str, str] = field(default_factory=dict, repr=False)
    constraints: Constraints = field(default_factory=Constraints)
    flops: FlopModel = SIX_ND
    level: float = 0.90
    profiles: Mapping[str, Profile] = field(default_factory=dict, repr=False)
    held_out: HeldOut | None = None

    @property
    def unit(self) -> str:
        """What D counts, as the runs say; "tokens" where there were none."""
        return self.scope.unit if self.scope else TOKENS

    @property
    def rows(self) -> Floats:
        """Parameters, then the bootstrap sample, shape (1 + n_samples, n_params)."""
        point = np.array([[self.params[name] for name in self.law.param_names]])
        return point if self.samples is None else np.concatenate([point, self.samples])

    @property
    def profile_intervals(self) -> dict[str, Interval]:
        """90 % intervals of E and of the exponent a (``"exponent_N"``) from their profiles."""
        return {name: item.interval for name, item in self.profiles.items()}

    @property
    def exponent_N(self) -> float:
        """A in N* ∝ C^a: β / (α + β)."""
        front = self.law.frontier(self.params)
        return float(front.beta / (front.alpha + front.beta))

    @property
    def exponent_D(self) -> float:
        """B in D* ∝ C^b: α / (α + β)."""
        return 1.0 - self.exponent_N

    @property
    def exponent_N_interval(self) -> Interval | None:
        """Bootstrap interval of a at ``level``; None without a bootstrap."""
        sample = self.exponent_N_samples
        return None if sample is None else percentile_interval(sample, self.level)

    @property
    def exponent_N_samples(self) -> Floats | None:
        """Bootstrap sample of a, shape (n_samples,)."""
        if self.samples is None:
            return None
        columns = dict(zip(self.law.param_names, self.samples.T, strict=True))
        front = self.law.frontier(columns)
        return np.asarray(front.beta / (front.alpha + front.beta), float)

    def predict(
        self,
        N: ArrayLike | None = None,
        D: ArrayLike | None = None,
        *,
        C: ArrayLike | None = None,
        unique_tokens: ArrayLike | None = None,
    ) -> Any:
        """Return the predicted loss; a float for scalars. See :meth:`Law.predict`."""
        loss = self.law.predict(self.params, N, D, C=C, unique_tokens=unique_tokens)
        return float(loss) if loss.ndim == 0 else loss

    def predict_interval(
        self,
        N: ArrayLike | None = None,
        D: ArrayLike | None = None,
        *,
        C: ArrayLike | None = None,
        unique_tokens: ArrayLike | None = None,
    ) -> tuple[Any, Any]:
        """Return the ends of the bootstrap interval of :meth:`predict`, at ``level``.

        Of the law, not of a single run, which scatters about it. In the shape of the inputs and
        the unit of the fit's losses; NaN without a bootstrap.
        """
        given = (None if x is None else np.asarray(x, float) for x in (N, D, C, unique_tokens))
        n, d, c, unique = given
        shape = np.broadcast_shapes(*(x.shape for x in (n, d, c, unique) if x is not None))
        if self.samples is None:
            return (np.full(shape, np.nan)[()],) * 2
        columns = self.samples.T.reshape(*self.samples.T.shape, *(1,) * len(shape))
        params = dict(zip(self.law.param_names, columns, strict=True))
        loss = self.law.predict(params, n, d, C=c, unique_tokens=unique)
        low, high = np.quantile(loss, self._edges, axis=0)
        return low[()], high[()]

    def residuals(self) -> Floats:
        """Return ln L - ln L̂ of the runs that count, shape (n_runs,).

        Raises
        ------
        FitError
            If the fit has no runs with it.
        """
        if self.runs is None:
            raise FitError("this law has no runs with it. Fit a table of runs to see residuals.")
        inputs: dict[str, Any] = {name: self.runs.column(name) for name in self.law.inputs}
        predicted = self.law.loss(self.params, inputs)
        return np.asarray(np.log(self.runs.L) - np.log(predicted), float)

    def allocate(
        self,
        compute: float,
        *,
        max_tokens: float | None = None,
        max_epochs: float | None = None,
        inference_tokens: float = 0.0,
        n_params: float | None = None,
        n_tokens: float | None = None,
        within: float = 0.005,
        flops: FlopModel | str | float | Callable[[Floats], Floats] | None = None,
    ) -> Allocation:
        """Divide a compute budget between model size and tokens.

        Minimises L(N, D) under C = k·N·D, with k = 6 unless told otherwise.

        Parameters
        ----------
        compute : float, FLOP
        max_tokens : float, tokens
            Unique tokens there are; beyond them data repeat, and repeats are worth less
            (Muennighoff et al. 2023). `max_epochs` limits the repeats.
        inference_tokens : float, tokens
            Tokens the model will serve: the loss stays that of the compute-optimal model, and
            training plus inference FLOP, k·N·D + 2·N·tokens, are least (Sardana et al. 2023).
        n_params, n_tokens : float
            Hold one of them; the answer says what that costs in loss and compute.
        within : float
            Relative loss for the range of nearly optimal sizes.
        flops : FlopModel, "6ND", "counted", float or callable
            How N and D make C = k·N·D: k, a callable that returns k(N), or ``"counted"``, which
            learns k(N) from the runs' own C. Default: the fit's own.

        Returns
        -------
        Allocation
            N, D, loss and tokens per parameter with their intervals, the sizes that are nearly as
            good, how far this extrapolates, and what the fit's doubts mean for it.

        Raises
        ------
        FitError
            If the law does not speak of N and D, or the question contradicts itself.
        """
        model = self._flops(flops)
        question = Question(
            compute=compute,
            max_tokens=max_tokens,
            max_epochs=max_epochs,
            inference_tokens=inference_tokens,
            n_params=n_params,
            n_tokens=n_tokens,
            within=within,
        )
        found = answer(self.law, self.rows, question, model, scope=self.scope, level=self.level)
        found = replace(found, held_out=self.held_out)
        if self.status == "published":
            return replace(found, notes=(*self.warnings, *found.notes))
        if self.status not in _DOUBTS:
            return found
        doubt = FitWarning(
            code=self.status,
            message=_DOUBTS[self.status],
            remedy="See fit.warnings before relying on this answer.",
        )
        return replace(found, notes=(doubt, *found.notes))

    def optimal(
        self,
        compute: ArrayLike,
        *,
        flops: FlopModel | str | float | Callable[[Floats], Floats] | None = None,
    ) -> tuple[Floats, Floats]:
        """Return compute-optimal N and D for an array of budgets, without intervals."""
        n, d = optimum(self.law, self.params, np.asarray(compute, float), self._flops(flops))
        return np.asarray(n, float), np.asarray(d, float)

    def flops_to_reach(self, loss: float) -> float:
        """Return the least compute, in FLOP, at which the law reaches `loss`.

        Raises
        ------
        FitError
            If the loss is not above the irreducible loss.
        """
        compute = float(self._least_compute(self.params, loss))
        if not np.isfinite(compute):
            raise FitError(
                f"no compute reaches a loss of {loss:g}: the fitted irreducible loss is "
                f"{self.params.get('E', 0.0):.4g}. Ask for a loss above it."
            )
        return compute

    def flops_to_reach_interval(self, loss: float) -> Interval:
        """Return the bootstrap interval of :meth:`flops_to_reach`; inf where E exceeds `loss`."""
        columns = dict(zip(self.law.param_names, self.rows[1:].T, strict=True))
        compute = np.nan_to_num(self._least_compute(columns, loss), nan=np.inf)
        if not len(compute):
            return np.nan, np.nan
        low, high = np.quantile(compute, self._edges, method="nearest")
        return float(low), float(high)

    @property
    def _edges(self) -> tuple[float, float]:
        return 0.5 * (1 - self.level), 0.5 * (1 + self.level)

    def _least_compute(self, params: Mapping[str, Any], loss: float) -> Any:
        """Return the least compute that reaches `loss`; NaN where none does."""
        if isinstance(self.law, PowerLaw) and self.law.x == "C":
            return self.law.reach(params, loss)
        n, d = reach(self.law, params, loss, self.flops)
        return self.flops.compute(n, d)

    def iso_loss(self, loss: float, n_params: ArrayLike) -> Floats:
        """Return the tokens D that reach `loss` at each size; inf where none do."""
        log_n = np.log(np.asarray(n_params, float))
        with np.errstate(invalid="ignore"):
            excess = np.log(self.law.excess(self.params, loss))
            log_d = log_tokens_for(self.law.frontier(self.params), excess, log_n)
        return np.exp(np.where(np.isnan(log_d), np.inf, log_d))

    def chinchilla_table(
        self, budgets: Sequence[float] | None = None, *, format: TableFormat = "frame"
    ) -> Any:
        """Return compute-optimal N, D, loss and tokens per parameter, with intervals, by budget.

        Parameters
        ----------
        budgets : sequence of float, FLOP
            Default: decades from the smallest run's to a hundred times the largest run's.
        format : {"frame", "markdown", "latex"}
            A DataFrame, or text.
        """
        from .table import chinchilla_table, decades

        asked = decades(self.scope) if budgets is None else budgets
        return chinchilla_table([self.allocate(c) for c in asked], format=format)

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return the fit as JSON, with the data's content hash; write it if `path` is given."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        text = json.dumps(encode(values), indent=1)
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    @classmethod
    def from_json(cls, source: str | os.PathLike[str]) -> Self:
        """Read what :meth:`to_json` wrote: the text itself, or a path to it."""
        return cls(**decode(read(source)))

    def with_flops(self, flops: FlopModel | str | float | Callable[[Floats], Floats]) -> Self:
        """Return the same fit with another way of turning N and D into C."""
        return replace(self, flops=self._flops(flops))

    def _flops(
        self, flops: FlopModel | str | float | Callable[[Floats], Floats] | None
    ) -> FlopModel:
        runs = self.runs
        learn = None if runs is None else (lambda: learn_flops(runs.N, runs.D, runs.C))
        return self.flops if flops is None else as_flops(flops, learn)

    def summary(self) -> pd.DataFrame:
        """Return parameters and intervals, one row each, with the exponents of N* and D*."""
        from .table import parameter_frame

        two = self.law.answers_allocation
        return parameter_frame(
            self.law,
            self.params,
            self.intervals,
            fixed=self.constraints.fixed,
            exponent=(self.exponent_N, self.exponent_N_interval) if two else None,
        )

    _repr_pretty_ = plain_text

    def __str__(self) -> str:
        lines = [f"{self.law.name}: {self.law.formula}", self._about()]
        for name, value in self.params.items():
            interval = self.intervals.get(name)
            shown = (
                f"  ({100 * self.level:.0f} %: {interval[0]:.4g} to {interval[1]:.4g})"
                if interval
                else ""
            )
            lines.append(f"  {name:<9}{value:<12.6g}{shown}")
        return "\n".join([*lines, *(f"! {note}" for note in self.warnings)])

    def _about(self) -> str:
        # A published law has no runs and no objective.
        runs = counted(self.n_runs, "run") if self.n_runs else ""
        return " · ".join(part for part in (self.status, runs, self.objective, self.source) if part)

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={value:.4g}" for name, value in self.params.items())
        runs = f", {counted(self.n_runs, 'run')}" if self.n_runs else ""
        return f"<LawFit {self.law.name}: {values}; {self.status}{runs}>"

    def _repr_html_(self) -> str:
        notes = "".join(f"<li>{escape(str(note))}</li>" for note in self.warnings)
        return (
            f"<p><b>{escape(self.law.name)}</b> {escape(self.law.formula)}<br>"
            f"{escape(self._about())}</p>"
            f"{self.summary().to_html(index=False, float_format='{:.4g}'.format)}"
            f"{'<ul>' + notes + '</ul>' if notes else ''}"
        )
