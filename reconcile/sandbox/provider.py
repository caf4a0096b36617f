"""What the provider counts and bills."""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from reconcile.sandbox.planting import turn_part
from reconcile.sandbox.plants import Cell, Part, Truth
from reconcile.sandbox.rates import (
    CODE_EXECUTION_CENTS_PER_HOUR,
    METERS,
    MODELS,
    SEARCH_PICO_USD,
    SESSION_CENTS_PER_HOUR,
    Five,
    cell_rates,
    is_served,
    rates,
)
from reconcile.sandbox.scenario import Scenario
from reconcile.sandbox.traffic import DAY_MS, Request

_PICO_PER_CENT = 10_000_000_000
_MINUTE_MS = 60_000
_WIDTH = 9  # minute of the day, dimensions, five tokens, searches, requests
_PRICE_PLANTS = ("discount", "price_book")


@dataclass(frozen=True)
class Dimensions:
    """The dimensions of usage. ``is_long`` and ``is_charged`` are the provider's own business: no report shows them."""

    workspace_id: str | None
    api_key_id: str | None
    account_id: str | None
    service_account_id: str | None
    model: str
    service_tier: str
    context_window: str
    inference_geo: str
    speed: str
    is_long: bool
    is_charged: bool


Counters = tuple[int, int, int, int, int, int, int]
"""The five token meters, web searches, requests."""


@dataclass(frozen=True)
class CostLine:
    """One line of the bill: a day, a workspace, a description."""

    day: int
    workspace_id: str | None
    description: str
    cost_type: str
    pico_usd: int
    model: str | None = None
    token_type: str | None = None
    service_tier: str | None = None
    context_window: str | None = None
    inference_geo: str | None = None


def cents(pico_usd: int) -> str:
    """Pico-dollars as the cost report writes them: an unrounded decimal string in cents."""
    whole, fraction = divmod(pico_usd, _PICO_PER_CENT)
    return f"{whole}.{fraction:010d}".rstrip("0").rstrip(".") if fraction else f"{whole}"


class _Usage:
    """What was used and charged in one cell, by meter; ``lower`` are the cell's rates in a price list."""

    def __init__(self, workspace_id: str | None, day: int, place: tuple[str, str, str, str, str]) -> None:
        self.workspace_id = workspace_id
        self.place = place
        self.lower: Five = cell_rates(place[0], day, *place[1:])
        self.used = [0] * 5
        self.charged = [0] * 5
        self.charged_usd = [0] * 5
        self.requests = 0

    def count(self, counters: list[int], rated: Five, *, is_charged: bool) -> None:
        """Add usage at its rates."""
        self.requests += counters[6]
        for meter in range(5):
            self.used[meter] += counters[meter]
            if is_charged:
                self.charged[meter] += counters[meter]
                self.charged_usd[meter] += counters[meter] * rated[meter]


