"""What the provider counts and bills."""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from reconcile.sandbox.organization import CHARGES
from reconcile.sandbox.planting import turn_part
from reconcile.sandbox.plants import Truth
from reconcile.sandbox.rates import (
    CODE_EXECUTION_CENTS_PER_HOUR,
    METERS,
    MODELS,
    SEARCH_PICO_USD,
    SESSION_CENTS_PER_HOUR,
    is_served,
    rates,
)
from reconcile.sandbox.scenario import Scenario
from reconcile.sandbox.traffic import DAY_MS, Request

_PICO_PER_CENT = 10_000_000_000
_MINUTE_MS = 60_000
_WIDTH = 9  # minute of the day, dimensions, five tokens, searches, requests
_DISCOUNTED = ("claude-opus-4-8", "claude-opus-4-5-20251101")
_RAISED = ("claude-sonnet-5", "claude-sonnet-4-5-20250929")
_RAISED_FROM_DAY = 14


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


class Provider:
    """Counts requests as they are done and bills them at its own rates."""

    def __init__(self, scenario: Scenario, truth: Truth) -> None:
        self._scenario = scenario
        self._truth = truth
        self._index: dict[tuple[object, ...], int] = {}
        self._columns: dict[int, array[int]] = {}
        self._hours: dict[int, tuple[dict[int, list[int]], ...]] = {}
        self.dimensions: list[Dimensions] = []

    def count(self, request: Request) -> None:
        """Count a request, and the turns inside it, in the minute in which it was done."""
        self._add(
            request, request.model, request.window, request.geo, request.is_long, (*request.tokens, request.searches, 1)
        )
        if request.touch is not None and request.touch.iterations:
            for turn in request.touch.iterations:
                part = turn_part(request, turn)
                self._add(request, part.model, part.window, part.geo, False, (*part.tokens, 0, 0))

    def _add(  # noqa: PLR0917 - a cell's dimensions, in their order
        self, request: Request, model: str, window: str, geo: str, is_long: bool, counters: Counters
    ) -> None:
        source = request.source
        key = source.key.id if source.key is not None else None
        dimensions = (
            source.workspace.reported_id,
            key,
            source.account,
            source.service_account,
            model,
            request.tier,
            window,
            geo,
            request.speed,
            is_long,
            request.charged,
        )
        index = self._index.get(dimensions)
        if index is None:
            index = self._index[dimensions] = len(self.dimensions)
            self.dimensions.append(Dimensions(*dimensions))
        day, rest = divmod(request.at, DAY_MS)
        column = self._columns.get(day)
        if column is None:
            column = self._columns[day] = array("q")
        column.extend((rest // _MINUTE_MS, index, *counters))

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
        tokens: dict[tuple[str | None, str, str, str, str, str, int], int] = {}
        searches: dict[str | None, int] = {}
        for hour in range(24):
            for index, counters in self.hour(day, hour).items():
                dims = self.dimensions[index]
                if not dims.is_charged:
                    continue
                rated = rates(dims.model, day, dims.service_tier, dims.inference_geo, dims.speed, dims.is_long)
                for meter in range(5):
                    if counters[meter]:
                        place = (
                            dims.workspace_id,
                            dims.model,
                            dims.service_tier,
                            dims.context_window,
                            dims.inference_geo,
                            dims.speed,
                            meter,
                        )
                        listed = counters[meter] * rated[meter]
                        tokens[place] = tokens.get(place, 0) + self._billed(day, dims, meter, counters, listed)
                if counters[5]:
                    searches[dims.workspace_id] = searches.get(dims.workspace_id, 0) + counters[5]
        lines = [self._token_line(day, place, pico_usd) for place, pico_usd in tokens.items()]
        lines += [
            CostLine(day, workspace_id, "Web Search Usage", "web_search", count * SEARCH_PICO_USD)
            for workspace_id, count in searches.items()
        ]
        lines += self._charges(day)
        return sorted(
            lines,
            key=lambda line: (line.workspace_id or "", line.description, line.context_window or "", line.model or ""),
        )

    def _billed(self, day: int, dims: Dimensions, meter: int, counters: list[int], listed: int) -> int:
        """What is billed for a quantity that is worth ``listed`` pico-dollars; books where it is not the list price."""
        place = f"model={dims.model}"
        thousandths = 1000
        reason = ""
        if "discount" in self._scenario.plants and dims.model == self._first_served(_DISCOUNTED):
            reason = "discount"
            thousandths -= round(self._scenario.strength("discount") * 1000)
        elif (
            "price_book" in self._scenario.plants
            and dims.model == self._first_served(_RAISED)
            and meter == 4
            and day >= self._scenario.first_day + _RAISED_FROM_DAY
        ):
            reason = "price_book"
            place += " meter=output_tokens"
            thousandths += round(self._scenario.strength("price_book") * 1000)
        if not reason:
            return listed
        billed = listed * thousandths // 1000
        if self._truth.covers(day):
            requests = counters[6] if meter == 4 else 0
            self._truth.add(reason, place, requests, counters[meter], billed - listed)
        return billed

    def _first_served(self, models: tuple[str, ...]) -> str | None:
        return next((model for model in models if is_served(model, self._scenario.first_day)), None)

    def _token_line(self, day: int, place: tuple[str | None, str, str, str, str, str, int], pico_usd: int) -> CostLine:
        workspace_id, model, tier, window, geo, speed, meter = place
        return CostLine(
            day,
            workspace_id,
            describe(model, tier, window, geo, speed, meter),
            "tokens",
            pico_usd,
            model,
            METERS[meter],
            tier,
            window,
            geo,
        )

    def _charges(self, day: int) -> list[CostLine]:
        lines = []
        for charge in CHARGES:
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
