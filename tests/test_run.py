"""A close from end to end: over real HTTP on loopback, with files on a real disk, faults, signals and crashes."""

import contextlib
import gzip
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, date, datetime
from hashlib import sha256
from importlib.resources import files as package_files
from pathlib import Path

import duckdb
import pytest
from sites import OCTOBER, VARYING, Site, digests, views

from reconcile import ledger, run
from reconcile.config import load_config
from reconcile.errors import InvariantError, NotReadyError, SourceError
from reconcile.prices import PriceBook
from reconcile.pull.client import Patience
from reconcile.pull.span import Span
from reconcile.register import Register
from reconcile.run import reports
from reconcile.sandbox import Fault, Faults, Sandbox, Scenario
from reconcile.sandbox.sandbox import KEY_VARIABLE


@pytest.fixture(scope="module", autouse=True)
def key(simulated):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(KEY_VARIABLE, simulated.key)
        yield simulated.key


@pytest.fixture(scope="module")
def simulated() -> Sandbox:
    return Sandbox.build(Scenario(requests=1_500))


@pytest.fixture(scope="module")
def closed(tmp_path_factory, simulated) -> Site:
    """A site with r1, which no test changes."""
    site = Site(tmp_path_factory.mktemp("closed"), simulated)
    simulated.write(site.folder)
    outcome = site.close()
    assert (outcome.published, outcome.revision, outcome.exit_code) == (True, 1, 1)
    return site


@pytest.fixture
def site(tmp_path, closed) -> Site:
    """A site with r1, to be changed."""
    shutil.copytree(closed.folder, tmp_path / "site")
    return replace(closed, folder=tmp_path / "site")


@pytest.fixture
def fresh(tmp_path, simulated) -> Site:
    """A site that was never closed."""
    simulated.write(tmp_path / "fresh")
    return Site(tmp_path / "fresh", simulated)


@pytest.fixture
def impatient(monkeypatch):
    """A pull that gives up soon."""
    patience = Patience(attempts=3, first_wait=0.01, longest_wait=0.02, longest_asked=2, silence=0.3)
    monkeypatch.setattr("reconcile.pull.client.PATIENCE", patience)


# The same input, another input ----------------------------------------------------------------------------------------


def test_the_same_input_twice_changes_no_byte(site):
    """A second close publishes nothing: the same revision, the same bytes in every file."""
    before = site.published()
    outcome = site.close()
    assert (outcome.published, outcome.revision, outcome.exit_code) == (False, 1, 1)
    assert site.published() == before
    assert outcome.files[0].name == "index.html"
    assert set(outcome.files) == {path for path in (site.var / "reports" / "2026-10").rglob("*") if path.is_file()}


def test_the_same_input_elsewhere_gives_the_same(closed, fresh):
    """From scratch in another folder, against another port: the same rows in every view, the same bytes."""
    fresh.close()
    assert digests(fresh.var / "reports") == digests(closed.var / "reports")
    newest = "ledger/2026-10.duckdb"
    assert views(fresh.var / newest) == views(closed.var / newest)


def test_the_order_of_lines_files_and_pages_does_not_matter(closed, fresh, monkeypatch):
    """Lines shuffled, files renamed, pages fetched backwards: the same rows in every view."""
    order = random.Random(7)  # noqa: S311 - a shuffle
    for folder in {path.parent for path in (fresh.folder / "logs").rglob("*.jsonl.gz")}:
        paths = sorted(folder.glob("*.jsonl.gz"))
        contents = [gzip.decompress(path.read_bytes()).splitlines(keepends=True) for path in paths]
        order.shuffle(contents)  # every file gets another day's name
        for path, lines in zip(paths, contents, strict=True):
            order.shuffle(lines)
            path.write_bytes(gzip.compress(b"".join(lines)))
    hours = Span.hours
    monkeypatch.setattr(Span, "hours", lambda span, **by: iter([*hours(span, **by)][::-1]))
    fresh.close()
    newest = "ledger/2026-10.duckdb"
    assert views(fresh.var / newest, VARYING) == views(closed.var / newest, VARYING)


