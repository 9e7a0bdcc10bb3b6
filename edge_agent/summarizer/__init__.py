"""Which facts are due; stored readings and entries to records in the outbox; revisions of what was said too early.

A window closes `settle` after its end. Its record is a pure function of the stored readings, the entries and the
configuration in force when it closed, so it may be computed again at any time: when a reading arrives late, when
somebody tells something of it, and when a stop that was open at its end turns out to be short. What comes out the same
is not published again. Stops and jobs are looked for whenever a machine's readings change.
"""

from edge_agent.summarizer.summarizer import Summarizer

__all__ = ["Summarizer"]
