"""How big a model and how many tokens for a budget: the answers, each with its interval.

Everything here works on rows of parameters, shape (n_rows, n_params): the first row is the
fit, the others its bootstrap sample. So an answer and its interval come from one formula.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import FitError
from ..laws import DataConstrainedLaw, Law
from ..records import TOKENS
from .allocation import Allocation, Interval, Scope
from .compute import FlopModel, positive
from .frontier import column, log_tokens_for, near_optimal, optimum, reach, zoom
from .notes import FitWarning

Floats = NDArray[np.float64]

PUBLISHED_REPEATS = {"R_D_star": 15.387756, "R_N_star": 5.309743}
"""Worth of repeated tokens, Muennighoff et al. 2023, table of appendix A: used where a fit says
nothing about repeats."""


FAR = 10.0
"""Extrapolation factor in compute beyond which an answer carries a note."""
WIDE = 30.0
"""Ratio of an interval's ends beyond which it says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of a fit at one budget; the arguments of :meth:`LawFit.allocate`."""

    compute: float
    max_tokens: float | None = None
    max_epochs: float | None = None
    inference_tokens: float = 0.0
    n_params: float | None = None
    n_tokens: float | None = None
    within: float = 0.005

    def __post_init__(self) -> None:
        object.__setattr__(self, "compute", positive("compute", self.compute))
        for name in ("max_tokens", "max_epochs", "n_params", "n_tokens", "within"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, positive(name, getattr(self, name)))
        if self.inference_tokens != 0:
            positive("inference_tokens", self.inference_tokens)
        if self.max_epochs is not None and self.max_tokens is None:
            raise FitError(
                "max_epochs limits how often max_tokens are repeated. Give max_tokens, the unique "
                "tokens there are, as well."
            )
        asked = [
            name
            for name in ("max_tokens", "inference_tokens", "n_params", "n_tokens")
            if getattr(self, name)
        ]
        if len(asked) > 1:
            raise FitError(
                f"{' and '.join(asked)} were asked for together, but each changes what is "
                "optimal. Ask for one of them at a time."
            )


# A row whose law has no optimum gives inf or NaN, and disturbs no other.
@np.errstate(all="ignore")
def solve(law: Law, rows: Floats, question: Question, flops: FlopModel) -> dict[str, Floats]:
    """Answer one question for every row of parameters.

    Returns
    -------
    mapping of str to ndarray, shape (n_rows,)
        ``n_params, n_tokens, loss, compute, unique``.
    """
    params = {name: rows[:, i] for i, name in enumerate(law.param_names)}
    compute = question.compute
    n, d = (np.array(x, float) for x in optimum(law, params, compute, flops))
    unique, capped = None, np.zeros(len(rows), dtype=bool)
    if question.n_params is not None:
        n = np.full(len(rows), float(question.n_params))
        d = np.broadcast_to(flops.tokens(compute, n), n.shape)
    elif question.n_tokens is not None:
        d = np.full(len(rows), float(question.n_tokens))
        n = np.full(len(rows), _size_for(compute, float(question.n_tokens), flops))
    elif question.max_tokens is not None:
        unique = np.minimum(d, question.max_tokens)
        capped = d > question.max_tokens
        if capped.any():
            n_capped, d_capped = _with_repeats(law, rows[capped], question, flops)
            n[capped], d[capped] = n_capped, d_capped
    elif question.inference_tokens:
        n, d = _with_inference(law, params, question, flops, n)
    loss = np.array(law.predict(params, n, d))
    if unique is not None and capped.any():
        extended = {
            name: value[capped] if np.ndim(value) else value
            for name, value in _with_repeat_law(law, params).items()
        }
        inputs = {"N": n[capped], "D": d[capped], "unique_tokens": unique[capped]}
        loss[capped] = DataConstrainedLaw().loss(extended, inputs)
    return {
        "n_params": n,
        "n_tokens": np.asarray(d, float),
        "loss": np.asarray(loss, float),
        "compute": np.asarray(flops.compute(n, d), float),
        "unique": np.asarray(d if unique is None else unique, float),
    }


def _size_for(compute: float, n_tokens: float, flops: FlopModel) -> float:
    """Solve k(N)·N·D = C for N by bisection of ln N; k(N)·N grows with N."""
    if flops.is_constant:
        return compute / (flops.constant * n_tokens)
    low, high = 0.0, 100.0
    for _ in range(200):
        middle = 0.5 * (low + high)
        too_big = flops.compute(np.exp(middle), n_tokens) > compute
        low, high = (low, middle) if too_big else (middle, high)
    return float(np.exp(0.5 * (low + high)))


