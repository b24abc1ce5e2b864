"""Sweeps: many jobs, as few programs as there can be."""

from functorch_kit.sweep.halving import SuccessiveHalving
from functorch_kit.sweep.job import Job
from functorch_kit.sweep.run import SweepResult, run

__all__ = ["Job", "SuccessiveHalving", "SweepResult", "run"]
