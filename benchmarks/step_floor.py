"""Measure what is left of a small model's step without modules and without autograd.

    python benchmarks/step_floor.py [--steps 300]

The quick-start's GPT, forward and backward, written out by hand over torch's kernels: no module is
called, no graph is built, nothing is computed twice. It gives the gradients of autograd (that is
checked first), so its time is the floor that fewer calls could reach at best; the two take turns.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from scaling_nb.models import GPT
from scaling_nb.quickstart import quickstart_recipe
from scaling_nb.training.batches import Batch
from scaling_nb.training.devices import use_one_thread
from scaling_nb.training.recipe import Recipe
from scaling_nb.training.trainer import Trainer

ATEN = torch.ops.aten
NORM_EPS = 1e-5


def norm(x: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    return ATEN.native_layer_norm(x, weight.shape, weight, None, NORM_EPS)


def norm_backward(grad: Tensor, x: Tensor, weight: Tensor, stats: tuple[Tensor, ...]) -> Tensor:
    """Return the gradient of a norm's input, and set its weight's."""
    dx, weight.grad, _ = ATEN.native_layer_norm_backward(
        grad, x, weight.shape, *stats, weight, None, [True, True, False]
    )
    return dx


def linear_backward(grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Return the gradient of a product's input, and set its weight's."""
    weight.grad = grad.t().mm(x)
    return grad.mm(weight)


def rotate(x: Tensor, cos: Tensor, sin: Tensor, half: int) -> Tensor:
    """Turn pairs by an angle, or back with the other sign of `sin`."""
    swapped = x.view(*x.shape[:-1], -1, 2 * half).roll(half, -1).view_as(x)
    return (x * cos).addcmul_(swapped, sin)


@torch.no_grad()
def step(model: GPT, batch: Batch) -> None:
    """Set the gradient of the mean cross-entropy of every parameter."""
    tokens, targets = (part.reshape(-1) for part in batch)
    rows, width, length = len(tokens), model.d_model, batch[0].shape[1]
    heads = model.blocks[0].n_heads
    half = width // heads // 2
    cos, sin = model.rotary_cos[:length], model.rotary_sin[:length]
    x = ATEN.embedding(model.token_embedding.weight, tokens)
    kept = []
    for block in model.blocks:
        n1, *stats1 = norm(x, block.attention_norm.weight)
        qkv = rotate(n1.mm(block.qkv.weight.t()).view(-1, length, 3 * width), cos, sin, half)
        q, k, v = qkv.view(-1, length, 3, heads, 2 * half).permute(2, 0, 3, 1, 4).unbind()
        y, logsumexp = ATEN._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, True)
        flat = y.transpose(1, 2).reshape(rows, width)
        x1 = torch.addmm(x, flat, block.attention_out.weight.t())
        n2, *stats2 = norm(x1, block.mlp_norm.weight)
        h = n2.mm(block.mlp_in.weight.t())
        g = ATEN.gelu(h)
        kept.append((x, n1, stats1, q, k, v, y, logsumexp, flat, x1, n2, stats2, h, g))
        x = torch.addmm(x1, g, block.mlp_out.weight.t())
    last, *stats = norm(x, model.final_norm.weight)
    grad = ATEN._log_softmax(last.mm(model.head.weight.t()), 1, False).exp_()
    grad[torch.arange(rows), targets] -= 1
    grad = linear_backward(grad.div_(rows), last, model.head.weight)
    grad = norm_backward(grad, x, model.final_norm.weight, stats)
    for block, saved in zip(reversed(model.blocks), reversed(kept), strict=True):
        x, n1, stats1, q, k, v, y, logsumexp, flat, x1, n2, stats2, h, g = saved
        dh = ATEN.gelu_backward(linear_backward(grad, g, block.mlp_out.weight), h)
        dn = linear_backward(dh, n2, block.mlp_in.weight)
        grad += norm_backward(dn, x1, block.mlp_norm.weight, stats2)
        dy = linear_backward(grad, flat, block.attention_out.weight)
        turned = ATEN._scaled_dot_product_flash_attention_for_cpu_backward(
            dy.view(-1, length, heads, 2 * half).transpose(1, 2), q, k, v, y, logsumexp, 0.0, True
        )
        turned = torch.stack([part.transpose(1, 2) for part in turned], dim=2).flatten(2)
        # The table of the other half has the other sign, so that this turns back.
        dqkv = rotate(turned, cos, -sin, half)
        dn = linear_backward(dqkv.view(rows, -1), n1, block.qkv.weight)
        grad += norm_backward(dn, x, block.attention_norm.weight, stats1)
    table = model.token_embedding.weight
    table.grad = ATEN.embedding_dense_backward(grad, tokens, len(table), -1, False)


def by_autograd(recipe: Recipe, model: GPT, batch: Batch) -> None:
    model.zero_grad(set_to_none=True)
    recipe.loss(model, batch).backward()


def seconds_of(calls: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each call; they take turns."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            taken[name].append(time.perf_counter() - began)
    return {name: statistics.median(t[rounds // 10 :]) for name, t in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    recipe = quickstart_recipe()
    batch = next(recipe.data.source.batches(0))
    print(f"load {os.getloadavg()[0]:.1f}")
    print("| width | forward and backward, ms | by hand, ms | |\n|---|---|---|---|")
    for width in (8, 16, 32, 64):
        with use_one_thread():
            model = Trainer(recipe, width, seed=0, lr=None).model
            torch.nn.init.normal_(model.head.weight, std=0.1)
            by_autograd(recipe, model, batch)
            right = [p.grad for p in model.parameters()]
            step(model, batch)
            for p, grad in zip(model.parameters(), right, strict=True):
                torch.testing.assert_close(p.grad, grad, rtol=1e-4, atol=1e-6)
            taken = seconds_of(
                {
                    "autograd": lambda: by_autograd(recipe, model, batch),  # noqa: B023
                    "hand": lambda: step(model, batch),  # noqa: B023
                },
                options.steps,
            )
        share = taken["hand"] / taken["autograd"]
        print(
            f"| {width} | {1e3 * taken['autograd']:.2f} | {1e3 * taken['hand']:.2f} | {share:.0%} |"
        )


if __name__ == "__main__":
    main()
