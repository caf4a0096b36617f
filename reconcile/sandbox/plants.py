"""The differences that can be planted, and the book of what was planted.

Amounts are in whole pico-dollars (1e-12 USD) until they leave, so every sum is exact. Each entry has the sign of the
bridge from logged to billed, and the entries are in the bridge's order.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

from reconcile.sandbox.rates import MODELS, SEARCH_PICO_USD, Five, cell_rates


@dataclass(frozen=True)
class Plant:
    """One kind of difference: what happens, how strong by default, and in which unit."""

    sentence: str
    intensity: float
    unit: str


PLANTS = {
    "duplicate": Plant("lines are shipped twice, within a log and across two", 0.012, "share of lines"),
    "stream_sum": Plant("a log holds every stream's events, whose usage is cumulative", 1.0, "share of streams"),
    "app_price": Plant("an application prices reads and 1-hour writes wrongly", 1.0, "share of lines"),
    "time_zone": Plant("a log's clock is ahead of UTC and does not say so", 2, "hours, negative for behind"),
    "cutoff": Plant("requests are stamped at submission, counted when done", 1.0, "share of items"),
    "cache_inclusive": Plant("a log's input counts cached tokens too", 1.0, "share of lines"),
    "cache_ttl": Plant("a log does not split cache writes by lifetime", 1.0, "share of lines"),
    "model": Plant("a log holds the requested model, a fallback answered", 0.12, "share of lines"),
    "service_tier": Plant("a batch runner forgets the tier for some days", 1.0, "share of lines on those days"),
    "context_window": Plant("a log sums up the calls of a run on one line", 0.5, "share of lines above 200,000 tokens"),
    "inference_geo": Plant("a log forgets that requests ran in the US", 1.0, "share of US lines"),
    "speed": Plant("a log forgets that requests ran in fast mode", 1.0, "share of fast lines"),
    "workspace": Plant("a stale table books a key's lines on another workspace", 0.5, "share of lines on those days"),
    "unlogged_key": Plant("somebody uses a key of their own", 1.0, "times its usual traffic"),
    "no_key": Plant("Console, OAuth users and a service account use no key", 1.0, "times their usual traffic"),
    "iterations": Plant("compaction and advisor turns stand outside the counters", 0.08, "share of requests"),
    "cut_stream": Plant("streams break before their last usage event", 0.03, "share of streams"),
    "log_gap": Plant("a log is silent for some hours of a working day", 8, "hours"),
    "unlogged": Plant("single lines are lost", 0.015, "share of lines"),
    "unreported": Plant("lines of failed attempts and of another biller", 0.01, "lines for each request"),
    "discount": Plant("one model is billed below list", 0.1, "fraction taken off"),
    "price_book": Plant("one model's output is billed above list from mid-month", 0.2, "fraction put on"),
    "price_interval": Plant("lost lines with prompts above Haiku 5.5's price step", 0.05, "share of such lines"),
    "uncharged": Plant(
        "Priority Tier and refusals have no cost lines", 0.7, "share of a key's traffic on Priority Tier"
    ),
    "unpriced": Plant("a model answers that no price book has", 1.0, "times its usual traffic"),
    "code_execution": Plant("container hours are billed", 1.0, "times their usual hours"),
    "session_usage": Plant("managed agents' session hours are billed", 1.0, "times their usual hours"),
}
"""Every plant by its reason, in the bridge's order."""


@dataclass(frozen=True)
class Planted:
    """One difference in one place, as truth.json holds it.

    ``place`` is text, ``name=value`` separated by spaces. ``requests`` is how many requests (or lines, for
    ``duplicate``) it concerns; 0 where no request is behind it. ``quantity`` is in tokens with the bridge's sign: what
    was taken away while cleaning, reported minus recorded for quantity reasons (0 for a pure move between cells);
    for price reasons the tokens concerned; None where there is none. ``amount_usd`` is an exact decimal string.
    """

    reason: str
    place: str
    requests: int
    quantity: int | None
    amount_usd: str


class Part(NamedTuple):
    """Quantities in one set of cells: what one side holds of a request."""

    day: int
    model: str
    tier: str
    window: str
    geo: str
    speed: str
    tokens: Five
    searches: int

    def value(self) -> int:
        """Pico-dollars at the cells' own rates."""
        rates = cell_rates(self.model, self.day, self.tier, self.window, self.geo, self.speed)
        return dot(self.tokens, rates) + self.searches * SEARCH_PICO_USD


def dot(tokens: Five, rates: Five) -> int:
    """Quantities times rates, pico-dollars."""
    return (
        tokens[0] * rates[0] + tokens[1] * rates[1] + tokens[2] * rates[2] + tokens[3] * rates[3] + tokens[4] * rates[4]
    )


def usd(pico_usd: int) -> str:
    """Pico-dollars as an exact decimal string in USD, without needless zeros."""
    return format(Decimal(pico_usd).scaleb(-12).normalize(), "f") if pico_usd else "0"


