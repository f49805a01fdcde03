"""A virtual-clock simulator of a year of a shop; see `year`."""

from simulator.oracle import Violation
from simulator.setup import Setup
from simulator.year import Story, simulate

__all__ = ["Setup", "Story", "Violation", "simulate"]
