"""A close as a promise: states, the gates of a final close, sign-off, reopening; offline, over a small month."""

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from month import cost, line, tokens, usage
from sites import OCTOBER, Desk, digests, quiet_month

from reconcile import cli, ledger, run
from reconcile.config import load_config
from reconcile.errors import ConfigError, InvariantError, NotReadyError, SourceError

LATER = datetime(2026, 11, 5, 9, tzinfo=UTC)


@pytest.fixture(scope="module")
def closed(tmp_path_factory) -> Desk:
    """A month that ties out, closed for good as r1; no test changes it."""
    desk = quiet_month(tmp_path_factory.mktemp("closed"))
    assert desk.close().state == "provisional"
    outcome = desk.close(final=True)
    assert (outcome.state, outcome.revision, outcome.published, outcome.unmet) == ("closed", 1, False, ())
    return desk


@pytest.fixture
def desk(closed, tmp_path) -> Desk:
    """The same month, to be changed."""
    shutil.copytree(closed.folder, tmp_path / "desk")
    return Desk(tmp_path / "desk")


def status(desk):
    (found,) = run.status(load_config(desk.config))
    return found


def approve(desk, by, role):
    return run.approve(load_config(desk.config), period=OCTOBER, by=by, role=role, now=LATER)


def page(desk, name="index.html"):
    return (desk.var / "reports" / "2026-10" / name).read_text()


# Closed is closed -----------------------------------------------------------------------------------------------------


def test_pages_say_where_the_month_stands(closed):
    """Every page names the state in its head, the first one who signed."""
    for name in ("index.html", "discrepancy.html", "allocation.html", "statements/CC-1.html"):
        assert 'r1, closed on <span class="day">4 Nov 2026</span>' in page(closed, name)
    assert "Nobody has signed these figures yet" in page(closed)


def test_a_closed_month_is_not_replaced(desk):
    """With the same inputs it stands as it is; with others a close is refused, says which, and changes nothing."""
    before = digests(desk.var / "ledger") | digests(desk.var / "reports")
    assert desk.close().state == "closed"
    desk.configure(tolerance={"usd": 2})
    for final in (False, True):
        with pytest.raises(
            NotReadyError, match=r"r1 is closed since 2026-11-04T06:00:00Z.*: the config changed\. It st"
        ):
            desk.close(final=final)
    assert digests(desk.var / "ledger") | digests(desk.var / "reports") == before
    assert status(desk).state == "closed"


def test_a_reopened_month_is_closed_anew(desk):
    """Reopening keeps the figures and takes the signatures away; the next final close closes it as r2."""
    approve(desk, "Ann", "preparer")
    with pytest.raises(ConfigError, match="expected why"):
        run.reopen(load_config(desk.config), period=OCTOBER, reason="  ", now=LATER)
    stands = run.reopen(load_config(desk.config), period=OCTOBER, reason="a log <came> late", now=LATER)
    assert (stands.state, stands.holding, stands.closed_at) == ("reopened", (), "")
    assert "r1, reopened" in page(desk)
    assert "a log &lt;came&gt; late" in page(desk)
    desk.configure(tolerance={"usd": 2})
    assert desk.close().state == "reopened"
    with pytest.raises(NotReadyError, match="reopen 2026-10: it is reopened, expected closed"):
        run.reopen(load_config(desk.config), period=OCTOBER, reason="again", now=LATER)
    outcome = desk.close(final=True)
    assert (outcome.state, outcome.revision) == ("closed", 2)
    found = status(desk)
    assert (found.state, found.why, found.signatures) == ("closed", "", ())
    assert [one.withdrawn for one in found.withdrawn] == ["reopened: a log <came> late"]
    assert sorted(path.name for path in (desk.var / "ledger").iterdir())[1:] == [
        "2026-10.r1.duckdb",
        "2026-10.r2.duckdb",
    ]


# Sign-off -------------------------------------------------------------------------------------------------------------


