"""What is wrong with the rules: what stops a run, and what its author should know."""

from collections.abc import Iterator, Mapping
from datetime import date
from decimal import Decimal

import duckdb

from reconcile import money
from reconcile.allocate import drivers
from reconcile.allocate.rules import reach, rule_name
from reconcile.allocate.scope import Scope, matching
from reconcile.config import Allocation, Pool, Rule, nearest, pattern_matches
from reconcile.errors import ConfigError


def refuse(allocation: Allocation, scope: Scope) -> None:
    """Raise ``ConfigError`` for the month's first rule that can never match: a name or an id that nobody has, a shadow.

    What a rule names is looked for among all that the organization lists, archived ones too, and all that the month
    used. A pattern with a wildcard may match another month, and a pool behind rules that take all of it costs nobody
    anything: these are warnings. So is a rule for another month's workspace, once it has its dates.
    """
    selections: list[tuple[str, int, Rule | Pool]] = [
        *(("rules", n, rule) for n, rule in enumerate(allocation.rules)),
        *(("shared", n, pool) for n, pool in enumerate(allocation.shared)),
    ]
    for section, n, selection in selections:
        if not scope.in_force(selection):
            continue
        keyed = selection.api_key if isinstance(selection, Rule) else None
        for key, noun, pattern, names in (
            ("workspace", "workspace", selection.workspace, scope.workspaces),
            ("api_key", "API key", keyed, scope.api_keys),
        ):
            if pattern is not None and "*" not in pattern and not matching(pattern, names):
                known = [] if pattern.startswith(("wrkspc_", "apikey_")) else sorted(names.values())
                raise ConfigError(
                    allocation.place(section, n, key),
                    f"got {pattern!r}, the id or name of no {noun} of {scope.period}: it can never match",
                    nearest(
                        pattern, known, otherwise="Correct it, or give a rule of other months its `from` or `until`"
                    ),
                )
        if isinstance(selection, Rule) and (shadows := _shadows(allocation, n, scope)):
            first = [rule_name(place, allocation.rules[place]) for place in shadows]
            raise ConfigError(
                allocation.place(section, n),
                f"{_asked(n, selection)} can never match, {' and '.join(first)}"
                f" {'comes first and takes' if len(first) == 1 else 'come first and take'} the same",
                "Put it before, or remove it",
            )


def warnings(
    connection: duckdb.DuckDBPyConnection, allocation: Allocation, scope: Scope, unallocated_percent: Decimal | None
) -> Iterator[str]:
    """What the config's author should know, in the config's order; nothing in it stops a run."""
    yield from _rule_warnings(connection, allocation, scope)
    yield from _pool_warnings(connection, allocation, scope)
    yield from _unallocated(connection, unallocated_percent)


def _rule_warnings(connection: duckdb.DuckDBPyConnection, allocation: Allocation, scope: Scope) -> Iterator[str]:
    matched = _positions(connection, "select distinct rule from slice join charge using (charge) where billed")
    uncovered = _positions(
        connection,
        """
        select slice.rule from slice join portion on portion.charge = slice.charge and portion.rule = slice.rule
        join allocated.rule as rule on rule.position = slice.rule where rule.kind = 'label' group by slice.rule
        having bool_and(portion.driver = 'not covered by a log')
        """,
    )
    taken: set[str] = set()
    for position, rule in enumerate(allocation.rules):
        key = f"{allocation.key('rules', position)} {_asked(position, rule)}"
        if rule.tag is not None:
            yield from _tag_warnings(key, rule.tag, scope.workspaces_of(rule.workspace) - taken, allocation, scope)
        if position not in matched and scope.in_force(rule):
            yield f"{key}: matched no charge of {scope.period}"
        elif position in uncovered:
            names = "names these API keys" if rule.api_key else "covers any of it"
            yield f"{key}: no log {names}, so nothing of it could be split by {rule.split_by}"
        elif unused := _unused_values(connection, position) if position in matched else []:
            yield f"{key}: matched no charge of {scope.period} for {rule.split_by} {', '.join(unused)}"
        yield from _overlap_warnings(key, allocation, position, scope)
        if rule.api_key is None and not rule.selects().keys() - {"workspace"} and _undated(rule):
            taken.update(workspace_id for workspace_id, _ in reach(rule, allocation, scope))


def _unused_values(connection: duckdb.DuckDBPyConnection, position: int) -> list[str]:
    """The values in `to` (but for keys, which are patterns) that took nothing of the month: quiet ones, or typos."""
    found = connection.execute(
        """
        select receiver.label
        from allocated.rule_label as receiver
        join allocated.rule as rule on rule.position = receiver.position
        where rule.position = $1 and receiver.kind = 'label' and rule.field <> 'api_key'
        except
        select label from portion where rule = $1
        order by label
        """,
        [position],
    )
    return [repr(value) for (value,) in found.fetchall()]


def _tag_warnings(
    key: str, tag: str, workspace_ids: frozenset[str], allocation: Allocation, scope: Scope
) -> Iterator[str]:
    for workspace_id in sorted(workspace_ids & scope.billed):
        value = scope.tags.get(workspace_id, {}).get(tag)
        if value is not None and value not in allocation.cost_centers:
            name = scope.workspaces[workspace_id]
            yield f"{key}: {workspace_id} ({name!r}) has {value!r}, which is no cost center; it is left to later rules"


