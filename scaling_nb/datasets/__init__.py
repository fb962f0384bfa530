"""Ready-made data, each with its size, licence, split, unique tokens and content hash."""

from .digits import digits
from .fashion_mnist import fashion_mnist
from .files import text_files, token_memmap
from .hub import cifar10, tinystories
from .images import ImageData, Images
from .patterns import patterns
from .stdlib_text import stdlib_text
from .synthetic import SyntheticTokens, TeacherData, synthetic, teacher
from .tokens import TextData, TokenData

__all__ = [
    "ImageData",
    "Images",
    "SyntheticTokens",
    "TeacherData",
    "TextData",
    "TokenData",
    "cifar10",
    "digits",
    "fashion_mnist",
    "patterns",
    "stdlib_text",
    "synthetic",
    "teacher",
    "text_files",
    "tinystories",
    "token_memmap",
]
