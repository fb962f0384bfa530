"""Where every run of a plan stands, kept from the events of a sweep."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

from .events import Event, Noted, RunFailed, RunFinished, RunStarted, StepLogged
from .plan import SweepPlan
from .progress import StepClock, remaining_steps
from .records import Run, RunSpec, Status
from .status import ENDED, OPEN, SweepState, SweepStatus


class RunBook:
    """States, results and progress by run_id. Not thread-safe: its owner's lock guards it.

    Parameters
    ----------
    plan : SweepPlan
    known : mapping of run_id to Run
        What a store already holds.
    """

    def __init__(self, plan: SweepPlan, known: Mapping[str, Run]) -> None:
        self.specs: dict[str, RunSpec] = {spec.run_id: spec for spec in plan.runs}
        self.results: dict[str, Run] = {}
        self.statuses: dict[str, Status] = dict.fromkeys(self.specs, "queued")
        self.loss: dict[str, float] = {}
        self.seen: dict[str, int] = {}
        self.where: dict[str, str] = {}
        self.tracebacks: dict[str, str] = {}
        self.clock = StepClock()
        self._jobs = plan.jobs()
        self.take_in(known)

    def _put(self, run: Run) -> None:
        self.results[run.run_id] = run
        self.statuses[run.run_id] = run.status  # type: ignore[assignment]

    def take_in(self, known: Mapping[str, Run]) -> None:
        """Take in how runs ended elsewhere, as the store says."""
        for run_id in known.keys() & self.specs.keys():
            run = labelled(known[run_id], self.specs[run_id])
            if str(self.results.get(run_id)) != str(run):
                self._put(run)
                if run.status == "finished":
                    self.seen[run_id] = int(run.D)

    @property
    def complete(self) -> bool:
        """Whether every run has ended for good."""
        return bool(self.specs) and all(status in ENDED for status in self.statuses.values())

    def for_plan(self, plan: SweepPlan) -> RunBook:
        """Return the book of a changed plan; runs that both have stand as they are."""
        other = RunBook(plan, self.results)
        for run_id in other.specs.keys() & self.specs.keys():
            other.statuses[run_id] = self.statuses[run_id]
        other.loss = {key: value for key, value in self.loss.items() if key in other.specs}
        other.seen = {key: value for key, value in self.seen.items() if key in other.specs}
        other.where = self.where
        other.tracebacks, other.clock = self.tracebacks, self.clock
        return other

    def ended(self) -> list[Run]:
        """Return the runs that ended, in the plan's order."""
        return [self.results[key] for key in self.specs if key in self.results]

    def open_jobs(self) -> list[tuple[RunSpec, ...]]:
        """Return the runs still to train by trunk, shortest first; longest job first."""
        todo = [tuple(s for s in job if self.statuses[s.run_id] not in ENDED) for job in self._jobs]
        return [job for job in todo if job]

    def queue(self, run_ids: Iterable[str]) -> None:
        """Note that these runs are to be trained."""
        for run_id in run_ids:
            self.statuses[run_id] = "queued"
            self.results.pop(run_id, None)
            self.tracebacks.pop(run_id, None)
            self.loss.pop(run_id, None)
            self.seen.pop(run_id, None)

    def note(self, event: Event) -> None:
        """Take in what happened."""
        match event:
            case RunStarted(spec=spec, where=where):
                self.statuses[spec.run_id] = "running"
                self.where[spec.run_id] = where
                self.clock.begin(spec)
                self.seen.pop(spec.run_id, None)
            case StepLogged(run_id=run_id, tokens=tokens, loss=loss) if len(tokens):
                self.clock.note(self.specs[run_id], len(tokens))
                self.seen[run_id] = int(tokens[-1])
                self.loss[run_id] = float(loss[-1])
            case Noted(waiting=waiting):
                for run_id in waiting:
                    if self.statuses.get(run_id) == "running":
                        self.statuses[run_id] = "queued"
                        self.where.pop(run_id, None)
            case RunFinished(run=run) | RunFailed(run=run):
                self._put(run)
                if isinstance(event, RunFailed) and event.traceback:
                    self.tracebacks[run.run_id] = event.traceback

    def status(
        self, state: SweepState, elapsed: float, workers: int, problem: str = ""
    ) -> SweepStatus:
        """Return a snapshot of where every run stands, with the time left."""
        statuses = self.statuses
        jobs = [
            remaining_steps([s for s in job if statuses[s.run_id] in OPEN], self.seen)
            for job in self._jobs
        ]
        shown: dict[str, Status] = {
            key: "paused" if state == "paused" and status == "running" else status
            for key, status in statuses.items()
        }
        return SweepStatus(
            state=state,
            runs=MappingProxyType(shown),
            n_runs=len(statuses),
            n_done=sum(s not in OPEN for s in statuses.values()),
            elapsed=elapsed,
            eta=0.0 if state == "finished" else self.clock.eta(jobs, workers),
            loss=MappingProxyType(dict(self.loss)),
            tokens_seen=MappingProxyType(dict(self.seen)),
            where=MappingProxyType(dict(self.where)),
            problem=problem,
        )


def labelled(run: Run, spec: RunSpec) -> Run:
    """Return a stored run under this plan's names: what was trained stands, the labels are new.

    A run is known by what changes its result, and its budget, its counting convention and its
    FLOP per token do not.
    """
    return replace(
        run,
        N=float(spec.n_params),
        C=run.D * spec.flops_per_token,
        budget=spec.budget,
        n_total=float(spec.counts.total),
        n_non_embedding=float(spec.counts.non_embedding),
        n_matmul=float(spec.counts.matmul),
    )
