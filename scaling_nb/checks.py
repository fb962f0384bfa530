"""Is the recipe tuned alike at every size? Two checks to run before a sweep is paid for.

A grid that is mistuned at one end bends every IsoFLOP curve, and moves its minimum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .errors import RecipeError
from .records import TOKENS, RunSpec, loss_unit
from .training.batches import move
from .training.devices import use_one_thread
from .training.outcomes import Diverged
from .training.recipe import Recipe
from .training.trainer import Trainer

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from .plan import SweepPlan

TOLERATED_SLOPE = 0.35
"""Largest |slope| of ln(change) against ln(size) that still counts as flat: standard
parametrization gives 0.5 to 1, and widths of 8 to 64 scatter by 0.3 under muP."""
TOLERATED_GAIN = 0.01
"""Nats per token that half or double the rate may be better by before the grid is mistuned."""
FACTORS = (0.5, 1.0, 2.0)
_UNMOVED = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CoordinateCheck:
    """How far each layer's output moves in the first steps, by size.

    Attributes
    ----------
    size_name : str
    sizes : tuple of int or float
    layers : tuple of str
    change : ndarray, shape (n_layers, n_sizes, n_steps)
        Root mean square of x_t − x_0 over a fixed batch, t = 1, 2, …
    """

    size_name: str
    sizes: tuple[int | float, ...]
    layers: tuple[str, ...]
    change: NDArray[np.float64] = field(repr=False)

    @property
    def slopes(self) -> dict[str, float]:
        """Slope of ln(change) against ln(size) after the last step, by layer; 0 is muP's."""
        x = np.log(np.asarray(self.sizes, float))
        x = x - x.mean()
        y = np.log(np.maximum(self.change[:, :, -1], _UNMOVED))
        return dict(zip(self.layers, (y @ x / (x @ x)).tolist(), strict=True))

    @property
    def steep(self) -> dict[str, float]:
        """Layers whose change depends on the size, with their slopes."""
        return {name: s for name, s in self.slopes.items() if abs(s) > TOLERATED_SLOPE}

    @property
    def passed(self) -> bool:
        """Whether every layer moves alike at every size."""
        return not self.steep

    def __str__(self) -> str:
        if self.passed:
            return (
                f"coordinate check passed: in {self.change.shape[2]} steps every layer moves by "
                f"as much at every {self.size_name} (largest slope "
                f"{max(self.slopes.values(), key=abs):+.2f})"
            )
        worst = ", ".join(f"{name} {slope:+.2f}" for name, slope in self.steep.items())
        return (
            f"coordinate check failed: the change depends on {self.size_name} in {worst} (slopes "
            "of ln change against ln size; 0 is right). One learning rate does not fit every "
            "size: use scaling_nb.models.MuP, or tune lr as a function of N."
        )

    def plot(self) -> go.Figure:
        """Draw each layer's change after the last step against size; flat is right."""
        from .plots.style import axis, colour, figure, marker

        drawing = figure(
            "Change of activations in the first steps",
            axis(self.size_name, log=True, values=self.sizes),
            axis("root mean square change", log=True),
        )
        for k, layer in enumerate(self.layers):
            drawing.add_scatter(
                x=self.sizes,
                y=self.change[k, :, -1],
                mode="lines+markers",
                name=f"{layer} ({self.slopes[layer]:+.2f})",
                line={"color": colour(k), "dash": "dash" if layer in self.steep else "solid"},
                marker={"symbol": marker(k)},
            )
        return drawing


