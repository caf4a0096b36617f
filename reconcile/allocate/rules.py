"""The config's rules and pools as tables, every pattern resolved to the ids that it means."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from decimal import Decimal
from math import lcm

import duckdb

from reconcile import ledger
from reconcile.allocate.drivers import weights
from reconcile.allocate.scope import Scope
from reconcile.config import UNALLOCATED, Allocation, Pool, Rule

SHARED_BY = {
    "proportional": "direct cost",
    "quantity": "tokens",
    "requests": "requests",
    "even": "even",
}
_DRIVER_UNIT = Decimal("0.000001")


def rule_name(position: int, rule: Rule) -> str:
    """How a part names its rule: its place in the config and what it asks for."""
    asked = {
        **rule.selects(),
        "api_key": rule.api_key,
        "tag": rule.tag,
        "split_by": rule.split_by,
        "from": rule.from_on,
        "until": rule.until_on,
    }
    return f"rules[{position}] " + ", ".join(f"{key} {value}" for key, value in asked.items() if value is not None)


def rule_title(rule: Rule, scope: Scope) -> str:
    """What a rule takes, in words for those who pay."""
    if rule.charge == "residual":
        what = "What no known cause explains"
    elif rule.charge == "no_key":
        what = "Use without an API key"
    elif rule.api_key is not None:
        what = f"Use of {_called('the API key', 'API keys', rule.api_key, scope.api_keys)}"
    else:
        what = "All use"
    what += "".join(
        f", {words} {pattern}"
        for words, pattern in (("model", rule.model), ("tier", rule.service_tier), ("of", rule.meter))
        if pattern is not None
    )
    if rule.workspace is not None:
        what += f" in {_called('the workspace', 'workspaces', rule.workspace, scope.workspaces)}"
    if rule.tag is not None:
        what += f" in workspaces that are tagged with the cost center ({rule.tag})"
    if rule.split_by is not None:
        what += f", by {rule.split_by.replace('label.', 'the label ').replace('_', ' ')}"
    if rule.from_on is not None:
        what += f", from {_day(rule.from_on)}"
    if rule.until_on is not None:
        what += f", through {_day(rule.until_on - timedelta(days=1))}"
    return what


def _called(one: str, many: str, pattern: str, names: Mapping[str, str]) -> str:
    if "*" in pattern:
        return many if pattern == "*" else f"{many} named {pattern}"
    return f"{one} {names.get(pattern, pattern)}"


def _day(on: date) -> str:
    return f"{on.day} {on:%b %Y}"


def pool_driver(pool: Pool) -> str:
    """By what a pool is split, as a part says it."""
    if isinstance(pool.split, dict):
        return "fixed percent"
    return pool.driver.name if pool.driver is not None else SHARED_BY[pool.split]


def write_rules(connection: duckdb.DuckDBPyConnection, allocation: Allocation, scope: Scope) -> None:
    """Write what the SQL of this stage reads of the config. A pool's own selection is a rule behind all rules."""
    _write_cost_centers(connection, allocation)
    _write_rules(connection, allocation, scope)
    _write_pools(connection, allocation)


def _write_cost_centers(connection: duckdb.DuckDBPyConnection, allocation: Allocation) -> None:
    ledger.insert(
        connection,
        "allocated.cost_center",
        {"cost_center": "varchar", "name": "varchar", "account": "varchar"},
        [(key, center.name, center.account) for key, center in sorted(allocation.cost_centers.items())],
    )


_POSITION = {"position": "int"}
_DATED = {"from_on": "date", "until_on": "date"}


def _write_rules(connection: duckdb.DuckDBPyConnection, allocation: Allocation, scope: Scope) -> None:
    index = {pool.name: n for n, pool in enumerate(allocation.shared)}
    first_pool = len(allocation.rules)
    selections: list[tuple[int, Rule | Pool]] = [
        *enumerate(allocation.rules),
        *((first_pool + n, pool) for n, pool in enumerate(allocation.shared) if pool.selects()),
    ]
    ledger.insert(
        connection,
        "allocated.rule",
        {
            **_POSITION,
            "rule": "varchar",
            "title": "varchar",
            "route": "varchar",
            "kind": "varchar",
            "scope": "varchar",
            "selective": "boolean",
            "by_tag": "boolean",
            "pool": "int",
            "field": "varchar",
            "unlogged_proportional": "boolean",
            "unlabeled_proportional": "boolean",
            **_DATED,
        },
        [
            (
                at,
                rule_name(at, rule),
                rule_title(rule, scope),
                _route(rule.model_dump(mode="json", by_alias=True)),
                "pool" if rule.pool is not None else "direct" if rule.split_by is None else "label",
                _scope(rule),
                _selective(rule),
                rule.tag is not None,
                index.get(rule.pool or ""),
                rule.split_by,
                rule.unlogged == "proportional",
                rule.unlabeled == "proportional",
                rule.from_on,
                rule.until_on,
            )
            if isinstance(rule, Rule)
            else (
                *(
                    at,
                    None,
                    None,
                    None,
                    "pool",
                    _scope(rule),
                    _selective(rule),
                    False,
                    at - first_pool,
                    None,
                    False,
                    False,
                ),
                *(rule.from_on, rule.until_on),
            )
            for at, rule in selections
        ],
    )
    ledger.insert(
        connection,
        "allocated.rule_workspace",
        {**_POSITION, "workspace_id": "varchar", "cost_center": "varchar"},
        [(at, *reached) for at, rule in selections for reached in reach(rule, allocation, scope)],
    )
    ledger.insert(
        connection,
        "allocated.rule_charge",
        {**_POSITION, "model": "varchar", "service_tier": "varchar", "meter": "varchar"},
        [(at, *kind) for at, rule in selections if _selective(rule) for kind in scope.kinds_of(rule)],
    )
    ledger.insert(
        connection,
        "allocated.rule_key",
        {**_POSITION, "api_key_id": "varchar"},
        [
            (at, key)
            for at, rule in enumerate(allocation.rules)
            if rule.api_key
            for key in sorted(scope.api_keys_of(rule.api_key))
        ],
    )
    ledger.insert(
        connection,
        "allocated.rule_label",
        {**_POSITION, "kind": "varchar", "label": "varchar", "cost_center": "varchar"},
        [(at, *received) for at, rule in enumerate(allocation.rules) for received in _label_receivers(rule, scope)],
    )


