"""A small vision transformer: image classes from patches."""

from __future__ import annotations

from torch import Tensor, nn, optim

from ..flops import Convention
from .blocks import Block, make_norm
from .counts import count_params
from .parametrization import init_fan_in, mup_adamw


class ViT(nn.Module):
    """Vision transformer: images (batch, channels, size, size) to logits (batch, n_classes).

    The image is cut into patches, each becomes a vector of width d with a learned position; after
    pre-norm blocks the patches' mean goes to the head, which starts at zero, so that every width
    starts at a loss of ln(n_classes). One image is ``n_patches`` tokens.

    Parameters
    ----------
    d_model : int
        Width d; a multiple of `n_heads`.
    image_size, patch : int, pixels
        Side of the image and of a patch, which must divide it.
    channels, n_classes : int
    n_layers, n_heads : int

    References
    ----------
    Dosovitskiy et al. 2021; mean pooling as in Zhai et al. 2022.
    """

    def __init__(
        self,
        d_model: int,
        *,
        image_size: int = 28,
        patch: int = 7,
        channels: int = 1,
        n_classes: int = 10,
        n_layers: int = 2,
        n_heads: int = 2,
    ) -> None:
        super().__init__()
        if d_model < n_heads or d_model % n_heads:
            raise ValueError(f"d_model={d_model} must be a positive multiple of {n_heads} heads")
        if image_size % patch:
            raise ValueError(f"patches of {patch} pixels do not tile an image of {image_size}")
        self.d_model = d_model
        self.n_patches = (image_size // patch) ** 2
        self.patch = patch
        self.patch_embedding = nn.Linear(channels * patch * patch, d_model, bias=False)
        self.position_embedding = nn.Embedding(self.n_patches, d_model)
        self.blocks = nn.ModuleList(
            Block(d_model, n_heads, depth=n_layers, causal=False) for _ in range(n_layers)
        )
        self.final_norm = make_norm("layer", d_model)
        self.head = nn.Linear(d_model, n_classes, bias=False)
        init_fan_in([self.patch_embedding])
        nn.init.normal_(self.position_embedding.weight, std=0.1)
        nn.init.zeros_(self.head.weight)

    def forward(self, images: Tensor) -> Tensor:
        """Return the class scores, shape (batch, n_classes)."""
        batch, p = len(images), self.patch
        patches = images.unfold(2, p, p).unfold(3, p, p)  # (batch, channels, rows, columns, p, p)
        patches = patches.permute(0, 2, 3, 1, 4, 5).reshape(batch, self.n_patches, -1)
        x = self.patch_embedding(patches) + self.position_embedding.weight
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.final_norm(x).mean(dim=1))
        return logits

    def num_params(self, convention: Convention = "total") -> int:
        """Return N under a counting convention, parameters."""
        return count_params(self, convention)


def vit_optimizer(model: ViT, *, lr: float = 5e-3, base_width: int = 32) -> optim.AdamW:
    """Return muP's AdamW for a :class:`ViT`; `lr` holds at `base_width` and so at every width."""
    return mup_adamw(
        inputs=[model.patch_embedding, model.position_embedding, model.final_norm],
        hidden=list(model.blocks),
        outputs=[model.head],
        width=model.d_model,
        base_width=base_width,
        lr=lr,
    )
