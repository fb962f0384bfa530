"""A small decoder-only transformer, plain enough to read in one sitting."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn, optim

from ..flops import Convention
from .blocks import Block, make_norm, rotary_table
from .counts import count_params
from .parametrization import mup_adamw


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
        for name, value, known in (
            ("positions", positions, ("rotary", "learned")),
            ("norm", norm, ("layer", "rms")),
            ("activation", activation, ("gelu", "swiglu")),
        ):
            if value not in known:
                raise ValueError(
                    f"{name}={value!r} is unknown. Give {' or '.join(map(repr, known))}."
                )
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
            cos, sin = rotary_table(context, n_heads, d_model // n_heads, rope_base)
            self.rotary_cos: Tensor
            self.rotary_sin: Tensor
            self.register_buffer("rotary_cos", cos, persistent=False)
            self.register_buffer("rotary_sin", sin, persistent=False)
        self.blocks = nn.ModuleList(
            Block(d_model, n_heads, norm=norm, activation=activation, depth=n_layers, causal=True)
            for _ in range(n_layers)
        )
        self.final_norm = make_norm(norm, d_model)
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
        if length > self.context:
            raise ValueError(
                f"a sequence of {length} tokens is longer than the context of {self.context}. "
                "Give shorter sequences (tokens_per_sample), or a larger context."
            )
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
        return count_params(self, convention)


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
