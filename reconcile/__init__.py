"""Close the month for a Claude API bill."""

from importlib.metadata import version

__version__ = version("reconcile")
