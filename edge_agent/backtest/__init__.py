"""Readings from a CSV through the code of the daemon: the records that the agent would have published."""

from edge_agent.backtest.readings import Readings, ReadingsError
from edge_agent.backtest.trial import Trial

__all__ = ["Readings", "ReadingsError", "Trial"]