def _with_repeat_law(law: Law, params: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(law, DataConstrainedLaw):
        return dict(params)
    return {**params, **PUBLISHED_REPEATS}


def _with_repeats(
    law: Law, rows: Floats, question: Question, flops: FlopModel
) -> tuple[Floats, Floats]:
    """Return N and D where unique tokens are capped and may be repeated."""
    if not {"E", "A", "B", "alpha", "beta"} <= set(law.param_names):
        raise FitError(
            f"{law.name} has no form for repeated tokens. Use max_tokens with ChinchillaLaw or "
            "DataConstrainedLaw."
        )
    cap = float(question.max_tokens or 0.0)
    params = {name: rows[:, i, None] for i, name in enumerate(law.param_names)}
    extended = _with_repeat_law(law, params)
    repeated = DataConstrainedLaw()
    log_n, _ = (np.log(x) for x in optimum(law, _flat(params), question.compute, flops))
    at_cap = np.log(_size_for(question.compute, cap, flops))
    least = log_n - 8.0
    if question.max_epochs is not None:
        floor = np.log(_size_for(question.compute, cap * max(1.0, question.max_epochs), flops))
        least = np.full(len(rows), floor)
    most = np.full(len(rows), at_cap)

    def cost(points: Floats) -> Floats:
        n = np.exp(points)
        tokens = flops.tokens(question.compute, n)
        return np.asarray(
            repeated.loss(extended, {"N": n, "D": tokens, "unique_tokens": np.minimum(tokens, cap)})
        )

    best = zoom(cost, np.minimum(least, most), most)
    n = np.exp(best)
    return n, np.asarray(flops.tokens(question.compute, n), float)


def _flat(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value[:, 0] for name, value in params.items()}


def _with_inference(
    law: Law, params: Mapping[str, Any], question: Question, flops: FlopModel, n_best: Floats
) -> tuple[Floats, Floats]:
    """Minimise k·N·D + 2·N·D_inf at the compute-optimal loss (Sardana et al. 2023, eq. 3)."""
    front = law.frontier(params)
    log_n = np.log(n_best)
    tokens = flops.tokens(question.compute, n_best)
    log_excess = np.logaddexp(
        front.log_A - front.alpha * log_n, front.log_B - front.beta * np.log(tokens)
    )
    smallest = (front.log_A - log_excess) / front.alpha

    def cost(points: Floats) -> Floats:
        n, d = np.exp(points), np.exp(log_tokens_for(front, column(log_excess), points))
        total = flops.compute(n, d) + 2.0 * n * question.inference_tokens
        return np.asarray(np.log(total), float)

    best = zoom(cost, smallest, log_n + 1e-9)
    return np.exp(best), np.exp(log_tokens_for(front, column(log_excess), best[:, None])[:, 0])


def answer(
    law: Law,
    rows: Floats,
    question: Question,
    flops: FlopModel,
    *,
    scope: Scope | None,
    level: float,
) -> Allocation:
    """Answer a question with intervals.

    Parameters
    ----------
    rows : ndarray, shape (1 + n_samples, n_params)
        The fit's parameters, then its bootstrap sample.
    scope : Scope or None
        What the fit has seen.
    level : float
        Of the intervals, such as 0.90.
    """
    solved = solve(law, rows, question, flops)
    solved["tokens_per_param"] = solved["n_tokens"] / solved["n_params"]
    point = {name: float(values[0]) for name, values in solved.items()}
    if not all(np.isfinite(value) for value in point.values()):
        raise FitError(
            f"the fitted {law.name} has no finite optimum at C = {question.compute:.3g} FLOP: one "
            "of its terms is zero. Add runs that vary N and D more widely."
        )
    params = dict(zip(law.param_names, rows[0].tolist(), strict=True))
    intervals = {
        name: percentile_interval(solved[name][1:], level)
        for name in ("n_params", "n_tokens", "loss", "tokens_per_param")
        if len(rows) > 2
    }
    best = solve(law, rows[:1], Question(compute=point["compute"]), flops)
    given_up = point["loss"] - float(best["loss"][0])
    n_same, d_same = reach(law, params, point["loss"], flops)
    needed = float(flops.compute(n_same, d_same))
    epochs = max(1.0, point["n_tokens"] / point["unique"])
    extrapolation = point["compute"] / scope.C[1] if scope else np.nan
    return Allocation(
        compute=point["compute"],
        n_params=point["n_params"],
        n_tokens=point["n_tokens"],
        loss=point["loss"],
        tokens_per_param=point["tokens_per_param"],
        intervals=intervals,
        near_optimal=_near_answer(law, rows[:1], params, question, flops, point),
        within=question.within,
        extrapolation=extrapolation,
        loss_given_up=max(given_up, 0.0),
        deadweight_compute=max(point["compute"] - needed, 0.0) if np.isfinite(needed) else 0.0,
        unique_tokens=point["unique"],
        epochs=epochs,
        inference_tokens=question.inference_tokens,
        lifetime_compute=point["compute"] + 2.0 * point["n_params"] * question.inference_tokens,
        level=level,
        unit=scope.unit if scope else TOKENS,
        notes=(*beyond(point["compute"], scope), *_notes(law, intervals, epochs)),
    )


def _near_answer(
    law: Law,
    row: Floats,
    params: Mapping[str, float],
    question: Question,
    flops: FlopModel,
    point: Mapping[str, float],
) -> Interval:
    """Return the range of N within a share of the answer's loss: of the best, if that is asked.

    With few unique tokens, at the same compute: with the loss that repeats leave. With tokens to
    serve, within a share of the lifetime compute, at the same loss.
    """
    if question.inference_tokens:
        return _near_least_lifetime(law, params, question, flops, point)
    cap = question.max_tokens
    if cap is None or point["n_tokens"] <= cap:
        return near_optimal(law, params, question.compute, question.within, flops)
    columns = {name: row[:, i] for i, name in enumerate(law.param_names)}
    extended = _with_repeat_law(law, columns)
    target = point["loss"] * (1.0 + question.within)
    middle = np.log(point["n_params"])
    # The loss need not be convex in ln N where an excess of parameters saturates: walk outwards.
    steps = np.arange(1, 4001) * (20.0 / 4000)
    edges = []
    for direction in (-1.0, 1.0):
        n = np.exp(middle + direction * steps)
        d = np.asarray(flops.tokens(question.compute, n), float)
        loss = DataConstrainedLaw().loss(
            extended, {"N": n, "D": d, "unique_tokens": np.minimum(d, cap)}
        )
        inside = np.asarray(loss) <= target
        if question.max_epochs is not None:
            inside &= d <= cap * max(1.0, question.max_epochs) * (1 + 1e-9)
        last = int(np.argmin(inside)) if not inside.all() else len(steps)
        edges.append(float(np.exp(middle + direction * (steps[last - 1] if last else 0.0))))
    return edges[0], edges[1]


def _near_least_lifetime(
    law: Law,
    params: Mapping[str, float],
    question: Question,
    flops: FlopModel,
    point: Mapping[str, float],
) -> Interval:
    """Return the range of N that reaches the answer's loss for nearly the least lifetime FLOP."""
    log_n = np.log(point["n_params"]) + np.linspace(-7.0, 7.0, 20_001)
    excess = np.log(law.excess(params, point["loss"]))
    n, d = np.exp(log_n), np.exp(log_tokens_for(law.frontier(params), excess, log_n))
    total = flops.compute(n, d) + 2.0 * n * question.inference_tokens
    inside = n[total <= (1.0 + question.within) * np.nanmin(total)]
    return float(inside[0]), float(inside[-1])


def percentile_interval(values: Floats, level: float) -> Interval:
    """Return the central percentile interval of a sample, NaN left out."""
    values = values[np.isfinite(values)]
    if not len(values):
        return np.nan, np.nan
    low, high = np.quantile(values, [0.5 * (1.0 - level), 0.5 * (1.0 + level)])
    return float(low), float(high)


def beyond(compute: float, scope: Scope | None) -> Iterator[FitWarning]:
    """Yield a note where `compute` is far from what the runs spent, above or below."""
    if scope is None:
        return
    for factor, which, other in (
        (compute / scope.C[1], "times the compute of the largest run", "larger"),
        (scope.C[0] / compute, "times less than the compute of the smallest run", "smaller"),
    ):
        if factor > FAR:
            yield FitWarning(
                code="extrapolation",
                message=f"This is {factor:.3g} {which}.",
                remedy=f"Trust the interval less than it says, or add a run at a {other} budget.",
                values={"factor": factor},
            )


def _notes(law: Law, intervals: Mapping[str, Interval], epochs: float) -> Iterator[FitWarning]:
    low, high = intervals.get("n_params", (1.0, 1.0))
    if high > WIDE * low:
        yield FitWarning(
            code="interval_says_nothing",
            message=f"The interval of N spans {low:.2g} to {high:.2g}: the runs do not say.",
            remedy="Add runs: more budgets, and sizes on both sides of each minimum.",
            values={"low": low, "high": high},
        )
    if epochs > 1.0 and not isinstance(law, DataConstrainedLaw):
        yield FitWarning(
            code="published_repeats",
            message=f"{epochs:.3g} epochs are valued with the published worth of repeats "
            "(R_D* = 15.4, R_N* = 5.3; Muennighoff et al. 2023), not with these runs.",
            remedy="Fit DataConstrainedLaw to runs that repeat data to use your own.",
            values={"epochs": epochs},
        )
