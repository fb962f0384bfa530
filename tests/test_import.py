import json
import subprocess
import sys

import pytest

import scaling_nb

HEAVY = ["torch", "plotly", "ipywidgets", "pandas", "scipy", "numpy"]


def loaded_after(statement: str) -> list[str]:
    code = f"{statement}\nimport sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_importing_the_package_loads_nothing_heavy():
    loaded = loaded_after("import scaling_nb; dir(scaling_nb)")
    assert [name for name in HEAVY if name in loaded] == []


def test_the_analysis_wing_works_without_torch():
    loaded = loaded_after(
        "import pandas as pd, scaling_nb as snb\n"
        "frame = pd.DataFrame({'N': [1e6, 2e6, 4e6, 1e6, 2e6, 4e6, 1e6],\n"
        "    'D': [4e8, 2e8, 1e8, 8e8, 4e8, 2e8, 2e9],\n"
        "    'loss': [3.1, 3.0, 3.1, 2.9, 2.8, 2.85, 2.8]})\n"
        "snb.fit_law(snb.RunTable.from_frame(frame), bootstrap=20)\n"
        "snb.fit_isoflop, snb.simulate, snb.plots.plot_isoflop"
    )
    assert "torch" not in loaded
    assert "scipy" in loaded


def test_every_public_name_arrives_and_is_listed():
    assert scaling_nb.__all__ == sorted(scaling_nb.__all__)
    for name in scaling_nb.__all__:
        assert getattr(scaling_nb, name) is not None
        assert name in dir(scaling_nb)


def test_completion_lists_names_that_were_never_touched():
    code = (
        "import scaling_nb as snb\n"
        "from IPython.core.completer import IPCompleter\n"
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "shell = InteractiveShell.instance(); shell.user_ns['snb'] = snb\n"
        "print(shell.Completer.all_completions('snb.find_'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "find_optimal" in done.stdout


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        scaling_nb.no_such_name  # noqa: B018


def test_what_a_clusters_host_loads_is_light():
    loaded = loaded_after("import scaling_nb.executors.ray_host")
    assert [name for name in HEAVY if name in loaded] == ["numpy"]


def test_executors_arrive_lazily_and_are_listed():
    from scaling_nb import executors

    for name in executors.__all__:
        assert getattr(executors, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        executors.no_such_name  # noqa: B018
