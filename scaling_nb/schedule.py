"""In which order jobs start: an early answer first, then the longest."""

from __future__ import annotations

from collections.abc import Sequence

from .cost import job_weight
from .records import RunSpec

Piece = tuple[tuple[RunSpec, ...], bool]
"""Runs of one trunk, and whether a later piece continues that trunk."""

EARLY_SHARE = 0.25
"""The smallest budget goes first where it takes at most this share of the whole."""


def order_jobs(jobs: Sequence[tuple[RunSpec, ...]]) -> list[Piece]:
    """Return the jobs in the order they should start, trunks cut after the smallest budget.

    A whole budget is then complete early, and the longest jobs do not come last, when the other
    workers have nothing left to do.

    Parameters
    ----------
    jobs : sequence of tuples of RunSpec
        By trunk, shortest first.
    """
    whole: list[Piece] = [(job, False) for job in jobs]
    if not jobs:
        return whole
    smallest = min(spec.budget for job in jobs for spec in job)
    early = [tuple(s for s in job if s.budget == smallest) for job in jobs]
    # A trunk is cut only where the early runs come first in it, which they do by their length.
    sound = all(head == job[: len(head)] for head, job in zip(early, jobs, strict=True))
    weight = sum(job_weight(job) for job in jobs)
    if not sound or sum(job_weight(head) for head in early if head) > EARLY_SHARE * weight:
        return sorted(whole, key=_weight, reverse=True)
    heads = [(head, len(head) < len(job)) for head, job in zip(early, jobs, strict=True) if head]
    tails = [
        (job[len(head) :], False)
        for head, job in zip(early, jobs, strict=True)
        if len(head) < len(job)
    ]
    return sorted(heads, key=_weight, reverse=True) + sorted(tails, key=_weight, reverse=True)


def _weight(piece: Piece) -> float:
    return job_weight(piece[0])
