"""Ready-made data, each with its size, licence, split and content hash."""

from .stdlib_text import TextData, stdlib_text

__all__ = ["TextData", "stdlib_text"]
