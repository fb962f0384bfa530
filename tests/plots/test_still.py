"""A picture without a browser: valid XML, all points, all minima."""

from __future__ import annotations

from xml.etree import ElementTree

import scaling_nb as snb
from scaling_nb.plots import isoflop_curves, isoflop_svg
from scaling_nb.simulation import IsoFlopDesign

SVG = "{http://www.w3.org/2000/svg}"


def place(dot):
    moved = dot.get("transform")
    if moved is None:
        return dot.get("cx"), dot.get("cy")
    return moved.removeprefix("translate(").removesuffix(")").split()


def test_every_run_and_every_minimum_is_in_the_picture_and_inside_it():
    design = IsoFlopDesign(budgets=(1e17, 3e17, 1e18))
    fit = snb.fit_isoflop(snb.simulate(snb.published["besiroglu_2024"], design), bootstrap=0)
    tree = ElementTree.fromstring(isoflop_svg(fit))
    curves = isoflop_curves(fit)
    runs = [group for group in tree.iter(f"{SVG}g") if group.get("class") == "runs"]
    dots = [dot for group in runs for dot in group]
    assert len(dots) == sum(len(curve.n_params) for curve in curves)
    for dot in dots:
        x, y = map(float, place(dot))
        assert 64 <= x <= 600
        assert 34 <= y <= 330
    # Budgets are told apart without colours.
    assert len({(group[0].tag, group[0].get("d")) for group in runs}) == len(curves)
    stars = [path for path in tree.iter(f"{SVG}path") if len(path)]
    assert len(stars) == sum(curve.minimum.status == "optimum" for curve in curves) > 0
    words = [text.text for text in tree.iter(f"{SVG}text")]
    assert all(curve.label in words for curve in curves)
