from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


def test_a_script_works_unchanged_under_torchrun(tmp_path):
    """One rank trains, the other watches its store; both get every run of the plan."""
    script = Path(__file__).with_name("rank_script.py")
    ended = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        + [str(script), str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    first, second = (json.loads((tmp_path / f"rank{r}.json").read_text()) for r in range(2))
    assert first == second
    losses, n_planned = first
    assert len(losses) == n_planned > 6