def one_more_line(site: Site) -> None:
    path = next((site.folder / "logs").rglob("*2026-10-09*"))
    path = path if path.is_file() else next(path.glob("*"))
    lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    lines.append(json.dumps(json.loads(lines[0]) | {"request_id": "req_one_more"}).encode() + b"\n")
    path.write_bytes(gzip.compress(b"".join(lines)))


@pytest.mark.parametrize("changed", ["config", "log", "price book"])
def test_a_changed_input_is_a_new_revision(site, changed, monkeypatch):
    """A changed config, log line or price gives r2; r1 stays as it was and can be read, the link shows r2."""
    first = site.var / "ledger" / "2026-10.r1.duckdb"
    before = sha256(first.read_bytes()).hexdigest()
    edits = ()
    if changed == "config":
        edits = (("usd: 1.00", "usd: 2.00"),)
    elif changed == "log":
        one_more_line(site)
    else:
        book = package_files("reconcile").joinpath("prices.yaml").read_bytes() + b"# looked at once more\n"
        monkeypatch.setattr(PriceBook, "read", lambda contract: PriceBook.parse(book, contract))
    outcome = site.close(edits=edits, offline=True)
    assert (outcome.published, outcome.revision) == (True, 2)
    assert sha256(first.read_bytes()).hexdigest() == before
    assert views(first)["summary"][0]["revision"] == 1
    assert views(site.var / "ledger" / "2026-10.duckdb")["summary"][0]["revision"] == 2
    assert site.revisions() == ["2026-10.duckdb", "2026-10.r1.duckdb", "2026-10.r2.duckdb"]
    assert site.close(edits=edits, offline=True).published is False


def test_the_month_before_is_an_input(site):
    """A month shows the one before; when that one gets another revision, this one does too."""
    november = Sandbox.build(Scenario(period=OCTOBER.next, requests=500))
    november.write(site.folder)
    later = replace(site, simulated=november)
    assert later.close(month=OCTOBER.next).revision == 1
    compared = views(site.var / "ledger" / "2026-11.duckdb")["month_over_month"]
    assert {row["period"] for row in compared} == {"2026-10", "2026-11"}
    assert later.close(month=OCTOBER.next, offline=True).published is False
    site.close(edits=[("name: Ads,", "name: Advertising,")], offline=True)
    assert later.close(month=OCTOBER.next, offline=True).revision == 2


def test_offline_needs_neither_network_nor_key(site, monkeypatch):
    """With --offline the last complete pull gives the same files again, also when ledger and reports are gone."""
    before = digests(site.var / "reports")
    monkeypatch.delenv(KEY_VARIABLE)
    config = load_config(site.configure("http://127.0.0.1:9"))
    assert run.close(config, period=OCTOBER, now=site.simulated.now, offline=True).published is False
    shutil.rmtree(site.var / "ledger")
    shutil.rmtree(site.var / "reports")
    assert run.close(config, period=OCTOBER, now=site.simulated.now, offline=True).published is True
    assert digests(site.var / "reports") == before


# Not ready ------------------------------------------------------------------------------------------------------------


def test_a_running_month_is_closed_over_its_complete_days(tmp_path):
    """In mid-month a close holds the days that are over; a later one is the next revision, with more of them."""
    for revision, day in enumerate((9, 12), start=1):
        simulated = Sandbox.build(Scenario(requests=500, now=datetime(2026, 10, day, 6, tzinfo=UTC)))
        simulated.write(tmp_path)
        outcome = Site(tmp_path, simulated).close()
        assert (outcome.revision, outcome.summary["through_on"]) == (revision, date(2026, 10, day - 1))
        assert outcome.summary["billed_usd"] > 0
        cells = views(outcome.ledger)["cell"]
        assert max(cell["day"] for cell in cells) == date(2026, 10, day - 1)
        (status,) = run.status(load_config(tmp_path / "config.yaml"))
        assert (status.state, status.revision) == ("provisional", revision)


