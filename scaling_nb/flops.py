"""Counting parameters N and compute C: the conventions, by name.

Two laws fitted to the same runs differ when they count differently: most of the disagreement
between Kaplan 2020 and Hoffmann 2022 is the embedding and head (Pearce & Song 2024; Porian et
al. 2024). So every run records every count, and the one that is used has a name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from .errors import PlanError

Convention = Literal["total", "non_embedding", "matmul"]
"""``total``: all trainable parameters (Hoffmann 2022). ``non_embedding``: without embedding
tables (Kaplan 2020). ``matmul``: weights that take part in a matrix product, head included
(Porian et al. 2024)."""

CONVENTIONS: tuple[Convention, ...] = get_args(Convention)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParamCounts:
    """One model's number of parameters under each counting convention.

    Attributes
    ----------
    total : int, parameters
        All trainable parameters, shared tensors counted once.
    non_embedding : int, parameters
        ``total`` without embedding tables.
    matmul : int, parameters
        Weights of linear and convolution layers, the output head included.
    """

    total: int
    non_embedding: int
    matmul: int

    def get(self, convention: Convention) -> int:
        """Return the count that `convention` names, in parameters."""
        return int(getattr(self, check_convention(convention)))


def check_convention(convention: str) -> Convention:
    """Return `convention` if it is one of :data:`CONVENTIONS`; raise `PlanError` otherwise."""
    if convention not in CONVENTIONS:
        raise PlanError(
            f"counting convention {convention!r} is unknown. It must be one of "
            f"{', '.join(map(repr, CONVENTIONS))}."
        )
    return convention


def six_nd(n_params: float, n_tokens: float) -> float:
    """Return C = 6·N·D, in FLOP.

    Two FLOP a parameter and token in the forward pass, four in the backward pass; attention
    scores are left out, which at small widths is off by tens of per cent.

    Parameters
    ----------
    n_params : float, parameters
    n_tokens : float, tokens

    References
    ----------
    Kaplan et al. 2020, eq. 2.2 and §2.1.
    """
    return 6.0 * n_params * n_tokens


def transformer_flops_per_token(
    *, matmul_params: int, n_layers: int, context: int, width: int
) -> float:
    """Return the exact training FLOP per token of a dense decoder, 6·N_matmul + 12·L·T·d.

    The second term is attention: scores and weighted sum, forward and backward, over the whole
    T × T square as the kernels compute it (a causal mask saves nothing in this count).

    Parameters
    ----------
    matmul_params : int, parameters in matrix products, the head included
    n_layers, context, width : int, layers L, context length T (tokens), model width d

    References
    ----------
    Chowdhery et al. 2022 (PaLM), appendix B.
    """
    return 6.0 * matmul_params + 12.0 * n_layers * context * width
