"""Plants differences into single requests, and books the value of each.

What the log says of a request is built up from what was true, one plant after the other against the bridge's order:
what is found first there was laid on last. So each plant is worth what stands before it less what stands behind it.
"""

from collections.abc import Callable
from random import Random
from typing import Protocol

from reconcile.sandbox.organization import Log, Organization, Placement, Source
from reconcile.sandbox.plants import PLANTS, Part, Truth, dot
from reconcile.sandbox.rates import (
    MODELS,
    SEARCH_PICO_USD,
    WINDOW_TOKENS,
    Five,
    fast_factor,
    is_served,
    long_over,
    rates,
    span_on,
)
from reconcile.sandbox.scenario import Scenario
from reconcile.sandbox.traffic import DAY_MS, Event, Iteration, Request, Touch

_HOUR_MS = 3_600_000
_MINUTE_MS = 60_000
_MICRO_USD = 1_000_000
_REFUSED_FOR_PRIORITY = 0.03  # refusals for each Priority Tier request
_WHOLE_LOG = frozenset({"stream_sum", "app_price", "time_zone", "cutoff", "cache_inclusive", "cache_ttl"})
_SEES_STEPS = frozenset({"duplicate", "price_interval", "app_price"})
_MOVES = frozenset(
    {
        "time_zone",
        "cutoff",
        "cache_inclusive",
        "cache_ttl",
        "model",
        "service_tier",
        "context_window",
        "inference_geo",
        "speed",
        "workspace",
    }
)
_LOST = ("log_gap", "unlogged", "price_interval")
_SERVED_INSTEAD = ("claude-opus-5", "claude-opus-4-7", "claude-sonnet-4-5-20250929", "claude-haiku-4-5-20251001")
_ADVISORS = ("claude-opus-5-5", "claude-opus-4-7", "claude-opus-4-6")

Layer = Callable[[Part], Part]


class _Turn(Protocol):
    """Says whose turn it is."""

    def takes(self) -> bool: ...


