"""Edge Agent: from the machine's register to a production record that an ERP can post."""

__version__ = "0.1.0"