@pytest.mark.parametrize(
    ("month", "now", "options"),
    [
        ("2027-01", "2026-11-04T06:00:00Z", ()),
        ("2026-11", "2026-11-01T00:30:00Z", ()),
        ("2026-11", "2026-11-02T00:59:59Z", ()),
        ("2026-10", "2026-11-01T23:59:59Z", ("--final",)),
        ("2026-10", "2026-10-20T06:00:00Z", ("--final",)),
    ],
)
def test_too_early_is_exit_5(fresh, capsys, month, now, options):
    """A future month, one without a complete day, a final close before the data has settled: one line, no trace."""
    assert fresh.invoke(month=month, now=datetime.fromisoformat(now), options=options) == 5
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert not fresh.var.exists()


def test_a_final_close_needs_a_settled_pull(tmp_path):
    """--final --offline with a pull from before the month had settled is refused, whatever the time is now."""
    simulated = Sandbox.build(Scenario(requests=300, now=datetime(2026, 11, 1, 6, tzinfo=UTC)))
    simulated.write(tmp_path)
    site = Site(tmp_path, simulated)
    site.close()
    with pytest.raises(NotReadyError, match="last pull is of 2026-11-01T06:00:00Z, the month settles at 2026-11-02"):
        site.close(now=datetime(2026, 11, 4, tzinfo=UTC), final=True, offline=True)


# Wrong sources --------------------------------------------------------------------------------------------------------


def fails(site: Site, capsys, exit_code: int, says: str, *faults: Fault, edits=(), options=()) -> None:
    """A close that fails says so in one last line, and publishes nothing."""
    before = site.published()
    assert site.invoke(*faults, edits=edits, options=options) == exit_code
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err.splitlines()[-1]
    assert err.splitlines()[-1].endswith(".")
    assert "Traceback" not in err
    assert site.published() == before


def test_a_log_without_a_file_is_exit_3(fresh, capsys):
    """A configured log of which no file is found stops the close."""
    shutil.rmtree(next((fresh.folder / "logs").iterdir()))
    fails(fresh, capsys, 3, "found no file for")


def test_another_organization_is_exit_3(site, capsys):
    """A key of another organization than the config's is refused."""
    there = site.simulated.config("").split("organization_id: ")[1].split("\n")[0]
    fails(site, capsys, 3, "expected 00000000", edits=[(there, "00000000-0000-0000-0000-000000000000")])


def test_a_key_that_is_not_set_is_exit_2(site, capsys, monkeypatch):
    """The variable that should hold the key is named."""
    monkeypatch.delenv(KEY_VARIABLE)
    fails(site, capsys, 2, KEY_VARIABLE)


def test_another_currency_is_exit_3(site, capsys):
    """Nothing is converted: a line in EUR stops the close, with both currencies."""
    fails(site, capsys, 3, "currency is EUR, expected USD", Fault("other_currency", path="cost_report", times=None))


def test_offline_without_a_pull_is_exit_3(fresh, capsys):
    """--offline needs a pull that was completed."""
    fails(fresh, capsys, 3, "holds no complete pull", options=["--offline"])


# Faults of the API ----------------------------------------------------------------------------------------------------

PASSING = ("rate_limit", "rate_limit_silent", "server_error", "overloaded", "hang", "cut_body", "invalid_json")


