"""`reconcile purge`: request rows and raw pages go after the configured time; every figure and every proof stays."""

import json
from datetime import UTC, datetime

import pytest
from month import line, tokens
from sites import OCTOBER, Desk, quiet_month, views

from reconcile import cli, ledger, run
from reconcile.config import load_config
from reconcile.errors import ConfigError, InvariantError
from reconcile.run import retention

KEPT = {"requests_days": 30, "raw_days": 60}
EARLY, LATE, LATER = (datetime(*day, tzinfo=UTC) for day in ((2026, 11, 30), (2026, 12, 1), (2027, 1, 1)))


@pytest.fixture
def desk(tmp_path) -> Desk:
    """A month with two revisions, the second one closed and signed."""
    desk = quiet_month(tmp_path, retention=KEPT)
    desk.close()
    desk.configure(retention=KEPT, tolerance={"usd": 2})
    desk.close(final=True)
    run.approve(load_config(desk.config), period=OCTOBER, by="Ann", role="preparer", now=EARLY)
    return desk


def purge(desk, now):
    return run.purge(load_config(desk.config), now=now)


def requests(path) -> int:
    with ledger.reading(path) as connection:
        return connection.execute("select count(*) from source.request").fetchone()[0]


def test_request_rows_go_and_every_figure_stays(desk, capsys):
    """From every revision, on the day, once; views, reports, signature and proof are as before, and no id is left."""
    config = load_config(desk.config)
    paths = [desk.var / "ledger" / f"2026-10.r{number}.duckdb" for number in (1, 2)]
    before = [views(path) for path in paths]
    assert purge(desk, EARLY) == retention.Purged((), 0, ())
    assert [requests(path) for path in paths] == [2, 2]
    assert any(b"req_2026-10-05" in path.read_bytes() for path in paths)
    arguments = ["purge", "-c", str(desk.config), "--now", LATE.isoformat(), "--json"]
    assert cli.invoke(arguments) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {"exit": 0, "revisions": [path.name for path in paths], "rows": 4, "raw": []}
    assert [requests(path) for path in paths] == [0, 0]
    assert not any(b"req_2026-10-05" in path.read_bytes() for path in paths)
    assert [views(path) for path in paths] == before
    assert (desk.var / "ledger" / "2026-10.duckdb").samefile(paths[1])
    run.verify(config)
    assert purge(desk, LATE).revisions == ()
    (status,) = run.status(config)
    assert (status.state, len(status.signatures)) == ("closed", 1)
    assert desk.close(final=True).published is False
    run.verify(config)


def test_a_finding_says_that_its_requests_were_purged(tmp_path):
    """Before, the request that is logged twice is named; after, that its row is gone, not that there was none."""
    desk = quiet_month(tmp_path, retention=KEPT)
    desk.log(*2 * [line("2026-10-05T10:30:00Z", "req_1", usage=tokens(4000, 100))])
    desk.close()
    with ledger.reading(desk.var / "ledger" / "2026-10.duckdb") as connection:
        ((finding,),) = connection.execute("select id from report.finding where reason = 'duplicate'").fetchall()
    told = {}
    for purged in (False, True):
        found = run.explanation(load_config(desk.config), finding, period=OCTOBER, requests=9)
        told[purged] = (found.requests_purged, [row["request_id"] for row in found.requests])
        purge(desk, LATE)
    assert told == {False: (False, ["req_1"]), True: (True, [])}


def test_raw_pages_of_a_closed_month_go(desk):
    """Later than the rows, and only once the month is closed; what was removed is no gap in the proof."""
    run.reopen(load_config(desk.config), period=OCTOBER, reason="late", now=EARLY)
    assert purge(desk, LATER).raw == ()
    assert desk.close(final=True).revision == 3  # built anew: the gates ask for rows that r2 has no more
    assert purge(desk, LATER).raw == ("2026-10/20261102T060012Z",)
    assert list((desk.var / "raw" / "2026-10").iterdir()) == []
    run.verify(load_config(desk.config))


def test_a_purge_that_would_change_a_figure_removes_nothing(desk, monkeypatch):
    """Every view is compared before the revision is replaced."""
    before = desk.entries()
    monkeypatch.setattr(retention, "REQUESTS", retention.REQUESTS | {("matched", "cell")})
    with pytest.raises(InvariantError, match="would change a figure"):
        purge(desk, LATE)
    assert desk.entries() == before
    assert sorted(path.name for path in (desk.var / "ledger").iterdir()) == [
        "2026-10.duckdb",
        "2026-10.r1.duckdb",
        "2026-10.r2.duckdb",
    ]
    run.verify(load_config(desk.config))


def test_without_a_time_nothing_is_purged(tmp_path):
    """A config that says nothing is told so."""
    desk = quiet_month(tmp_path)
    with pytest.raises(ConfigError, match="names neither requests_days nor raw_days"):
        purge(desk, LATER)
