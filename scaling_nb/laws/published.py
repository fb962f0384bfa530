"""What papers have published, as constants: surfaces L(N, D) and frontiers N*(C).

Units are ours throughout: N in parameters, D in tokens, C in FLOP, loss in nats per token.
:data:`scaling_nb.published` has them as fits that answer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ..flops import Convention
from .base import Law
from .chinchilla import ChinchillaLaw
from .data_constrained import DataConstrainedLaw
from .kaplan import KaplanLaw

PETAFLOP_DAY = 8.64e19
"""FLOP in a PF-day, the unit of compute of Kaplan et al. 2020."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedSurface:
    """A loss surface with the numbers a paper gives.

    Attributes
    ----------
    law : Law
    params : mapping of str to float
        In raw units.
    intervals : mapping of str to (low, high)
        Where the paper gives them.
    level : float
        Of the intervals.
    convention : str
        How the paper counts N.
    source : str
    note : str
        What a user should know.
    """

    law: Law
    params: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    level: float = 0.90
    convention: Convention = "total"
    source: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedFrontier:
    """A power law of one optimum against compute, the other following from C = 6·N·D.

    ``variable`` = ``coefficient`` · C^``exponent``, C in FLOP.
    """

    variable: Literal["N", "D"]
    coefficient: float
    exponent: float
    exponent_interval: tuple[float, float] = (math.nan, math.nan)
    level: float = 0.80
    convention: Convention = "total"
    source: str
    note: str = ""


def _standard(value: float, error: float) -> tuple[float, float]:
    """Return the 90% interval of a normal law."""
    return value - 1.6449 * error, value + 1.6449 * error


SURFACES: Mapping[str, PublishedSurface] = {
    "kaplan_2020": PublishedSurface(
        law=KaplanLaw(),
        params={"N_c": 6.4e13, "D_c": 1.8e13, "alpha_N": 0.076, "alpha_D": 0.103},
        convention="non_embedding",
        source="Kaplan et al. 2020, eq. 1.5 and table 2 (arXiv:2001.08361)",
        note="Fitted to early-stopped runs on limited data. Its own frontier grows as C^0.58; the "
        "paper's N* ∝ C^0.73 comes from runs at a fixed schedule (kaplan_2020_frontier).",
    ),
    "hoffmann_2022_approach3": PublishedSurface(
        law=ChinchillaLaw(),
        params={"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.3392, "beta": 0.2849},
        source="Hoffmann et al. 2022, eq. 10 (arXiv:2203.15556); exponents unrounded, from the "
        "paper's source, as in Besiroglu et al. 2024",
        note="Does not fit the paper's own points, nor agree with its approaches 1 and 2: the "
        "optimiser stopped early (Besiroglu et al. 2024).",
    ),
    "besiroglu_2024": PublishedSurface(
        law=ChinchillaLaw(),
        params={"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658},
        intervals={
            name: _standard(value, error)
            for name, value, error in (
                ("E", 1.8172, 0.0257),
                ("A", 482.01, 124.52),
                ("B", 2085.43, 1293.28),
                ("alpha", 0.3478, 0.0154),
                ("beta", 0.3658, 0.0206),
            )
        },
        source="Besiroglu et al. 2024, table 1 (arXiv:2404.10102)",
        note="240 points read off a figure of Hoffmann et al. 2022. Intervals are ±1.645 standard "
        "errors, one parameter at a time; the parameters are strongly correlated.",
    ),
    "muennighoff_2023": PublishedSurface(
        law=DataConstrainedLaw(),
        params={
            "E": math.exp(0.6254804),
            "A": math.exp(6.255414),
            "B": math.exp(7.3049974),
            "alpha": 0.3526596,
            "beta": 0.3526596,
            "R_D_star": 15.387756,
            "R_N_star": 5.309743,
        },
        source="Muennighoff et al. 2023, eq. 6 and appendix A (arXiv:2305.16264)",
        note="R_D* and R_N* are a local minimum: 95.4 and 1.71 fit the same runs slightly better, "
        "and R_D* from 15 to 300 fits within 0.2%.",
    ),
}

FRONTIERS: Mapping[str, PublishedFrontier] = {
    "kaplan_2020_frontier": PublishedFrontier(
        variable="N",
        coefficient=1.3e9 * (2.0 * PETAFLOP_DAY) ** -0.73,
        exponent=0.73,
        convention="non_embedding",
        source="Kaplan et al. 2020, table 6 (arXiv:2001.08361): N = 1.3e9 C_min^0.73, C_min in "
        "PF-days",
        note="C_min = C / 2: trained at the critical batch size, as Hoffmann et al. 2022 read it.",
    ),
    "hoffmann_2022_approach1": PublishedFrontier(
        variable="N",
        coefficient=67e9 * 5.76e23**-0.50,
        exponent=0.50,
        exponent_interval=(0.488, 0.502),
        source="Hoffmann et al. 2022, table 2 (exponent) and table 3 (67 B at 5.76e23 FLOP)",
    ),
    "hoffmann_2022_approach2": PublishedFrontier(
        variable="N",
        coefficient=10e9 * 1.32e22**-0.49,
        exponent=0.49,
        exponent_interval=(0.462, 0.534),
        source="Hoffmann et al. 2022, table 2 (exponent) and table A3 (10 B at 1.32e22 FLOP)",
    ),
    "llama3_2024": PublishedFrontier(
        variable="D",
        coefficient=0.299,
        exponent=0.537,
        source="Llama team 2024, §3.2.1 (arXiv:2407.21783): D* = 0.29 C^0.53, unrounded",
        note="The paper extrapolates it to 16.55 T tokens at 3.8e25 FLOP.",
    ),
    "deepseek_2024": PublishedFrontier(
        variable="D",
        coefficient=5.8316,
        exponent=0.4757,
        convention="non_embedding",
        source="DeepSeek-AI 2024, eq. 4 (arXiv:2401.02954): D = 5.8316 C^0.4757, "
        "M = 0.1715 C^0.5243",
        note="The paper's model scale is M, non-embedding FLOP per token, attention included, and "
        "C = M·D. N here is M / 6, which counts attention as if it were parameters.",
    ),
}