@pytest.mark.parametrize("kind", PASSING)
def test_a_fault_that_passes_leaves_no_trace(site, impatient, kind):
    """What heals gives the pages of an undisturbed pull: no new revision."""
    before = site.published()
    assert site.close(Fault(kind, path="usage_report", retry_after="0.01")).published is False
    assert site.published() == before


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Fault("rate_limit", times=None, retry_after="0.01"), "HTTP 429"),
        (Fault("rate_limit", times=None, retry_after="86400"), "asks to wait 86400 s"),
        (Fault("rate_limit_silent", times=None), "HTTP 429"),
        (Fault("spend_cap", path="cost_report", times=None), "spend limit"),
        (Fault("server_error", path="cost_report", times=None), "HTTP 500"),
        (Fault("overloaded", path="usage_report", times=None), "HTTP 529"),
        (Fault("hang", path="cost_report", times=None), "ReadTimeout"),
        (Fault("cut_body", path="cost_report", times=None), "still after"),
        (Fault("invalid_json", path="workspaces", times=None), "not JSON"),
        (Fault("missing_day", path="usage_report", day="2026-10-09", times=None), "buckets are missing"),
        (Fault("missing_day", path="cost_report", day="2026-10-31", times=None), "the first is 2026-10-31"),
    ],
    ids=lambda value: f"{value.kind} {value.path}" if isinstance(value, Fault) else "",
)
def test_a_fault_that_stays_is_exit_3(site, capsys, impatient, fault, says):
    """What does not heal ends with exit 3 and one clear line: r1 stands, and the next close is as if nothing was."""
    fails(site, capsys, 3, says, fault)
    assert site.close().published is False


def test_a_page_token_that_repeats_is_exit_3(site, capsys, monkeypatch):
    """An API that gives a week a page and names one page twice is not walked in circles."""
    days = Span.cost_days
    monkeypatch.setattr(Span, "cost_days", lambda span: replace(days(span), limit=7))
    fails(site, capsys, 3, "comes a second time", Fault("repeated_page", path="cost_report", times=None))


def test_a_day_that_disagrees_with_its_control_total_is_pulled_once_more(site):
    """A row that is missing from a day's hours is there at the second look: the pages are the known ones, r1 stays."""
    outcome = site.close(Fault("lost_row", path="usage_report", day="2026-10-05"))
    assert (outcome.published, outcome.revision) == (False, 1)
    assert [path.name for path in sorted((site.var / "raw" / "2026-10").iterdir())] == [
        "20261104T060000Z",
        "20261104T060001Z",
        "20261104T060002Z",
    ]


def test_a_day_that_stays_at_odds_with_its_control_total_is_exit_3(site, capsys):
    """Where the second look agrees no more, the line has the day and both figures; offline there is no second look."""
    lost = Fault("lost_row", path="usage_report", day="2026-10-05", times=None)
    fails(site, capsys, 3, "usage_report/messages 2026-10-05", lost)
    with site.simulated.serve() as server:
        config = load_config(site.configure(server.url))
        with pytest.raises(SourceError, match=r"is \d+ by hour and \d+ in the day's control total"):
            run.close(config, period=OCTOBER, now=site.simulated.now, offline=True)
        assert server.requests == []


# The key, and who may read --------------------------------------------------------------------------------------------


def test_the_key_is_written_nowhere(fresh, key):
    """After a close, and after one that failed, no file and no output holds the admin key."""
    for faults in ((Fault("spend_cap", path="cost_report", times=None),), ()):
        with fresh.simulated.serve(faults=Faults(faults)) as server:
            process = fresh.spawn(fresh.configure(server.url), "--json")
            out, err = process.communicate(timeout=120)
        assert process.returncode == (3 if faults else 1)
        assert json.loads(out)["exit"] == process.returncode
        assert key not in out + err
    written = [path for path in fresh.folder.rglob("*") if path.is_file()]
    assert len(written) > 100
    for path in written:
        assert key.encode() not in path.read_bytes()


def test_everything_is_for_the_owner_only(fresh):
    """Folders have mode 0700 and files 0600, whatever the umask."""
    before = os.umask(0)
    try:
        fresh.close()
    finally:
        assert os.umask(before) == 0
    paths = [fresh.var, *fresh.var.rglob("*")]
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths if path.is_dir()} == {0o700}
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths if path.is_file()} == {0o600}
    assert {path.name for path in fresh.var.iterdir()} == {".lock", "ledger", "raw", "register.jsonl", "reports"}


def test_a_data_dir_that_cannot_be_written_is_exit_2(fresh, capsys):
    """A file in the place of data_dir is told with its path."""
    (fresh.folder / "var").write_text("")
    assert fresh.invoke() == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"data_dir: {fresh.folder}/var: ")


