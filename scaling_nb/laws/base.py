"""What a law is: a formula with named parameters, and how a solver sees it on one table.

A :class:`Law` is what a person names and reads. A :class:`Surface` is the same law laid over
one table's inputs, in coordinates that a solver likes. To add a law, write one file with one
:class:`.numeric.NumericLaw` that has ``loss`` and ``starts``: derivatives then come by complex
steps. A law that is worth the trouble has ``slopes`` too, or its own ``surface``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import FitError

Floats = NDArray[np.float64]
Input = Literal["N", "D", "C", "unique_tokens"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter of a law: its name, its bounds and what it means.

    Attributes
    ----------
    name : str
        Key in every ``params`` mapping.
    symbol : str
        LaTeX.
    meaning : str
        In the words of the field, with the unit.
    low, high : float
        Bounds in raw units, both attainable; an optimum on one is reported as such.
    exponent : bool
        True for an exponent; a solver may be given another box for exponents.
    """

    name: str
    symbol: str
    meaning: str
    low: float = 0.0
    high: float = np.inf
    exponent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontier:
    """The reducible loss as A/N^α + B/D^β; each a float or an array over parameter sets."""

    log_A: Any
    alpha: Any
    log_B: Any
    beta: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraints:
    """What a person holds still in a fit.

    Attributes
    ----------
    fixed : mapping of str to float
        Parameters held at a value, raw units.
    shared : tuple of str
        Parameters that take one common value, such as ``("alpha", "beta")``.
    """

    fixed: Mapping[str, float] = field(default_factory=dict)
    shared: tuple[str, ...] = ()


FREE = Constraints()
"""No constraint."""


class Surface(ABC):
    """One law over one table's inputs, in solver coordinates θ, for whole batches of θ.

    Shapes: θ is (n_batch, n_coords), a loss (n_batch, n_runs), a Jacobian
    (n_batch, n_coords, n_runs). Coordinates stand in the order of the law's parameters.
    """

    lower: Floats
    upper: Floats

    @property
    def linear(self) -> tuple[int, ...]:
        """Coordinates, at most three, that the loss is linear in together.

        Given the others they follow by least squares, which spares a solver the bent valleys
        that they make with the exponents.
        """
        return ()

    @abstractmethod
    def loss(self, theta: Floats) -> Floats:
        """Return the loss at each θ and run, shape (n_batch, n_runs)."""

    @abstractmethod
    def derivatives(self, theta: Floats) -> tuple[Floats, Floats]:
        """Return the loss and its Jacobian ∂L/∂θ, shape (n_batch, n_coords, n_runs)."""

    @abstractmethod
    def curvature(self, theta: Floats, jacobian: Floats, weight: Floats) -> Floats:
        """Return Σ_i weight_i ∂²L_i/∂θ², shape (n_batch, n_coords, n_coords).

        `jacobian` is what :meth:`derivatives` returned for the same θ.
        """

    @abstractmethod
    def starts(self, loss: Floats, weight: Floats, constraints: Constraints) -> Floats:
        """Return θ to start a weighted least-squares fit of `loss` from, (n_starts, n_coords)."""

    @abstractmethod
    def to_params(self, theta: Floats) -> Floats:
        """Return raw parameters for solver coordinates; both (n_batch, n_coords)."""

    @abstractmethod
    def to_theta(self, params: Floats) -> Floats:
        """Return solver coordinates for raw parameters; both (n_batch, n_coords)."""

    @abstractmethod
    def take(self, rows: NDArray[Any]) -> Surface:
        """Return the same law over some of the rows, in the same coordinates."""


