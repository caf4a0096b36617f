"""A small part of the score, on fixed seeds: `make score` measures the whole of it."""

from decimal import Decimal

import pytest
from scored import score

from reconcile.sandbox import Sandbox, Variety, drawn

NOISE = frozenset({"time_zone", "unlogged", "unreported"})


def test_clean_organization():
    """Where nothing is planted nothing is found, and nothing stays unexplained."""
    found = score(Sandbox.build(drawn(11, Variety(requests=2500, plants=frozenset()))))
    assert found.findings == 0
    assert found.residual_usd == 0
    assert found.billed_usd > 0


@pytest.mark.parametrize("seed", [21, 22, 23])
def test_mixed_organization(seed):
    """Differences of many kinds in the same logs and workspaces are found within the score's worst decile."""
    found = score(Sandbox.build(drawn(seed, Variety(requests=2500))))
    assert len(found.planted) > 5
    assert found.error <= Decimal("0.10")
    assert not found.not_planted
    assert not found.blamed
    assert found.residual_usd == 0


def test_clocks_that_are_off():
    """Clocks from -12 to +14 hours, half hours too, are found to the minute, and the right ones left alone."""
    clocks = (-720, -210, 30, 840)
    variety = Variety(requests=6000, plants=NOISE, density=0.0, clocks=clocks)
    found = score(Sandbox.build(drawn(36, variety)))
    assert sorted(found.clocks.values()) == sorted(clocks)
    assert dict(found.shifts) == dict(found.clocks)
