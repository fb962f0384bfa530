"""One JupyterLab server and one Chromium for all browser tests; one kernel and page for each."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from lab import browser, chromium, jupyter, lab_page


@pytest.fixture(scope="session")
def chrome():
    if chromium() is None:
        if os.environ.get("SCALING_NB_NEEDS_BROWSER"):
            pytest.fail("there is no Chromium, and SCALING_NB_NEEDS_BROWSER forbids to skip")
        pytest.skip("there is no Chromium")
    with browser() as started:
        yield started


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    with jupyter(tmp_path_factory.mktemp("lab")) as started:
        yield started


@pytest.fixture
def lab(chrome, server, request):
    name = f"{request.node.name.split('[')[0]}.ipynb"
    with lab_page(chrome, server, name) as opened:
        yield opened
