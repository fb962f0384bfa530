"""What each rank of ``test_distributed.py`` runs: 100 steps of a tiny model, reported by rank 0."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers import TinyLM

from scaling_nb import Recipe
from scaling_nb.training.distributed import Ranks
from scaling_nb.training.trainer import Trainer

N_STEPS = 100


def make_recipe() -> Recipe:
    return Recipe(
        TinyLM,
        size="width",
        sizes=[8],
        model_kwargs={"vocab_size": 16},
        dataset=np.random.default_rng(0).integers(0, 16, 20_000),
        tokens_per_sample=8,
        batch_size=8,
        optimizer={"lr": 1e-2},
        device="cpu",
    )


def train(ranks: Ranks | None, micro_batches: int = 1) -> dict[str, list[float]]:
    trainer = Trainer(make_recipe(), 8, seed=1, lr=1e-2, ranks=ranks, micro_batches=micro_batches)
    losses: list[float] = []
    tokens: list[float] = []

    def report(piece) -> None:
        losses.extend(piece.loss.tolist())
        tokens.extend(piece.tokens.tolist())

    trainer.train(N_STEPS, N_STEPS, report=report)
    weights = torch.cat([p.detach().reshape(-1) for p in trainer.parameters]).tolist()
    held_out = [trainer.evaluate()]
    return {"losses": losses, "tokens": tokens, "weights": weights, "held_out": held_out}


if __name__ == "__main__":
    torch.set_num_threads(1)
    ranks = Ranks.join(int(sys.argv[2]), cpu=True)
    ended = [train(ranks), train(ranks, micro_batches=2)]
    Path(sys.argv[1], f"rank{ranks.rank}.json").write_text(json.dumps(ended))
    ranks.leave()
