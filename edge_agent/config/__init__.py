"""YAML files to validated models: `load(directory)` gives what is sound, and every fault with its place and cure.

Nothing here opens a socket. The modules: `files` finds, reads and merges; `document` turns YAML into nodes with places;
`validation` turns nodes into models and their errors into faults; `devices`, `machines` and `sections` check what the
models cannot; `later` lists what this version does not compute yet; `configuration` puts it together; `given` makes the
settings of one device from what was typed.
"""

from edge_agent.config.configuration import Configuration, load
from edge_agent.config.faults import Fault, Place
from edge_agent.config.given import given_settings
from edge_agent.config.later import computed_windows

__all__ = ["Configuration", "Fault", "Place", "computed_windows", "given_settings", "load"]
