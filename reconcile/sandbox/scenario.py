"""What a sandbox simulates: the month, its size, and which differences are planted."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from reconcile.errors import ConfigError
from reconcile.period import Period
from reconcile.sandbox.organization import EXAMPLE, Organization
from reconcile.sandbox.plants import PLANTS
from reconcile.sandbox.rates import day_number

_DAY_MS = 86_400_000


@dataclass(frozen=True)
class Scenario:
    """One sandbox: the same scenario gives the same bytes.

    ``requests`` is about how many requests the period has before plants add theirs. ``now`` is the sandbox's clock
    (UTC; None is the 4th after the period, 06:00): nothing happens after it. ``intensity`` overrides the default
    strength of a plant, in the unit that ``PLANTS`` says. ``speed_field`` is whether usage rows that are grouped by
    speed say which; ``bad_lines`` adds lines to the logs that cannot be read (they are not billed).
    Raises ``ConfigError`` for a plant that does not exist or a size below 1.
    """

    period: Period = field(default_factory=lambda: Period.parse("2026-10"))
    seed: int = 1
    requests: int = 200_000
    now: datetime | None = None
    plants: frozenset[str] = frozenset(PLANTS)
    intensity: Mapping[str, float] = field(default_factory=dict)
    speed_field: bool = True
    bad_lines: bool = False
    organization: Organization = field(default=EXAMPLE, repr=False)

    def __post_init__(self) -> None:
        if unknown := sorted((set(self.plants) | set(self.intensity)) - set(PLANTS)):
            raise ConfigError(
                "sandbox: plants", f"got {unknown[0]!r}, expected one of {', '.join(PLANTS)}", "Choose from the list"
            )
        for plant, strength in self.intensity.items():
            if strength < 0 and plant != "time_zone":
                raise ConfigError(f"sandbox: intensity of {plant}", f"got {strength}, expected 0 or more", "Raise it")
        if self.requests < 1:
            raise ConfigError("sandbox: requests", f"got {self.requests}, expected at least 1", "Ask for more requests")

    @property
    def clock(self) -> datetime:
        """The sandbox's own time, UTC."""
        if self.now is not None:
            return self.now.astimezone(UTC)
        end = self.period.end_on
        return datetime(end.year, end.month, end.day, 6, tzinfo=UTC) + timedelta(days=3)

    @property
    def clock_ms(self) -> int:
        """The sandbox's own time in milliseconds since 1970."""
        return int(self.clock.timestamp() * 1000)

    @property
    def first_day(self) -> int:
        """The period's first day, counted from 1970-01-01."""
        return day_number(self.period.start_on)

    @property
    def end_day(self) -> int:
        """The first day after the period."""
        return day_number(self.period.end_on)

    @property
    def today(self) -> int:
        """The day that the sandbox's clock shows."""
        return self.clock_ms // _DAY_MS

    @property
    def through_day(self) -> int | None:
        """The period's last complete day, or None."""
        through_on = self.period.through_on(self.clock)
        return None if through_on is None else day_number(through_on)

    def strength(self, plant: str) -> float:
        """How strong a plant is; 0 where it is switched off."""
        if plant not in self.plants:
            return 0.0
        return self.intensity.get(plant, PLANTS[plant].intensity)

    def random_name(self, *parts: object) -> str:
        """The seed of one independent stream of random numbers: plants never disturb the traffic."""
        return "/".join(str(part) for part in (self.seed, self.period, self.requests, *parts))
