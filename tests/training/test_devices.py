"""Memory that may be taken: what a container counts as used is not all in use."""

from __future__ import annotations

import torch

from scaling_nb.training import devices


def test_files_that_were_read_are_memory_that_comes_back(tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("4000\n")
    (tmp_path / "memory.stat").write_text("anon 1000\ninactive_file 2500\n")
    place = (tmp_path, "memory.max", "memory.current", "inactive_file")
    monkeypatch.setattr(devices, "_CGROUP_FILES", (place,))
    assert devices.free_memory(torch.device("cpu")) == 3500
    (tmp_path / "memory.max").write_text("max\n")
    assert devices.free_memory(torch.device("cpu")) > 10**6