def coordinate_check(
    recipe: Recipe,
    sizes: Sequence[int | float] | None = None,
    *,
    steps: int = 4,
    seeds: int = 2,
) -> CoordinateCheck:
    """Train a few steps at several sizes and measure how far each layer's output moves.

    change(layer, size, t) = RMS over a fixed batch of x_t − x_0, at the peak learning rate, as the
    mean over seeds. Under muP it does not depend on the width.

    Parameters
    ----------
    recipe : Recipe
    sizes : sequence, optional
        None: the recipe's own sizes; without those, 4 doublings from the smallest.
    steps, seeds : int

    Returns
    -------
    CoordinateCheck
        Over the layers (modules with parameters and none within) that every size has.

    Raises
    ------
    RecipeError
        With fewer than two sizes.

    References
    ----------
    Yang et al. 2022, appendix D.1.
    """
    values = _sizes(recipe, sizes)
    rates = recipe.learning_rates(values)
    moved = [
        [_moves(recipe, value, rates[value], seed, steps) for seed in range(seeds)]
        for value in values
    ]
    layers = [name for name in moved[0][0] if all(name in m for row in moved for m in row)]
    change = np.array(
        [[np.mean([m[name] for m in row], axis=0) for row in moved] for name in layers]
    )
    # An output that never moves (a frozen layer) has no slope.
    kept = [k for k in range(len(layers)) if (change[k, :, -1] > _UNMOVED).all()]
    return CoordinateCheck(
        size_name=recipe.size,
        sizes=tuple(values),
        layers=tuple(layers[k] for k in kept),
        change=change[kept],
    )


def _sizes(recipe: Recipe, sizes: Sequence[int | float] | None) -> list[int | float]:
    if sizes is None and recipe.sizes is None:
        sizes = [recipe.smallest * 2**k for k in range(4)]
    values = sorted(sizes if sizes is not None else recipe.sizes or ())
    if len(values) < 2:
        raise RecipeError("a check across sizes needs two sizes or more. Give sizes=[…].")
    return values


def _moves(
    recipe: Recipe, value: int | float, lr: float | None, seed: int, steps: int
) -> dict[str, list[float]]:
    """Return each layer's RMS change after each step."""
    model = recipe.build_seeded(value, seed).to(recipe.device)
    optimizer = recipe.build_optimizer(model, lr)
    batches = recipe.data.source.batches(seed)
    watched = move(next(batches), recipe.device)
    with use_one_thread():
        first = _outputs(recipe, model, watched)
        changes: dict[str, list[float]] = {name: [] for name in first}
        for _ in range(steps):
            loss = recipe.loss(model, move(next(batches), recipe.device))
            loss.backward()  # type: ignore[no-untyped-call]
            if recipe.grad_clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), recipe.grad_clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            for name, output in _outputs(recipe, model, watched).items():
                changes[name].append(float((output - first[name]).square().mean().sqrt()))
    return changes


@torch.no_grad()
def _outputs(recipe: Recipe, model: nn.Module, batch: Any) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.is_floating_point():
                found[name] = output.detach().float().clone()

        return hook

    leaves = [
        (name, module)
        for name, module in model.named_modules()
        if not list(module.children()) and list(module.parameters())
    ]
    hooks = [module.register_forward_hook(keep(name)) for name, module in leaves]
    try:
        recipe.loss(model, batch)
    finally:
        for hook in hooks:
            hook.remove()
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class RateCell:
    """One corner of the grid, trained at several multiples of its learning rate.

    Attributes
    ----------
    size : int or float
    n_tokens : int, tokens
    factors : tuple of float
    losses : tuple of float, nats per token
        Held-out; infinite where training diverged.
    """

    size: int | float
    n_tokens: int
    factors: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def own(self) -> float:
        """Loss at the recipe's own rate."""
        return self.losses[self.factors.index(1.0)]

    @property
    def best_factor(self) -> float:
        """Multiple of the rate with the lowest loss."""
        return self.factors[int(np.argmin(self.losses))]

    @property
    def gain(self) -> float:
        """What the best multiple is better by, nats per token."""
        return self.own - min(self.losses)