# Others beside us -----------------------------------------------------------------------------------------------------


def test_a_second_close_at_once_is_refused(site, capsys):
    """While one run writes, another one says so and leaves everything as it is."""
    with run.Room(site.var).locked():
        fails(site, capsys, 3, "another run is writing there")
    assert site.close().published is False


def test_two_closes_at_once_leave_what_one_leaves(closed, fresh):
    """Two processes at the same moment: one closes, the other closes after it or is refused."""
    with fresh.simulated.serve() as server:
        config = fresh.configure(server.url)
        both = [fresh.spawn(config) for _ in range(2)]
        said = [process.communicate(timeout=120) for process in both]
    assert sorted(process.returncode for process in both) in ([1, 1], [1, 3]), said
    assert digests(fresh.var / "reports") == digests(closed.var / "reports")


@contextlib.contextmanager
def opened_elsewhere(path: Path, *, read_only: bool):
    """Another process holds the ledger open."""
    program = (
        f"import duckdb; held = duckdb.connect({str(path)!r}, read_only={read_only});"
        " print(held.execute('select revision from report.summary').fetchall()[0][0], flush=True); input()"
    )
    with subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdout.readline() == "1\n"
        yield
        reader.stdin.write("\n")


def test_a_reader_does_not_stop_a_close(site):
    """While somebody reads r1 by its link, r2 is published."""
    with opened_elsewhere(site.var / "ledger" / "2026-10.duckdb", read_only=True):
        assert site.close(edits=[("usd: 1.00", "usd: 2.00")], offline=True).revision == 2


def test_a_writer_is_told(site, capsys):
    """A revision that another program holds open for writing stops the close with a clear line."""
    with opened_elsewhere(site.var / "ledger" / "2026-10.r1.duckdb", read_only=False):
        assert site.invoke() == 3
    assert "another program has it open for writing" in capsys.readouterr().err.splitlines()[-1]


# Cut off --------------------------------------------------------------------------------------------------------------


def test_an_interrupted_close_publishes_nothing(closed, fresh):
    """Ctrl-C in any stage is exit 130 and nothing else; the next close gives what an undisturbed one gives."""
    with fresh.simulated.serve() as server:
        config = fresh.configure(server.url)
        for stage in ("pull", "load", "explain", "render"):
            process = fresh.spawn(config)
            for line in process.stderr:
                if line.startswith(stage):
                    process.send_signal(signal.SIGINT)
                    break
            _, err = process.communicate(timeout=120)
            assert (process.returncode, err.splitlines()[-1]) == (130, "Interrupted.")
            assert fresh.published() == {}
    fresh.close()
    assert digests(fresh.var / "reports") == digests(closed.var / "reports")


def test_a_killed_close_is_made_good_by_the_next(closed, fresh):
    """After kill -9 at random moments, again and again, the next close gives what an undisturbed one gives."""
    moments = random.Random(11)  # noqa: S311 - moments
    with fresh.simulated.serve() as server:
        config = fresh.configure(server.url)
        for _ in range(4):
            process = fresh.spawn(config)
            killer = threading.Timer(moments.uniform(0.5, 5), process.kill)
            killer.start()
            process.communicate(timeout=120)
            killer.cancel()
    fresh.close()
    assert digests(fresh.var / "reports") == digests(closed.var / "reports")
    assert fresh.revisions() == ["2026-10.duckdb", "2026-10.r1.duckdb"]


