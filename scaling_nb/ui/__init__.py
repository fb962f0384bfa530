"""The panel: choose, launch, watch, fit and answer in a notebook. It watches and owns nothing."""

from __future__ import annotations

from .answer_panel import AnswerPanel
from .dashboard import Dashboard
from .fit_panel import FitPanel
from .loss_chart import LossChart
from .plan_panel import PlanPanel
from .train_panel import TrainPanel

__all__ = ["AnswerPanel", "Dashboard", "FitPanel", "LossChart", "PlanPanel", "TrainPanel"]
