"""A multi-layer perceptron: tabular data, and students of a teacher."""

from __future__ import annotations

from torch import Tensor, nn, optim
from torch.nn import functional as F

from ..flops import Convention
from .counts import count_params
from .parametrization import init_fan_in, mup_adamw


class MLP(nn.Module):
    """Fully connected network: features (batch, n_in) to values (batch, n_out).

    GELU between layers. The last layer starts at zero: with `n_out` values and a mean squared
    error it starts as the mean-zero predictor, with `n_out` classes and cross-entropy at
    ln(n_out).

    Parameters
    ----------
    width : int
        Of every hidden layer.
    n_in, n_out : int
    n_layers : int
        Hidden layers, at least one.
    """

    def __init__(self, width: int, *, n_in: int, n_out: int = 1, n_layers: int = 2) -> None:
        super().__init__()
        if width < 1 or n_layers < 1:
            raise ValueError(f"width={width} and n_layers={n_layers} must be at least 1")
        self.width = width
        self.first = nn.Linear(n_in, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(n_layers - 1))
        self.last = nn.Linear(width, n_out)
        init_fan_in([self.first, *(layer for layer in self.hidden if isinstance(layer, nn.Linear))])
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the values, shape (batch, n_out)."""
        x = F.gelu(self.first(x))
        for layer in self.hidden:
            x = F.gelu(layer(x))
        out: Tensor = self.last(x)
        return out

    def num_params(self, convention: Convention = "total") -> int:
        """Return N under a counting convention, parameters."""
        return count_params(self, convention)


def mlp_optimizer(model: MLP, *, lr: float = 1e-2, base_width: int = 32) -> optim.AdamW:
    """Return muP's AdamW for an :class:`MLP`; `lr` holds at `base_width` and so at every width."""
    return mup_adamw(
        inputs=[model.first],
        hidden=[model.hidden],
        outputs=[model.last],
        width=model.width,
        base_width=base_width,
        lr=lr,
    )
