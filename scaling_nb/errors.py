"""Every error this package raises on purpose, each with fact, need and remedy.

::

    ScalingError
    ├── RecipeError      (ValueError)     a model, loss, batch or size that cannot be trained
    │   └── DataError                     the data set is empty, too short, or of the wrong form
    ├── PlanError        (ValueError)     budgets or sizes that no run can satisfy
    ├── SweepError       (RuntimeError)   the sweep is in the wrong state for what was asked
    ├── StoreError       (OSError)        the run store cannot be read or written
    ├── RunsError        (ValueError)     a table of runs that cannot be read
    └── FitError         (ValueError)     a law that cannot be fitted to these runs
        ├── TooFewRunsError               fewer runs, sizes or budgets than the law has parameters
        └── UnknownLawError  (KeyError)   a name under which no law is published

    ScalingWarning       (UserWarning)    goes on, but the person should know
"""


class ScalingError(Exception):
    """Base of all errors of this package: ``except snb.ScalingError`` catches any of them."""


class RecipeError(ScalingError, ValueError):
    """The model, the loss or a batch does not satisfy the recipe contract."""


class DataError(RecipeError):
    """The data set is empty, too short, or of a form that cannot be batched."""


class PlanError(ScalingError, ValueError):
    """No run satisfies the budgets, sizes and bounds that were asked for."""


class SweepError(ScalingError, RuntimeError):
    """The sweep is not in a state in which this can be done."""


class StoreError(ScalingError, OSError):
    """The run store cannot be opened, read or written."""


class RunsError(ScalingError, ValueError):
    """A table of runs is malformed: a missing column, no usable row, an unknown run."""


class FitError(ScalingError, ValueError):
    """A law cannot be fitted to these runs, or cannot answer what was asked."""


class TooFewRunsError(FitError):
    """Fewer runs, sizes or budgets than the law needs."""


class UnknownLawError(FitError, KeyError):
    """No law is published under that name."""

    def __str__(self) -> str:
        # A KeyError would show its sentence in quotes.
        return Exception.__str__(self)


class ScalingWarning(UserWarning):
    """Something the person should know, though the work goes on."""


def counted(n: int, noun: str) -> str:
    """Return a count in words: ``1 run``, ``2 runs``."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def cause(error: BaseException) -> str:
    """Return an error's kind and message, to stand inside a sentence: without its full stop."""
    return f"{type(error).__name__}: {error}".rstrip(".: \n")