def _overlap_warnings(key: str, allocation: Allocation, position: int, scope: Scope) -> Iterator[str]:
    """Dated rules before this dated one for the very same charges, on some of its days: there the first one counts.

    A rule without dates behind dated ones is no mistake: it is for the days that they leave.
    """
    rule = allocation.rules[position]
    for place, earlier in enumerate(allocation.rules[:position]):
        same = (earlier.selects(), earlier.api_key, earlier.tag) == (rule.selects(), rule.api_key, rule.tag)
        begin = max(earlier.from_on or scope.start_on, rule.from_on or scope.start_on, scope.start_on)
        end = min(earlier.until_on or scope.end_on, rule.until_on or scope.end_on, scope.end_on)
        if same and begin < end and not (_undated(earlier) or _undated(rule)):
            yield (f"{key}: overlaps rules[{place}] from {begin} until {end}; on those days rules[{place}] counts")


def _pool_warnings(connection: duckdb.DuckDBPyConnection, allocation: Allocation, scope: Scope) -> Iterator[str]:
    matched = _positions(connection, "select distinct position from allocated.pot")
    stranded = dict(
        connection.execute(
            """
            select pool, sum(amount_usd) from (
                select pool, amount_usd from allocated.part where basis = 'unallocated' and pool is not null
                union all
                select pool, amount_usd from allocated.other where basis = 'unallocated'
            ) group by pool
            """
        ).fetchall()
    )
    for position, pool in enumerate(allocation.shared):
        key = f"{allocation.key('shared', position)} {pool.name}"
        if pool.driver is not None:
            problems = [*drivers.overlaps(pool.driver), *drivers.gaps(pool.driver, scope.start_on, scope.end_on)]
            yield from (f"{key}: {problem}" for problem in problems)
        if position not in matched and scope.in_force(pool) and (asked := pool.selects()):
            wanted = ", ".join(f"{name} {pattern}" for name, pattern in asked.items())
            yield f"{key}: no charge of {scope.period} was left for it ({wanted})"
        elif position in matched and pool.name in stranded:
            amount_usd = money.cents(stranded[pool.name])
            yield f"{key}: nobody has {_weight(pool)}, so {amount_usd} USD of it stay unallocated"


def _weight(pool: Pool) -> str:
    named = {"proportional": "direct cost", "quantity": "tokens", "requests": "requests in the logs"}
    return named.get(pool.split, "a weight") if isinstance(pool.split, str) else "a weight"


def _unallocated(connection: duckdb.DuckDBPyConnection, percent: Decimal | None) -> Iterator[str]:
    beyond = connection.execute(
        "select unallocated_usd, billed_usd from allocated.unallocated where beyond_tolerance"
    ).fetchall()
    for unallocated_usd, billed_usd in beyond:
        yield (
            f"tolerance.unallocated_percent: {money.cents(unallocated_usd)} of {money.cents(billed_usd)} USD have no"
            f" cost center, more than {percent} %. Add a rule or a pool for them"
        )


def _positions(connection: duckdb.DuckDBPyConnection, query: str) -> set[int | None]:
    return {row[0] for row in connection.execute(query).fetchall()}


def _asked(position: int, rule: Rule) -> str:
    return rule_name(position, rule).removeprefix(f"rules[{position}] ")


def _undated(dated: Rule | Pool) -> bool:
    return dated.from_on is None and dated.until_on is None


def _shadows(allocation: Allocation, position: int, scope: Scope) -> list[int]:
    """The rules before this one that together take, on every day of its, all that it could; none where a day is left.

    Only rules that would do so alone, were it not for their dates.
    """
    rule = allocation.rules[position]
    earlier = [place for place in range(position) if _takes_all(allocation.rules[place], rule, scope)]
    on, until_on = rule.from_on or date.min, rule.until_on or date.max
    taken: list[int] = []
    while on < until_on:
        held = [n for n in earlier if (allocation.rules[n].from_on or date.min) <= on]
        last = max(held, key=lambda n: allocation.rules[n].until_on or date.max, default=None)
        if last is None or (end := allocation.rules[last].until_on or date.max) <= on:
            return []
        taken.append(last)
        on = end
    return sorted(taken)


def _takes_all(earlier: Rule, later: Rule, scope: Scope) -> bool:
    """Whether the earlier rule takes, on its days, all that the later one could."""
    if earlier.tag is not None:
        return False
    if earlier.api_key is not None and not (
        later.api_key is not None and _covers(earlier.api_key, later.api_key, scope.api_keys)
    ):
        return False
    if earlier.charge not in {None, later.charge}:
        return False
    if not all(
        _covers_text(getattr(earlier, name), getattr(later, name)) for name in ("model", "service_tier", "meter")
    ):
        return False
    return _covers(earlier.workspace, later.workspace, scope.workspaces)


def _covers_text(wide: str | None, narrow: str | None) -> bool:
    """Whether all that ``narrow`` can mean is meant by ``wide``, of values that are their own names."""
    return wide is None or (narrow is not None and pattern_matches(wide, narrow, narrow))


def _covers(wide: str | None, narrow: str | None, names: Mapping[str, str]) -> bool:
    """Whether all that ``narrow`` can mean is meant by ``wide``: as patterns, or as what one id or name stands for."""
    if wide is None or wide == "*":
        return True
    if narrow is None:
        return False
    by_id = [pattern_matches(pattern, pattern, None) for pattern in (wide, narrow)]
    if by_id[0] == by_id[1]:
        return pattern_matches(wide, narrow, narrow)
    meant = matching(narrow, names)
    return "*" not in narrow and bool(meant) and meant <= matching(wide, names)