class _Quota:
    """Takes an even share of what passes by, the first one always."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._due = 1.0 - share

    def takes(self) -> bool:
        self._due += self._share
        if self._due < 1.0:
            return False
        self._due -= 1.0
        return True


class _Chance:
    """Takes a share of what passes by, each as it falls."""

    def __init__(self, share: float, random: Random) -> None:
        self._share = share
        self._random = random

    def takes(self) -> bool:
        return self._share >= 1.0 or self._random.random() < self._share


class _Work:
    """A placement at work in one source: how strong, whose turn it is, and its own random numbers."""

    def __init__(self, place: Placement, strength: float, turn: _Turn, random: Random) -> None:
        self.place = place
        self.strength = strength
        self.turn = turn
        self.random = random


_Taking = dict[str, _Work]
"""The plants whose turn a request is, by name."""


class Planter:
    """Touches requests, and tells the truth about it.

    In an organization with ``one_each`` a request has one plant at most, the source's first whose turn it is. One that
    spares steps leaves a request alone whose price does not show in its dimensions (Haiku 5.5 above 100,000 tokens);
    its `price_interval` is made of just those.
    """

    def __init__(self, scenario: Scenario, truth: Truth) -> None:
        organization = scenario.organization
        self._scenario = scenario
        self._truth = truth
        self._organization: Organization = organization
        self._logs = {log.name: log for log in organization.logs}
        self._work = {
            source.name: [
                self._at_work(position, place, source)
                for position, place in enumerate(organization.placements)
                if place.plant in scenario.plants and place.concerns(source)
            ]
            for source in organization.sources
            if source.log is not None
        }
        self._named_keys = {
            source.key.id
            for source in organization.sources
            if source.key is not None and source.log is not None and self._logs[source.log].names_key
        }

    def _at_work(self, position: int, place: Placement, source: Source) -> _Work:
        plant = place.plant
        strength = self._scenario.strength(plant) if place.strength is None else place.strength
        share = 1.0 if plant in {"time_zone", "log_gap"} else strength  # their unit is hours: all of the log
        if plant == "uncharged" and place.variant == "refused" and place.strength is None:
            share *= _REFUSED_FOR_PRIORITY
        random = Random(self._scenario.random_name("plant", position, plant, source.name))
        turn = _Quota(share) if self._organization.one_each else _Chance(share, random)
        return _Work(place, strength, turn, random)

    # Whose turn it is

    def _taking(self, request: Request) -> _Taking:
        taking: _Taking = {}
        for work in self._work[request.source.name]:
            plant = work.place.plant
            has_one = self._organization.one_each and bool(taking.keys() - {"app_price"}) and plant != "app_price"
            if plant not in taking and not has_one and self._takes(work, request):
                taking[plant] = work
        return taking

    def _takes(self, work: _Work, request: Request) -> bool:
        place = work.place
        if place.plant not in _WHOLE_LOG and not self._truth.covers(request.day):
            return False
        if place.days is not None and not place.days[0] <= request.day - self._scenario.first_day < place.days[1]:
            return False
        if place.plant == "log_gap" and not self._in_gap(work, request.at):
            return False
        if self._organization.spares_steps and request.steps_inside_window and place.plant not in _SEES_STEPS:
            return False
        if place.plant == "duplicate" and any(
            has_null_id(request, self._logs[name]) for name in (request.source.log or "", place.variant) if name
        ):
            return False  # such a line is its own request
        eligible = _ELIGIBLE.get(place.plant)
        return (eligible is None or eligible(request, place)) and work.turn.takes()

    def _log(self, request: Request) -> Log:
        return self._logs[request.source.log or ""]

    def _in_gap(self, work: _Work, at: int) -> bool:
        start = self._scenario.first_day * DAY_MS + round(work.place.from_hour * _HOUR_MS)
        return start <= at < start + round(work.strength * _HOUR_MS)

    # One request

    def plant(self, request: Request) -> list[Request]:
        """Touch one request; what comes back is logged too, though the provider never saw it."""
        source = request.source
        if source.log is None:
            request.touch = Touch()
            request.touch.logged = False
            self._book_silent(request, source)
            return []
        if request.day > self._scenario.end_day:  # its line lies in a file that nobody reads for this month
            request.touch = Touch()
            request.touch.logged = False
            return []
        log = self._log(request)
        taking = self._taking(request)
        if taking or log.own_cost:
            touch = request.touch = Touch()
            self._happen(request, touch, taking)
            lost = next((plant for plant in _LOST if plant in taking), None)
            if lost is not None:
                touch.logged = False
                self._lose(lost, request)
                return []
            ghosts = [self._ghost(request, log, taking)] if "unreported" in taking else []
            self._say(request, log, touch, taking)
            return ghosts
        self._truth.wrote(log.name, request.at // _HOUR_MS)
        self._keep(request, log, request.part(), None)
        return []

    def _book_silent(self, request: Request, source: Source) -> None:
        place = _place_of_source(request)
        if source.key is None:
            self._truth.move("no_key", place, (request.part(),), ())
        elif source.key.id in self._named_keys:
            self._truth.move("unlogged", place, (request.part(),), ())
        else:
            self._truth.silent(source.workspace.name, place, request.part())

    def _lose(self, plant: str, request: Request) -> None:
        """No line at all."""
        turns = () if request.touch is None else request.touch.iterations
        parts = (*_parts(request), *(turn_part(request, turn) for turn in turns))
        if plant == "log_gap":
            self._truth.gap(request.source.log or "", request.at // _HOUR_MS, _place(request), parts)
        else:
            self._truth.move("unlogged", _place(request), parts, ())

    def _keep(self, request: Request, log: Log, part: Part, workspace: str | None, moved: str = "") -> None:
        """Let the truth know what the recorded side holds; ``workspace`` where it is not the request's own.

        ``moved`` is the plant that brought it into its cell last.
        """
        self._truth.record(
            workspace or request.source.workspace.name,
            part,
            _own_rates(part),
            names_key=log.names_key,
            moved=(moved or "unreported", _place(request)),
        )

    # What really happened

    def _happen(self, request: Request, touch: Touch, taking: _Taking) -> None:
        if "uncharged" in taking:
            request.charged = False
            if taking["uncharged"].place.variant == "refused":
                request.output = request.searches = 0
                touch.refused = True
            else:
                request.tier = "priority"
        if "model" in taking and taking["model"].place.variant == "fallback":
            touch.model = request.model  # what was asked for, and what the log will say
            request.model = _served_instead(request) or request.model
        if "context_window" in taking:
            request.calls = _calls(request, taking["context_window"].random)
        if "iterations" in taking and "cut_stream" not in taking:  # a stream that ends early does not tell of its turns
            turn = _turn(request, taking["iterations"].random)
            touch.iterations = (turn,)
            if not any(plant in taking for plant in _LOST):  # else they are lost with their line
                self._truth.move("iterations", _place(request), (turn_part(request, turn),), ())

    # What the log says of it

    def _say(self, request: Request, log: Log, touch: Touch, taking: _Taking) -> None:
        """Build up the line against the bridge's order, and book each plant at what it changes."""
        parts = _parts(request)
        if "cut_stream" in taking:
            output = min(request.output, taking["cut_stream"].random.randint(1, 3))
            parts = self._lay("cut_stream", request, parts, lambda part: _with_output(part, output))
        workspace = self._workspace(request, touch, parts, taking)
        parts = self._speed(request, touch, parts, taking)
        parts = self._geo(request, touch, parts, taking)
        if request.calls:
            whole = (parts[0]._replace(tokens=_summed(parts), window=request.window, searches=request.searches),)
            self._truth.move("context_window", _place(request), parts, whole)
            parts = whole
        parts = self._tier(request, touch, parts, taking)
        parts = self._model(request, touch, parts, taking)
        parts = self._ttl(request, touch, parts, taking)
        parts = self._inclusive(request, parts, taking)
        parts = self._stamp(request, touch, parts, taking)
        (part,) = parts
        touch.tokens = part.tokens
        self._clean(request, log, touch, part, taking)
        first = next((plant for plant in PLANTS if plant in taking and plant in _MOVES), "")
        self._keep(request, log, part, workspace, first)

    def _lay(
        self, reason: str, request: Request, parts: tuple[Part, ...], layer: Layer, suffix: str = ""
    ) -> tuple[Part, ...]:
        """What the log says after one more plant, booked; as before where no list would have a price for it."""
        laid = tuple(layer(part) for part in parts)
        if laid == parts or not all(_is_possible(part) for part in laid):
            return parts
        self._truth.move(reason, _place(request) + suffix, parts, laid)
        return laid

    def _workspace(self, request: Request, touch: Touch, parts: tuple[Part, ...], taking: _Taking) -> str | None:
        """The name of the workspace that is recorded, where it is not the request's own; "?" for none."""
        if "workspace" not in taking:
            return None
        self._truth.move("workspace", _place(request), parts, parts)
        other = taking["workspace"].place.value
        if other is None:
            touch.hides |= {"workspace_id"}
            return "?"
        touch.workspace = self._organization.workspace(other)
        return other

    def _speed(self, request: Request, touch: Touch, parts: tuple[Part, ...], taking: _Taking) -> tuple[Part, ...]:
        if "speed" not in taking:
            return parts
        speed = taking["speed"].place.value or "standard"
        laid = self._lay("speed", request, parts, lambda part: part._replace(speed=speed))
        if laid != parts:
            touch.speed = speed
        return laid

    def _geo(self, request: Request, touch: Touch, parts: tuple[Part, ...], taking: _Taking) -> tuple[Part, ...]:
        if "inference_geo" not in taking:
            return parts
        said = taking["inference_geo"].place.value
        home = touch.workspace or request.source.workspace
        geo = said or ("global" if "workspace_id" in touch.hides else home.default_geo)
        laid = self._lay("inference_geo", request, parts, lambda part: part._replace(geo=geo))
        if laid != parts:
            touch.geo = said
            touch.hides |= set() if said else {"inference_geo"}
        return laid

    def _tier(self, request: Request, touch: Touch, parts: tuple[Part, ...], taking: _Taking) -> tuple[Part, ...]:
        if "service_tier" not in taking:
            return parts
        said = taking["service_tier"].place.value
        laid = self._lay("service_tier", request, parts, lambda part: part._replace(tier=said or "standard"))
        if laid != parts:
            touch.tier = said
            touch.hides |= set() if said else {"service_tier"}
        return laid

    def _model(self, request: Request, touch: Touch, parts: tuple[Part, ...], taking: _Taking) -> tuple[Part, ...]:
        said = touch.model
        touch.model = None
        if "model" in taking:
            said = said or taking["model"].place.value
        if said is None:
            return parts
        laid = self._lay("model", request, parts, lambda part: part._replace(model=said), f" model={said}")
        if laid != parts:
            touch.model = said
        return laid

    def _ttl(self, request: Request, touch: Touch, parts: tuple[Part, ...], taking: _Taking) -> tuple[Part, ...]:
        if "cache_ttl" not in taking:
            return parts
        exchanged = taking["cache_ttl"].place.variant == "exchanged"
        if not exchanged:
            touch.hides |= {"split"}
        return self._lay("cache_ttl", request, parts, lambda part: _other_lifetime(part, exchanged))

    def _inclusive(self, request: Request, parts: tuple[Part, ...], taking: _Taking) -> tuple[Part, ...]:
        if "cache_inclusive" not in taking:
            return parts
        writes_too = taking["cache_inclusive"].place.variant == "reads and writes"
        return self._lay("cache_inclusive", request, parts, lambda part: _inclusive(part, writes_too))

    def _stamp(self, request: Request, touch: Touch, parts: tuple[Part, ...], taking: _Taking) -> tuple[Part, ...]:
        """When the line says that it was: earlier or later than the provider counts, by a clock that is off."""
        at = request.at
        for plant in ("cutoff", "time_zone"):
            if plant == "time_zone":  # the hour by the log's clock, were it right
                self._truth.wrote(request.source.log or "", at // _HOUR_MS)
            if plant in taking:
                stamped = at + _off_by(taking[plant], at)
                if plant == "cutoff" and stamped > at:
                    touch.fetched_at = stamped
                laid = self._lay(plant, request, parts, lambda part, at=stamped: part._replace(day=at // DAY_MS))  # type: ignore[misc]
                if laid != parts or stamped // DAY_MS == parts[0].day:
                    parts, at, touch.at = laid, stamped, stamped
                    touch.naive = plant == "time_zone"
        return parts

    # Cleaning: valued at the dollars that were logged

    def _clean(self, request: Request, log: Log, touch: Touch, part: Part, taking: _Taking) -> None:
        own = _own_rates(part)
        recorded = logged = dot(part.tokens, own) + part.searches * SEARCH_PICO_USD
        inside = self._truth.covers(part.day)
        streams = next((plant for plant in ("cut_stream", "stream_sum") if plant in taking), None)
        if streams is not None:
            touch.events = _events(request, touch, part, taking[streams].random, is_cut=streams == "cut_stream")
            logged = sum(dot(event.tokens(), own) + event.searches * SEARCH_PICO_USD for event in touch.events)
            tokens = sum(sum(event.tokens()) for event in touch.events)
            if inside and streams == "stream_sum":
                place = f"log={log.name}"
                self._truth.add("stream_sum", place, 1, sum(part.tokens) - tokens, recorded - logged)
            return
        if log.own_cost:
            if "app_price" in taking:
                logged = _own_cost(part, taking["app_price"].place.variant)
            touch.cost_pico = logged
            if inside and logged != recorded:
                self._truth.add("app_price", f"log={log.name}", 1, None, recorded - logged)
        if "duplicate" in taking and inside:
            touch.copies = 1
            touch.copy_log = taking["duplicate"].place.variant or None
            place = f"log={log.name}" + (f" log={touch.copy_log}" if touch.copy_log else "")
            self._truth.add("duplicate", place, 1, -sum(part.tokens), -logged)

    # Lines that the provider knows nothing of

    def _ghost(self, request: Request, log: Log, taking: _Taking) -> Request:
        """A line that follows a request, with what is wrong in all of its log's lines."""
        work = taking["unreported"]
        random = work.random
        uncached, write_5m, write_1h, read, output = request.tokens
        ghost = Request(
            request.source,
            min(request.at + random.randint(1, 2000), (request.day + 1) * DAY_MS - 1),
            f"req_011C{random.getrandbits(96):024x}",
            request.model,
            request.tier,
            request.geo,
            request.speed,
            (uncached, write_5m, write_1h, read, 1 + output * 2 // 3),
            0,
            request.team,
        )
        touch = ghost.touch = Touch()
        if work.place.variant == "bedrock":
            touch.bedrock = True
            ghost.id = f"{random.getrandbits(32):08x}-5a1e-4c0d-9e77-{random.getrandbits(48):012x}"
        elif work.place.variant != "plain":
            touch.status = 529
        parts: tuple[Part, ...] = (ghost.part(),)
        if "cache_ttl" in taking:  # no report tells of a request that it does not hold which lifetime was meant
            exchanged = taking["cache_ttl"].place.variant == "exchanged"
            touch.hides |= set() if exchanged else {"split"}
            parts = (_other_lifetime(parts[0], exchanged),)
        self._truth.move("unreported", _place(request), (), parts)
        parts = self._inclusive(ghost, parts, taking)
        clock = {plant: taking[plant] for plant in ("time_zone",) if plant in taking}
        (part,) = self._stamp(ghost, touch, parts, clock)
        touch.tokens = part.tokens
        self._clean(ghost, log, touch, part, {})
        self._keep(ghost, log, part, None)
        return ghost


def turn_part(request: Request, turn: Iteration) -> Part:
    """What the provider counts for a turn inside a request."""
    geo = request.geo if MODELS[turn.model].takes_geo else "not_available"
    tokens = (turn.uncached, 0, 0, 0, turn.output)
    return Part(request.day, turn.model, request.tier, "0-200k", geo, request.speed, tokens, 0)


def _parts(request: Request) -> tuple[Part, ...]:
    return tuple(part for _, part in request.calls) or (request.part(),)


def _turn(request: Request, random: Random) -> Iteration:
    advisor = next((model for model in _ADVISORS if is_served(model, request.day)), None)
    can_be_fast = request.speed == "standard" or (advisor is not None and fast_factor(advisor, request.day) > 0)
    if advisor is None or not can_be_fast or random.random() < 0.75:
        return Iteration("compaction", request.model, random.randint(20_000, 90_000), random.randint(800, 4000))
    return Iteration("advisor_message", advisor, random.randint(2_000, 12_000), random.randint(200, 900))


def _calls(request: Request, random: Random) -> tuple[tuple[int, Part], ...]:
    """The calls of a run that the application logs on one line: none of them was long."""
    count = request.prompt // 120_000 + random.randint(1, 3)
    hour = request.at // _HOUR_MS * _HOUR_MS
    whole = request.part()
    calls = []
    for call in range(count):
        at = max(hour, request.at - (count - 1 - call) * random.randint(5_000, 60_000))
        uncached, write_5m, write_1h, read, output = (
            quantity // count + (call < quantity % count) for quantity in request.tokens
        )
        searches = request.searches if call == 0 else 0
        tokens = (uncached, write_5m, write_1h, read, output)
        calls.append((at, whole._replace(tokens=tokens, window="0-200k", searches=searches)))
    return tuple(calls)


def _summed(parts: tuple[Part, ...]) -> Five:
    uncached, write_5m, write_1h, read, output = (sum(meter) for meter in zip(*(p.tokens for p in parts), strict=True))
    return uncached, write_5m, write_1h, read, output


def _with_output(part: Part, output: int) -> Part:
    return part._replace(tokens=(*part.tokens[:4], output))


def _other_lifetime(part: Part, exchanged: bool) -> Part:
    uncached, write_5m, write_1h, read, output = part.tokens
    writes = (write_1h, write_5m) if exchanged else (write_5m + write_1h, 0)
    return part._replace(tokens=(uncached, *writes, read, output))


def _inclusive(part: Part, writes_too: bool) -> Part:
    uncached, write_5m, write_1h, read, output = part.tokens
    tokens = (uncached + read + (write_5m + write_1h if writes_too else 0), write_5m, write_1h, read, output)
    window = "200k-1M" if sum(tokens[:4]) > WINDOW_TOKENS else "0-200k"
    return part._replace(tokens=tokens, window=window)


def _off_by(work: _Work, at: int) -> int:
    """Milliseconds that a stamp is later than the provider counts."""
    place = work.place
    if place.plant == "time_zone":
        return round(work.strength * 60) * _MINUTE_MS
    if place.variant == "fetched":  # at the next full interval, all that was done until then
        every, within = (seconds * 1000 for seconds in place.seconds)
        return every - at % every + work.random.randint(0, within)
    shortest, longest = (seconds * 1000 for seconds in place.seconds)
    return -shortest - int((longest - shortest) * work.random.random() ** 3)  # most are done soon


def _events(request: Request, touch: Touch, part: Part, random: Random, *, is_cut: bool) -> tuple[Event, ...]:
    """What a captured stream shows: usage at its start, and cumulative at its end."""
    at = request.at if touch.at is None else touch.at
    started = max(at // DAY_MS * DAY_MS, at - random.randint(400, 40_000))
    uncached, write_5m, write_1h, read, output = part.tokens
    early = uncached
    if part.searches:  # the results of a search are input that the start does not know
        early = max(1, uncached // random.randint(2, 5))
    first = min(output, random.randint(1, 3))
    start = Event(started, True, (early, write_5m, write_1h, read), output if is_cut else first, 0)
    if is_cut:
        return (start,)
    nothing = (None, None, None, None)
    counters = (uncached, write_5m, write_1h, read) if part.searches or random.random() < 0.7 else nothing
    last = Event(at, False, counters, output, part.searches)
    if output > 400 and random.random() < 0.2 and at - started > 10:
        return start, Event((started + at) // 2, False, nothing, output // 2, 0), last
    return start, last


def _own_rates(part: Part) -> Five:
    """The rates that the book has for a line as it was logged."""
    if not MODELS[part.model].listed:
        return 0, 0, 0, 0, 0
    is_long = 0 < long_over(part.model, part.day) < sum(part.tokens[:4])
    return rates(part.model, part.day, part.tier, part.geo, part.speed, is_long)


def _own_cost(part: Part, variant: str) -> int:
    """What an application takes a request to cost that has its prices wrong."""
    listed = _own_rates(part)
    uncached, write_5m, write_1h, read, output = listed
    wrong = {
        "cache": (uncached, write_5m, write_5m, uncached // 10, output),
        "hour": (uncached, write_5m, write_5m, read, output),
        "read": (uncached, write_5m, write_1h, uncached, output),
        "batch": _own_rates(part._replace(tier="standard")),
        "geo": _own_rates(part._replace(geo="global")) if part.geo == "us" else listed,
        "fast": _own_rates(part._replace(speed="standard")),
        "old": (uncached * 5 // 4, write_5m * 5 // 4, write_1h * 5 // 4, read * 5 // 4, output * 5 // 4),
    }.get(variant, listed)
    cost = dot(part.tokens, wrong) + part.searches * SEARCH_PICO_USD
    return cost // _MICRO_USD * _MICRO_USD if variant == "rounded" else cost


def _is_possible(part: Part) -> bool:
    """Whether such a request could have been made: what nobody could have logged is not planted."""
    if span_on(part.model, part.day) is None or MODELS[part.model].takes_geo != (part.geo != "not_available"):
        return False
    if part.speed == "standard":
        return True
    return part.tier == "standard" and part.window == "0-200k" and fast_factor(part.model, part.day) > 0


def _first_choice(request: Request) -> str:
    """The model that the source would rather have: of those served on the day the first."""
    models = (model for model, _ in request.source.models if is_served(model, request.day))
    return next(models, request.model)


def _served_instead(request: Request) -> str | None:
    takes_geo = MODELS[request.model].takes_geo
    for model in _SERVED_INSTEAD:
        if model != request.model and MODELS[model].takes_geo == takes_geo and is_served(model, request.day):
            return model
    return None


def _can_have_other_model(request: Request, place: Placement) -> bool:
    if place.variant == "fallback":
        return (
            request.model == _first_choice(request)
            and _served_instead(request) is not None
            and (request.speed == "standard" or fast_factor(_served_instead(request) or "", request.day) > 0)
        )
    return request.model != place.value and (not place.models or request.model in place.models)


def _can_be_unreported(request: Request, place: Placement) -> bool:
    return MODELS[request.model].listed and (place.variant != "bedrock" or not MODELS[request.model].takes_geo)


_ELIGIBLE: dict[str, Callable[[Request, Placement], bool]] = {
    "model": _can_have_other_model,
    "context_window": lambda request, _: (
        request.window == "200k-1M" and long_over(request.model, request.day) in {0, WINDOW_TOKENS}
    ),
    "inference_geo": lambda request, place: request.geo not in {"not_available", place.value},
    "speed": lambda request, place: request.speed != (place.value or "standard"),
    "cut_stream": lambda request, _: request.searches == 0,
    "price_interval": lambda request, _: request.steps_inside_window,
    "uncharged": lambda request, place: (
        request.speed == "standard" and (place.variant != "refused" or request.model.startswith("claude-opus"))
    ),
    "unreported": _can_be_unreported,
}


def has_null_id(request: Request, log: Log) -> bool:
    """Whether the line's request id is null, in logs that lose some."""
    return log.nulls_ids and request.id[-1] in "01234"


def _name_of(source: Source) -> str:
    return "default" if source.workspace.is_default else source.workspace.id


def _place(request: Request) -> str:
    return f"log={request.source.log} workspace_id={_name_of(request.source)}"


def _place_of_source(request: Request) -> str:
    source = request.source
    who = (
        f" api_key_id={source.key.id}"
        if source.key
        else f" account_id={source.account}"
        if source.account
        else f" service_account_id={source.service_account}"
        if source.service_account
        else " console"
    )
    return f"workspace_id={_name_of(source)}{who}"
