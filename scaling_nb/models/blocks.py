"""The transformer block that the decoder and the vision transformer share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .parametrization import init_fan_in


class Block(nn.Module):
    """Pre-norm block: x + attention(norm(x)), then x + mlp(norm(x)); no biases.

    Shapes: x is (batch, T, width). `depth` is the number of blocks, which the initialisation of
    the two residual branches depends on; `causal` hides later positions.
    """

    def __init__(
        self,
        width: int,
        n_heads: int,
        *,
        norm: str = "layer",
        activation: str = "gelu",
        depth: int,
        causal: bool,
    ) -> None:
        super().__init__()
        self.n_heads, self.causal, self.gated = n_heads, causal, activation == "swiglu"
        inner = 8 * ((width + 2) // 3) if self.gated else 4 * width
        self.attention_norm = make_norm(norm, width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.attention_out = nn.Linear(width, width, bias=False)
        self.mlp_norm = make_norm(norm, width)
        self.mlp_in = nn.Linear(width, 2 * inner if self.gated else inner, bias=False)
        self.mlp_out = nn.Linear(inner, width, bias=False)
        init_fan_in([self.qkv, self.mlp_in])
        # 2L branches add up in the residual stream: keep its variance at 1 (GPT-2 §2.3).
        init_fan_in([self.attention_out, self.mlp_out], gain=(2 * depth) ** -0.5)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor] | None = None) -> Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(self.attention_norm(x))
        if rotary is not None:
            qkv = rotate(qkv, *rotary, n_heads=3 * self.n_heads)
        heads = qkv.view(batch, length, 3, self.n_heads, width // self.n_heads)
        q, k, v = (part.transpose(1, 2) for part in heads.unbind(2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.attention_out(y.transpose(1, 2).reshape(batch, length, width))
        h = self.mlp_in(self.mlp_norm(x))
        if self.gated:
            value, gate = h.chunk(2, dim=-1)
            h = value * F.silu(gate)
        else:
            h = F.gelu(h)
        out: Tensor = x + self.mlp_out(h)
        return out


def make_norm(kind: str, width: int) -> nn.Module:
    """Return a LayerNorm without bias, or an RMSNorm for ``"rms"``."""
    return nn.RMSNorm(width) if kind == "rms" else nn.LayerNorm(width, bias=False)


def rotary_table(context: int, n_heads: int, head_width: int, base: float) -> tuple[Tensor, Tensor]:
    """Return cos and sin of position · base^(-2i/d_head), each of shape (T, 3 · width).

    They are written out for every head of queries, keys and values, whose angle is 0: on a CPU one
    product over whole rows is far quicker than one that repeats a few numbers for each head.
    """
    rates = base ** (-torch.arange(0, head_width, 2) / head_width)
    angles = torch.outer(torch.arange(context), rates)
    turned = torch.stack([angles, angles, torch.zeros_like(angles)], dim=1)[:, :, None, None]
    # (T, 3, heads, pair, d_head / 2)
    angles = turned.expand(-1, -1, n_heads, 2, -1)
    sin = angles.sin()
    sin[:, :, :, 0].neg_()
    return angles.cos().flatten(1), sin.flatten(1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor, *, n_heads: int) -> Tensor:
    """Rotate each pair (i, i + d_head/2) of every head (Su et al. 2021, eq. 34).

    Shapes: x is (batch, T, n_heads · d_head), cos and sin are (T, n_heads · d_head).
    """
    heads = x.view(*x.shape[:-1], n_heads, -1)
    return x * cos + heads.roll(heads.shape[-1] // 2, dims=-1).view_as(x) * sin
