"""Maximal-update parametrization (muP) for AdamW: one learning rate for every width.

For a width d against a base width d₀::

    layer      initial std             learning rate     multiplier of a tied output
    input      its own                 η                 -
    hidden     1 / √fan_in             η · d₀ / d        -
    output     0                       η · d₀ / d        d₀ / d
    vectors    ones, zeros             η                 -

so that the size of each layer's *update* does not depend on the width, and a rate tuned at one
width holds at the others. Without it the grid of an IsoFLOP sweep is mistuned at one end, which
moves the minimum. ``scaling_nb.checks.coordinate_check`` sees whether it was done right.

References
----------
Yang et al. 2022, "Tensor Programs V", table 8. Everett et al. 2024, table 1 (Adam).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from torch import nn, optim

from ..errors import RecipeError


def init_fan_in(layers: Iterable[nn.Linear], *, gain: float = 1.0) -> None:
    """Draw each weight from N(0, gain² / fan_in); biases become zero."""
    for layer in layers:
        nn.init.normal_(layer.weight, std=gain / math.sqrt(layer.in_features))
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def output_multiplier(width: int, base_width: int) -> float:
    """Return d₀ / d: by what to multiply the logits where the head's weight is the embedding's.

    :class:`MuP` does it by itself where it finds a tied output; a model that multiplies its own
    logits must not name that head under ``outputs``.
    """
    return base_width / width


def mup_adamw(
    *,
    inputs: Iterable[nn.Module],
    hidden: Iterable[nn.Module],
    outputs: Iterable[nn.Module],
    width: int,
    base_width: int,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.95),
    weight_decay: float = 0.1,
) -> optim.AdamW:
    """Return AdamW with muP's learning rate for each layer.

    Matrices of `hidden` and `outputs` learn at lr · base_width / width and decay; everything of
    `inputs`, and every vector (norms, biases), learns at `lr` and does not decay.

    Parameters
    ----------
    inputs, hidden, outputs : iterables of Module
        The model's layers by role.
    width, base_width : int
        This model's width, and the width at which `lr` was tuned.
    lr : float
        Rate at the base width.
    """
    scaled, plain = _by_role(inputs, [*hidden, *outputs])
    groups: list[dict[str, Any]] = [
        {"params": scaled, "lr": lr * base_width / width, "weight_decay": weight_decay},
        {"params": plain, "lr": lr, "weight_decay": 0.0},
    ]
    return optim.AdamW([g for g in groups if g["params"]], betas=betas, fused=True)


def _by_role(
    inputs: Iterable[nn.Module], matrices: Iterable[nn.Module]
) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    # An input's weight that is also an output's learns as the input: the multiplier does the rest.
    plain: dict[int, nn.Parameter] = {id(p): p for m in inputs for p in m.parameters()}
    scaled: dict[int, nn.Parameter] = {}
    for module in matrices:
        for p in module.parameters():
            if id(p) not in plain:
                (scaled if p.ndim >= 2 else plain).setdefault(id(p), p)
    return list(scaled.values()), list(plain.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class MuP:
    """muP for a module of your own, by the names of its layers.

    >>> mup = MuP(inputs=["embedding"], hidden=["layers.*"], outputs=["head"],
    ...           width="width", base_width=64, lr=1e-2)
    >>> recipe = Recipe(mup.build(Net), size="width", optimizer=mup.optimizer)  # doctest: +SKIP

    Attributes
    ----------
    inputs, hidden, outputs : sequences of str
        Layers by role, as in ``model.named_modules()``; ``*`` stands for anything. A layer's name
        covers everything inside it. Norms may be named anywhere.
    width : str
        The model's attribute that holds its width.
    base_width : int
        Width at which `lr` was tuned.
    lr : float
        Rate at the base width.
    weight_decay : float
        Of hidden and output matrices.
    """

    inputs: tuple[str, ...]
    hidden: tuple[str, ...]
    outputs: tuple[str, ...]
    width: str = "width"
    base_width: int
    lr: float
    weight_decay: float = 0.1

    def __post_init__(self) -> None:
        for role in ("inputs", "hidden", "outputs"):
            names = getattr(self, role)
            names = (names,) if isinstance(names, str) else tuple(names)
            object.__setattr__(self, role, names)

    def build(self, build_model: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        """Return a function that builds the model and initialises it by :meth:`initialise`."""
        return partial(_build, self, build_model)

    def initialise(self, model: nn.Module) -> None:
        """Draw hidden linear layers from N(0, 1/fan_in) and set output layers to zero.

        Inputs, norms and layers other than ``nn.Linear`` keep their own initialisation. So does an
        output whose weight is also an input's (tied): zeroed, the embedding would never learn.
        Its result is multiplied by base_width / width from now on, by a forward hook.

        Raises
        ------
        RecipeError
            If a name matches no layer, or a layer with parameters has no role.
        """
        inputs, hidden, outputs = self._layers(model)
        init_fan_in(m for part in hidden for m in part.modules() if isinstance(m, nn.Linear))
        shared = {id(p) for part in inputs for p in part.parameters()}
        for part in outputs:
            tied = [p for p in part.parameters() if id(p) in shared]
            for p in part.parameters():
                if id(p) not in shared:
                    nn.init.zeros_(p)
            if tied:
                scale = output_multiplier(self._width(model), self.base_width)
                part.register_forward_hook(partial(_scaled, scale))

    def optimizer(self, model: nn.Module) -> optim.AdamW:
        """Return AdamW with each layer's rate.

        Raises
        ------
        RecipeError
            As :meth:`initialise`, or where the model has no such width.
        """
        inputs, hidden, outputs = self._layers(model)
        return mup_adamw(
            inputs=inputs,
            hidden=hidden,
            outputs=outputs,
            width=self._width(model),
            base_width=self.base_width,
            lr=self.lr,
            weight_decay=self.weight_decay,
        )

    def _width(self, model: nn.Module) -> int:
        width = getattr(model, self.width, None)
        if not isinstance(width, int):
            raise RecipeError(
                f"{type(model).__name__} has no integer attribute {self.width!r}. Store the width "
                "in the model, and name that attribute as width=."
            )
        return width

    def _layers(self, model: nn.Module) -> tuple[list[nn.Module], ...]:
        named = dict(model.named_modules())
        found = []
        for patterns in (self.inputs, self.hidden, self.outputs):
            names = [n for n in named if any(fnmatchcase(n, pattern) for pattern in patterns)]
            for pattern in patterns:
                if not any(fnmatchcase(n, pattern) for n in named):
                    raise RecipeError(
                        f"no layer of {type(model).__name__} is called {pattern!r}. Its layers "
                        f"are {', '.join(filter(None, named))}."
                    )
            found.append([named[n] for n in names])
        covered = {id(p) for role in found for m in role for p in m.parameters()}
        bare = [n for n, p in model.named_parameters() if id(p) not in covered]
        if bare:
            raise RecipeError(
                f"{', '.join(bare)} belong to no named layer, so muP has no rate for them. Name "
                "their layers under inputs, hidden or outputs (norms under any)."
            )
        return tuple(found)


def _scaled(scale: float, module: nn.Module, inputs: Any, output: Any) -> Any:
    return output * scale


def _build(mup: MuP, build_model: Callable[..., nn.Module], **kwargs: Any) -> nn.Module:
    model = build_model(**kwargs)
    mup.initialise(model)
    return model
