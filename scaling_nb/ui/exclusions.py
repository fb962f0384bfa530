"""Which runs are left out of the fit, why, and the way back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..records import RunTable

if TYPE_CHECKING:
    from ..store import RunStore


class Exclusions:
    """Reasons by run_id, with every earlier state to go back to."""

    def __init__(self, reasons: Mapping[str, str]) -> None:
        self.reasons = dict(reasons)
        self._earlier: list[dict[str, str]] = []

    @property
    def depth(self) -> int:
        """How often :meth:`undo` can be called."""
        return len(self._earlier)

    def adopt(self, reasons: Mapping[str, str]) -> None:
        """Take over what a store knows already."""
        self.reasons = {**reasons, **self.reasons}

    def change(self, reasons: Mapping[str, str]) -> str:
        """Replace all reasons; returns what changed as a sentence, empty if nothing did."""
        new = dict(reasons)
        gone = [k for k in new if k not in self.reasons]
        back = [k for k in self.reasons if k not in new]
        if new == self.reasons:
            return ""
        self._earlier.append(self.reasons)
        self.reasons = new
        said = [f"excluded {', '.join(gone)}: {new[gone[0]]}"] if gone else []
        said += [f"taken back {', '.join(back)}"] if back else []
        return "; ".join(said) or "reasons changed"

    def toggled(self, ids: Sequence[str], reason: str) -> dict[str, str]:
        """Return the reasons with each of `ids` on the other side."""
        rest = {k: v for k, v in self.reasons.items() if k not in ids}
        return {**rest, **{k: reason for k in ids if k not in self.reasons}}

    def surrounded(self, ids: Sequence[str], reason: str) -> dict[str, str]:
        """Return the reasons with all of `ids` excluded, or all back where all are excluded."""
        if all(k in self.reasons for k in ids):
            return {k: v for k, v in self.reasons.items() if k not in ids}
        return {**dict.fromkeys((k for k in ids if k not in self.reasons), reason), **self.reasons}

    def undo(self) -> bool:
        """Go back to before the last change; returns whether there was one."""
        if not self._earlier:
            return False
        self.reasons = self._earlier.pop()
        return True

    def applied(self, table: RunTable) -> RunTable:
        """Return the table with exactly these runs excluded."""
        table = table.restore()
        known = set(table.columns["run_id"])
        for reason in dict.fromkeys(self.reasons.values()):
            ids = [k for k, v in self.reasons.items() if v == reason and k in known]
            table = table.exclude(ids, reason=reason) if ids else table
        return table

    def keep(self, store: RunStore) -> None:
        """Store the reasons with the runs, so that they come back after a restart."""
        for run_id, run in store.runs().items():
            reason = self.reasons.get(run_id, "")
            if run.status == "finished" and run.excluded != reason:
                store.put_run(dataclasses.replace(run, excluded=reason))
