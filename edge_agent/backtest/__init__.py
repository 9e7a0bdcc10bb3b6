"""Readings from a CSV through the code of the daemon: the records that the agent would have published."""

from edge_agent.backtest.readings import Readings, ReadingsError
from edge_agent.backtest.told import EntriesError, Told
from edge_agent.backtest.told import read as read_entries
from edge_agent.backtest.trial import Trial

__all__ = ["EntriesError", "Readings", "ReadingsError", "Told", "Trial", "read_entries"]
