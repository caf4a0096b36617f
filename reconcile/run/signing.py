"""Who signs a month's figures, and what opens it again."""

from datetime import datetime
from typing import Any

import duckdb

from reconcile import ledger
from reconcile.config import Config
from reconcile.errors import ConfigError, InvariantError, NotReadyError, SourceError
from reconcile.period import Period
from reconcile.register import Role, Standing, last_published, standing
from reconcile.run import reports
from reconcile.run.gates import stamp
from reconcile.run.room import Room


def approve(config: Config, *, period: Period, by: str, role: Role, now: datetime) -> Standing:
    """Sign the published figures of a month; where the same person signed them in that role already, nothing happens.

    Raises ``ConfigError`` for a name that signed in the other role or a role that somebody else signed in,
    ``NotReadyError`` for a month that is not over, ``InvariantError`` where ledger or reports are not those that were
    published.
    """
    who = " ".join(by.split())
    if not who.isprintable() or not who:
        raise ConfigError("approve --by", f"got {by!r}, expected a name", "Write who signs")
    room = Room(config.data_dir)
    with room.locked():
        room.tidy()
        stands, revision = _published(room, period)
        for one in stands.holding:
            is_same = one.who.casefold() == who.casefold()
            if one.role == role and is_same:
                return stands
            if one.role == role or is_same:
                raise ConfigError(
                    "approve",
                    f"{one.who} signed r{one.revision} as {one.role} on {one.at}, {who} cannot sign it as {role}",
                    "Two people sign: one as preparer, another as reviewer",
                )
        with ledger.reading(revision.path) as connection:
            _refuse_running(connection, period)
            _refuse_changed(connection, room, period, stands)
            facts = {
                "event": "approve",
                "period": str(period),
                "revision": revision.number,
                "role": role,
                "by": who,
                "figures_digest": stands.figures_digest,
                "at": stamp(now),
            }
            return _register(connection, room, period, stands, facts)


def reopen(config: Config, *, period: Period, reason: str, now: datetime) -> Standing:
    """Let a closed month be closed anew: its figures stay until then, its signatures do not.

    Raises ``ConfigError`` without a reason, ``NotReadyError`` for a month that is not closed.
    """
    why = " ".join(reason.split())
    if not why:
        raise ConfigError("reopen --reason", "got nothing, expected why the month is opened again", "Write the reason")
    room = Room(config.data_dir)
    with room.locked():
        room.tidy()
        stands, revision = _published(room, period)
        if not stands.is_closed:
            raise NotReadyError(f"reopen {period}", f"it is {stands.state}, expected closed", "Close it again as it is")
        facts = {
            "event": "reopen",
            "period": str(period),
            "revision": revision.number,
            "reason": why,
            "at": stamp(now),
        }
        with ledger.reading(revision.path) as connection:
            return _register(connection, room, period, stands, facts)


def _published(room: Room, period: Period) -> tuple[Standing, ledger.Revision]:
    revision = room.shelf.newest(period)
    stands = standing(room.register.entries(), period)
    if revision is None:
        raise SourceError(
            f"{room.shelf.folder}", f"holds no revision of {period}, expected one", f"Close {period} first"
        )
    if stands.revision != revision.number:  # a crash came between the revision and its line
        raise NotReadyError(
            str(period), f"r{revision.number} is there, the register knows r{stands.revision}", "Close the month again"
        )
    return stands, revision


def _refuse_running(connection: duckdb.DuckDBPyConnection, period: Period) -> None:
    (run,) = ledger.rows(connection, "select provisional, through_on, last_on from report.run")
    if run["provisional"]:
        raise NotReadyError(
            f"approve {period}",
            f"the figures are complete through {run['through_on']}, the month ends on {run['last_on']}",
            "Close the month when it is over, then sign",
        )


def _refuse_changed(connection: duckdb.DuckDBPyConnection, room: Room, period: Period, stands: Standing) -> None:
    """Nobody signs what is not what was published."""
    told = last_published(room.register.entries(), period, stands.revision)
    found = {
        "figures": (reports.figures_digest(connection), stands.figures_digest),
        "reports": (reports.digest(room.reports(period)), told.get("reports_digest")),
    }
    for what, (is_now, was) in found.items():
        if is_now != was:
            raise InvariantError(
                f"approve {period}",
                f"the {what} have digest {is_now}, the register says {was}",
                "`reconcile verify` names what was changed; `reconcile close` makes reports good",
            )


def _register(
    connection: duckdb.DuckDBPyConnection, room: Room, period: Period, stands: Standing, facts: dict[str, Any]
) -> Standing:
    """Render the reports with what happened, write its line, let them take their place."""
    after = stands.after(facts)
    aside = reports.render_aside(connection, room.reports(period), after)
    room.register.append(**facts, reports_digest=aside.digest)
    aside.swap_in()
    return after