Cell = tuple[int, str, str, str, str, str, str]
"""Day, the workspace's name, model, tier, window, geo, speed: a cell of the ledger but for its meter."""


class Truth:
    """Sums what was planted, by reason and place, over the period's complete days.

    It also keeps what the recorded side holds as far as the value of others hangs on it: how much of each
    workspace's tokens stand on lines that name their key, the hours in which a log has lines, and what requests were
    recorded above their cell's price.
    """

    def __init__(self, first_day: int, until_day: int) -> None:
        self._first_day = first_day
        self._until_day = until_day
        self._entries: dict[tuple[str, str], list[int | None]] = {}
        self._silent: dict[tuple[str, str], list[int]] = {}
        self._named: dict[str, list[int]] = {}
        self._moved: dict[str, int] = {}
        self._gaps: list[tuple[tuple[str, int], str, tuple[Part, ...]]] = []
        self._written: set[tuple[str, int]] = set()
        self.excess: dict[Cell, dict[tuple[str, str], list[int]]] = {}

    def covers(self, day: int) -> bool:
        """Whether a day is one of the period's complete ones."""
        return self._first_day <= day < self._until_day

    def add(self, reason: str, place: str, requests: int, quantity: int | None, pico_usd: int) -> None:
        """Book a difference whose value is known."""
        entry = self._entries.setdefault((reason, place), [0, None, 0])
        entry[0] = (entry[0] or 0) + requests
        entry[2] = (entry[2] or 0) + pico_usd
        if quantity is not None:
            entry[1] = (entry[1] or 0) + quantity

    def move(self, reason: str, place: str, reported: Iterable[Part], recorded: Iterable[Part]) -> None:
        """Book one request whose sides differ: the days outside the period count on neither side."""
        requests = quantity = 0
        values = [0, 0]
        for position, side in enumerate((reported, recorded)):
            for part in side:
                if self.covers(part.day):
                    requests = 1
                    quantity += sum(part.tokens) * (1 - 2 * position)
                    values[position] += part.value()
        if requests:
            self.add(reason, place, requests, quantity, values[0] - values[1])
            self._moved[reason] = self._moved.get(reason, 0) + max(values)

    def silent(self, workspace: str, place: str, part: Part) -> None:
        """Book a request of a key that no line names: which reason it is depends on what the other lines name."""
        if self.covers(part.day):
            entry = self._silent.setdefault((workspace, place), [0, 0, 0])
            entry[0] += 1
            entry[1] += sum(part.tokens)
            entry[2] += part.value()

    def gap(self, log: str, hour: int, place: str, parts: tuple[Part, ...]) -> None:
        """Book a request that was lost while its log was silent; the hour, since 1970, may have a line all the same."""
        self._gaps.append(((log, hour), place, parts))

    def wrote(self, log: str, hour: int) -> None:
        """Keep that a log has a line in an hour."""
        self._written.add((log, hour))

    def record(self, workspace: str, part: Part, own_rates: Five, *, names_key: bool, moved: tuple[str, str]) -> None:
        """Keep what a kept line holds, at its own rates, in a workspace by name ("?" where the log does not know it).

        ``moved`` is what brought it into its cell, reason and place, in case that nothing is reported there.
        """
        if not self.covers(part.day):
            return
        named = self._named.setdefault(workspace, [0, 0])
        tokens = sum(part.tokens)
        named[0] += tokens
        named[1] += tokens if names_key else 0
        lower = cell_rates(part.model, part.day, part.tier, part.window, part.geo, part.speed)
        if own_rates != lower and MODELS[part.model].listed:
            cell = (part.day, workspace, part.model, part.tier, part.window, part.geo, part.speed)
            excess = self.excess.setdefault(cell, {}).setdefault(moved, [0] * 5)
            for meter in range(5):
                excess[meter] += part.tokens[meter] * (own_rates[meter] - lower[meter])

    def moved_usd(self) -> dict[str, str]:
        """What stands in a wrong place by reason, request by request, also where it nets to nothing."""
        return {reason: usd(pico_usd) for reason, pico_usd in self._moved.items()}

    def planted(self) -> tuple[Planted, ...]:
        """Everything, in the bridge's order, places by name."""
        for (workspace, place), (requests, quantity, pico_usd) in self._silent.items():
            recorded, named = self._named.get(workspace, (0, 0))
            reason = "unlogged_key" if 100 * named >= 95 * recorded else "unlogged"
            self.add(reason, place, requests, quantity, pico_usd)
        self._silent.clear()
        for log_hour, place, parts in self._gaps:
            self.move("unlogged" if log_hour in self._written else "log_gap", place, parts, ())
        self._gaps.clear()
        order = {reason: position for position, reason in enumerate(PLANTS)}
        return tuple(
            Planted(reason, place, requests or 0, quantity, usd(pico_usd or 0))
            for (reason, place), (requests, quantity, pico_usd) in sorted(
                self._entries.items(), key=lambda entry: (order[entry[0][0]], entry[0][1])
            )
        )
