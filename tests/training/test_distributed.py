from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from scaling_nb.errors import RecipeError, ScalingError
from scaling_nb.training.distributed import Ranks, WrongWorld, check_divisible

SCRIPT = Path(__file__).with_name("rank_training.py")


def launch(n: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return subprocess.run(
        [*command, f"--nproc-per-node={n}", str(SCRIPT), *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def in_one_process() -> dict[str, list[float]]:
    found = importlib.util.spec_from_file_location("rank_training", SCRIPT)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module.train(None)


def test_two_ranks_train_as_one_process_does(tmp_path):
    ended = launch(2, tmp_path, 2)
    assert ended.returncode == 0, ended.stderr
    ranks = [json.loads((tmp_path / f"rank{r}.json").read_text()) for r in range(2)]
    assert ranks[0] == ranks[1]
    alone = in_one_process()
    assert len(alone["losses"]) == 100
    for together in ranks[0]:
        for name, expected in alone.items():
            np.testing.assert_allclose(together[name], expected, rtol=0, atol=1e-6, err_msg=name)


def test_a_single_process_where_two_were_asked_for_is_refused(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(WrongWorld, match="1 process joined where 2 were asked for"):
        Ranks.join(2, cpu=True)


def test_without_accelerate_the_pip_line_is_said(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(ScalingError, match=r"pip install 'scaling_nb\[distributed\]'"):
        Ranks.join(2, cpu=True)


def test_a_batch_that_cannot_be_shared_evenly_is_refused():
    check_divisible(12, 4)
    with pytest.raises(RecipeError, match="such as 12"):
        check_divisible(9, 4)
