"""The classroom game: spend a purse of compute on runs, then say what a larger budget needs.

A hidden law, or a sweep that was really trained, decides every loss. Students see their own runs
alone, commit to a model size for a budget beyond their purse, and then see the truth and what
their choice would have wasted.
"""

from __future__ import annotations

from .game import Classroom
from .instructor import Instructor
from .submission import Submission
from .verdict import Verdict, judge
from .worlds import hidden_law

__all__ = ["Classroom", "Instructor", "Submission", "Verdict", "hidden_law", "judge"]
