"""What moved since the month before, and why: price, volume, mix, rules, the part in common costs."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

import duckdb

from reconcile import ledger, money

EFFECTS = ("price", "volume", "mix", "rule", "share")
"""Why a cost center pays another amount than the month before, in the order in which it is shown."""

Key = tuple[str | None, str | None, str]
"""Model, service tier (None where it is not told), meter."""

Dollars = Mapping[Key, Fraction]


@dataclass
class _Month:
    """A month's dollars by who pays and where they come from, and what the workspaces paid for their quantities."""

    direct: dict[tuple[str, str], dict[Key, Fraction]] = field(default_factory=dict)
    shared: dict[tuple[str, str], dict[Key, Fraction]] = field(default_factory=dict)
    used: dict[tuple[str, Key], tuple[int, Fraction]] = field(default_factory=dict)
    fixed_routes: dict[str, set[object]] = field(default_factory=lambda: defaultdict(set))
    other_routes: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    known_routes: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, spend: Iterable[Any], cells: Iterable[Any], routes: Iterable[str]) -> "_Month":
        """Rows of `spend`, of (workspace, model, tier, meter, quantity, USD), and every route that the config has."""
        month = cls(known_routes=set(routes))
        for cost_center, basis, route, receiver, conditional, workspace_id, model, tier, meter, usd in spend:
            held = month.shared if basis == "shared" else month.direct
            dollars = held.setdefault((cost_center, workspace_id), {})
            key = (model, tier, meter)
            dollars[key] = dollars.get(key, Fraction(0)) + Fraction(usd)
            if conditional:
                month.other_routes[workspace_id].add(route)
            else:
                month.fixed_routes[workspace_id].add((route, receiver))
        for workspace_id, model, tier, meter, quantity, usd in cells:
            for key in {(model, tier, meter), (model, None, meter)}:
                before = month.used.get((workspace_id, key), (0, Fraction(0)))
                month.used[workspace_id, key] = (before[0] + int(quantity or 0), before[1] + Fraction(usd or 0))
        return month

    def price(self, workspace_id: str, key: Key) -> Fraction | None:
        """What one of a kind came to in the workspace; None where nothing was counted or charged."""
        quantity, usd = self.used.get((workspace_id, key), (0, Fraction(0)))
        return usd / quantity if quantity and usd else None

    def of_workspace(self, workspace_id: str, held: Iterable[Mapping[tuple[str, str], Dollars]]) -> Dollars:
        """All dollars of a workspace, whoever pays, tiers together."""
        return _added(dollars for part in held for (_, place), dollars in part.items() if place == workspace_id)


def _added(parts: Iterable[Dollars]) -> dict[Key, Fraction]:
    """Dollars by model and meter, tiers together."""
    added: dict[Key, Fraction] = {}
    for dollars in parts:
        for (model, _, meter), usd in dollars.items():
            added[model, None, meter] = added.get((model, None, meter), Fraction(0)) + usd
    return added


def write_movement(connection: duckdb.DuckDBPyConnection) -> None:
    """Write ``allocated.movement``: a row a (cost center, effect), which add up to the change of its total.

    A workspace whose rules are other ones than the month before is first split as it was then: what differs from that
    is `rule`. Of a pool, what differs from last month's part in the same dollars is `share`. The rest is compared
    kind by kind (model, tier, meter) at last month's prices: `volume` is the change of all quantities in one
    proportion, `mix` that of their proportions, `price` what is left.
    A month before without a charge is one to compare with; one that was not closed, or by a version that kept no
    routes, is not, and gives no rows.
    """
    columns = {"cost_center": "varchar", "effect": "varchar", "amount_usd": "decimal(38, 12)"}
    before, now = _earlier(connection), _current(connection)
    rows = list(_compare(before, now)) if before.known_routes else []
    ledger.insert(connection, "allocated.movement", columns, rows)


_SPEND = "cost_center, basis, route, receiver, conditional, workspace_id, model, service_tier, meter, amount_usd"
_CELL = "workspace_id, model, service_tier, meter, quantity, billed_usd"


def _earlier(connection: duckdb.DuckDBPyConnection) -> _Month:
    routes = connection.execute("select route from source.earlier_route").fetchall()
    return _Month.of(
        connection.execute(f"select {_SPEND} from source.earlier_spend").fetchall(),
        connection.execute(f"select {_CELL} from source.earlier_kind").fetchall(),
        [route for (route,) in routes],
    )


def _current(connection: duckdb.DuckDBPyConnection) -> _Month:
    routes = connection.execute("select route from allocated.route").fetchall()
    return _Month.of(
        connection.execute(f"select {_SPEND} from allocated.spend").fetchall(),
        connection.execute(f"select {_CELL} from allocated.kind").fetchall(),
        [route for (route,) in routes],
    )


