"""Plants differences into single requests, and books the value of each."""

from random import Random
from typing import TYPE_CHECKING

from reconcile.sandbox.organization import ADS_RANKING, LOGS, PRIORITY_KEY, Workspace
from reconcile.sandbox.plants import Part, Truth, dot
from reconcile.sandbox.rates import MODELS, SEARCH_PICO_USD, is_served
from reconcile.sandbox.scenario import Scenario
from reconcile.sandbox.traffic import DAY_MS, Event, Iteration, Request, Touch

if TYPE_CHECKING:
    from collections.abc import Callable

_HOUR_MS = 3_600_000
_SERVICE_TIER_DAYS = range(17, 24)  # days of the month, counted from 0
_WORKSPACE_DAYS = range(5, 20)
_GAP_DAY = 13
_GAP_FROM_HOUR = 9
_REFUSED_FOR_PRIORITY = 0.03  # refusals for each Priority Tier request
_WHOLE_LOG = frozenset({"stream_sum", "time_zone", "cutoff", "cache_inclusive", "cache_ttl"})
_SERVED_INSTEAD = ("claude-opus-5", "claude-opus-4-7", "claude-sonnet-4-5-20250929", "claude-haiku-4-5-20251001")
_ADVISORS = ("claude-opus-5-5", "claude-opus-4-7", "claude-opus-4-6")


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