def test_two_people_sign(desk, capsys):
    """A preparer and a reviewer with another name; the pages and `status` show both, and nothing is signed twice."""
    assert [one.who for one in approve(desk, " Ann  Lee ", "preparer").holding] == ["Ann Lee"]
    before = digests(desk.var)
    assert approve(desk, "ann lee", "preparer").holding[0].at == "2026-11-05T09:00:00Z"
    assert digests(desk.var) == before
    for by, role in (("ANN LEE", "reviewer"), ("Ben", "preparer")):
        with pytest.raises(ConfigError, match="Ann Lee signed r1 as preparer"):
            approve(desk, by, role)
    arguments = ["-c", str(desk.config), "--month", "2026-10", "--now", LATER.isoformat()]
    assert cli.invoke(["approve", *arguments, "--by", "Ben", "--role", "reviewer", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [(one["role"], one["who"], one["withdrawn"]) for one in said["signatures"]] == [
        ("preparer", "Ann Lee", ""),
        ("reviewer", "Ben", ""),
    ]
    assert "Signed by Ann Lee and Ben" in page(desk)
    assert cli.invoke(["status", "-c", str(desk.config)]) == 0
    assert "2026-10 signed by Ben (reviewer) on 2026-11-05T09:00:00Z" in capsys.readouterr().out
    assert desk.close().published is False
    assert len(status(desk).signatures) == 2


def test_what_changes_the_figures_takes_the_signatures_away(tmp_path):
    """A provisional month is signed; a re-pull with other charges withdraws it and says why, on the page too."""
    desk = quiet_month(tmp_path)
    desk.close()
    approve(desk, "Ann", "preparer")
    desk.configure(tolerance={"usd": 2})
    assert desk.close().revision == 2
    assert len(status(desk).signatures) == 1, "the same figures are signed for, whatever the tolerance"
    hour = usage("2026-10-05T10:00:00Z", input=4000, output=100)
    desk.pull([hour], [cost("2026-10-05", "2", "uncached_input_tokens")], stamp="20261103T060012Z")
    assert desk.close().revision == 3
    found = status(desk)
    assert found.signatures == ()
    assert [one.withdrawn for one in found.withdrawn] == ["r3 has other figures: the provider's pages changed"]
    assert "r3 has other figures" in page(desk)


def test_a_signature_whose_page_was_cut_off_is_shown_by_the_next_close(desk, monkeypatch):
    """Once its line is in the register it counts; the pages follow, byte for byte what they would have been."""

    def crash(_aside):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run.reports.Aside, "swap_in", crash)
        with pytest.raises(KeyboardInterrupt):
            approve(desk, "Ann", "preparer")
    assert "Ann" not in page(desk)
    assert desk.close().published is False
    assert "Signed by Ann, not yet by a reviewer" in page(desk)
    run.verify(load_config(desk.config))


def test_nobody_signs_what_was_not_published(desk):
    """An edited page, a changed ledger, a month without a close and a running one cannot be signed."""
    (desk.var / "reports" / "2026-10" / "bridge.csv").write_text("nothing")
    with pytest.raises(InvariantError, match="the reports have digest"):
        approve(desk, "Ann", "preparer")
    assert desk.close().published is False  # makes the reports good
    approve(desk, "Ann", "preparer")
    with pytest.raises(SourceError, match="holds no revision of 2026-09"):
        run.approve(load_config(desk.config), period=OCTOBER.previous, by="Ann", role="preparer", now=LATER)


def test_a_running_month_is_not_signed(tmp_path):
    """Its figures go on."""
    desk = quiet_month(tmp_path)
    shutil.rmtree(desk.var / "raw")
    desk.pull([], [], stamp="20261020T060012Z", through_on="2026-10-19")
    desk.close(now=datetime(2026, 10, 20, 6, tzinfo=UTC))
    with pytest.raises(NotReadyError, match="complete through 2026-10-19, the month ends on 2026-10-31"):
        approve(desk, "Ann", "preparer")
    assert status(desk).state == "provisional"


# The gates ------------------------------------------------------------------------------------------------------------


def final_is_refused(desk, capsys, exit_code) -> str:
    """A final close by the command line that is not one; what it says. The month is provisional then."""
    arguments = ["close", "-c", str(desk.config), "--month", "2026-10", "--now", "2026-11-04T06:00:00Z"]
    assert cli.invoke([*arguments, "--offline", "--final"]) == exit_code
    assert status(desk).state == "provisional"
    said = capsys.readouterr()
    return said.out + said.err


def test_discrepancies_are_a_gate(tmp_path, capsys):
    """A final close with a discrepancy is exit 1 and provisional; accepted, or within tolerance, it is closed."""
    desk = quiet_month(tmp_path, tolerance={"usd": "0.001", "percent": 0.01})
    desk.log(*(line(f"2026-10-0{day}T10:30:00Z", f"req_{day}", usage=tokens(4000 - 300 * day, 100)) for day in (5, 6)))
    said = final_is_refused(desk, capsys, 1)
    assert "Not final: close --final 2026-10: discrepancies: 1 discrepancy is beyond tolerance" in said
    assert "`reconcile explain " in said
    (finding,) = status(desk).discrepancies
    accepted = {"reason": finding.reason, "up_to_usd": 1, "who": "Ann", "why": "known", "until": "2027-01-01"}
    desk.configure(tolerance={"usd": "0.001", "percent": 0.01}, accepted=[accepted | {"until": "2026-10-02"}])
    assert "Not final" in final_is_refused(desk, capsys, 1)
    desk.configure(tolerance={"usd": "0.001", "percent": 0.01}, accepted=[accepted])
    assert desk.close(final=True).state == "closed"


def test_a_log_that_does_not_cover_the_month_is_a_gate(tmp_path, capsys):
    """Exit 5 for a log without a line at all, and for one without a line on a day on which its keys were used.

    Not for a day that another log covers, nor where the dollars are within tolerance, nor where somebody signed.
    """
    logs = [{"name": name, "path": f"{name}*.jsonl"} for name in ("one", "two")]
    anything = {"reason": "unlogged", "up_to_usd": 1, "who": "Ann", "why": "-", "until": "2027-01-01"}
    narrow = {"tolerance": {"usd": "0.01", "percent": 100}, "accepted": [anything]}
    desk = quiet_month(tmp_path, request_logs=logs, **narrow)
    desk.log(line("2026-10-05T10:30:00Z", usage=tokens(4000, 100)), name="one.jsonl")
    desk.log(line("2026-09-05T10:30:00Z", usage=tokens(4000, 100)), name="two.jsonl")
    said = final_is_refused(desk, capsys, 5)
    assert "2026-10: log one: has no line on 2026-10-06, while the provider reports 0.0225 USD there." in said
    assert "2026-10: log two: has no line in the month." in said
    for sections in (
        {"tolerance": {"usd": 1, "percent": 100}},
        narrow | {"accepted": [anything, anything | {"reason": "log_gap", "log": "on*"}]},
    ):
        desk.configure(request_logs=logs[:1], **sections)
        assert desk.close(final=True).state == "closed"
        run.reopen(load_config(desk.config), period=OCTOBER, reason="found the other log", now=LATER)
    desk.log(line("2026-10-06T10:30:00Z", "req_2", usage=tokens(4000, 100)), name="two.jsonl")
    desk.configure(request_logs=logs, **narrow)
    assert desk.close(final=True).state == "closed"


def test_unallocated_is_a_gate(tmp_path, capsys):
    """What has no cost center keeps a month open where the tolerance says so, with both figures."""
    bounded = {"usd": 1, "unallocated_percent": 5}
    desk = quiet_month(tmp_path, allocation={"cost_centers": {"CC-1": {"name": "Search"}}}, tolerance=bounded)
    said = final_is_refused(desk, capsys, 5)
    assert "unallocated: 0.045 USD of 0.045 have no cost center, expected at most 5 %" in said
    desk.configure(allocation={"cost_centers": {"CC-1": {"name": "Search"}}}, tolerance={"usd": 1})
    assert desk.close(final=True).state == "closed"


def test_a_broken_check_is_a_gate(tmp_path, monkeypatch):
    """A published revision is looked at once more: a broken check is exit 4, and the month not closed."""
    desk = quiet_month(tmp_path)
    desk.close()

    def breaks(_connection):
        raise InvariantError("checks.x", "expected no rows, got 1", "Report it")

    monkeypatch.setattr(ledger, "check", breaks)
    with pytest.raises(InvariantError):
        desk.close(final=True)
    assert status(desk).state == "provisional"


@pytest.mark.parametrize(
    ("now", "says"),
    [
        ("2026-10-20T06:00:00Z", "month over: it is 2026-10-20T06:00:00Z, the month ends at 2026-11-01T00:00:00Z and"),
        ("2026-11-01T23:59:59Z", "settled: it is 2026-11-01T23:59:59Z, the month settles at 2026-11-02T00:00:00Z"),
    ],
)
def test_time_is_a_gate(tmp_path, now, says):
    """Before the month is over and before it has settled, the line says when the gate would hold."""
    desk = quiet_month(tmp_path)
    with pytest.raises(NotReadyError, match=says):
        desk.close(now=datetime.fromisoformat(now), final=True)
    assert not (desk.var / "ledger").exists()


def test_an_old_pull_is_a_gate(tmp_path):
    """A pull from before the month had settled does not close it."""
    desk = replace(quiet_month(tmp_path))
    desk.configure(billing={"settle_hours": 48})
    with pytest.raises(NotReadyError, match="pull: the last pull is of 2026-11-02T06:00:00Z, the month settles at"):
        desk.close(final=True)
