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
        qkv = qkv.view(batch, length, 3, self.n_heads, width // self.n_heads).transpose(1, 3)
        if rotary is not None:
            qk = rotate(qkv[:, :, :2], *rotary)
            q, k = qk.unbind(2)
        else:
            q, k = qkv[:, :, :2].unbind(2)
        y = F.scaled_dot_product_attention(q, k, qkv[:, :, 2], is_causal=self.causal)
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


def rotary_table(context: int, head_width: int, base: float) -> tuple[Tensor, Tensor]:
    """Return cos and sin of position · base^(-2i/d_head), each of shape (T, d_head)."""
    rates = base ** (-torch.arange(0, head_width, 2) / head_width)
    angles = torch.outer(torch.arange(context), rates).repeat(1, 2)
    sin = angles.sin()
    sin[:, : head_width // 2].neg_()
    return angles.cos(), sin


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate each pair (i, i + d_head/2) of the last axis (Su et al. 2021, eq. 34)."""
    return x * cos + x.roll(x.shape[-1] // 2, dims=-1) * sin
