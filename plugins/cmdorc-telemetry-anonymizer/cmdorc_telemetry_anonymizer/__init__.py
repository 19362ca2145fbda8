"""Makes what is shared of an event coarser, by rules in the user's configuration: see README.md."""

__version__ = "0.1.0"
