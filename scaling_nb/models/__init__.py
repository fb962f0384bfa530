"""Ready-made models that satisfy the recipe contract."""

from .gpt import GPT, gpt_optimizer

__all__ = ["GPT", "gpt_optimizer"]