class Law(ABC):
    """A scaling law: loss as a function of N, D or C, with named parameters.

    Attributes
    ----------
    name : str
        What a person calls it.
    formula : str
        Plain text.
    latex : str
    source : str
        Paper and equation.
    example : mapping of str to float
        Plausible parameters, raw units, for N around 1e9: the contract tests run over them.
    """

    __slots__ = ()

    name: ClassVar[str]
    formula: ClassVar[str]
    latex: ClassVar[str]
    source: ClassVar[str]
    example: ClassVar[Mapping[str, float]] = {}

    @property
    @abstractmethod
    def parameters(self) -> tuple[Parameter, ...]:
        """The law's parameters, in the order of every parameter array."""

    @property
    @abstractmethod
    def inputs(self) -> tuple[Input, ...]:
        """Columns of a run table that the law reads."""

    @property
    def param_names(self) -> tuple[str, ...]:
        """Keys of every ``params`` mapping, in order."""
        return tuple(p.name for p in self.parameters)

    @property
    def split(self) -> tuple[str, str] | None:
        """The two exponents α, β that divide a budget, a = β / (α + β); None where there are none.

        That is the exponent a of N* ∝ C^a.
        """
        return ("alpha", "beta") if {"alpha", "beta"} <= set(self.param_names) else None

    @property
    def answers_allocation(self) -> bool:
        """True if the law speaks of both N and D, so that a budget can be divided."""
        return {"N", "D"} <= set(self.inputs)

    @abstractmethod
    def loss(self, params: Mapping[str, Any], inputs: Mapping[str, Any]) -> Any:
        """Evaluate the formula; everything broadcasts, and complex parameters are allowed."""

    @abstractmethod
    def starts(self, inputs: Mapping[str, Floats], loss: Floats, weight: Floats) -> Floats:
        """Propose raw parameters to start a fit from, shape (n_starts, n_params)."""

    def predict(
        self,
        params: Mapping[str, Any],
        N: ArrayLike | None = None,
        D: ArrayLike | None = None,
        *,
        C: ArrayLike | None = None,
        unique_tokens: ArrayLike | None = None,
    ) -> Floats:
        """Return the loss the law predicts, in the unit the law was fitted in.

        Parameters
        ----------
        params : mapping of str to float
            One value for each of ``param_names``; arrays broadcast against the inputs.
        N : array_like, parameters
        D : array_like, tokens
        C : array_like, FLOP
            Where the law reads C and it is not given: 6·N·D.
        unique_tokens : array_like, tokens
            Where the law reads it and it is not given: D, that is no repeats.

        Returns
        -------
        ndarray, the broadcast shape of everything given

        Raises
        ------
        FitError
            If an input that the law reads is missing.
        """
        given: dict[str, Any] = {"N": N, "D": D, "C": C, "unique_tokens": unique_tokens}
        if C is None and N is not None and D is not None:
            given["C"] = 6.0 * np.asarray(N, float) * np.asarray(D, float)
        if unique_tokens is None:
            given["unique_tokens"] = D
        missing = [name for name in self.inputs if given[name] is None]
        if missing:
            raise FitError(
                f"{self.name} reads {', '.join(self.inputs)}, but {', '.join(missing)} is "
                "missing. Pass it to predict()."
            )
        values = {name: np.asarray(params[name], dtype=float) for name in self.param_names}
        inputs: dict[str, Any] = {n: np.asarray(given[n], dtype=np.float64) for n in self.inputs}
        return np.asarray(self.loss(values, inputs), dtype=np.float64)

    def frontier(self, params: Mapping[str, Any]) -> Frontier:
        """Return the two terms whose sum the compute-optimal N and D minimise.

        Raises
        ------
        FitError
            If the law does not speak of both N and D.
        """
        raise FitError(
            f"{self.name} speaks of {', '.join(self.inputs)} alone, so it cannot divide a budget "
            "between N and D. Fit ChinchillaLaw to the same runs."
        )

    def excess(self, params: Mapping[str, Any], loss: Any) -> Any:
        """Return A/N^α + B/D^β of :meth:`frontier` for a given loss."""
        raise FitError(f"{self.name} has no compute-optimal frontier. Fit ChinchillaLaw.")

    @abstractmethod
    def surface(self, inputs: Mapping[str, Floats], constraints: Constraints = FREE) -> Surface:
        """Lay the law over one table's inputs.

        Parameters
        ----------
        inputs : mapping of str to ndarray, shape (n_runs,)
        constraints : Constraints
            What will be held still: a surface may choose its coordinates by it.
        """

    def to_spec(self) -> dict[str, Any]:
        """Return a JSON-ready description; :func:`scaling_nb.laws.law_from_spec` reads it."""
        options: dict[str, Any] = asdict(self) if is_dataclass(self) else {}
        return {"law": type(self).__name__, **options}