def _compare(before: _Month, now: _Month) -> Iterable[tuple[str, str, Decimal]]:
    effects: dict[str, dict[str, Fraction]] = defaultdict(lambda: dict.fromkeys(EFFECTS, Fraction(0)))
    places = {place for month in (before, now) for held in (month.direct, month.shared) for place in held}
    totals = {
        workspace_id: _Totals.of(workspace_id, before, now)
        for workspace_id in sorted({workspace_id for _, workspace_id in places})
    }
    for cost_center, workspace_id in sorted(places):
        place, total = (cost_center, workspace_id), totals[workspace_id]
        found = effects[cost_center]
        old = [month.get(place, {}) for month in (before.direct, before.shared)]
        new = [month.get(place, {}) for month in (now.direct, now.shared)]
        if total.ruled_anew:
            as_before = _as_before(_added(old), total.before, total.now)
            found["rule"] += sum(_added(new).values()) - sum(as_before.values())
            _split(found, total, _added(old), as_before)
            continue
        _split(found, total, old[0], new[0])
        as_before = _as_before(_added([old[1]]), total.pooled_before, total.pooled_now)
        if not sum(total.pooled_before.values()):
            as_before = _added([new[1]])
        found["share"] += sum(new[1].values()) - sum(as_before.values())
        _split(found, total, _added([old[1]]), as_before)
    for cost_center in sorted(effects):
        yield from ((cost_center, effect, usd) for effect, usd in _rounded(effects[cost_center]).items())


@dataclass(frozen=True)
class _Totals:
    """A workspace's dollars in both months, all of them and those that went through pools."""

    workspace_id: str
    months: tuple[_Month, _Month]
    before: Dollars
    now: Dollars
    pooled_before: Dollars
    pooled_now: Dollars

    @property
    def ruled_anew(self) -> bool:
        """Whether other terms hold for it than the month before."""
        before, now = self.months
        place = self.workspace_id
        appeared = now.other_routes[place] - before.known_routes
        vanished = before.other_routes[place] - now.known_routes
        differ = before.fixed_routes[place] != now.fixed_routes[place] or appeared or vanished
        return bool(differ and sum(self.before.values()) and sum(self.now.values()))

    @classmethod
    def of(cls, workspace_id: str, before: _Month, now: _Month) -> "_Totals":
        whole = [month.of_workspace(workspace_id, (month.direct, month.shared)) for month in (before, now)]
        pooled = [month.of_workspace(workspace_id, (month.shared,)) for month in (before, now)]
        return cls(workspace_id, (before, now), whole[0], whole[1], pooled[0], pooled[1])


def _as_before(own: Dollars, before: Dollars, now: Dollars) -> dict[Key, Fraction]:
    """A cost center's part of today's dollars, were it that of the month before."""
    whole = sum(before.values(), Fraction(0))
    share = sum(own.values(), Fraction(0)) / whole if whole else Fraction(0)
    return {key: usd * share for key, usd in now.items()}


def _split(found: dict[str, Fraction], total: "_Totals", old: Dollars, new: Dollars) -> None:
    """Add the effects of going from ``old`` to ``new`` dollars of a workspace."""
    counted: dict[str, list[tuple[Fraction, Fraction, Fraction, Fraction]]] = defaultdict(list)
    for key in {**old, **new}:
        old_usd, new_usd = old.get(key, Fraction(0)), new.get(key, Fraction(0))
        old_price, new_price = (month.price(total.workspace_id, key) for month in total.months)
        if (old_usd and not old_price) or (new_usd and not new_price):  # charged by something else than a count
            found["volume"] += new_usd - old_usd
            continue
        was = old_usd / old_price if old_price else Fraction(0)
        is_now = new_usd / new_price if new_price else Fraction(0)
        at_old_price = is_now * (old_price or new_price or Fraction(0))
        found["price"] += new_usd - at_old_price
        counted["tokens" if key[0] is not None else key[2]].append((was, is_now, old_usd, at_old_price))
    for rows in counted.values():
        was, is_now, old_usd, at_old_price = (sum(column, Fraction(0)) for column in zip(*rows, strict=True))
        volume = old_usd * is_now / was - old_usd if was else at_old_price - old_usd
        found["volume"] += volume
        found["mix"] += at_old_price - old_usd - volume


def _rounded(effects: Mapping[str, Fraction]) -> dict[str, Decimal]:
    """At the ledger's scale; what rounding takes stands in the volume."""
    rounded = {effect: _usd(usd) for effect, usd in effects.items()}
    rounded["volume"] += _usd(sum(effects.values(), Fraction(0))) - sum(rounded.values(), Decimal(0))
    return rounded


def _usd(value: Fraction) -> Decimal:
    with localcontext() as context:
        context.prec = 60
        return money.at_scale(Decimal(value.numerator) / Decimal(value.denominator))
