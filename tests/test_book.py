from __future__ import annotations

from helpers import tiny_plan

from scaling_nb.book import RunBook
from scaling_nb.events import Noted, RunStarted


def test_runs_of_a_lost_machine_wait_without_a_place(tiny_recipe):
    plan = tiny_plan(tiny_recipe)
    book = RunBook(plan, {})
    first, second = plan.runs[:2]
    for spec, node in ((first, "10.0.0.1 cuda:0"), (second, "10.0.0.2 cuda:0")):
        book.note(RunStarted(spec=spec, where=node))
    book.note(Noted(message="10.0.0.2 was lost", waiting=(second.run_id, plan.runs[2].run_id)))
    status = book.status("running", 1.0, 1)
    assert status.runs[first.run_id] == "running"
    assert status.runs[second.run_id] == "queued"
    assert status.where == {first.run_id: "10.0.0.1 cuda:0"}