@dataclass(frozen=True, slots=True, kw_only=True)
class LrCheck:
    """The corner cells of a grid at half and double their learning rate."""

    size_name: str
    cells: tuple[RateCell, ...]
    unit: str = TOKENS

    @property
    def mistuned(self) -> tuple[RateCell, ...]:
        """Corners where another rate is better by more than 0.01."""
        return tuple(cell for cell in self.cells if cell.gain > TOLERATED_GAIN)

    @property
    def passed(self) -> bool:
        """Whether no corner is mistuned."""
        return not self.mistuned

    def __str__(self) -> str:
        lines = [
            f"{self.size_name}={cell.size:g}, {cell.n_tokens:,} {self.unit}: "
            + (
                f"{cell.best_factor:g} × the rate is better by {cell.gain:.3f}"
                if cell.gain > TOLERATED_GAIN
                else "tuned"
            )
            for cell in self.cells
        ]
        verdict = (
            "learning-rate check passed: no corner gains more than "
            f"{TOLERATED_GAIN:g} from half or double the rate"
            if self.passed
            else "learning-rate check failed: the grid is mistuned at these corners, which moves "
            "the minima. Give lr as a function of N, or use scaling_nb.models.MuP."
        )
        return "\n".join([verdict, *lines])

    def plot(self) -> go.Figure:
        """Draw each corner's loss, less its own rate's, against the multiple of the rate."""
        from .plots.style import axis, colour, figure, marker

        drawing = figure(
            "Corner cells at multiples of their learning rate",
            axis("multiple of the learning rate", log=True),
            axis("loss above that at the own rate", loss_unit(self.unit)),
        )
        drawing.update_xaxes(tickvals=list(FACTORS), ticktext=[f"{f:g} ×" for f in FACTORS])
        for k, cell in enumerate(self.cells):
            drawing.add_scatter(
                x=cell.factors,
                y=np.array(cell.losses) - cell.own,
                mode="lines+markers",
                name=f"{self.size_name} {cell.size:g}, {cell.n_tokens:,} {self.unit}",
                line={"color": colour(k)},
                marker={"symbol": marker(k)},
            )
        return drawing


def lr_check(
    recipe: Recipe, plan: SweepPlan | None = None, *, max_steps: int = 400, seed: int = 0
) -> LrCheck:
    """Train the grid's corner cells at half, once and double their learning rate.

    Parameters
    ----------
    recipe : Recipe
    plan : SweepPlan, optional
        Its corners are the smallest and the largest size at the lowest and the highest budget.
        None: the smallest and the largest size, `max_steps` steps each.
    max_steps : int, steps
        Longer cells are cut to this length, each with its own whole schedule. A rate that is best
        for a short run may be too high for a long one: raise it where you can afford to.
    seed : int

    Returns
    -------
    LrCheck
    """
    step = recipe.tokens_per_step
    if plan is None:
        values = _sizes(recipe, None)
        wanted = {(value, max_steps) for value in (values[0], values[-1])}
    else:
        wanted = {(run.size, min(max_steps, run.n_steps)) for run in _corners(plan)}
    cells = sorted(wanted)
    rates = recipe.learning_rates([value for value, _ in cells])
    return LrCheck(
        size_name=recipe.size,
        cells=tuple(
            RateCell(
                size=value,
                n_tokens=n_steps * step,
                factors=FACTORS,
                losses=tuple(
                    _final_loss(recipe, value, n_steps, rates[value], factor, seed)
                    for factor in FACTORS
                ),
            )
            for value, n_steps in cells
        ),
        unit=recipe.unit,
    )


def _corners(plan: SweepPlan) -> list[RunSpec]:
    corners = []
    for budget in (plan.budgets[0], plan.budgets[-1]):
        runs = sorted((run for run in plan.runs if run.budget == budget), key=lambda r: r.n_params)
        corners += [runs[0], runs[-1]]
    return corners


def _final_loss(
    recipe: Recipe, value: int | float, n_steps: int, lr: float | None, factor: float, seed: int
) -> float:
    with use_one_thread():
        trainer = Trainer(recipe, value, seed=seed, lr=lr)
        trainer.peak_rates = [rate * factor for rate in trainer.peak_rates]
        try:
            trainer.train(n_steps, n_steps, report=lambda piece: None)
            return trainer.evaluate()
        except Diverged:
            return float("inf")
