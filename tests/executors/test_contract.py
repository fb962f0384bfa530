"""What every executor keeps, run over all there are."""

from __future__ import annotations

import threading

import pytest
import torch
from helpers import TinyLM, tiny_plan

from scaling_nb import Recipe
from scaling_nb.events import RunFailed, RunFinished, StepLogged
from scaling_nb.executors import EXECUTORS, Job, JobQueue
from scaling_nb.training.control import Control, Stopped


def queue(plan):
    return JobQueue(Job(specs=specs) for specs in plan.jobs())


def run(executor, recipe, plan, control=None, react=lambda event: None):
    events, lock = [], threading.Lock()

    def emit(event):
        with lock:
            events.append(event)
        react(event)

    EXECUTORS[executor]().run(recipe, queue(plan), emit=emit, control=control or Control())
    return events


@pytest.mark.parametrize("name", EXECUTORS)
class TestEveryExecutor:
    def test_trains_every_job_once(self, name, tiny_recipe):
        plan = tiny_plan(tiny_recipe, reuse="cooldown")
        done = [e.run.run_id for e in run(name, tiny_recipe, plan) if isinstance(e, RunFinished)]
        assert sorted(done) == sorted(spec.run_id for spec in plan.runs)

    def test_gives_the_numbers_of_every_other(self, name, tiny_recipe):
        plan = tiny_plan(tiny_recipe)

        def results(executor):
            events = run(executor, tiny_recipe, plan)
            return {e.run.run_id: e.run.loss for e in events if isinstance(e, RunFinished)}

        assert results(name) == results("inline")

    def test_stops_when_told_and_says_so(self, name, tiny_recipe):
        control, events = Control(), []

        def react(event):
            events.append(event)
            if isinstance(event, StepLogged):
                control.cancel()

        with pytest.raises(Stopped):
            run(name, tiny_recipe, tiny_plan(tiny_recipe), control, react)
        assert any(isinstance(e, RunFailed) and e.run.status == "cancelled" for e in events)
        assert sum(isinstance(e, RunFinished) for e in events) < len(tiny_plan(tiny_recipe).runs)

    def test_leaves_out_what_is_skipped(self, name, tiny_recipe):
        plan = tiny_plan(tiny_recipe, reuse="cooldown")
        control = Control()
        control.skip(plan.jobs()[0][1].run_id)
        events = run(name, tiny_recipe, plan, control)
        ended = {e.run.run_id: e.run.status for e in events if hasattr(e, "run")}
        assert ended.pop(plan.jobs()[0][1].run_id) == "skipped"
        assert set(ended.values()) == {"finished"}

    def test_raises_what_a_sink_raises(self, name, tiny_recipe):
        def react(event):
            if isinstance(event, StepLogged):
                raise OSError("sink")

        with pytest.raises(OSError, match="sink"):
            run(name, tiny_recipe, tiny_plan(tiny_recipe), react=react)

    def test_trains_with_one_torch_thread_and_leaves_the_callers_alone(
        self, name, tokens, tmp_path
    ):
        def step(model, batch):
            if model.training:
                (tmp_path / str(torch.get_num_threads())).touch()
            return torch.nn.functional.cross_entropy(
                model(batch[0]).flatten(0, 1), batch[1].flatten()
            )

        recipe = Recipe(TinyLM, size="width", sizes=[2, 4, 8], model_kwargs={"vocab_size": 11},
                        dataset=tokens, batch_size=4, tokens_per_sample=8, step_fn=step,
                        flops="6ND", optimizer={"lr": 1e-2}, eval_tokens=64)  # fmt: skip
        plan = tiny_plan(recipe)  # which tries the sizes in the caller's own thread
        before = torch.get_num_threads()
        torch.set_num_threads(3)
        try:
            for path in tmp_path.iterdir():
                path.unlink()
            run(name, recipe, plan)
            assert [path.name for path in tmp_path.iterdir()] == ["1"]
            assert torch.get_num_threads() == 3
        finally:
            torch.set_num_threads(before)

    def test_an_empty_queue_is_done_at_once(self, name, tiny_recipe):
        EXECUTORS[name]().run(tiny_recipe, JobQueue([]), emit=print, control=Control())


def test_memory_is_counted_for_each_device(tiny_recipe):
    jobs = [Job(specs=specs, bytes=60) for specs in tiny_plan(tiny_recipe).jobs()[:4]]
    waiting = JobQueue(jobs, memory={"cuda:0": 100, "cuda:1": 100})
    control = Control()
    assert waiting.take(control, wait=False, device="cuda:0") is jobs[0]
    # The other device has all its memory; the first has room for one run at a time.
    assert waiting.take(control, wait=False, device="cuda:1") is jobs[1]
    assert waiting.take(control, wait=False, device="cuda:0") is None
    waiting.done(jobs[0])
    assert waiting.take(control, wait=False, device="cuda:0") is jobs[2]
    assert waiting.take(control, wait=False, device="cuda:1") is None
