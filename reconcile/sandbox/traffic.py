"""The requests that the organization sends, day by day, with the shape of real traffic."""

from bisect import bisect
from itertools import accumulate
from math import exp, log
from random import Random

from reconcile.errors import ConfigError
from reconcile.sandbox.organization import FALLBACK_MODELS, Source, Workspace
from reconcile.sandbox.plants import Part, dot
from reconcile.sandbox.rates import (
    MODELS,
    SEARCH_PICO_USD,
    WINDOW_TOKENS,
    Five,
    day_date,
    fast_factor,
    is_served,
    long_over,
    rates,
)
from reconcile.sandbox.scenario import Scenario

DAY_MS = 86_400_000
_HOUR_MS = 3_600_000
_LONGEST_UNCACHED = 20_000  # with its cache counted twice a prompt stays under 100,000
_LONGEST_CACHED = 33_000
_LONGEST_OUTPUT = 32_000
_GROWTH_PER_DAY = 0.012

_HOURS = {
    "office": (1, 1, 1, 1, 1, 2, 5, 12, 20, 26, 28, 26, 20, 24, 28, 27, 22, 14, 8, 5, 4, 3, 2, 1),
    "consumer": (6, 4, 3, 2, 2, 3, 6, 9, 11, 12, 13, 14, 15, 14, 14, 15, 17, 20, 23, 25, 24, 20, 15, 10),
    "night": (30, 30, 26, 18, 10, 4, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 4, 8, 14, 20, 26, 30),
    "always": (8, 7, 7, 7, 7, 8, 9, 10, 11, 12, 12, 12, 12, 12, 12, 12, 12, 12, 11, 11, 10, 10, 9, 8),
}
_WEEKEND = {"office": 0.18, "consumer": 1.15, "night": 0.8, "always": 0.9}


class Touch:
    """How one request is logged, where that is not as it was."""

    __slots__ = (
        "at",
        "bedrock",
        "copies",
        "copy_log",
        "cost_pico",
        "events",
        "fetched_at",
        "geo",
        "hides",
        "iterations",
        "logged",
        "model",
        "naive",
        "refused",
        "speed",
        "status",
        "tier",
        "tokens",
        "workspace",
    )

    def __init__(self) -> None:
        self.logged = True
        self.at: int | None = None  # what the line says, if not when it was done
        self.fetched_at: int | None = None  # when the line was written, if later
        self.naive = False  # the line's time has no offset
        self.model: str | None = None
        self.workspace: Workspace | None = None
        self.tier: str | None = None
        self.geo: str | None = None
        self.speed: str | None = None
        self.tokens: Five | None = None
        self.hides: frozenset[str] = frozenset()  # fields that the line lacks
        self.copies = 0
        self.copy_log: str | None = None  # where the copy stands, if not beside it
        self.cost_pico: int | None = None
        self.events: tuple[Event, ...] = ()
        self.iterations: tuple[Iteration, ...] = ()
        self.status = 200
        self.refused = False
        self.bedrock = False


class Event:
    """One usage event of a stream; a counter that is None is null in it."""

    __slots__ = ("at", "is_start", "output", "read", "searches", "uncached", "write_1h", "write_5m")

    def __init__(self, at: int, is_start: bool, counters: tuple[int | None, ...], output: int, searches: int) -> None:
        self.at = at
        self.is_start = is_start
        self.uncached, self.write_5m, self.write_1h, self.read = counters
        self.output = output
        self.searches = searches

    def tokens(self) -> Five:
        """What the line's own quantities are, nulls as nothing."""
        return self.uncached or 0, self.write_5m or 0, self.write_1h or 0, self.read or 0, self.output


class Iteration:
    """A turn inside a request that its top-level counters leave out."""

    __slots__ = ("kind", "model", "output", "uncached")

    def __init__(self, kind: str, model: str, uncached: int, output: int) -> None:
        self.kind = kind
        self.model = model
        self.uncached = uncached
        self.output = output


class Request:
    """One request as the provider saw it: done ``at`` (milliseconds since 1970, UTC), its dimensions and counters."""

    __slots__ = (
        "at",
        "calls",
        "charged",
        "geo",
        "id",
        "model",
        "output",
        "read",
        "searches",
        "source",
        "speed",
        "team",
        "tier",
        "touch",
        "uncached",
        "write_1h",
        "write_5m",
    )

    def __init__(  # noqa: PLR0917 - what a request is, drawn in one place
        self,
        source: Source,
        at: int,
        request_id: str,
        model: str,
        tier: str,
        geo: str,
        speed: str,
        tokens: Five,
        searches: int,
        team: str | None,
    ) -> None:
        self.source = source
        self.at = at
        self.id = request_id
        self.model = model
        self.tier = tier
        self.geo = geo
        self.speed = speed
        self.uncached, self.write_5m, self.write_1h, self.read, self.output = tokens
        self.searches = searches
        self.team = team
        self.charged = True
        self.calls: tuple[tuple[int, Part], ...] = ()  # what the provider counts instead, with the time of each
        self.touch: Touch | None = None

    @property
    def day(self) -> int:
        """The UTC day on which it was done."""
        return self.at // DAY_MS

    @property
    def prompt(self) -> int:
        """All input tokens: what windows and price steps are about."""
        return self.uncached + self.write_5m + self.write_1h + self.read

    @property
    def window(self) -> str:
        """The reports' context window."""
        return "200k-1M" if self.prompt > WINDOW_TOKENS else "0-200k"

    @property
    def tokens(self) -> Five:
        """The five counters, in the order of the meters."""
        return self.uncached, self.write_5m, self.write_1h, self.read, self.output

    @property
    def is_long(self) -> bool:
        """Whether it pays its model's rates for long prompts."""
        return 0 < long_over(self.model, self.day) < self.prompt

    @property
    def steps_inside_window(self) -> bool:
        """Whether its price cannot be seen from its dimensions."""
        return self.is_long and self.prompt <= WINDOW_TOKENS

    def rates(self) -> Five:
        """Its own rates, pico-dollars for a token."""
        return rates(self.model, self.day, self.tier, self.geo, self.speed, self.is_long)

    def value(self) -> int:
        """Pico-dollars at its own rates."""
        return dot(self.tokens, self.rates()) + self.searches * SEARCH_PICO_USD

    def part(self) -> Part:
        """Its quantities in their cells."""
        return Part(self.day, self.model, self.tier, self.window, self.geo, self.speed, self.tokens, self.searches)


