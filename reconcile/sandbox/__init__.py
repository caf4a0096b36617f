"""A simulated organization: its provider, its applications' logs, and differences of known size between them."""

from reconcile.sandbox.plants import PLANTS, Planted
from reconcile.sandbox.sandbox import Sandbox
from reconcile.sandbox.scenario import Scenario
from reconcile.sandbox.server import Fault, Faults, Received, Server
from reconcile.sandbox.variety import Variety, drawn

__all__ = ["PLANTS", "Fault", "Faults", "Planted", "Received", "Sandbox", "Scenario", "Server", "Variety", "drawn"]
