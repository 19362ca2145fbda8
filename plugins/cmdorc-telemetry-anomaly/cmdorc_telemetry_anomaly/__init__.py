"""Watches statistics of this machine's events against the thresholds of their specs: see README.md."""

__version__ = "0.1.0"
