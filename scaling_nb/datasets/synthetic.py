"""Data whose irreducible loss is known, so that a fitted E can be checked against the truth.

===============  =========================================================================
`synthetic`      tokens of a Markov chain; E is its entropy rate, nats per token
`teacher`        y = f(x) + σ·ε for a random two-layer network f; E is σ², mean squared error
size, licence    as large as you ask; CC0, made here from a seed
split            the last 5% of the tokens or samples is held out
===============  =========================================================================
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, as_tensor, from_numpy
from torch.utils.data import TensorDataset

from ..errors import DataError
from .tokens import TokenData, cut_tail, frozen, hash_parts, smallest_dtype

_LEVELS = 2**12
_MOST_STATES = 2**8


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticTokens(TokenData):
    """Tokens of a Markov chain.

    Attributes
    ----------
    order : int, tokens
        How many past tokens decide the next one's distribution.
    transitions : ndarray, shape (vocab_size,) * order + (vocab_size,)
        Probability of each next token; exact, in multiples of 1/4096.
    entropy : float, nats per token
        Entropy rate: no model can have a lower expected loss, given `order` tokens of context.
    """

    order: int
    transitions: NDArray[np.float64] = field(repr=False)
    entropy: float

    @property
    def held_out_floor(self) -> float:
        """The true chain's own loss on the held-out tokens, nats per token.

        It scatters around :attr:`entropy` by the luck of the draw, as every model's loss does.
        """
        ids = self.held_out.astype(np.intp)
        past = tuple(ids[k : len(ids) - self.order + k] for k in range(self.order))
        return float(-np.log(self.transitions[(*past, ids[self.order :])]).mean())


def synthetic(
    n_tokens: int = 1_000_000,
    *,
    vocab_size: int = 16,
    order: int = 1,
    concentration: float = 0.3,
    seed: int = 0,
) -> SyntheticTokens:
    """Draw tokens from a random Markov chain: P(next | last `order` tokens) ~ Dirichlet.

    E = −Σ_s π(s) Σ_t P(t|s) ln P(t|s), with π the chain's stationary distribution. CC0; the last
    5% is held out.

    Parameters
    ----------
    n_tokens : int, tokens
        Training and held-out tokens together.
    vocab_size : int, symbols
    order : int, tokens
        The chain has vocab_sizeᵒʳᵈᵉʳ states, at most 256; a model needs parameters for them.
    concentration : float
        Of the Dirichlet distribution: small makes the next token nearly certain, large makes it
        uniform.
    seed : int
        Of the chain and of the tokens.

    Raises
    ------
    DataError
        If there are too few tokens, or too many states.
    """
    n_states = vocab_size**order
    if vocab_size < 2 or order < 1 or n_states > _MOST_STATES or not concentration > 0:
        raise DataError(
            f"a chain of {vocab_size} symbols and order {order} has {n_states} states. Give "
            f"2 symbols or more, order >= 1, at most {_MOST_STATES} states, concentration > 0."
        )
    rng = np.random.default_rng(seed)
    counts = _quantised(rng.dirichlet(np.full(vocab_size, concentration), size=n_states))
    tokens = _walk(counts, order, n_tokens, rng).astype(smallest_dtype(vocab_size))
    train, held_out = cut_tail(tokens, 0.05)
    p = counts / _LEVELS
    return SyntheticTokens(
        name="synthetic-markov",
        licence="CC0-1.0",
        train=frozen(train),
        held_out=frozen(held_out),
        vocab_size=vocab_size,
        source=f"Markov chain of order {order}, concentration {concentration:g}, seed {seed}",
        content_hash=hash_parts(train, held_out),
        order=order,
        transitions=p.reshape(*[vocab_size] * order, vocab_size),
        entropy=_entropy_rate(p, vocab_size),
    )


def _quantised(p: NDArray[np.float64]) -> NDArray[np.int64]:
    """Round each row to multiples of 1/4096, each at least one: every state reaches every other."""
    spare = _LEVELS - p.shape[1]
    exact = p * spare
    counts = np.floor(exact).astype(np.int64)
    missing = spare - counts.sum(axis=1)
    rank = np.argsort(np.argsort(counts - exact, axis=1, kind="stable"), axis=1)
    return np.asarray(counts + (rank < missing[:, None]) + 1)


def _walk(
    counts: NDArray[np.int64], order: int, n_tokens: int, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Draw one walk: blocks are walked at once from every state, then joined where they meet."""
    n_states, vocab_size = counts.shape
    lookup = np.stack([np.repeat(np.arange(vocab_size), row) for row in counts])
    steps = max(order, int(np.sqrt(n_tokens)))
    n_blocks = -(-n_tokens // steps)
    draws = rng.integers(_LEVELS, size=(steps, n_blocks))
    ends = np.tile(np.arange(n_states)[:, None], (1, n_blocks))
    for draw in draws:
        ends = _next_state(ends, lookup[ends, draw], n_states, vocab_size)
    starts = np.empty(n_blocks, dtype=np.intp)
    state = int(rng.integers(n_states))
    for k in range(n_blocks):
        starts[k], state = state, int(ends[state, k])
    tokens = np.empty((steps, n_blocks), dtype=np.intp)
    for t, draw in enumerate(draws):
        tokens[t] = lookup[starts, draw]
        starts = _next_state(starts, tokens[t], n_states, vocab_size)
    return tokens.T.ravel()[:n_tokens]


def _next_state(
    state: NDArray[np.intp], token: NDArray[np.intp], n_states: int, vocab_size: int
) -> NDArray[np.intp]:
    return (state * vocab_size + token) % n_states


def _entropy_rate(p: NDArray[np.float64], vocab_size: int) -> float:
    n_states = len(p)
    pi = np.full(n_states, 1.0 / n_states)
    after = _next_state(np.arange(n_states)[:, None], np.arange(vocab_size), n_states, vocab_size)
    for _ in range(100_000):
        new = np.bincount(after.ravel(), (pi[:, None] * p).ravel(), minlength=n_states)
        converged = np.abs(new - pi).sum() < 1e-14
        pi = new / new.sum()
        if converged:
            break
    return float(pi @ -(p * np.log(p)).sum(axis=1))


class Samples(TensorDataset):
    """Rows of x and y; a batch is gathered in one step."""

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, ...]]:
        """Return the samples of one batch."""
        rows = as_tensor(indices)
        return list(zip(*(tensor[rows] for tensor in self.tensors), strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherData:
    """Samples of a noisy teacher: (x, y) with x standard normal.

    Attributes
    ----------
    name, licence, source : str
    train, held_out : Dataset of (x, y)
        float32 of shapes (n_in,) and (1,).
    n_in : int
    noise : float
        σ; y itself has variance 1 + σ².
    irreducible_loss : float
        σ², the least expected mean squared error.
    content_hash : str
    """

    name: str
    licence: str
    train: Samples = field(repr=False)
    held_out: Samples = field(repr=False)
    n_in: int
    noise: float
    source: str
    content_hash: str

    @property
    def irreducible_loss(self) -> float:
        """σ², the least expected mean squared error."""
        return self.noise**2

    @property
    def unique_samples(self) -> int:
        """Training samples, before anything is repeated."""
        return len(self.train)


def teacher(
    n_samples: int = 100_000, *, n_in: int = 8, width: int = 64, noise: float = 0.2, seed: int = 0
) -> TeacherData:
    """Draw y = f(x) + noise · ε, f a random two-layer tanh network scaled to variance 1.

    CC0; the last 5% is held out.

    Parameters
    ----------
    n_samples : int
        Training and held-out samples together.
    n_in, width : int
        Of the teacher. A student learns more of it with more parameters and more samples.
    noise : float
        σ.
    seed : int
    """
    if n_samples < 20 or n_in < 1 or width < 1 or noise < 0:
        raise DataError("teacher needs n_samples >= 20, n_in >= 1, width >= 1 and noise >= 0.")
    rng = np.random.default_rng(seed)
    w1 = rng.normal(size=(n_in, width)) * 2.0 / np.sqrt(n_in)
    w2 = rng.normal(size=width)
    scale = np.std(np.tanh(rng.normal(size=(2**14, n_in)) @ w1) @ w2)
    x = rng.normal(size=(n_samples, n_in)).astype(np.float32)
    clean = np.tanh(x @ w1) @ w2 / scale
    y = (clean + noise * rng.normal(size=n_samples)).astype(np.float32)[:, None]
    cut = n_samples - n_samples // 20
    return TeacherData(
        name="synthetic-teacher",
        licence="CC0-1.0",
        train=Samples(from_numpy(x[:cut]), from_numpy(y[:cut])),
        held_out=Samples(from_numpy(x[cut:]), from_numpy(y[cut:])),
        n_in=n_in,
        noise=noise,
        source=f"two-layer teacher of width {width}, seed {seed}",
        content_hash=hash_parts(x.view(np.uint32), y.view(np.uint32)),
    )
