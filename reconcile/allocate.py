"""Split the bill over cost centers: every charge to the last decimal, the chargeback to the cent."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from math import lcm
from typing import Any

import duckdb

from reconcile import ledger, money
from reconcile.config import UNALLOCATED, Allocation, Pool, Rule, pattern_matches
from reconcile.errors import ConfigError, SourceError

_LARGEST_BILL_USD = Decimal("1e12")
"""What the exact arithmetic of allocate.sql holds: 1e24 units of 1e-12 USD."""


def allocate(connection: duckdb.DuckDBPyConnection, allocation: Allocation) -> None:
    """Write schema ``allocated`` and its views in ``checks``, from ``source`` and ``matched``.

    ``part`` has the columns of ``report.allocation``, ``chargeback`` those of ``report.chargeback``: a row a cost
    center in order of its name, then ``unallocated``, whose dollars stand in ``direct_usd`` (they were not shared).
    ``warning`` holds what the config's author should know; nothing in it stops a run.

    Rules come in order, then pools (design.md section 8). A rule for API keys takes their portion of a charge and
    leaves the rest to later rules; every other rule takes what is left of it. Raises ``ConfigError`` for a rule that
    splits one key by label, ``SourceError`` for a bill too large to be split exactly. (That every receiver is a cost
    center was looked at when the config was read.)
    """
    _refuse_nested_split(allocation)
    _refuse_too_large(connection)
    scope = _Scope.read(connection)
    _write_rules(connection, allocation, scope)
    ledger.run_sql(connection, "allocate")
    _write_chargeback(connection)
    _write_warnings(connection, allocation, scope)


def _refuse_nested_split(allocation: Allocation) -> None:
    for position, rule in enumerate(allocation.rules):
        if rule.split_by is not None and rule.api_key is not None:
            raise ConfigError(
                f"allocation.rules[{position}]",
                f"got split_by {rule.split_by!r} and api_key {rule.api_key!r}, expected one of them",
                "Write a rule for the key before the one that splits the rest by label",
            )


def _refuse_too_large(connection: duckdb.DuckDBPyConnection) -> None:
    billed_usd = _value(connection, "select coalesce(sum(abs(billed_usd)), 0) from matched.cell where in_period")
    if billed_usd >= _LARGEST_BILL_USD:
        raise SourceError(
            "cost_report",
            f"the charges add up to {billed_usd} USD, expected less than {_LARGEST_BILL_USD:f}",
            "Look at the amounts in the raw pages: a bill of this size is not one",
        )


def _value(connection: duckdb.DuckDBPyConnection, query: str) -> Any:
    row = connection.execute(query).fetchone()
    return row[0] if row else None


@dataclass(frozen=True)
class _Scope:
    """What patterns are held against: everything that the organization lists or the month's bill and usage name.

    ``workspaces`` and ``api_keys`` are id -> name; the name of one that no list holds is its id. ``tags`` is
    workspace id -> tag -> value, ``billed`` the ids of the workspaces with charges.
    """

    period: str
    start_on: date
    end_on: date
    workspaces: Mapping[str, str]
    tags: Mapping[str, Mapping[str, str]]
    api_keys: Mapping[str, str]
    billed: frozenset[str]

    @classmethod
    def read(cls, connection: duckdb.DuckDBPyConnection) -> "_Scope":
        """Look at ``source`` and ``matched``."""
        run = ledger.rows(connection, "select period, start_on, end_on from source.run")[0]
        billed = "select distinct workspace_id from matched.cell where in_period and billed_usd is not null"
        used = "select distinct api_key_id from matched.usage where in_period"
        listed = connection.execute("select workspace_id, name, tags from source.workspace").fetchall()
        named = connection.execute("select api_key_id, name from source.api_key").fetchall()
        billed_ids = frozenset(row[0] for row in connection.execute(billed).fetchall() if row[0] is not None)
        used_ids = {row[0] for row in connection.execute(used).fetchall() if row[0] is not None}
        return cls(
            period=run["period"],
            start_on=run["start_on"],
            end_on=run["end_on"],
            workspaces=dict(
                sorted({**{i: i for i in billed_ids}, **{row[0]: row[1] or row[0] for row in listed}}.items())
            ),
            tags={row[0]: {tag: str(value) for tag, value in json.loads(row[2] or "{}").items()} for row in listed},
            api_keys=dict(sorted({**{i: i for i in used_ids}, **{row[0]: row[1] or row[0] for row in named}}.items())),
            billed=billed_ids,
        )

    def workspaces_of(self, pattern: str | None) -> frozenset[str]:
        """The ids that a `workspace:` means; without one, all."""
        return _matching(pattern, self.workspaces)

    def api_keys_of(self, pattern: str | None) -> frozenset[str]:
        """The ids that an `api_key:` means; without one, all."""
        return _matching(pattern, self.api_keys)


def _matching(pattern: str | None, names: Mapping[str, str]) -> frozenset[str]:
    return frozenset(
        tagged_id for tagged_id, name in names.items() if pattern is None or pattern_matches(pattern, tagged_id, name)
    )


def _rule_name(position: int, rule: Rule) -> str:
    """How a part names its rule: its place in the config and what it asks for."""
    asked = {
        "workspace": rule.workspace,
        "api_key": rule.api_key,
        "tag": rule.tag,
        "split_by": rule.split_by,
        "from": rule.from_on,
        "until": rule.until_on,
    }
    return f"rules[{position}] " + ", ".join(f"{key} {value}" for key, value in asked.items() if value is not None)


def _kind(rule: Rule) -> str:
    if rule.api_key is not None:
        return "key"
    return "direct" if rule.split_by is None else "label"


def _reach(rule: Rule, allocation: Allocation, scope: _Scope) -> Iterator[tuple[str, str | None]]:
    """The workspaces that a rule takes, with who receives; None where the label decides."""
    for workspace_id in sorted(scope.workspaces_of(rule.workspace)):
        if rule.tag is None:
            yield workspace_id, rule.to if isinstance(rule.to, str) else None
        elif (value := scope.tags.get(workspace_id, {}).get(rule.tag)) in allocation.cost_centers:
            yield workspace_id, value


def _label_receivers(rule: Rule) -> Iterator[tuple[str, str | None, str]]:
    """Who receives a label value's share, and that of what no log covers."""
    if isinstance(rule.to, dict):
        yield from (("label", value, receiver) for value, receiver in rule.to.items())
    if rule.unlogged not in {None, "proportional"}:
        yield "unlogged", None, str(rule.unlogged)