def test_a_crash_while_publishing_is_made_good(site, tmp_path, monkeypatch):
    """Once r2 has its name it is published: link, reports and register follow, at the next close if need be."""
    edits = [("usd: 1.00", "usd: 2.00")]
    copies = [replace(site, folder=tmp_path / name) for name in ("_link", "swap_in", "append")]
    for copy in copies:
        shutil.copytree(site.folder, copy.folder)
    site.close(edits=edits, offline=True)

    def crash(*_, **__):
        raise KeyboardInterrupt

    for copy, holder in zip(copies, (ledger, reports.Aside, Register), strict=True):
        with monkeypatch.context() as patch:
            patch.setattr(holder, copy.folder.name, crash)
            with pytest.raises(KeyboardInterrupt):
                copy.close(edits=edits, offline=True)
        outcome = copy.close(edits=edits, offline=True)
        assert (outcome.published, outcome.revision) == (False, 2)
        assert digests(copy.var / "reports") == digests(site.var / "reports")
        assert copy.revisions() == site.revisions()
        assert views(outcome.ledger)["summary"][0]["revision"] == 2
        closes = [entry for entry in run.Room(copy.var).register.entries() if entry["event"] == "close"]
        assert [entry["revision"] for entry in closes] == [1, 2]


def test_what_a_crash_left_is_cleaned(site):
    """Half-built files go; reports whose swap was cut off stand in their place again; what is not ours stays."""
    before = site.published()
    reports = site.var / "reports"
    for name in ("ledger/2026-10.building", "ledger/2026-10.building.wal", "ledger/2026-10.link", "tmp/spill"):
        (site.var / name).parent.mkdir(exist_ok=True)
        (site.var / name).write_bytes(b"half")
    (reports / "2026-10").rename(reports / "2026-10.former")
    (reports / "2026-10.next").mkdir()
    (reports / "2026-10.signed").mkdir()
    assert site.close().published is False
    assert site.published() == before
    assert sorted(path.name for path in reports.iterdir()) == ["2026-10", "2026-10.signed"]
    assert not (site.var / "tmp").exists()


def test_reports_that_were_changed_are_rendered_again(site):
    """A page that is gone or edited comes back out of the ledger, byte for byte."""
    before = site.published()
    (site.var / "reports" / "2026-10" / "bridge.csv").unlink()
    (site.var / "reports" / "2026-10" / "index.html").write_text("nothing to see")
    assert site.close().published is False
    assert site.published() == before


def test_a_stage_that_fails_publishes_nothing(site, monkeypatch):
    """A broken check, and a bug while rendering: r1 and its reports stay, nothing half-built lies about."""
    before = site.published()

    def breaks(*_):
        raise InvariantError("checks.x", "expected no rows, got 1", "Report it")

    def bug(*_):
        raise ZeroDivisionError

    for module, name, broken, error in (
        (ledger, "check", breaks, InvariantError),
        (run.render, "render", bug, ZeroDivisionError),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, broken)
            with pytest.raises(error):
                site.close(edits=[("usd: 1.00", "usd: 2.00")], offline=True)
        assert site.published() == before


def test_a_changed_register_is_exit_4(site, capsys):
    """A register with a changed line stops the close before anything is done."""
    register = site.var / "register.jsonl"
    register.write_text(register.read_text().replace('"revision": 1', '"revision": 7') + "{}\n")
    fails(site, capsys, 4, "Somebody changed the register")


def test_a_damaged_revision_is_exit_4(site, capsys):
    """A ledger that is no longer one stops the close with its path."""
    for name in ("2026-10.r1.duckdb", "2026-10.duckdb"):
        (site.var / "ledger" / name).write_bytes(b"not a ledger")
    fails(site, capsys, 4, "cannot be opened as a ledger")


def test_a_published_ledger_needs_nothing_beside_it(closed, tmp_path):
    """A revision is one file: copied alone, read-only, it answers."""
    copy = shutil.copy(closed.var / "ledger" / "2026-10.r1.duckdb", tmp_path / "alone.duckdb")
    Path(copy).chmod(0o400)
    with duckdb.connect(str(copy), read_only=True) as connection:
        assert connection.execute("select revision from report.summary").fetchall() == [(1,)]
    assert [path.name for path in tmp_path.glob("alone*")] == ["alone.duckdb"]
    assert (closed.var / "ledger" / "2026-10.duckdb").samefile(closed.var / "ledger" / "2026-10.r1.duckdb")
