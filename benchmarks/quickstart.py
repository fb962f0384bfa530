"""How long the quick start takes here, and what it answers: the numbers of the README.

    python benchmarks/quickstart.py [--runs 3] [--quick] [--picture docs/img/quickstart.png]

Each run is the command itself in a fresh process and folder, with another seed; run it on an idle
machine. The picture is the report's own figure, photographed in Chromium.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd


def timed_quickstart(out: Path, seed: int, *, quick: bool) -> float:
    """Run the command; returns its wall time in seconds."""
    words = [sys.executable, "-m", "scaling_nb", "quickstart", "--out", str(out)]
    words += ["--seed", str(seed)] + (["--quick"] if quick else [])
    began = time.monotonic()
    subprocess.run(words, check=True, stderr=subprocess.DEVNULL)
    return time.monotonic() - began


def loss_table(out: Path) -> str:
    """Return held-out losses by budget and width, nats per token."""
    runs = pd.read_csv(out / "runs.csv")
    table = runs.pivot_table(index="budget", columns="size", values="loss")
    return table.to_string(float_format="{:.3f}".format, na_rep="–")


def photograph(runs_db: Path, picture: Path) -> None:
    """Write the IsoFLOP curves and N*(C) of a finished run side by side as a PNG."""
    from playwright.sync_api import sync_playwright

    import scaling_nb as snb

    store = snb.RunStore(runs_db)
    fit = snb.fit_isoflop(snb.RunTable.from_runs(store.runs().values()))
    store.close()
    figures = [snb.plots.plot_isoflop(fit), snb.plots.plot_frontier(fit)]
    parts = [
        figure.update_layout(width=640, height=440, template="plotly_white").to_html(
            full_html=False, include_plotlyjs=(i == 0)
        )
        for i, figure in enumerate(figures)
    ]
    page_text = f'<body style="margin:0;display:flex;background:white">{"".join(parts)}</body>'
    picture.parent.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=flags)
        page = browser.new_page(viewport={"width": 1290, "height": 445})
        page.set_content(page_text)
        page.wait_for_selector(".js-plotly-plot .main-svg")
        page.screenshot(path=str(picture))
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.runs):
            out = Path(folder) / str(seed)
            seconds.append(timed_quickstart(out, seed, quick=options.quick))
            print(f"\nseed {seed}: {seconds[-1]:.0f} s\n{loss_table(out)}\n", flush=True)
        if options.picture:
            photograph(Path(folder) / "0" / "runs.db", options.picture)
    print(f"median of {len(seconds)} runs: {statistics.median(seconds):.0f} s")


if __name__ == "__main__":
    main()