def _scope(selection: Rule | Pool) -> str:
    """What part of a charge is meant: any, the residual, use by named keys, or use without a key."""
    if isinstance(selection, Rule) and selection.api_key is not None:
        return "key"
    return selection.charge or "any"


def _selective(selection: Rule | Pool) -> bool:
    return any(pattern is not None for pattern in (selection.model, selection.service_tier, selection.meter))


def _route(terms: object) -> str:
    """A rule's or pool's terms in short, without its place: the same in another month means that nothing changed."""
    return hashlib.sha256(json.dumps(terms, sort_keys=True, default=str).encode()).hexdigest()[:12]


def reach(selection: Rule | Pool, allocation: Allocation, scope: Scope) -> Iterator[tuple[str, str | None]]:
    """The workspaces that a selection takes, with who receives; None where a label or a pool decides."""
    tag = selection.tag if isinstance(selection, Rule) else None
    to = selection.to if isinstance(selection, Rule) else None
    for workspace_id in sorted(scope.workspaces_of(selection.workspace)):
        if tag is None:
            yield workspace_id, to if isinstance(to, str) else None
        elif (value := scope.tags.get(workspace_id, {}).get(tag)) in allocation.cost_centers:
            yield workspace_id, value


def _label_receivers(rule: Rule, scope: Scope) -> Iterator[tuple[str, str | None, str]]:
    """Who receives a value's share, that of any other value, of what lacks the label and of what no log covers."""
    if isinstance(rule.to, dict):
        named = {value: receiver for value, receiver in rule.to.items() if value != "*"}
        if rule.split_by == "api_key":
            found: dict[str, str] = {}
            for pattern, receiver in named.items():
                for api_key_id in sorted(scope.api_keys_of(pattern)):
                    found.setdefault(api_key_id, receiver)
            named = found
        yield from (("label", value, receiver) for value, receiver in named.items())
        if "*" in rule.to:
            yield "other", None, rule.to["*"]
    for kind, policy in (("unlogged", rule.unlogged), ("unlabeled", rule.unlabeled)):
        if policy not in {None, "proportional", UNALLOCATED}:
            yield kind, None, str(policy)


def _write_pools(connection: duckdb.DuckDBPyConnection, allocation: Allocation) -> None:
    pools = list(enumerate(allocation.shared))
    index = {pool.name: n for n, pool in pools}
    shares = {n: list(_shares(pool, allocation)) for n, pool in pools}
    ledger.insert(
        connection,
        "allocated.pool",
        {**_POSITION, "pool": "varchar", "split": "varchar", "driver": "varchar", "route": "varchar", **_DATED},
        [
            (
                *(n, pool.name, pool.split if isinstance(pool.split, str) else "fixed", pool_driver(pool)),
                _route(
                    [
                        pool.model_dump(mode="json", by_alias=True, exclude={"lines", "driver"}),
                        sorted(shares[n], key=str),
                    ]
                ),
                *(pool.from_on, pool.until_on),
            )
            for n, pool in pools
        ],
    )
    ledger.insert(
        connection,
        "allocated.pool_receiver",
        {**_POSITION, "cost_center": "varchar"},
        [(n, code) for n, pool in pools for code in sorted(pool.among or allocation.cost_centers)],
    )
    ledger.insert(
        connection,
        "allocated.pool_share",
        {**_POSITION, "receiver": "varchar", "into_position": "int", "weight": "hugeint", **_DATED},
        [
            (n, receiver, index.get(receiver), weight, from_on, until_on)
            for n in shares
            for receiver, weight, from_on, until_on in shares[n]
        ],
    )
    ledger.insert(
        connection,
        "allocated.pool_line",
        {**_POSITION, "on_day": "date", "what": "varchar", "amount_usd": "decimal(38, 12)"},
        [(n, line.on, line.what, line.amount_usd) for n, pool in pools for line in pool.lines],
    )
    ledger.insert(
        connection,
        "allocated.pool_invoice",
        {**_POSITION, "reason": "varchar"},
        [(n, reason) for n, pool in pools for reason in sorted(set(pool.invoice))],
    )


def _shares(pool: Pool, allocation: Allocation) -> Iterator[tuple[str, int, date | None, date | None]]:
    """Whole weights by receiver and days; none for a pool whose weights are what cost centers use themselves."""
    if pool.split == "even":
        yield from ((code, 1, None, None) for code in pool.among or sorted(allocation.cost_centers))
    elif isinstance(pool.split, dict):
        ratios = {receiver: percent.as_integer_ratio() for receiver, percent in pool.split.items()}
        whole = lcm(*(below for _, below in ratios.values()))
        yield from ((receiver, above * whole // below, None, None) for receiver, (above, below) in ratios.items())
    elif pool.driver is not None:
        for span in weights(pool.driver):
            yield span.receiver, int(span.weight / _DRIVER_UNIT), span.from_on, span.until_on