class Planter:
    """Touches requests: at most one plant each, the source's first whose turn it is.

    A request whose price does not show in its dimensions (Haiku 5.5 above 100,000 tokens) is left alone by all that
    move quantities, so that their value is exact; `price_interval` is made of just those.
    """

    def __init__(self, scenario: Scenario, truth: Truth) -> None:
        self._scenario = scenario
        self._truth = truth
        self._quotas: dict[tuple[str, str], _Quota] = {}
        self._random = {plant: Random(scenario.random_name("plant", plant)) for plant in sorted(scenario.plants)}
        self._plants: dict[str, Callable[[Request, Touch], list[Request] | None]] = {
            "duplicate": self._duplicate,
            "stream_sum": self._stream_sum,
            "time_zone": self._time_zone,
            "cutoff": self._cutoff,
            "cache_inclusive": self._cache_inclusive,
            "cache_ttl": self._cache_ttl,
            "model": self._model,
            "service_tier": self._service_tier,
            "inference_geo": self._inference_geo,
            "speed": self._speed,
            "workspace": self._workspace,
            "iterations": self._iterations,
            "cut_stream": self._cut_stream,
            "log_gap": self._log_gap,
            "unlogged": self._unlogged,
            "unreported": self._unreported,
            "price_interval": self._price_interval,
            "uncharged": self._uncharged,
        }
        self._eligible: dict[str, Callable[[Request], bool]] = {
            "model": lambda request: request.model == _first_choice(request) and self._instead_of(request) is not None,
            "service_tier": lambda request: request.day - scenario.first_day in _SERVICE_TIER_DAYS,
            "inference_geo": lambda request: request.geo == "us",
            "speed": lambda request: request.speed == "fast",
            "workspace": lambda request: request.day - scenario.first_day in _WORKSPACE_DAYS,
            "cut_stream": lambda request: request.searches == 0,
            "log_gap": self._in_gap,
            "price_interval": lambda request: request.steps_inside_window,
            "uncharged": lambda request: request.source.key is PRIORITY_KEY or request.model.startswith("claude-opus"),
            "unreported": lambda request: request.source.log != "notebooks" or not MODELS[request.model].takes_geo,
            "duplicate": lambda request: request.source.log != "notebooks" or not null_id(request),
        }

    def plant(self, request: Request) -> list[Request]:
        """Touch one request; what comes back is logged too, though the provider never saw it."""
        source = request.source
        if source.exists_for is not None:
            request.touch = Touch()
            request.touch.logged = False
            self._truth.move(source.exists_for, _place_of_source(request), (request.part(),), ())
            return []
        if source.log == "studio":
            self._price_own(request)
        for plant in source.plants:
            if self._takes(plant, request):
                if request.touch is None:
                    request.touch = Touch()
                return self._plants[plant](request, request.touch) or []
        return []

    def _takes(self, plant: str, request: Request) -> bool:
        if plant not in self._scenario.plants:
            return False
        if plant not in _WHOLE_LOG and not self._truth.covers(request.day):
            return False
        if request.steps_inside_window and plant not in {"duplicate", "price_interval"}:
            return False
        eligible = self._eligible.get(plant)
        if eligible is not None and not eligible(request):
            return False
        quota = self._quotas.get((plant, request.source.name))
        if quota is None:
            quota = self._quotas[plant, request.source.name] = _Quota(self._share(plant, request))
        return quota.takes()

    def _share(self, plant: str, request: Request) -> float:
        strength = self._scenario.strength(plant)
        if plant in {"time_zone", "log_gap"}:  # their unit is hours: all of the log
            return 1.0
        if plant == "uncharged" and request.source.key is not PRIORITY_KEY:
            return strength * _REFUSED_FOR_PRIORITY
        return strength

    # Cleaning: valued at the dollars that were logged

    def _price_own(self, request: Request) -> None:
        """The application writes its own cost; under `app_price` with reads and 1-hour writes at wrong rates."""
        value = request.value()
        cost = value
        if "app_price" in self._scenario.plants and self._own_price_quota().takes():
            uncached, write_5m, _, _, output = request.rates()
            cost = dot(request.tokens, (uncached, write_5m, write_5m, uncached // 10, output))
            cost += request.searches * SEARCH_PICO_USD
        request.touch = Touch()
        request.touch.cost_pico = cost
        if cost != value and self._truth.covers(request.day):
            self._truth.add("app_price", "log=studio", 1, None, value - cost)

    def _own_price_quota(self) -> _Quota:
        return self._quotas.setdefault(("app_price", "studio"), _Quota(self._scenario.strength("app_price")))

    def _duplicate(self, request: Request, touch: Touch) -> None:
        touch.copies = 1
        logged = request.value() if touch.cost_pico is None else touch.cost_pico
        place = "log=notebooks log=gateway" if request.source.log == "notebooks" else f"log={request.source.log}"
        self._truth.add("duplicate", place, 1, -sum(request.tokens), -logged)

    def _stream_sum(self, request: Request, touch: Touch) -> None:
        """Both events are lines: what their plain sum has too much is taken away."""
        touch.events = self._events(request, is_cut=False)
        if self._truth.covers(request.day):
            rates = request.rates()
            logged = sum(dot(event.tokens(), rates) for event in touch.events)
            logged += sum(event.searches for event in touch.events) * SEARCH_PICO_USD
            tokens = sum(sum(event.tokens()) for event in touch.events)
            self._truth.add(
                "stream_sum",
                f"log={request.source.log}",
                1,
                sum(request.tokens) - tokens,
                request.value() - logged,
            )

    def _events(self, request: Request, *, is_cut: bool) -> tuple[Event, ...]:
        random = self._random["cut_stream" if is_cut else "stream_sum"]
        midnight = request.day * DAY_MS
        started = max(midnight, request.at - random.randint(400, 40_000))
        uncached = request.uncached
        if request.searches:  # the results of a search are input that the start does not know
            uncached = max(1, uncached // random.randint(2, 5))
        first = (uncached, request.write_5m, request.write_1h, request.read)
        start = Event(started, True, first, min(request.output, random.randint(1, 3)), 0)
        if is_cut:
            return (start,)
        whole = (request.uncached, request.write_5m, request.write_1h, request.read)
        counters = whole if request.searches or random.random() < 0.7 else (None, None, None, None)
        last = Event(request.at, False, counters, request.output, request.searches)
        if request.output > 400 and random.random() < 0.2 and request.at - started > 10:
            middle = Event((started + request.at) // 2, False, (None, None, None, None), request.output // 2, 0)
            return start, middle, last
        return start, last

    # Quantities in another cell

    def _time_zone(self, request: Request, touch: Touch) -> None:
        hours = round(self._scenario.strength("time_zone"))
        logged_at = request.at + hours * _HOUR_MS
        if is_served(request.model, logged_at // DAY_MS):
            touch.at = logged_at
            self._shift(request, logged_at, "time_zone")

    def _cutoff(self, request: Request, touch: Touch) -> None:
        submitted = request.at - self._random["cutoff"].randint(5 * 60_000, 4 * _HOUR_MS)
        if not is_served(request.model, submitted // DAY_MS):
            submitted = request.day * DAY_MS
        touch.at = submitted
        self._shift(request, submitted, "cutoff")

    def _shift(self, request: Request, logged_at: int, plant: str) -> None:
        logged_day = logged_at // DAY_MS
        if logged_day != request.day:
            part = request.part()
            self._truth.move(plant, _place(request), (part,), (part._replace(day=logged_day),))

    def _cache_inclusive(self, request: Request, touch: Touch) -> None:
        touch.inclusive = True
        part = request.part()
        cached = request.prompt - request.uncached
        if cached:
            recorded = (request.prompt, *part.tokens[1:])
            self._move("cache_inclusive", request, part._replace(tokens=recorded))

    def _cache_ttl(self, request: Request, touch: Touch) -> None:
        touch.hides = "split"
        if request.write_1h:
            part = request.part()
            uncached, write_5m, write_1h, read, output = part.tokens
            self._move("cache_ttl", request, part._replace(tokens=(uncached, write_5m + write_1h, 0, read, output)))

    def _instead_of(self, request: Request) -> str | None:
        takes_geo = MODELS[request.model].takes_geo
        for model in _SERVED_INSTEAD:
            if model != request.model and MODELS[model].takes_geo == takes_geo and is_served(model, request.day):
                return model
        return None

    def _model(self, request: Request, touch: Touch) -> None:
        requested = touch.model = request.model
        served = self._instead_of(request)
        if served is None:
            raise ValueError(f"nothing is served instead of {requested}")
        request.model = served
        self._move("model", request, request.part()._replace(model=requested), f" model={requested}")

    def _service_tier(self, request: Request, touch: Touch) -> None:
        touch.hides = "service_tier"
        self._move("service_tier", request, request.part()._replace(tier="standard"))

    def _inference_geo(self, request: Request, touch: Touch) -> None:
        touch.hides = "inference_geo"
        self._move("inference_geo", request, request.part()._replace(geo=request.source.workspace.default_geo))

    def _speed(self, request: Request, touch: Touch) -> None:
        touch.hides = "speed"
        self._move("speed", request, request.part()._replace(speed="standard"))

    def _workspace(self, request: Request, touch: Touch) -> None:
        touch.workspace_id = ADS_RANKING.id
        self._move("workspace", request, request.part())

    # Quantities on one side only

    def _iterations(self, request: Request, touch: Touch) -> None:
        random = self._random["iterations"]
        advisor = next((model for model in _ADVISORS if is_served(model, request.day)), None)
        if advisor is None or random.random() < 0.75:
            turn = Iteration("compaction", request.model, random.randint(20_000, 90_000), random.randint(800, 4000))
        else:
            turn = Iteration("advisor_message", advisor, random.randint(2_000, 12_000), random.randint(200, 900))
        touch.iterations = (turn,)
        self._truth.move("iterations", _place(request), (request.part(), turn_part(request, turn)), (request.part(),))

    def _cut_stream(self, request: Request, touch: Touch) -> None:
        touch.events = self._events(request, is_cut=True)
        output = touch.events[0].output
        part = request.part()
        self._move("cut_stream", request, part._replace(tokens=(*part.tokens[:4], output)))

    def _in_gap(self, request: Request) -> bool:
        start = (self._scenario.first_day + _GAP_DAY) * DAY_MS + _GAP_FROM_HOUR * _HOUR_MS
        return start <= request.at < start + round(self._scenario.strength("log_gap") * _HOUR_MS)

    def _log_gap(self, request: Request, touch: Touch) -> None:
        touch.logged = False
        self._truth.move("log_gap", _place(request), (request.part(),), ())

    def _unlogged(self, request: Request, touch: Touch) -> None:
        touch.logged = False
        self._truth.move("unlogged", _place(request), (request.part(),), ())

    def _price_interval(self, request: Request, touch: Touch) -> None:
        """A lost line whose tokens cost more than its cell's lower price: the rest is the interval."""
        touch.logged = False
        part = request.part()
        self._truth.move("unlogged", _place(request), (part,), ())
        rest = request.value() - part.value()
        self._truth.add("price_interval", _place(request), 1, sum(part.tokens), rest)

    def _unreported(self, request: Request, _: Touch) -> list[Request]:
        """The request is fine; a line follows it that the provider knows nothing of."""
        random = self._random["unreported"]
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
        ghost.touch = Touch()
        if request.source.log == "notebooks":
            ghost.touch.bedrock = True
            ghost.id = f"{random.getrandbits(32):08x}-5a1e-4c0d-9e77-{random.getrandbits(48):012x}"
        else:
            ghost.touch.status = 529
        self._truth.move("unreported", _place(request), (), (ghost.part(),))
        return [ghost]

    # Quantities without a charge

    def _uncharged(self, request: Request, touch: Touch) -> None:
        if request.source.key is PRIORITY_KEY:
            request.tier = "priority"
            kind = "tier=priority"
        else:
            request.output = 0
            request.searches = 0
            touch.refused = True
            kind = "refused"
        request.charged = False
        self._truth.add("uncharged", f"{_place(request)} {kind}", 1, sum(request.tokens), -request.value())

    def _move(self, plant: str, request: Request, recorded: Part, suffix: str = "") -> None:
        self._truth.move(plant, _place(request) + suffix, (request.part(),), (recorded,))


def turn_part(request: Request, turn: Iteration) -> Part:
    """What the provider counts for a turn inside a request."""
    geo = request.geo if MODELS[turn.model].takes_geo else "not_available"
    tokens = (turn.uncached, 0, 0, 0, turn.output)
    return Part(request.day, turn.model, request.tier, "0-200k", geo, request.speed, tokens, 0)


def _first_choice(request: Request) -> str:
    """The model that the source would rather have: of those served on the day the first."""
    models = (model for model, _ in request.source.models if is_served(model, request.day))
    return next(models, request.model)


def null_id(request: Request) -> bool:
    """Whether the line's request id is null, in logs that lose some."""
    log = LOGS[request.source.log] if request.source.log else None
    return log is not None and log.nulls_ids and request.id[-1] in "01234"


def _name_of(workspace: Workspace) -> str:
    return "default" if workspace.is_default else workspace.id


def _place(request: Request) -> str:
    return f"log={request.source.log} workspace_id={_name_of(request.source.workspace)}"


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
    return f"workspace_id={_name_of(source.workspace)}{who}"