def _pool_weights(pool: Pool, allocation: Allocation) -> dict[str, int]:
    """Whole weights by cost center; none for a proportional pool, whose weights are the direct cost."""
    if pool.split == "even":
        return dict.fromkeys(allocation.cost_centers, 1)
    if not isinstance(pool.split, dict):
        return {}
    ratios = {receiver: percent.as_integer_ratio() for receiver, percent in pool.split.items()}
    whole = lcm(*(below for _, below in ratios.values()))
    return {receiver: above * whole // below for receiver, (above, below) in ratios.items()}


def _pool_split(pool: Pool) -> tuple[str, str]:
    if pool.split == "proportional":
        return "proportional", "direct cost"
    return ("even", "even") if pool.split == "even" else ("fixed", "fixed percent")


def _write_rules(connection: duckdb.DuckDBPyConnection, allocation: Allocation, scope: _Scope) -> None:
    """The config's rules as tables, every pattern resolved to the ids that it means."""
    rules, pools = list(enumerate(allocation.rules)), list(enumerate(allocation.shared))
    position, dated = {"position": "int"}, {"from_on": "date", "until_on": "date"}
    ledger.insert(
        connection,
        "allocated.cost_center",
        {"cost_center": "varchar", "name": "varchar", "account": "varchar"},
        [(key, center.name, center.account) for key, center in sorted(allocation.cost_centers.items())],
    )
    ledger.insert(
        connection,
        "allocated.rule",
        {
            **position,
            "rule": "varchar",
            "kind": "varchar",
            "driver": "varchar",
            "label": "varchar",
            "unlogged_proportional": "boolean",
            **dated,
        },
        [
            (
                at,
                _rule_name(at, rule),
                _kind(rule),
                rule.split_by,
                rule.split_by.removeprefix("label.") if rule.split_by else None,
                rule.unlogged == "proportional",
                rule.from_on,
                rule.until_on,
            )
            for at, rule in rules
        ],
    )
    ledger.insert(
        connection,
        "allocated.rule_workspace",
        {**position, "workspace_id": "varchar", "cost_center": "varchar"},
        [(at, *reached) for at, rule in rules for reached in _reach(rule, allocation, scope)],
    )
    ledger.insert(
        connection,
        "allocated.rule_key",
        {**position, "api_key_id": "varchar"},
        [(at, key) for at, rule in rules if rule.api_key for key in sorted(scope.api_keys_of(rule.api_key))],
    )
    ledger.insert(
        connection,
        "allocated.rule_label",
        {**position, "kind": "varchar", "label": "varchar", "cost_center": "varchar"},
        [(at, *received) for at, rule in rules for received in _label_receivers(rule)],
    )
    ledger.insert(
        connection,
        "allocated.pool",
        {**position, "pool": "varchar", "split": "varchar", "driver": "varchar", **dated},
        [(at, pool.name, *_pool_split(pool), pool.from_on, pool.until_on) for at, pool in pools],
    )
    ledger.insert(
        connection,
        "allocated.pool_workspace",
        {**position, "workspace_id": "varchar"},
        [(at, workspace_id) for at, pool in pools for workspace_id in sorted(scope.workspaces_of(pool.workspace))],
    )
    ledger.insert(
        connection,
        "allocated.pool_share",
        {**position, "cost_center": "varchar", "weight": "hugeint"},
        [(at, *weight) for at, pool in pools for weight in sorted(_pool_weights(pool, allocation).items())],
    )


def _write_chargeback(connection: duckdb.DuckDBPyConnection) -> None:
    """Apportion the direct and shared dollars of all cost centers to the cent, together."""
    charged = connection.execute(
        """
        with part as (
            select
                cost_center,
                sum(amount_usd) filter (basis <> 'shared') as direct_usd,
                sum(amount_usd) filter (basis = 'shared') as shared_usd,
            from allocated.part
            group by cost_center
        ),
        receiver as (
            select cost_center, name, false as last from allocated.cost_center
            union all
            select $1, 'Unallocated', true
        )
        select
            receiver.cost_center, receiver.name,
            coalesce(part.direct_usd, 0)::decimal(38, 12), coalesce(part.shared_usd, 0)::decimal(38, 12),
        from receiver
        left join part on part.cost_center = receiver.cost_center
        order by receiver.last, receiver.cost_center
        """,
        [UNALLOCATED],
    ).fetchall()
    cents = iter(money.footing([amount_usd for row in charged for amount_usd in row[2:]]))
    for cost_center, name, *_ in charged:
        direct_usd, shared_usd = next(cents), next(cents)
        total_usd = direct_usd + shared_usd
        connection.execute(
            "insert into allocated.chargeback values (?, ?, ?, ?, ?, 0, ?)",
            [cost_center, name, direct_usd, shared_usd, total_usd, total_usd],
        )


def _write_warnings(connection: duckdb.DuckDBPyConnection, allocation: Allocation, scope: _Scope) -> None:
    """What the config's author should know, in the config's order."""
    warnings = [*_rule_warnings(connection, allocation, scope), *_pool_warnings(connection, allocation, scope)]
    ledger.insert(
        connection, "allocated.warning", {"position": "int", "warning": "varchar"}, enumerate(warnings, start=1)
    )


def _rule_warnings(connection: duckdb.DuckDBPyConnection, allocation: Allocation, scope: _Scope) -> Iterator[str]:
    matched = {row[0] for row in connection.execute("select distinct rule from allocated.part").fetchall()}
    taken: set[str] = set()
    for position, rule in enumerate(allocation.rules):
        key = f"allocation.{_rule_name(position, rule)}"
        if rule.tag is not None:
            yield from _tag_warnings(key, rule.tag, scope.workspaces_of(rule.workspace) - taken, allocation, scope)
        earlier = next(
            (place for place in range(position) if _shadows(allocation.rules[place], rule, scope)),
            None,
        )
        if earlier is not None:
            shadow = _rule_name(earlier, allocation.rules[earlier])
            yield f"{key}: can never match, {shadow} comes first and takes the same. Put it before, or remove it"
        elif _rule_name(position, rule) not in matched and _in_force(rule, scope):
            yield f"{key}: matched no charge of {scope.period}"
        if rule.api_key is None and _undated(rule):
            taken.update(workspace_id for workspace_id, _ in _reach(rule, allocation, scope))


def _tag_warnings(
    key: str, tag: str, workspace_ids: frozenset[str], allocation: Allocation, scope: _Scope
) -> Iterator[str]:
    for workspace_id in sorted(workspace_ids & scope.billed):
        value = scope.tags.get(workspace_id, {}).get(tag)
        if value is not None and value not in allocation.cost_centers:
            name = scope.workspaces[workspace_id]
            yield f"{key}: {workspace_id} ({name!r}) has {value!r}, which is no cost center; it is left to later rules"


def _pool_warnings(connection: duckdb.DuckDBPyConnection, allocation: Allocation, scope: _Scope) -> Iterator[str]:
    matched = {row[0] for row in connection.execute("select distinct position from allocated.pooled").fetchall()}
    stranded = dict(
        connection.execute(
            """
            select pool, sum(amount_usd) from allocated.part
            where basis = 'unallocated' and pool is not null
            group by pool
            """
        ).fetchall()
    )
    for position, pool in enumerate(allocation.shared):
        key = f"allocation.shared[{position}] {pool.name}"
        if position not in matched and _in_force(pool, scope):
            yield f"{key}: no charge of {scope.period} was left for it in workspace {pool.workspace}"
        elif position in matched and pool.name in stranded:
            amount_usd = money.cents(stranded[pool.name])
            yield f"{key}: nobody has direct cost, so its {amount_usd} USD stay unallocated"


def _undated(dated: Rule | Pool) -> bool:
    return dated.from_on is None and dated.until_on is None


def _in_force(dated: Rule | Pool, scope: _Scope) -> bool:
    """Whether it holds on any day of the period."""
    begins_in_time = dated.from_on is None or dated.from_on < scope.end_on
    return begins_in_time and (dated.until_on is None or dated.until_on > scope.start_on)


def _shadows(earlier: Rule, later: Rule, scope: _Scope) -> bool:
    """Whether ``earlier`` takes, on every day, all that ``later`` could."""
    if not _undated(earlier) or earlier.tag is not None:
        return False
    if earlier.api_key is not None and not (
        later.api_key is not None and _covers(earlier.api_key, later.api_key, scope.api_keys)
    ):
        return False
    return _covers(earlier.workspace, later.workspace, scope.workspaces)


def _covers(wide: str | None, narrow: str | None, names: Mapping[str, str]) -> bool:
    """Whether all that ``narrow`` can mean is meant by ``wide``: as patterns, or as what one id or name stands for."""
    if wide is None or wide == "*":
        return True
    if narrow is None:
        return False
    by_id = [pattern_matches(pattern, pattern, None) for pattern in (wide, narrow)]
    if by_id[0] == by_id[1]:
        return pattern_matches(wide, narrow, narrow)
    meant = _matching(narrow, names)
    return "*" not in narrow and bool(meant) and meant <= _matching(wide, names)
