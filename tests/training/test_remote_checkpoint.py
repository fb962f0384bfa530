from __future__ import annotations

import numpy as np
import pytest
import torch

from scaling_nb.training.checkpoint import Saved
from scaling_nb.training.remote_checkpoint import RemoteCheckpoint
from scaling_nb.training.trainer import CurvePiece, Snapshot


def saved(step: int) -> Saved:
    trunk = Snapshot(
        model={"w": torch.full((3,), float(step))}, optimizer={}, step=step, tokens_seen=8 * step,
        generator=torch.zeros(0),
    )  # fmt: skip
    curve = CurvePiece(tokens=np.arange(step), loss=np.ones(step, np.float32))
    return Saved(trunk=trunk, trunk_curve=curve, branch_curve=CurvePiece.joined([]))


@pytest.fixture(params=["memory", "file"])
def url(request, tmp_path):
    where = {"memory": f"memory://{tmp_path.name}", "file": f"file://{tmp_path}/far"}
    return where[request.param]


def test_another_machine_goes_on_from_the_newest_and_has_the_one_before(url):
    here = RemoteCheckpoint(url, "job")
    here.save(saved(1))
    here.save(saved(2))
    there = RemoteCheckpoint(url, "job")
    assert [found.trunk.step for found in there.candidates()] == [2, 1]
    assert RemoteCheckpoint(url, "other").candidates() == []


def test_a_deleted_checkpoint_is_gone_everywhere(url):
    here = RemoteCheckpoint(url, "job")
    here.save(saved(1))
    RemoteCheckpoint(url, "job").delete()
    assert RemoteCheckpoint(url, "job").candidates() == []
    here.delete()


def test_storage_that_refuses_is_an_error_of_storage(tmp_path):
    (tmp_path / "far").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="cannot be written"):
        RemoteCheckpoint(f"file://{tmp_path}/far", "job").save(saved(1))


def test_storage_with_words_of_its_own_for_what_is_not_there_holds_nothing(tmp_path, monkeypatch):
    there = RemoteCheckpoint(f"file://{tmp_path}/far", "job")

    def get_file(source, target):
        open(target, "wb").close()  # as ftp does, before it asks
        raise RuntimeError("550 No such file")

    monkeypatch.setattr(there._files, "get_file", get_file)
    assert there.candidates() == []


def test_storage_that_does_not_answer_is_not_taken_for_empty(tmp_path, monkeypatch):
    there = RemoteCheckpoint(f"file://{tmp_path}/far", "job")

    def silent(*arguments):
        raise RuntimeError("could not connect")

    monkeypatch.setattr(there._files, "get_file", silent)
    monkeypatch.setattr(there._files, "info", silent)
    with pytest.raises(OSError, match=r"cannot be read: could not connect"):
        there.candidates()
    there.delete()
