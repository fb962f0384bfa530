"""Checkpoints on storage that machines share: any place that fsspec has a URL for."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import weakref
from pathlib import Path

import fsspec

from .checkpoint import Checkpoint, Saved


class RemoteCheckpoint(Checkpoint):
    """As :class:`Checkpoint`, written here first and then sent; the one before is kept there too.

    Parameters
    ----------
    url : str
        Folder of the files, such as ``s3://bucket/sweeps/runs.checkpoints``.
    key : str
        From :func:`checkpoint_key`.
    """

    def __init__(self, url: str, key: str) -> None:
        scratch = tempfile.mkdtemp(prefix="scaling_nb-")
        weakref.finalize(self, shutil.rmtree, scratch, ignore_errors=True)
        super().__init__(Path(scratch), key)
        self._files, self._root = fsspec.core.url_to_fs(url)

    def save(self, saved: Saved) -> None:
        """Write, send, and put into place; raise `OSError` with nothing lost where that fails."""
        super().save(saved)
        newest, previous = self._there(self.path), self._there(self.previous)
        try:
            self._files.makedirs(self._root, exist_ok=True)
            self._files.put_file(str(self.path), f"{newest}.tmp")
            if self._files.exists(newest):
                self._files.mv(newest, previous)
            self._files.mv(f"{newest}.tmp", newest)
        except Exception as error:  # each kind of storage has its own
            raise OSError(f"{newest} cannot be written: {error}") from error

    def candidates(self) -> list[Saved]:
        """Fetch and return what can be read, newest first.

        Raises
        ------
        OSError
            The storage does not answer: to begin anew would cost more than to try again.
        """
        for path in (self.path, self.previous):
            try:
                self._files.get_file(self._there(path), str(path))
            except Exception as error:  # each kind of storage has its own
                path.unlink(missing_ok=True)
                if self._has(self._there(path)):
                    raise OSError(f"{self._there(path)} cannot be read: {error}") from error
        return super().candidates()

    def _has(self, name: str) -> bool:
        """Whether there is, or may be, such a file: not every storage says so where it is read."""
        try:
            self._files.info(name)
        except FileNotFoundError:
            return False
        except Exception as error:
            raise OSError(f"{name} cannot be read: {error}") from error
        return True

    def delete(self) -> None:
        """Remove the files here and there. One that cannot be removed does no harm."""
        super().delete()
        for path in (self.path, self.previous):
            with contextlib.suppress(Exception):
                self._files.rm_file(self._there(path))

    def _there(self, path: Path) -> str:
        return f"{self._root}/{path.name}"
