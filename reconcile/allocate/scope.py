"""What the patterns of the config are held against."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

import duckdb

from reconcile import ledger
from reconcile.config import Pool, Rule, like, pattern_matches

Kind = tuple[str | None, str | None, str]
"""What a charge is of: model, service tier, meter."""


@dataclass(frozen=True)
class Scope:
    """Everything that the organization lists, or the month's bill and usage name.

    ``workspaces`` and ``api_keys`` are id -> name; the name of one that no list holds is its id. ``tags`` is
    workspace id -> tag -> value, ``billed`` the ids of the workspaces with charges, ``kinds`` what they were billed
    or used for.
    """

    period: str
    start_on: date
    end_on: date
    workspaces: Mapping[str, str]
    tags: Mapping[str, Mapping[str, str]]
    api_keys: Mapping[str, str]
    billed: frozenset[str]
    kinds: tuple[Kind, ...]

    @classmethod
    def read(cls, connection: duckdb.DuckDBPyConnection) -> "Scope":
        """Look at ``source`` and ``matched``."""
        run = ledger.rows(connection, "select period, start_on, end_on from source.run")[0]
        billed = "select distinct workspace_id from matched.cell where in_period and billed_usd is not null"
        used = "select distinct api_key_id from matched.usage where in_period"
        kinds = "select distinct model, service_tier, meter from matched.cell where in_period order by all"
        listed = connection.execute("select workspace_id, name, tags from source.workspace").fetchall()
        named = connection.execute("select api_key_id, name from source.api_key").fetchall()
        billed_ids = frozenset(row[0] for row in connection.execute(billed).fetchall() if row[0] is not None)
        used_ids = {row[0] for row in connection.execute(used).fetchall() if row[0] is not None}
        workspaces = {
            "default": "Default",
            **{i: i for i in billed_ids},
            **{row[0]: row[1] or row[0] for row in listed},
        }
        return cls(
            period=run["period"],
            start_on=run["start_on"],
            end_on=run["end_on"],
            workspaces=dict(sorted(workspaces.items())),
            tags={row[0]: {tag: str(value) for tag, value in json.loads(row[2] or "{}").items()} for row in listed},
            api_keys=dict(sorted({**{i: i for i in used_ids}, **{row[0]: row[1] or row[0] for row in named}}.items())),
            billed=billed_ids,
            kinds=tuple(connection.execute(kinds).fetchall()),
        )

    def workspaces_of(self, pattern: str | None) -> frozenset[str]:
        """The ids that a `workspace:` means; without one, all."""
        return matching(pattern, self.workspaces)

    def api_keys_of(self, pattern: str | None) -> frozenset[str]:
        """The ids that an `api_key:` means; without one, all."""
        return matching(pattern, self.api_keys)

    def kinds_of(self, selection: Rule | Pool) -> tuple[Kind, ...]:
        """What of the month a selection's `model:`, `service_tier:` and `meter:` mean."""
        patterns = (selection.model, selection.service_tier, selection.meter)
        return tuple(
            kind
            for kind in self.kinds
            if all(
                pattern is None or (value is not None and like(pattern, value))
                for pattern, value in zip(patterns, kind, strict=True)
            )
        )

    def in_force(self, dated: Rule | Pool) -> bool:
        """Whether it holds on any day of the period."""
        begins_in_time = dated.from_on is None or dated.from_on < self.end_on
        return begins_in_time and (dated.until_on is None or dated.until_on > self.start_on)


def matching(pattern: str | None, names: Mapping[str, str]) -> frozenset[str]:
    """The ids whose id or name is as the pattern says."""
    return frozenset(
        tagged_id for tagged_id, name in names.items() if pattern is None or pattern_matches(pattern, tagged_id, name)
    )
