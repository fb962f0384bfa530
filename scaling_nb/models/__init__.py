"""Ready-made models that satisfy the recipe contract, and muP for your own."""

from .gpt import GPT, gpt_optimizer
from .mlp import MLP, mlp_optimizer
from .parametrization import MuP, output_multiplier
from .vit import ViT, vit_optimizer

__all__ = [
    "GPT",
    "MLP",
    "MuP",
    "ViT",
    "gpt_optimizer",
    "mlp_optimizer",
    "output_multiplier",
    "vit_optimizer",
]
