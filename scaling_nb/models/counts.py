"""N of a model under each counting convention."""

from __future__ import annotations

from torch import nn

from ..flops import Convention, check_convention


def count_params(model: nn.Module, convention: Convention = "total") -> int:
    """Return N: all parameters, all but embedding tables, or the weights of linear layers."""
    check_convention(convention)
    if convention == "matmul":
        linear = (m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d))
        return sum(m.weight.numel() for m in linear)
    total = sum(p.numel() for p in model.parameters())
    if convention == "total":
        return total
    tables = (m for m in model.modules() if isinstance(m, nn.Embedding))
    return total - sum(table.weight.numel() for table in tables)