class Traffic:
    """Draws the requests of each source and day; sources and days are independent of each other."""

    def __init__(self, scenario: Scenario, all_sources: tuple[Source, ...]) -> None:
        self._scenario = scenario
        permanent = sum(source.share for source in all_sources if source.exists_for is None)
        self._per_weight: dict[str, float] = {}
        self._carried: dict[str, float] = {}
        for source in all_sources:
            weight = sum(self._weight(source, day) for day in range(scenario.first_day, scenario.end_day))
            factor = scenario.strength(source.exists_for) if source.exists_for else 1.0
            self._per_weight[source.name] = scenario.requests * source.share / permanent * factor / weight
            self._carried[source.name] = 0.5

    def _weight(self, source: Source, day: int) -> float:
        first = self._scenario.first_day
        archived = source.workspace.archived_on_day
        if archived is not None and day >= first + archived - 1:
            return 0.0
        factor = _WEEKEND[source.rhythm] if day_date(day).weekday() >= 5 else 1.0
        return factor * (1 + _GROWTH_PER_DAY * (day - first))

    def day(self, source: Source, day: int) -> list[Request]:
        """The requests of a source that were done on a UTC day. Call it once for each day, in order."""
        wanted = self._per_weight[source.name] * self._weight(source, day) + self._carried[source.name]
        count = int(wanted)
        self._carried[source.name] = wanted - count
        if not count:
            return []
        random = Random(self._scenario.random_name("traffic", source.name, day))
        served = [(model, weight) for model, weight in source.models if is_served(model, day)] or [
            (model, 1.0) for model in FALLBACK_MODELS if is_served(model, day)
        ][:1]
        if not served:
            raise ConfigError(
                "sandbox: month",
                f"no model is known for {day_date(day)}, expected 2025-10 or later",
                "Choose a later month",
            )
        weights = list(accumulate(weight for _, weight in served))
        hours = random.choices(range(24), _HOURS[source.rhythm], k=count)
        start = day * DAY_MS
        drawn = random.random
        requests = []
        for hour in hours:
            model = served[bisect(weights, drawn() * weights[-1], 0, len(weights) - 1)][0]
            at = start + hour * _HOUR_MS + int(drawn() * _HOUR_MS)
            requests.append(_draw(source, day, at, model, random))
        return requests


def _draw(source: Source, day: int, at: int, model: str, random: Random) -> Request:
    drawn = random.random
    takes_geo = MODELS[model].takes_geo
    write_5m = write_1h = read = 0
    if source.long_share and drawn() < source.long_share:
        longest = 450_000 if takes_geo or long_over(model, day) else 190_000
        prompt = int(exp(log(60_000) + drawn() * (log(longest) - log(60_000))))
        read = int(prompt * 0.7 * drawn())
        write_5m = int(prompt * 0.2 * drawn())
        uncached = prompt - read - write_5m
    else:
        uncached = min(3 + int(source.uncached * exp(random.gauss(0, 0.9))), _LONGEST_UNCACHED)
        if drawn() < source.cache_share:
            cached = min(1024 + int(source.cached * exp(random.gauss(0, 0.6))), _LONGEST_CACHED)
            if drawn() < 0.75:
                read, written = cached, int(cached * 0.1 * drawn())
            else:
                written = cached
            if drawn() < source.hour_share:
                write_1h = written
            else:
                write_5m = written
    output = min(1 + int(source.output * exp(random.gauss(0, 0.8))), _LONGEST_OUTPUT)
    searches = random.randint(1, 4) if source.search_share and drawn() < source.search_share else 0
    geo = ("us" if source.us_share and drawn() < source.us_share else "global") if takes_geo else "not_available"
    is_fast = (
        source.fast_share > 0
        and fast_factor(model, day) > 0
        and uncached + read + write_5m + write_1h <= WINDOW_TOKENS
        and drawn() < source.fast_share
    )
    teams = source.teams
    return Request(
        source,
        at,
        f"req_011C{random.getrandbits(96):024x}",
        model,
        source.tier,
        geo,
        "fast" if is_fast else "standard",
        (uncached, write_5m, write_1h, read, output),
        searches,
        teams[0] if len(teams) == 1 else teams[int(drawn() * len(teams))],
    )
