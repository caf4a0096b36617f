"""Organizations that nobody wrote down: everything about them is drawn from a seed.

Workspaces, keys, logs and traffic of any number and shape, and plants of any strength in any place, several at once in
the same logs and workspaces. A draw depends on its seed alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import exp, log
from random import Random

from reconcile.period import Period
from reconcile.sandbox.organization import (
    SERVICE_ACCOUNT,
    UNLISTED,
    USERS,
    ApiKey,
    ChargeWithoutRequest,
    Log,
    Organization,
    Placement,
    Source,
    Workspace,
)
from reconcile.sandbox.plants import PLANTS
from reconcile.sandbox.rates import MODELS, day_number, fast_factor, is_served
from reconcile.sandbox.scenario import Scenario

_MONTHS = ("2026-10",) * 5 + ("2026-03", "2026-06", "2026-07", "2026-09", "2026-11", "2026-12")
_RHYTHMS = ("office", "consumer", "night", "always")
_CREATORS = (*USERS, None)
_OFFSETS = tuple(minutes for minutes in range(-720, 841, 30) if minutes)


@dataclass(frozen=True)
class Variety:
    """How varied a draw is. ``None`` lets the seed decide.

    ``plants`` are the reasons that may be planted, each with the chance ``density`` (the seed's own if None). ``noise``
    is the largest share of lines that are lost, and of lines too many, in every log. ``start_stamps`` is the chance of
    a log to stamp when a request began rather than when it was done. ``clocks`` are logs' clocks that are off, in
    minutes: one for every second log. ``hard`` lets what can hardly be told apart meet: a clock that is off in a log
    that also stamps hours early or late, and clocks that go back an hour during the month.
    """

    period: Period | None = None
    requests: int | None = None
    plants: frozenset[str] = frozenset(PLANTS)
    density: float | None = None
    noise: float = 0.004
    start_stamps: float = 0.4
    clocks: tuple[int, ...] = ()
    hard: bool = False


def drawn(seed: int, variety: Variety | None = None) -> Scenario:
    """The scenario of a seed."""
    variety = variety or Variety()
    random = Random(f"variety/{seed}")
    period = variety.period or Period.parse(random.choice(_MONTHS))
    requests = variety.requests or int(exp(random.uniform(log(2_000), log(200_000))))
    draw = _Draw(random, period, variety)
    return Scenario(
        period=period, seed=seed, requests=requests, plants=variety.plants, organization=draw.organization()
    )


class _Draw:
    """One organization being drawn. The order of the draws is the order of the code: change it and seeds change."""

    def __init__(self, random: Random, period: Period, variety: Variety) -> None:
        self._random = random
        self._variety = variety
        self._density = random.uniform(0.1, 0.7) if variety.density is None else variety.density
        day = day_number(period.start_on) + 15
        self._day = day
        self._models = tuple(model for model in MODELS if is_served(model, day) and model != UNLISTED)
        self._workspaces: list[Workspace] = []
        self._keys: list[ApiKey] = []
        self._logs: list[Log] = []
        self._sources: list[Source] = []

    def organization(self) -> Organization:
        """Draw all of it."""
        self._draw_workspaces()
        self._draw_logs()
        self._draw_sources()
        self._draw_silent()
        charges = tuple(self._charges())
        placements = tuple(self._placements())
        late = any(placement.variant == "fetched" for placement in placements)
        return Organization(
            tuple(self._workspaces),
            tuple(self._keys),
            tuple(self._logs),
            tuple(self._sources),
            charges,
            placements,
            margin_days=2 if late else 1,
            allocation=(
                "cost_centers:",
                '  CC-1: {name: Everything, account: "6150"}',
                "rules:",
                '  - {workspace: "*", to: CC-1}',
            ),
        )

    # Chance

    def _happens(self, chance: float) -> bool:
        return self._random.random() < chance

    def _between(self, low: float, high: float) -> float:
        """Evenly on a logarithmic scale."""
        return round(exp(self._random.uniform(log(low), log(high))), 4)

    def _has(self, plant: str) -> bool:
        """Whether a plant is planted at all."""
        drawn = self._random.random()
        return plant in self._variety.plants and drawn < self._density

    def _some_logs(self, most: int, among: list[Log] | None = None) -> list[Log]:
        logs = self._used_logs() if among is None else among
        return self._random.sample(logs, min(len(logs), self._random.randint(1, most)))

    def _used_logs(self) -> list[Log]:
        used = {source.log for source in self._sources}
        return [log for log in self._logs if log.name in used]

    def _some_sources(self, most: int, among: list[Source] | None = None) -> list[Source]:
        sources = [s for s in self._sources if s.log is not None and s.exists_for is None] if among is None else among
        return self._random.sample(sources, min(len(sources), self._random.randint(1, most)))

    def _days(self) -> tuple[int, int] | None:
        """Some days of the month, or all of it."""
        if self._happens(0.6):
            return None
        first = self._random.randint(0, 27)
        return first, self._random.randint(first + 1, 31)

    # Who is there

    def _draw_workspaces(self) -> None:
        random = self._random
        if self._happens(0.8):
            self._workspaces.append(Workspace("Default", is_default=True))
        for number in range(1, random.randint(2, 24)):
            geo = "us" if self._happens(0.15) else "global"
            archived = random.randint(8, 27) if self._happens(0.05) else None
            self._workspaces.append(Workspace(f"Workspace {number}", default_geo=geo, archived_on_day=archived))

    def _draw_logs(self) -> None:
        random = self._random
        for number in range(1, random.randint(2, 10)):
            names_key, names_workspace = self._happens(0.75), self._happens(0.75)
            bound = None
            name = f"log{number}"
            if not names_key and not names_workspace:
                bound = random.choice(self._workspaces)
            ending = random.choice(("jsonl", "jsonl.gz"))
            self._logs.append(
                Log(
                    name,
                    f"logs/{name}/{{day}}.{ending}",
                    f"logs/{name}/{{day}}.{ending}",
                    workspace=bound,
                    names_workspace=names_workspace,
                    names_key=names_key,
                    names_geo=self._happens(0.85),
                    own_cost=self._happens(0.2),
                    clock_minutes=random.choice((-480, -300, -210, 60, 120, 330, 540)) if self._happens(0.2) else 0,
                    prefix=random.choice(("", "anthropic/")),
                    drops_dates=self._happens(0.2),
                    nulls_ids=self._happens(0.1),
                )
            )

    def _draw_sources(self) -> None:
        random = self._random
        for workspace in self._workspaces:
            open_logs = [log for log in self._logs if log.workspace in {None, workspace}]
            if not open_logs and "unlogged_key" not in self._variety.plants:
                continue  # nobody could log what is done there
            for _ in range(random.randint(1, 3)):
                logged_by = random.choice(open_logs) if open_logs else None
                own = [key for key in self._keys if key.workspace is workspace]
                key = random.choice(own) if own and self._happens(0.15) else self._new_key(workspace)
                self._sources.append(self._source(workspace, key, logged_by, exists_for=None))

    def _new_key(self, workspace: Workspace) -> ApiKey:
        name = f"key {len(self._keys) + 1}"
        self._keys.append(ApiKey(name, workspace, created_by=self._random.choice(_CREATORS)))
        return self._keys[-1]

    def _source(
        self, workspace: Workspace, key: ApiKey | None, logged_by: Log | None, exists_for: str | None
    ) -> Source:
        random = self._random
        count = min(random.randint(1, 4), len(self._models))
        models = tuple((model, self._between(0.2, 5)) for model in random.sample(self._models, count))
        if logged_by is not None and not logged_by.names_geo:
            us_share = 1.0 if workspace.default_geo == "us" else 0.0
        else:
            us_share = random.choice((0.0, 0.0, 0.1, 0.4, 1.0))
        tier = "batch" if self._happens(0.2) else "standard"
        return Source(
            f"source{len(self._sources) + 1}",
            None if logged_by is None else logged_by.name,
            workspace,
            key,
            exp(random.gauss(0, 1)),
            models,
            rhythm=random.choice(_RHYTHMS),
            tier=tier,
            uncached=random.randint(100, 6000),
            cached=random.randint(1500, 30_000),
            cache_share=random.choice((0.0, 0.2, 0.5, 0.8, 0.97)),
            hour_share=random.choice((0.0, 0.1, 0.5, 1.0)),
            output=random.randint(20, 1500),
            long_share=self._between(0.002, 0.06) if self._happens(0.3) else 0.0,
            search_share=self._between(0.01, 0.2) if self._happens(0.3) else 0.0,
            us_share=us_share,
            fast_share=self._between(0.01, 0.3) if tier == "standard" and self._happens(0.2) else 0.0,
            exists_for=exists_for,
        )

    def _draw_silent(self) -> None:
        """Traffic that no log holds, and a model that no price list has."""
        random = self._random
        if self._has("unlogged_key"):
            homes = self._random.sample(self._workspaces, min(len(self._workspaces), random.randint(1, 3)))
            for workspace in homes:
                for _ in range(random.randint(1, 3)):
                    own = [key for key in self._keys if key.workspace is workspace]
                    key = random.choice(own) if own and self._happens(0.15) else self._new_key(workspace)
                    self._sources.append(self._source(workspace, key, None, "unlogged_key"))
        if self._has("no_key"):
            for _ in range(random.randint(1, 3)):
                source = self._source(random.choice(self._workspaces), None, None, "no_key")
                account, service = random.choice(((None, None), (USERS["ines"], None), (None, SERVICE_ACCOUNT)))
                self._sources.append(replace(source, account=account, service_account=service))
        if self._has("unpriced"):
            plain = [log for log in self._logs if not log.own_cost and log.workspace is None]
            for logged_by in plain[:1]:
                workspace = random.choice(self._workspaces)
                source = self._source(workspace, self._new_key(workspace), logged_by, "unpriced")
                self._sources.append(replace(source, models=((UNLISTED, 1.0),), fast_share=0.0))

    def _charges(self) -> Iterator[ChargeWithoutRequest]:
        for cost_type, title in (
            ("code_execution", "Code Execution Usage"),
            ("session_usage", "Managed Agents Session Usage"),
        ):
            if self._has(cost_type):
                most = min(len(self._workspaces), self._random.randint(1, 2))
                for workspace in self._random.sample(self._workspaces, most):
                    yield ChargeWithoutRequest(cost_type, workspace, self._between(0.5, 40), title)

    # What goes wrong where

    def _placements(self) -> Iterator[Placement]:
        clocks = tuple(self._clocks())
        yield from clocks
        yield from self._stamps({place.log for place in clocks})
        for plant, draw in (
            ("cache_inclusive", self._cache_inclusive),
            ("cache_ttl", self._cache_ttl),
            ("model", self._model),
            ("service_tier", self._service_tier),
            ("context_window", self._context_window),
            ("inference_geo", self._inference_geo),
            ("speed", self._speed),
            ("workspace", self._workspace),
            ("iterations", self._iterations),
            ("log_gap", self._log_gap),
            ("stream_sum", self._streams),
            ("cut_stream", self._streams),
            ("app_price", self._app_price),
            ("duplicate", self._duplicate),
            ("unlogged", self._one_sided),
            ("unreported", self._one_sided),
            ("discount", self._discount),
            ("price_book", self._price_book),
            ("uncharged", self._uncharged),
        ):
            if self._has(plant):
                yield from draw(plant)
        for plant in ("unlogged", "unreported"):
            rate = round(self._random.uniform(0, self._variety.noise), 5)
            if rate and plant in self._variety.plants:
                yield Placement(plant, strength=rate, variant=self._random.choice(("", "plain")))

    def _clocks(self) -> Iterator[Placement]:
        for logged_by, minutes in zip(self._used_logs()[::2], self._variety.clocks, strict=False):
            yield Placement("time_zone", log=logged_by.name, strength=minutes / 60)
        if self._has("time_zone") and not self._variety.clocks:
            for logged_by in self._some_logs(3):
                near = self._random.choice((-300, 60, 120, 330, 480))
                minutes = near if self._happens(0.5) else self._random.choice(_OFFSETS)
                if self._variety.hard and self._happens(0.3):  # the end of daylight saving time
                    yield Placement("time_zone", log=logged_by.name, strength=minutes / 60 - 1, days=(24, 99))
                yield Placement("time_zone", log=logged_by.name, strength=minutes / 60)

    def _stamps(self, clocked: set[str | None]) -> Iterator[Placement]:
        """At most one way of stamping a log; ``clocked`` are those whose clock is off."""
        chosen = {logged_by.name for logged_by in self._some_logs(2)} if self._has("cutoff") else set()
        for logged_by in self._used_logs():
            starts = self._happens(self._variety.start_stamps) and "cutoff" in self._variety.plants
            hours = self._random.choice((1, 6, 24))
            way = self._random.choice(("submission", "submission", "day", "fetched"))
            if logged_by.name in chosen and (self._variety.hard or logged_by.name not in clocked):
                seconds = {"submission": (60, 14_400), "day": (600, 80_000), "fetched": (hours * 3600, 900)}[way]
                yield Placement("cutoff", log=logged_by.name, strength=1.0, variant=way, seconds=seconds)
            elif starts:
                longest = round(self._between(5, 600))
                yield Placement("cutoff", log=logged_by.name, strength=1.0, variant="start", seconds=(1, longest))

    def _share(self) -> float:
        """Single requests, or all."""
        return 1.0 if self._happens(0.35) else self._between(0.01, 0.9)

    def _cache_inclusive(self, plant: str) -> Iterator[Placement]:
        for logged_by in self._some_logs(2):
            variant = self._random.choice(("reads", "reads and writes"))
            yield Placement(plant, log=logged_by.name, strength=1.0, variant=variant)

    def _cache_ttl(self, plant: str) -> Iterator[Placement]:
        for logged_by in self._some_logs(2):
            yield Placement(
                plant, log=logged_by.name, strength=1.0, variant=self._random.choice(("missing", "exchanged"))
            )

    def _model(self, plant: str) -> Iterator[Placement]:
        for source in self._some_sources(3):
            name, days = source.name, self._days()
            if self._happens(0.5):
                yield Placement(plant, source=name, strength=self._between(0.02, 0.5), days=days, variant="fallback")
                continue
            first = source.models[0][0]
            alike = [m for m in self._models if MODELS[m].takes_geo == MODELS[first].takes_geo and m != first]
            if alike:
                said = self._random.choice(alike)
                yield Placement(plant, source=name, strength=self._share(), days=days, value=said, models=(first,))

    def _service_tier(self, plant: str) -> Iterator[Placement]:
        for source in self._some_sources(3):
            value = None if source.tier == "batch" else "batch"
            yield Placement(plant, source=source.name, strength=self._share(), days=self._days(), value=value)

    def _context_window(self, plant: str) -> Iterator[Placement]:
        long = [source for source in self._sources if source.long_share and source.log is not None]
        for source in self._some_sources(2, long) if long else []:
            yield Placement(plant, source=source.name, strength=self._share())

    def _inference_geo(self, plant: str) -> Iterator[Placement]:
        naming = {logged_by.name for logged_by in self._logs if logged_by.names_geo}
        for source in self._some_sources(3, [s for s in self._sources if s.log in naming]) if naming else []:
            value = self._random.choice((None, "us", "global"))
            yield Placement(plant, source=source.name, strength=self._share(), days=self._days(), value=value)

    def _speed(self, plant: str) -> Iterator[Placement]:
        fast = [source for source in self._sources if source.fast_share and source.log is not None]
        can_be = [
            source
            for source in self._sources
            if source.log is not None and any(fast_factor(model, self._day) for model, _ in source.models)
        ]
        for source in self._some_sources(2, fast) if fast else []:
            yield Placement(plant, source=source.name, strength=self._share(), days=self._days())
        if can_be and self._happens(0.3):
            source = self._random.choice(can_be)
            yield Placement(plant, source=source.name, strength=self._between(0.01, 0.2), value="fast")

    def _workspace(self, plant: str) -> Iterator[Placement]:
        naming = {logged_by.name for logged_by in self._logs if logged_by.names_workspace}
        naming_geo = {logged_by.name for logged_by in self._logs if logged_by.names_geo}
        candidates = [source for source in self._sources if source.log in naming]
        for source in self._some_sources(2, candidates) if candidates else []:
            others = [
                workspace.name
                for workspace in self._workspaces
                if workspace is not source.workspace
                and (source.log in naming_geo or workspace.default_geo == source.workspace.default_geo)
            ]
            if others:
                value = self._random.choice(others)
                yield Placement(plant, source=source.name, strength=self._share(), days=self._days(), value=value)
        nameless = [log for log in self._logs if log.names_workspace and log.names_geo and not log.names_key]
        if nameless and self._happens(0.3):
            name = self._random.choice(nameless).name
            yield Placement(plant, log=name, strength=self._share(), days=self._days(), value=None)

    def _iterations(self, plant: str) -> Iterator[Placement]:
        for source in self._some_sources(2):
            yield Placement(plant, source=source.name, strength=self._between(0.005, 0.15))

    def _log_gap(self, plant: str) -> Iterator[Placement]:
        for logged_by in self._some_logs(2):
            for _ in range(self._random.randint(1, 2)):
                start = self._random.randint(0, 29 * 24) + (self._random.random() if self._happens(0.3) else 0.0)
                yield Placement(plant, log=logged_by.name, strength=self._between(1, 30), from_hour=start)

    def _streams(self, plant: str) -> Iterator[Placement]:
        plain = [logged_by for logged_by in self._used_logs() if not logged_by.own_cost]
        for logged_by in self._some_logs(2, plain) if plain else []:
            strength = self._between(0.1, 1.0) if plant == "stream_sum" else self._between(0.003, 0.1)
            yield Placement(plant, log=logged_by.name, strength=strength)

    def _app_price(self, plant: str) -> Iterator[Placement]:
        variants = ("cache", "hour", "read", "batch", "geo", "fast", "old", "rounded")
        for logged_by in self._logs:
            if logged_by.own_cost:
                variant = self._random.choice(variants)
                yield Placement(plant, log=logged_by.name, strength=self._share(), days=self._days(), variant=variant)

    def _duplicate(self, plant: str) -> Iterator[Placement]:
        for logged_by in self._some_logs(3):
            others = [other.name for other in self._logs if other is not logged_by]
            other = self._random.choice(others) if others and self._happens(0.25) else ""
            yield Placement(plant, log=logged_by.name, strength=self._between(0.002, 0.08), variant=other)

    def _one_sided(self, plant: str) -> Iterator[Placement]:
        for source in self._some_sources(3):
            variant = self._random.choice(("", "plain", "bedrock")) if plant == "unreported" else ""
            strength = self._between(0.005, 0.1)
            yield Placement(plant, source=source.name, strength=strength, days=self._days(), variant=variant)

    def _some_models(self, most: int) -> list[str]:
        used = sorted({model for source in self._sources for model, _ in source.models if model != UNLISTED})
        return self._random.sample(used, min(len(used), self._random.randint(1, most)))

    def _discount(self, plant: str) -> Iterator[Placement]:
        for model in self._some_models(2):
            days = (self._random.randint(5, 20), 31) if self._happens(0.3) else None
            yield Placement(plant, models=(model,), strength=self._random.randint(2, 40) / 100, days=days)

    def _price_book(self, plant: str) -> Iterator[Placement]:
        for model in self._some_models(1):
            meters = (self._random.randrange(5),)
            days = (self._random.randint(5, 20), 31) if self._happens(0.5) else None
            percent = self._random.choice((-30, -15, -5, 10, 20, 50))
            yield Placement(plant, models=(model,), meters=meters, strength=percent / 100, days=days)

    def _uncharged(self, plant: str) -> Iterator[Placement]:
        for source in self._some_sources(2):
            if self._happens(0.5):
                yield Placement(plant, source=source.name, strength=self._between(0.1, 1.0), variant="priority")
            else:
                yield Placement(plant, source=source.name, strength=self._between(0.002, 0.04), variant="refused")
