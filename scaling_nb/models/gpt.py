"""A small decoder-only transformer, plain enough to read in one sitting."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn, optim
from torch.nn import functional as F

from ..flops import Convention, check_convention
from .parametrization import init_fan_in, mup_adamw


class GPT(nn.Module):
    """Decoder-only transformer: token ids (batch, T) to logits (batch, T, vocab_size).

    Pre-norm blocks x + attention(norm(x)), x + mlp(norm(x)); no biases; the head is not tied to
    the embedding and starts at zero, so that every size starts at a loss of ln(vocab_size).
    Initialised by muP's rules; :func:`gpt_optimizer` has the learning rates that belong to them.

    Parameters
    ----------
    d_model : int
        Width d; a multiple of 2 · `n_heads` with rotary positions.
    vocab_size : int, symbols
    context : int, tokens
        Longest sequence T.
    n_layers, n_heads : int
    positions : {"rotary", "learned"}
    rope_base : float
        Longest rotary wavelength is 2π · `rope_base` tokens; 1000 suits short contexts.
    norm : {"layer", "rms"}
    activation : {"gelu", "swiglu"}
        "swiglu" has three matrices of 8/3 d, the same number of parameters.
    """

    def __init__(
        self,
        d_model: int,
        *,
        vocab_size: int,
        context: int = 64,
        n_layers: int = 2,
        n_heads: int = 2,
        positions: Literal["rotary", "learned"] = "rotary",
        rope_base: float = 1000.0,
        norm: Literal["layer", "rms"] = "layer",
        activation: Literal["gelu", "swiglu"] = "gelu",
    ) -> None:
        super().__init__()
        step = 2 * n_heads if positions == "rotary" else n_heads
        if d_model < step or d_model % step:
            raise ValueError(
                f"d_model={d_model} must be a positive multiple of {step} "
                f"for {n_heads} heads with {positions} positions"
            )
        self.d_model, self.n_layers, self.context = d_model, n_layers, context
        self.token_embedding = nn.Embedding(vocab_size, d_model)
        self.position_embedding = nn.Embedding(context, d_model) if positions == "learned" else None
        if positions == "rotary":
            cos, sin = _rotary_table(context, d_model // n_heads, rope_base)
            self.rotary_cos: Tensor
            self.rotary_sin: Tensor
            self.register_buffer("rotary_cos", cos, persistent=False)
            self.register_buffer("rotary_sin", sin, persistent=False)
        self.blocks = nn.ModuleList(
            _Block(d_model, n_heads, norm, activation, depth=n_layers) for _ in range(n_layers)
        )
        self.final_norm = _norm(norm, d_model)
        self.head = nn.Linear(d_model, vocab_size, bias=False)
        for table in self.embeddings():
            nn.init.normal_(table.weight, std=0.1)
        nn.init.zeros_(self.head.weight)

    def embeddings(self) -> list[nn.Embedding]:
        """Return the embedding tables: of tokens and, where learned, of positions."""
        tables = (self.token_embedding, self.position_embedding)
        return [table for table in tables if table is not None]

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits of each next token, shape (batch, T, vocab_size)."""
        length = tokens.shape[1]
        x = self.token_embedding(tokens)
        rotary = None
        if self.position_embedding is not None:
            x = x + self.position_embedding.weight[:length]
        else:
            rotary = (self.rotary_cos[:length], self.rotary_sin[:length])
        for block in self.blocks:
            x = block(x, rotary)
        logits: Tensor = self.head(self.final_norm(x))
        return logits

    def num_params(self, convention: Convention = "total") -> int:
        """Return N under a counting convention, parameters."""
        counts = {"total": sum(p.numel() for p in self.parameters())}
        embedding = sum(table.weight.numel() for table in self.embeddings())
        counts["non_embedding"] = counts["total"] - embedding
        linear = (m for m in self.modules() if isinstance(m, nn.Linear))
        counts["matmul"] = sum(m.weight.numel() for m in linear)
        return counts[check_convention(convention)]


def gpt_optimizer(model: GPT, *, lr: float = 5e-3, base_width: int = 32) -> optim.AdamW:
    """Return muP's AdamW for a :class:`GPT`; `lr` holds at `base_width` and so at every width."""
    return mup_adamw(
        inputs=[*model.embeddings(), model.final_norm],
        hidden=list(model.blocks),
        outputs=[model.head],
        width=model.d_model,
        base_width=base_width,
        lr=lr,
    )


class _Block(nn.Module):
    def __init__(
        self, width: int, n_heads: int, norm: str, activation: str, *, depth: int
    ) -> None:
        super().__init__()
        self.n_heads, self.gated = n_heads, activation == "swiglu"
        inner = 8 * ((width + 2) // 3) if self.gated else 4 * width
        self.attention_norm = _norm(norm, width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.attention_out = nn.Linear(width, width, bias=False)
        self.mlp_norm = _norm(norm, width)
        self.mlp_in = nn.Linear(width, 2 * inner if self.gated else inner, bias=False)
        self.mlp_out = nn.Linear(inner, width, bias=False)
        init_fan_in([self.qkv, self.mlp_in])
        # 2L branches add up in the residual stream: keep its variance at 1 (GPT-2 §2.3).
        init_fan_in([self.attention_out, self.mlp_out], gain=(2 * depth) ** -0.5)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor] | None) -> Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(self.attention_norm(x))
        qkv = qkv.view(batch, length, 3, self.n_heads, width // self.n_heads).transpose(1, 3)
        if rotary is not None:
            qk = _rotate(qkv[:, :, :2], *rotary)
            q, k = qk.unbind(2)
        else:
            q, k = qkv[:, :, :2].unbind(2)
        y = F.scaled_dot_product_attention(q, k, qkv[:, :, 2], is_causal=True)
        x = x + self.attention_out(y.transpose(1, 2).reshape(batch, length, width))
        h = self.mlp_in(self.mlp_norm(x))
        if self.gated:
            value, gate = h.chunk(2, dim=-1)
            h = value * F.silu(gate)
        else:
            h = F.gelu(h)
        out: Tensor = x + self.mlp_out(h)
        return out


def _norm(kind: str, width: int) -> nn.Module:
    return nn.RMSNorm(width) if kind == "rms" else nn.LayerNorm(width, bias=False)


def _rotary_table(context: int, head_width: int, base: float) -> tuple[Tensor, Tensor]:
    """Return cos and sin of position · base^(-2i/d_head), each of shape (T, d_head)."""
    rates = base ** (-torch.arange(0, head_width, 2) / head_width)
    angles = torch.outer(torch.arange(context), rates).repeat(1, 2)
    sin = angles.sin()
    sin[:, : head_width // 2].neg_()
    return angles.cos(), sin


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate each pair (i, i + d_head/2) of the last axis (Su et al. 2021, eq. 34)."""
    return x * cos + x.roll(x.shape[-1] // 2, dims=-1) * sin
