"""What every law promises, over whatever laws there are."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scaling_nb import fit_law
from scaling_nb.errors import FitError
from scaling_nb.laws import (
    LAWS,
    ChinchillaLaw,
    Constraints,
    DataConstrainedLaw,
    KaplanLaw,
    Law,
    NumericLaw,
    Parameter,
    PowerLaw,
    law_from_spec,
)

EXAMPLES: dict[str, tuple[Law, dict[str, float]]] = {
    "ChinchillaLaw": (
        ChinchillaLaw(),
        {"E": 1.7, "A": 400.0, "B": 1500.0, "alpha": 0.34, "beta": 0.37},
    ),
    "KaplanLaw": (
        KaplanLaw(),
        {"N_c": 6.4e13, "D_c": 1.8e13, "alpha_N": 0.076, "alpha_D": 0.103},
    ),
    "PowerLaw": (PowerLaw("C"), {"E": 1.5, "A": 60.0, "alpha": 0.09}),
    "PowerLaw, no floor": (PowerLaw("N", irreducible=False), {"A": 12.0, "alpha": 0.08}),
    "DataConstrainedLaw": (
        DataConstrainedLaw(),
        {
            "E": 1.87,
            "A": 521.0,
            "B": 1488.0,
            "alpha": 0.35,
            "beta": 0.36,
            "R_D_star": 15.4,
            "R_N_star": 5.3,
        },
    ),
}
COVERED = {type(law).__name__ for law, _ in EXAMPLES.values()}
EXAMPLES |= {
    name: (law(), dict(law.example)) for name, law in LAWS.items() if name not in COVERED
}  # a law that somebody adds brings its own
both = pytest.mark.parametrize(("law", "params"), EXAMPLES.values(), ids=EXAMPLES.keys())


def inputs_of(law: Law, n: int = 23) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    tokens = 10 ** rng.uniform(9, 11, n)
    columns = {
        "N": 10 ** rng.uniform(7.5, 10, n),
        "D": tokens,
        "C": 10 ** rng.uniform(18, 22, n),
        "unique_tokens": tokens / rng.choice([1.0, 2.0, 8.0, 60.0], n),
    }
    return {name: columns[name] for name in law.inputs}


def test_every_law_has_an_example():
    assert {type(law).__name__ for law, _ in EXAMPLES.values()} == set(LAWS)
    assert {"ChinchillaLaw", "KaplanLaw", "PowerLaw", "DataConstrainedLaw"} <= set(LAWS)
    assert "NumericLaw" not in LAWS


@both
def test_the_names_are_the_parameters(law, params):
    assert law.param_names == tuple(params)
    assert all(p.low < p.high and p.meaning for p in law.parameters)
    assert law.formula
    assert law.latex
    assert law.source


@both
def test_a_spec_reads_back(law, params):
    assert law_from_spec(law.to_spec()) == law


def test_an_unknown_spec_names_the_laws():
    with pytest.raises(FitError, match="ChinchillaLaw"):
        law_from_spec({"law": "MoonLaw"})


@both
def test_predict_broadcasts_and_falls_with_every_input(law, params):
    inputs = inputs_of(law)
    given = {k: v for k, v in inputs.items() if k in ("N", "D")}
    rest = {k: v for k, v in inputs.items() if k not in ("N", "D")}
    loss = law.predict(params, given.get("N"), given.get("D"), **rest)
    assert loss.shape == (23,)
    assert np.all(np.isfinite(loss) & (loss > 0))
    for name, values in inputs.items():
        more = law.loss(params, {**inputs, name: 1.5 * values})
        if name == "unique_tokens":
            more = law.loss(params, {**inputs, name: np.minimum(1.5 * values, inputs["D"])})
        assert np.all(more <= loss * (1 + 1e-12))


@both
def test_predict_says_what_is_missing(law, params):
    with pytest.raises(FitError, match="missing"):
        law.predict(params)


@both
def test_solver_coordinates_are_one_to_one(law, params):
    surface = law.surface(inputs_of(law))
    raw = np.array([list(params.values())])
    np.testing.assert_allclose(surface.to_params(surface.to_theta(raw)), raw, rtol=1e-12)


@both
def test_the_surface_is_the_law(law, params):
    inputs = inputs_of(law)
    surface = law.surface(inputs)
    theta = surface.to_theta(np.array([list(params.values())]))
    expected = law.loss(params, inputs)
    np.testing.assert_allclose(surface.loss(theta)[0], expected, rtol=1e-12)
    np.testing.assert_allclose(surface.derivatives(theta)[0][0], expected, rtol=1e-12)
    rows = np.array([3, 1, 7])
    np.testing.assert_allclose(surface.take(rows).loss(theta)[0], expected[rows], rtol=1e-12)


@both
def test_derivatives_agree_with_differences(law, params):
    surface = law.surface(inputs_of(law))
    theta = surface.to_theta(np.array([list(params.values()), list(params.values())]))
    theta[1] *= 1.02
    weight = np.random.default_rng(1).standard_normal((2, 23))
    loss, jacobian = surface.derivatives(theta)
    curvature = surface.curvature(theta, jacobian, weight)
    for j in range(theta.shape[1]):
        step = 1e-5 * np.maximum(np.abs(theta[:, j]), 1e-3)
        ahead, behind = theta.copy(), theta.copy()
        ahead[:, j] += step
        behind[:, j] -= step
        slope = (surface.loss(ahead) - surface.loss(behind)) / (2 * step[:, None])
        scale = np.abs(jacobian[:, j]).max()
        np.testing.assert_allclose(slope, jacobian[:, j], rtol=1e-5, atol=1e-6 * scale)
        gradients = [
            np.einsum("sqi,si->sq", surface.derivatives(x)[1], weight) for x in (ahead, behind)
        ]
        bend = (gradients[0] - gradients[1]) / (2 * step[:, None])
        np.testing.assert_allclose(
            bend, curvature[:, :, j], rtol=1e-3, atol=1e-4 * np.abs(curvature).max()
        )
    assert loss.shape == (2, 23)


@both
def test_starts_lie_in_the_box_and_one_is_near(law, params):
    inputs = inputs_of(law, 60)
    loss = law.loss(params, inputs)
    surface = law.surface(inputs)
    starts = surface.starts(loss, np.ones(60), Constraints())
    raw = surface.to_params(starts)
    assert np.all(raw >= [p.low for p in law.parameters])
    assert np.all(raw <= [p.high for p in law.parameters])
    error = np.abs(np.log(surface.loss(starts) / loss)).max(axis=1)
    assert error.min() < 0.2


@both
def test_the_frontier_is_where_the_loss_is_least(law, params):
    if not law.answers_allocation:
        with pytest.raises(FitError, match="ChinchillaLaw"):
            law.frontier(params)
        with pytest.raises(FitError):
            law.excess(params, 3.0)
        return
    front = law.frontier(params)
    n, d = 1e9, 2e10
    terms = np.exp(front.log_A) * n**-front.alpha + np.exp(front.log_B) * d**-front.beta
    plain = law.predict(params, n, d)
    assert law.excess(params, plain) == pytest.approx(terms, rel=1e-9)


@both
def test_own_slopes_are_what_complex_steps_give(law, params):
    inputs = inputs_of(law)
    raw = {name: np.array([[value]]) for name, value in params.items()}
    if not isinstance(law, NumericLaw):
        assert type(law.surface(inputs)).__name__ == "PowerSumSurface"
        return
    slopes = law.slopes(raw, inputs)
    if slopes is None:  # complex steps are all it has
        return
    for name, slope in zip(law.param_names, slopes, strict=True):
        step = 1e-30
        shifted = {**raw, name: raw[name] + 1j * step * raw[name]}
        expected = np.asarray(law.loss(shifted, inputs)).imag / (step * params[name])
        expected = np.broadcast_to(expected, np.shape(slope))
        np.testing.assert_allclose(slope, expected, rtol=1e-7, atol=1e-10 * np.abs(expected).max())


class Shifted(NumericLaw):
    """A law that somebody adds with a formula and starts alone: L = E + A / (N + N_0)^α."""

    name, formula, latex, source = "shifted", "E + A / (N + N_0)^alpha", "E", "this test"

    @property
    def parameters(self):
        return (
            Parameter(name="E", symbol="E", meaning="floor"),
            Parameter(name="A", symbol="A", meaning="scale", low=1e-6),
            Parameter(name="N_0", symbol="N_0", meaning="shift", low=1e2),
            Parameter(name="alpha", symbol="a", meaning="exponent", high=3.0, exponent=True),
        )

    @property
    def inputs(self):
        return ("N",)

    def loss(self, params, inputs):
        return params["E"] + params["A"] * (inputs["N"] + params["N_0"]) ** -params["alpha"]

    def starts(self, inputs, loss, weight):
        return np.array([[0.8 * loss.min(), 10.0, 1e5, 0.1], [0.8 * loss.min(), 1e2, 1e6, 0.3]])


def test_one_file_adds_a_law():
    n = np.geomspace(1e5, 1e9, 30)
    params = {"E": 1.5, "A": 60.0, "N_0": 8e5, "alpha": 0.22}
    law = Shifted()
    frame = pd.DataFrame({"N": n, "D": 20 * n, "loss": law.loss(params, {"N": n})})
    fit = fit_law(frame, law, bootstrap=0)
    assert fit.params == pytest.approx(params, rel=1e-5)