class Provider:
    """Counts requests as they are done and bills them at its own rates."""

    def __init__(self, scenario: Scenario, truth: Truth) -> None:
        self._scenario = scenario
        self._truth = truth
        self._index: dict[tuple[object, ...], int] = {}
        self._columns: dict[int, array[int]] = {}
        self._hours: dict[int, tuple[dict[int, list[int]], ...]] = {}
        self.dimensions: list[Dimensions] = []
        self._prices = [
            (placement, next((model for model in placement.models if is_served(model, scenario.first_day)), None))
            for placement in scenario.organization.placements
            if placement.plant in _PRICE_PLANTS and placement.plant in scenario.plants
        ]

    def count(self, request: Request) -> None:
        """Count a request, and the turns inside it, in the minute in which it was done."""
        if request.calls:
            for at, part in request.calls:
                self._add(request, part, False, 1, at)
        else:
            self._add(request, request.part(), request.is_long, 1, request.at)
        if request.touch is not None and request.touch.iterations:
            for turn in request.touch.iterations:
                self._add(request, turn_part(request, turn), False, 0, request.at)

    def _add(self, request: Request, part: Part, is_long: bool, requests: int, at: int) -> None:
        source = request.source
        key = source.key.id if source.key is not None else None
        dimensions = (
            source.workspace.reported_id,
            key,
            source.account,
            source.service_account,
            part.model,
            part.tier,
            part.window,
            part.geo,
            part.speed,
            is_long,
            request.charged,
        )
        index = self._index.get(dimensions)
        if index is None:
            index = self._index[dimensions] = len(self.dimensions)
            self.dimensions.append(Dimensions(*dimensions))
        day, rest = divmod(at, DAY_MS)
        column = self._columns.get(day)
        if column is None:
            column = self._columns[day] = array("q")
        column.extend((rest // _MINUTE_MS, index, *part.tokens, part.searches, requests))

    def hour(self, day: int, hour: int) -> dict[int, list[int]]:
        """The counters of one hour by the index of their dimensions."""
        hours = self._hours.get(day)
        if hours is None:
            hours = tuple({} for _ in range(24))
            for minute, index, counters in self.minutes(day):
                _sum(hours[minute // 60], index, counters)
            self._hours[day] = hours
        return hours[hour]

    def minutes(self, day: int) -> Iterator[tuple[int, int, Counters]]:
        """Every entry of a day: minute of the day, index of the dimensions, counters."""
        column = self._columns.get(day)
        if column is None:
            return
        for at in range(0, len(column), _WIDTH):
            minute, index, uncached, write_5m, write_1h, read, output, searches, requests = column[at : at + _WIDTH]
            yield minute, index, (uncached, write_5m, write_1h, read, output, searches, requests)

    def bill(self) -> dict[int, list[CostLine]]:
        """The cost lines by day, up to the sandbox's today; books what is not billed at list."""
        until = min(self._scenario.end_day + 1, self._scenario.today)
        return {day: self._bill_day(day) for day in range(self._scenario.first_day - 1, until)}

    def _bill_day(self, day: int) -> list[CostLine]:
        cells: dict[Cell, _Usage] = {}
        searches: dict[str | None, int] = {}
        names = {workspace.reported_id: workspace.name for workspace in self._scenario.organization.workspaces}
        for hour in range(24):
            for index, counters in self.hour(day, hour).items():
                dims = self.dimensions[index]
                place = (dims.model, dims.service_tier, dims.context_window, dims.inference_geo, dims.speed)
                cell = (day, names[dims.workspace_id], *place)
                usage = cells.get(cell)
                if usage is None:
                    usage = cells[cell] = _Usage(dims.workspace_id, day, place)
                rated = rates(dims.model, day, dims.service_tier, dims.inference_geo, dims.speed, dims.is_long)
                usage.count(counters, rated, is_charged=dims.is_charged)
                if counters[5]:  # no tier and no commitment covers them
                    searches[dims.workspace_id] = searches.get(dims.workspace_id, 0) + counters[5]
        lines = [line for cell, usage in cells.items() for line in self._bill_cell(day, cell, usage)]
        if self._truth.covers(day):
            self._book_unreported(day, cells)
        lines += [
            CostLine(day, workspace_id, "Web Search Usage", "web_search", count * SEARCH_PICO_USD)
            for workspace_id, count in searches.items()
        ]
        lines += self._charges(day)
        return sorted(
            lines,
            key=lambda line: (line.workspace_id or "", line.description, line.context_window or "", line.model or ""),
        )

    def _book_unreported(self, day: int, cells: dict[Cell, "_Usage"]) -> None:
        """What was recorded above its cell's price where nothing is reported: it goes with what brought it there."""
        for cell, causes in self._truth.excess.items():
            usage = cells.get(cell)
            for (reason, place), excess in causes.items() if cell[0] == day else ():
                lost = sum(excess[meter] for meter in range(5) if usage is None or not usage.used[meter])
                if lost:
                    self._truth.add(reason, place, 0, 0, -lost)

    def _bill_cell(self, day: int, cell: Cell, usage: "_Usage") -> list[CostLine]:
        """A cell's lines: what was charged at the provider's rates; books what the list would not have billed."""
        model, tier, window, geo, speed = usage.place
        lines = []
        for meter in range(5):
            if not usage.used[meter]:
                continue
            listed = usage.charged_usd[meter]
            discount = self._factor("discount", day, model, meter)
            raised = self._factor("price_book", day, model, meter)
            billed = listed * discount * raised // 1_000_000
            if usage.charged[meter]:
                lines.append(
                    CostLine(
                        day,
                        usage.workspace_id,
                        describe(model, tier, window, geo, speed, meter),
                        "tokens",
                        billed,
                        model,
                        METERS[meter],
                        tier,
                        window,
                        geo,
                    )
                )
            if self._truth.covers(day):
                self._book(cell, usage, meter, billed, discount, raised)
        return lines

    def _book(  # noqa: PLR0917 - a cell, its meter and what was billed for it
        self, cell: Cell, usage: "_Usage", meter: int, billed: int, discount: int, raised: int
    ) -> None:
        """Where billed differs from reported, in the bridge's order, each on what those before it leave."""
        add = self._truth.add
        model = cell[2]
        place = f"model={model}"
        requests = usage.requests if meter == 4 else 0
        if not MODELS[model].listed:
            add("unpriced", place, requests, usage.used[meter], billed)
            return
        excess = sum(found[meter] for found in self._truth.excess.get(cell, {}).values())
        reported = usage.used[meter] * usage.lower[meter] + excess
        left = billed - reported
        if not usage.charged[meter]:
            kind = "tier=priority" if cell[3] == "priority" else "refused"
            if left:
                add(
                    "uncharged",
                    f"workspace_id={usage.workspace_id or 'default'} {kind}",
                    requests,
                    usage.used[meter],
                    left,
                )
            return
        for reason, taken in (
            ("discount", reported * discount // 1000 - reported),
            ("price_book", reported * discount * raised // 1_000_000 - reported * discount // 1000),
            (
                "uncharged",
                -((usage.used[meter] - usage.charged[meter]) * usage.lower[meter] * discount * raised // 1_000_000),
            ),
        ):
            if taken:
                where = f"{place} meter={METERS[meter]}" if reason == "price_book" else place
                quantity = usage.used[meter] - (usage.charged[meter] if reason == "uncharged" else 0)
                add(reason, where, requests, quantity, taken)
                left -= taken
        if left:
            add("price_interval", place, requests, usage.used[meter], left)

    def _factor(self, plant: str, day: int, model: str, meter: int) -> int:
        """What a price is multiplied by, in thousandths."""
        month_day = day - self._scenario.first_day
        for placement, priced in self._prices:
            if placement.plant != plant or meter not in placement.meters or priced != model:
                continue
            if placement.days is None or placement.days[0] <= month_day < placement.days[1]:
                strength = placement.strength
                off = round((self._scenario.strength(plant) if strength is None else strength) * 1000)
                return 1000 - off if plant == "discount" else 1000 + off
        return 1000

    def _charges(self, day: int) -> list[CostLine]:
        lines = []
        for charge in self._scenario.organization.charges:
            if charge.cost_type not in self._scenario.plants:
                continue
            random = Random(self._scenario.random_name(charge.cost_type, charge.workspace.name, day))
            hours = charge.hours_per_day * self._scenario.strength(charge.cost_type)
            hundredths = round(hours * 100 * (0.5 + random.random()))
            each = CODE_EXECUTION_CENTS_PER_HOUR if charge.cost_type == "code_execution" else SESSION_CENTS_PER_HOUR
            pico_usd = hundredths * each * (_PICO_PER_CENT // 100)
            if not pico_usd:
                continue
            lines.append(CostLine(day, charge.workspace.reported_id, charge.description, charge.cost_type, pico_usd))
            if self._truth.covers(day):
                place = f"workspace_id={charge.workspace.reported_id or 'default'}"
                self._truth.add(charge.cost_type, place, 0, None, pico_usd)
        return lines


def describe(model: str, tier: str, window: str, geo: str, speed: str, meter: int) -> str:  # noqa: PLR0917 - a cell's dimensions, in their order
    """The bill's wording for a token line."""
    kind = ("Input Tokens", "Input Tokens, Cache Write", "Input Tokens, Cache Write 1h", "Input Tokens, Cache Hit")
    text = f"{MODELS[model].title} Usage - {kind[meter] if meter < 4 else 'Output Tokens'}"
    for applies, words in (
        (tier == "batch", "Batch"),
        (window == "200k-1M", "Long Context"),
        (speed == "fast", "Fast Mode"),
        (geo == "us", "US Inference"),
    ):
        if applies:
            text += f", {words}"
    return text


def _sum(into: dict[int, list[int]], index: int, counters: Counters) -> None:
    sums = into.get(index)
    if sums is None:
        into[index] = list(counters)
        return
    for position, value in enumerate(counters):
        sums[position] += value
