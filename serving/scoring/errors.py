"""Failures of a whole job. Those of one row are `polyhead.serving.scoring.faults.Fault`."""

from __future__ import annotations

from polyhead.serving.errors import PolyheadError

__all__ = [
    "BudgetSpent",
    "EngineLost",
    "InputChanged",
    "InputUnreadable",
    "JobLocked",
    "JobRefused",
    "OutputCorrupt",
    "ScoringError",
    "StoreFull",
    "UnitFailed",
]


class ScoringError(PolyheadError):
    """A scoring job that cannot go on. What was committed so far is kept, and `--resume` goes on from there."""


class JobRefused(ScoringError):
    """A job that cannot begin: its request is wrong, or the destination holds another one."""


class JobLocked(JobRefused):
    """Another driver works on this destination."""


class InputChanged(ScoringError):
    """An input file is not the one that was planned."""


class InputUnreadable(ScoringError):
    """An input that cannot be opened, or is not of its format."""


class StoreFull(ScoringError):
    """There is no room for the output."""


class BudgetSpent(ScoringError):
    """More rows were quarantined than the job may have."""


class UnitFailed(ScoringError):
    """A unit failed as a whole, again and again."""


class EngineLost(UnitFailed):
    """Nothing runs in this process any more, as after an illegal access on a GPU: it is as good as dead."""


class OutputCorrupt(ScoringError):
    """What was written is not what its manifest says."""
