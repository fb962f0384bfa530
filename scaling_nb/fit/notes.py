"""What a person should know about a fit or an answer: a sentence, its cause and a remedy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MOST_NAMED = 5


def named(ids: Sequence[str]) -> str:
    """Return the first few run ids, and how many there are besides."""
    shown = ", ".join(map(str, ids[:MOST_NAMED]))
    return shown if len(ids) <= MOST_NAMED else f"{shown} and {len(ids) - MOST_NAMED} more"


@dataclass(frozen=True, slots=True, kw_only=True)
class FitWarning:
    """One sentence of candour, typed so that a panel can put a button beside it.

    Attributes
    ----------
    code : str
        Stable key, such as ``"minimum_not_bracketed"``.
    message : str
        The fact, with its numbers.
    remedy : str
        What to do about it.
    run_ids : tuple of str
        Runs it is about, if any.
    values : mapping of str to float
        The numbers of the message, for a program.
    """

    code: str
    message: str
    remedy: str
    run_ids: tuple[str, ...] = ()
    values: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".rstrip()

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        return {
            "code": self.code,
            "message": self.message,
            "remedy": self.remedy,
            "run_ids": list(self.run_ids),
            "values": dict(self.values),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FitWarning:
        """Read back what :meth:`to_dict` wrote."""
        return cls(
            code=data["code"],
            message=data["message"],
            remedy=data["remedy"],
            run_ids=tuple(data["run_ids"]),
            values=dict(data["values"]),
        )
