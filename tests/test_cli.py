"""The commands: exit codes, one object for programs, text for people, and a key that shows nowhere."""

import csv
import gzip
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import pytest

import reconcile
from reconcile import cli, money
from reconcile.__main__ import main
from reconcile.cli import text
from reconcile.cli.output import progress, say
from reconcile.config import load_config
from reconcile.errors import ConfigError, InvariantError, NotReadyError, SourceError
from reconcile.period import Period
from reconcile.sandbox import Sandbox, Scenario

KEY = "sk-ant-admin01-SECRETSECRET"
HEAVY = ("duckdb", "httpx", "pandas", "altair", "pydantic", "jinja2", "rich.progress")


def bridge_row(reason: str, amount: str | None, running: str) -> dict[str, object]:
    return {
        "position": 0,
        "kind": "total" if amount is None else "step",
        "reason": reason,
        "title": reason.title(),
        "quantity": None,
        "amount_usd": None if amount is None else Decimal(amount),
        "running_usd": Decimal(running),
    }


BRIDGE = (
    bridge_row("logged", None, "100.004"),
    bridge_row("duplicate", "-1.004", "99.000"),
    bridge_row("recorded", None, "99.000"),
    bridge_row("unlogged", "0.334", "99.334"),
    bridge_row("no_key", "0.333", "99.667"),
    bridge_row("unreported", "0.333", "100.000"),
    bridge_row("reported", None, "100.000"),
    bridge_row("residual", "0", "100.000"),
    bridge_row("billed", None, "100.000"),
)


def outcome(**changes: object) -> SimpleNamespace:
    """What `run.close` gives back, of two cost centers."""
    values: dict[str, object] = {
        "exit_code": 1,
        "period": "2026-10",
        "state": "provisional",
        "unmet": (),
        "revision": 2,
        "published": True,
        "ledger": Path("var/ledger/2026-10.r2.duckdb"),
        "files": (
            Path("var/reports/index.html"),
            Path("var/reports/statements/CC-1.html"),
            Path("var/reports/cell.csv"),
        ),
        "summary": {
            "period": "2026-10",
            "organization": "Example Ltd",
            "revision": 2,
            "recorded_usd": Decimal("99.000000000000"),
            "reported_usd": Decimal("100.000000000000"),
            "billed_usd": Decimal("100.000000000000"),
            "difference_usd": Decimal("1.000000000000"),
            "residual_usd": Decimal("0.000000000000"),
            "discrepancy_count": 1,
            "capture_rate": 0.99,
            "beyond_tolerance": True,
            "through_on": Period.parse("2026-11").start_on,
            "data_refreshed_at": datetime(2026, 11, 4, 6),  # noqa: DTZ001 - as the ledger gives it
        },
        "bridge": BRIDGE,
        "chargeback": (
            {
                "cost_center": "CC-1",
                "name": "Search",
                "direct_usd": Decimal("60.00"),
                "shared_usd": Decimal("30.00"),
                "total_usd": Decimal("90.00"),
                "other_usd": Decimal("0.00"),
                "payable_usd": Decimal("90.00"),
            },
            {
                "cost_center": "unallocated",
                "name": None,
                "direct_usd": Decimal("10.00"),
                "shared_usd": Decimal("0.00"),
                "total_usd": Decimal("10.00"),
                "other_usd": Decimal("0.00"),
                "payable_usd": Decimal("10.00"),
            },
        ),
        "warnings": ("a pool has no direct cost",),
        "discrepancies": ({"id": "abc"},),
    }
    return SimpleNamespace(**(values | changes))


@dataclass(frozen=True)
class FakeDiscrepancy:
    """One of its open discrepancies."""

    id: str = "abc123"
    reason: str = "unlogged"
    amount_usd: Decimal = Decimal("1.25")
    age_months: int = 2


@dataclass(frozen=True)
class FakePeriod:
    """What `run.status` gives back for a period."""

    period: str = "2026-10"
    state: str = "closed"
    revision: int = 3
    closed_at: str = "2026-11-04T06:00:00Z"
    billed_usd: Decimal = Decimal("100.5")
    difference_usd: Decimal = Decimal("1.25")
    residual_usd: Decimal = Decimal(0)
    discrepancies: tuple[FakeDiscrepancy, ...] = (FakeDiscrepancy(),)
    signatures: tuple[object, ...] = ()
    withdrawn: tuple[object, ...] = ()
    why: str = ""
    rechecked_at: str = ""


def explanation(**changes: object) -> SimpleNamespace:
    """What `run.explanation` gives back: a discount of two requests."""
    values: dict[str, object] = {
        "period": "2026-10",
        "revision": 2,
        "finding": {
            "id": "0123456789ab",
            "state": "discrepancy",
            "reason": "service_tier",
            "title": "Recorded under another service tier",
            "confidence": "inferred",
            "day_from": date(2026, 10, 3),
            "day_to": date(2026, 10, 4),
            "log": "gateway",
            "workspace_id": None,
            "workspace_name": None,
            "model": None,
            "service_tier": "batch",
            "meter": None,
            "api_key_id": None,
            "api_key_name": None,
            "quantity": 0,
            "amount_usd": Decimal("-1234.500000000000"),
            "moved_usd": Decimal("2469.000000000000"),
            "misplaced_usd": Decimal("2469.000000000000"),
            "accepted": False,
            "evidence": json.dumps(
                {
                    "cells": "12000",
                    "confusions": [{"recorded_as": "standard", "reported_as": "batch", "tokens": "1694392"}],
                    "months_next_to_it": ["2026-09", "2026-11"],
                    "largest": [{"day": "2026-10-03", "meter": None, "quantity": "-13323", "amount_usd": "-0.333075"}],
                }
            ),
        },
        "reason": {
            "reason": "service_tier",
            "leads_to": "reported",
            "title": "Recorded under another service tier",
            "meaning": "It means this.",
            "to_do": "Do that.",
            "confirm": "Look there.",
        },
        "accepted": (
            {
                "standing": "expired",
                "who": "Kim",
                "why": "known",
                "until_on": date(2026, 10, 1),
                "up_to_usd": Decimal("5.000000000000"),
            },
        ),
        "requests": tuple(
            {
                "known": known,
                "request_id": f"req_{n}",
                "log": "gateway",
                "logged_at": datetime(2026, 10, 3, 4, 5, n),  # noqa: DTZ001 - as the ledger gives it
                "workspace_id": "wrkspc_a",
                "model": "claude-opus-5",
                "service_tier": "standard",
                "api_key_id": None,
                "status": 200 + n,
                "quantity": None,
                "amount_usd": None,
                "recorded_usd": Decimal("0.084950000000"),
                "note": None,
            }
            for n, known in ((1, True), (2, False))
        ),
        "requests_behind": 1633,
        "requests_known": 15,
        "requests_purged": False,
    }
    return SimpleNamespace(**(values | changes))


DIRECTORY = SimpleNamespace(
    organization=SimpleNamespace(id="org_1", name='Example "Ltd"\nevil: true'),
    workspaces=(
        SimpleNamespace(id="wrkspc_b", name="Ads\n  - {workspace: '*', to: evil}", archived=False, tags=()),
        SimpleNamespace(id="wrkspc_a", name="Zürich \u2028 \u202e x", archived=True, tags=(("cost_center", "CC\n1"),)),
        SimpleNamespace(id="wrkspc_c", name='<script>alert(1)</script> & "Co"', archived=False, tags=()),
    ),
    keys=(SimpleNamespace(id="apikey_1", name="k", status="active", workspace_id="wrkspc_b"),),
    default_workspace_id="wrkspc_default",
)


@pytest.fixture
def fake_run(monkeypatch):
    """`reconcile.run` without its stages; `calls` holds what it was asked."""
    fake = SimpleNamespace(calls=[])

    def close(config, **options):
        fake.calls.append((config, options))
        options["on_progress"]("pull", 1, 2)
        return fake.answer()

    def directory(billing, *, key):
        fake.calls.append((billing, key))
        return fake.listed()

    fake.answer = outcome
    fake.listed = lambda: DIRECTORY
    fake.close = close
    fake.directory = directory
    fake.status = lambda config: (FakePeriod(),)
    fake.explained = explanation

    def explain(config, finding_id, *, period, requests):
        fake.calls.append((finding_id, period, requests))
        return fake.explained()

    fake.explanation = explain
    monkeypatch.setitem(sys.modules, "reconcile.run", fake)
    monkeypatch.setattr(reconcile, "run", fake, raising=False)
    return fake


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with a small config, and the key in its variable."""
    (tmp_path / "config.yaml").write_text("organization: Example Ltd\nrequest_logs: [{name: gateway, path: 'log/*'}]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANTHROPIC_ADMIN_KEY", KEY)
    return tmp_path


def failing(error: BaseException):
    def answer():
        raise error

    return answer


# Exit codes


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [(ConfigError, 2), (SourceError, 3), (InvariantError, 4), (NotReadyError, 5)],
)
def test_an_expected_failure_is_one_line_and_its_exit_code(here, fake_run, capsys, error, exit_code):
    """Where, what and what to do stand on one line of stderr, and stdout stays empty."""
    fake_run.answer = failing(error("GET /v1\n/x", "got 1, expected 2", "Try again"))
    assert cli.invoke(["close"]) == exit_code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == ["pull …", "GET /v1 /x: got 1, expected 2. Try again."]
    assert cli.invoke(["close", "--json"]) == exit_code
    assert json.loads(capsys.readouterr().out) == {
        "exit": exit_code,
        "error": {"where": "GET /v1\n/x", "what": "got 1, expected 2", "do": "Try again"},
    }


def test_every_mistake_of_the_config_is_a_line(here, fake_run, capsys):
    """A config with two mistakes is refused with two lines, and as one object."""
    (here / "config.yaml").write_text("organizatoin: X\n")
    assert cli.invoke(["close", "--json"]) == 2
    out, err = capsys.readouterr()
    assert err.splitlines() == [
        "config.yaml:1: organization: is missing. Add it.",
        "config.yaml:1: organizatoin: is no known key. Did you mean `organization`?",
    ]
    assert json.loads(out)["error"]["where"] == "config.yaml:1: organization"
    assert fake_run.calls == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["close", "--moth", "2026-10"],
        ["close", "--month", "2026-13"],
        ["close", "--now", "yesterday"],
        ["close", "--now", "2026-11-04T06:00:00"],
        ["nonsense"],
        ["close", "-c", "nowhere.yaml"],
        ["demo", "--requests", "0"],
    ],
)
def test_wrong_arguments_are_exit_2(here, fake_run, capsys, arguments):
    """What click refuses and what we refuse look alike: one line, exit 2, an object where one was asked for."""
    assert cli.invoke([*arguments, "--json"] if arguments[0] == "close" else arguments) == 2
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == 1
    assert err.count(": ") >= 1
    if arguments[0] == "close":
        assert set(json.loads(out)["error"]) == {"where", "what", "do"}
    assert fake_run.calls == []


def test_no_command_shows_the_help_as_exit_2(capsys):
    """`reconcile` alone lists the commands."""
    assert cli.invoke([]) == 2
    assert "Commands:" in capsys.readouterr().err


def test_an_interruption_is_130(here, fake_run, capsys):
    """Ctrl-C ends with 130 and writes no object."""
    fake_run.answer = failing(KeyboardInterrupt())
    assert cli.invoke(["close", "--json"]) == 130
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("Interrupted.\n")


def test_an_interruption_is_130_for_python_m_too(tmp_path):
    """Also where Ctrl-C came while a module defined its classes: Python dies of a signal that passed through exec."""
    (tmp_path / "interrupted.py").write_text(
        "import runpy\n"
        "from reconcile import cli\n"
        "def invoke(arguments):\n"
        "    try:\n"
        "        exec('raise KeyboardInterrupt')\n"
        "    except KeyboardInterrupt:\n"
        "        return 130\n"
        "cli.invoke = invoke\n"
        "runpy.run_module('reconcile', run_name='__main__')\n"
    )
    command = [sys.executable, "-m", "interrupted"]
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 130  # noqa: S603 - our own command


def test_anything_else_is_a_bug(here, fake_run, capsys, monkeypatch):
    """A traceback on stderr, exit 70, never 1; a key inside the message is left out."""
    monkeypatch.setattr(sys, "argv", ["reconcile", "close", "--json"])
    for error in (RuntimeError(f"header {KEY} refused"), BrokenPipeError(32, "a socket's"), ZeroDivisionError()):
        fake_run.answer = failing(error)
        assert main() == 70
        out, err = capsys.readouterr()
        assert "Traceback (most recent call last)" in err
        assert type(error).__name__ in err
        assert ("RuntimeError" if error.args else "ZeroDivisionError") in json.loads(out)["error"]["what"]
        assert json.loads(out)["exit"] == 70
        assert "SECRET" not in out + err


# close


def test_json_is_one_object_and_all_else_is_on_stderr(here, fake_run, capsys):
    """One line of JSON with the promised keys, amounts as strings; people's text and progress on stderr."""
    assert cli.invoke(["close", "--json"]) == 1
    out, err = capsys.readouterr()
    assert out.count("\n") == 1
    answer = json.loads(out, parse_float=str)
    assert list(answer) == ["exit", "period", "revision", "summary", "bridge", "chargeback", "files"]
    assert (answer["exit"], answer["period"], answer["revision"]) == (1, "2026-10", 2)
    assert answer["summary"]["billed_usd"] == "100.000000000000"
    assert answer["summary"]["data_refreshed_at"] == "2026-11-04T06:00:00Z"
    assert answer["bridge"][1]["amount_usd"] == "-1.004"
    assert answer["bridge"][0]["amount_usd"] is None
    assert answer["chargeback"][0]["total_usd"] == "90.00"
    assert answer["files"][0] == "var/reports/index.html"
    assert err.startswith("pull …\n")
    assert "Example Ltd, 2026-10 (r2)" in err


def test_text_is_on_stdout(here, fake_run, capsys):
    """Without --json the summary is what the command prints; progress stays on stderr."""
    assert cli.invoke(["close"]) == 1
    out, err = capsys.readouterr()
    assert out.startswith(
        "Example Ltd, 2026-10 (r2): billed exceeds recorded by $1.00; 1 discrepancy beyond tolerance.\n"
    )
    assert re.search(r"^billed +70\.00 +30\.00 +100\.00$", out, re.MULTILINE)
    assert "Warning: a pool has no direct cost" in out
    assert "Report  var/reports/index.html" in out
    assert "statements" not in out
    assert err == "pull …\n"


def test_the_printed_bridge_adds_up(here, fake_run, capsys):
    """Every printed step is what lies between the printed totals, though each was rounded."""
    cli.invoke(["close"])
    section = re.search(r"Bridge .*?\n─+\n(.*?)\n\n", capsys.readouterr().out, re.DOTALL)
    assert section
    running = None
    for line in section[1].splitlines():
        figure = Decimal(line.split()[-1].replace(",", ""))
        if line.startswith("  "):
            running += figure
        else:
            assert running in {None, figure}
            running = figure
    assert running == Decimal("100.00")


def test_the_printed_bridge_is_that_of_the_pages(here, fake_run, capsys):
    """The cents of a step are those of the page on the difference; nothing is neither +0.00 nor -0.00."""
    cli.invoke(["close"])
    out = capsys.readouterr().out
    printed = [re.search(rf"^  {row['reason']} +(\S+)$", out, re.MULTILINE)[1] for row in BRIDGE if row["amount_usd"]]
    walked = money.walk([(row["amount_usd"], row["running_usd"]) for row in BRIDGE])
    assert list(map(Decimal, printed)) == [amount_usd for amount_usd, _ in walked if amount_usd]
    assert re.search(r"^  residual +0\.00$", out, re.MULTILINE)


@pytest.mark.parametrize(
    ("recorded", "billed", "counted", "sentence"),
    [
        ("100", "100", 0, "billed equals recorded; no discrepancy beyond tolerance."),
        ("1334.5", "100", 2, "billed falls short of recorded by $1,234.50; 2 discrepancies beyond tolerance."),
        ("100.004", "101.005", 1, "billed exceeds recorded by $1.01; 1 discrepancy beyond tolerance."),
    ],
)
def test_the_first_line_says_what_is_true(recorded, billed, counted, sentence):
    """The heading states direction, size (of the figures as they are printed) and how many discrepancies there are."""
    figures = outcome().summary | {"recorded_usd": Decimal(recorded), "billed_usd": Decimal(billed)}
    closed = outcome(summary=figures, discrepancies=({},) * counted, published=False)
    assert next(text.summary(closed)) == f"Example Ltd, 2026-10 (r2, unchanged): {sentence}"


def test_options_reach_the_run(here, fake_run):
    """Month, final, offline and the clock are handed over; without them, the defaults."""
    cli.invoke(["close", "--month", "2026-09", "--final", "--offline", "--now", "2026-10-04T08:00:00+02:00"])
    config, options = fake_run.calls[-1]
    options.pop("on_progress")
    assert config.data_dir == here / "var"
    assert options == {
        "period": Period.parse("2026-09"),
        "now": datetime(2026, 10, 4, 6, tzinfo=UTC),
        "final": True,
        "offline": True,
    }
    before = datetime.now(UTC)
    cli.invoke(["close", "-c", str(here / "config.yaml")])
    _, options = fake_run.calls[-1]
    last = Period.last_complete(options["now"])
    assert (options["period"], options["final"], options["offline"]) == (last, False, False)
    assert before <= options["now"] <= datetime.now(UTC)


# status, check, init


def test_status_lists_periods_and_what_is_open(here, fake_run, capsys):
    """A line a period and a line a discrepancy with its age; as JSON, amounts are strings."""
    assert cli.invoke(["status"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^2026-10 +closed +r3 +2026-11-04T06:00:00Z +100\.50 +1\.25 +0\.00 +1$", out, re.MULTILINE)
    assert re.search(r"^abc123 +2026-10 +unlogged +1\.25 +2$", out, re.MULTILINE)
    assert cli.invoke(["status", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["periods"][0]["billed_usd"] == "100.5"
    assert answer["periods"][0]["discrepancies"] == [
        {"id": "abc123", "reason": "unlogged", "amount_usd": "1.25", "age_months": 2}
    ]
    fake_run.status = lambda config: ()
    cli.invoke(["status"])
    assert "No period was closed yet" in capsys.readouterr().out


def test_explain_prints_one_finding(here, fake_run, capsys):
    """What, how much, how we know, what to do, who signed for it and the largest cells, each under its heading."""
    assert cli.invoke(["explain", "0123456789ab"]) == 0
    assert fake_run.calls == [("0123456789ab", None, 0)]
    assert (
        capsys.readouterr().out
        == """\
Recorded under another service tier: log gateway, tier batch
0123456789ab, 2026-10 r2, 2026-10-03 to 2026-10-04: a discrepancy

What
  It means this.

How much
  amount             -1,234.50 USD
  in a wrong place   2,469.00 USD
  quantity           0 tokens

How we know
  confidence          inferred: a pattern in the data fits this cause
  cells               12,000
  months next to it   2026-09, 2026-11

Confusions
  recorded as   reported as      tokens
  ─────────────────────────────────────
  standard      batch         1,694,392

What to do
  Do that.

How to confirm
  Look there.

Accepted
  Counts again: the acceptance by Kim (known) expired on 2026-10-01

Its largest cells
  day          quantity   amount, USD
  ───────────────────────────────────
  2026-10-03    -13,323     -0.333075

More: docs/reasons.md#service_tier
"""
    )


def test_explain_says_what_nets(here, fake_run, capsys):
    """Prices that are too high here and too low there put nothing in a wrong place."""
    fake_run.explained = lambda: explanation(reason=explanation().reason | {"leads_to": "recorded"})
    cli.invoke(["explain", "0123456789ab"])
    out = capsys.readouterr().out
    assert "  too much and too little together   2,469.00 USD\n" in out
    assert "wrong place" not in out


def test_explain_trims_amounts_of_amounts(here, fake_run, capsys):
    """An amount of an amount has no more digits than say something, as every other amount."""
    evidence = {"meters_at_this_fraction": "4 of 5", "usd_at_this_fraction": "189.192296850000 of 1189.192000000000"}
    fake_run.explained = lambda: explanation(finding=explanation().finding | {"evidence": json.dumps(evidence)})
    cli.invoke(["explain", "0123456789ab"])
    out = capsys.readouterr().out
    assert "  meters at this fraction   4 of 5\n  USD at this fraction      189.19229685 of 1,189.192\n" in out


def test_explain_names_the_requests(here, fake_run, capsys):
    """Asked for, the requests stand in a table; what all share stands above it, and what is not known is said."""
    cli.invoke(["explain", "0123456789ab", "--requests", "2", "--month", "2026-10"])
    assert fake_run.calls == [("0123456789ab", Period.parse("2026-10"), 2)]
    out = capsys.readouterr().out
    listed = out[out.index("2 of 1,633") : out.index("\nMore:")]
    assert listed.splitlines() == [
        "2 of 1,633 requests in its hours and places: first the 15 known to be behind it; of the others the",
        "data does not tell which (log gateway, workspace id wrkspc_a, model claude-opus-5, service tier",
        "standard)",
        "  request id   logged at              known   status   recorded, USD",
        "  ──────────────────────────────────────────────────────────────────",
        "  req_1        2026-10-03T04:05:01Z   yes     201            0.08495",
        "  req_2        2026-10-03T04:05:02Z   no      202            0.08495",
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"requests_known": 1633}, "2 of 1,633 requests behind it, largest first (log"),
        ({"requests_known": 0}, "largest first; the data does not tell which"),
        (
            {"requests": (), "requests_behind": 0, "requests_known": 0},
            "The logs hold no request that stands behind it.",
        ),
        ({"requests": (), "requests_behind": 0, "requests_known": 0, "requests_purged": True}, "were purged"),
    ],
)
def test_explain_says_how_sure_its_requests_are(here, fake_run, capsys, changes, said):
    """The heading counts all requests, not the ones that are shown."""
    fake_run.explained = lambda: explanation(**changes)
    assert cli.invoke(["explain", "0123456789ab", "--requests", "2"]) == 0
    out = capsys.readouterr().out
    assert said in out
    assert ("  known  " in out) == (changes["requests_known"] not in {0, 1633})


def test_explain_as_json_is_one_object(here, fake_run, capsys):
    """Rows as the views have them, the evidence as an object, amounts as strings."""
    assert cli.invoke(["explain", "0123456789ab", "--requests", "2", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    keys = ["exit", "period", "revision", "finding", "reason", "accepted", "requests", "requests_behind"]
    keys += ["requests_known", "requests_purged"]
    assert list(answer) == keys
    assert answer["finding"]["amount_usd"] == "-1234.500000000000"
    assert answer["finding"]["evidence"]["confusions"][0]["tokens"] == "1694392"
    assert answer["requests"][0]["logged_at"] == "2026-10-03T04:05:01Z"


@pytest.mark.parametrize(
    "arguments",
    [[], ["nope", "nope"], ["nope", "--requests", "-1"], ["nope", "--requests", "9" * 20], ["nope", "--month", "x"]],
)
def test_explain_needs_one_id(here, fake_run, capsys, arguments):
    """No id, two of them, or a wrong option is exit 2."""
    assert cli.invoke(["explain", *arguments]) == 2
    assert fake_run.calls == []


def test_explain_does_not_know_the_id(here, capsys):
    """An id that no closed month holds is exit 2 with one line, also as an object."""
    assert cli.invoke(["explain", "0123456789ab", "--json"]) == 2
    out, err = capsys.readouterr()
    assert err == (
        "finding 0123456789ab: no month holds one of that id."
        " `reconcile status` lists the open ones, discrepancy.csv all.\n"
    )
    assert json.loads(out)["error"]["where"] == "finding 0123456789ab"
    assert cli.invoke(["explain", "0123456789ab", "--month", "2026-10"]) == 2
    assert capsys.readouterr().err.startswith("finding 0123456789ab: 2026-10 holds none of that id.")


def test_check_says_what_is_fine(here, fake_run, capsys):
    """Config, key, API, log and disk get a line each; nothing is written."""
    (here / "log").mkdir()
    (here / "log" / "a.jsonl").write_text("{}\n")
    before = sorted(here.rglob("*"))
    assert cli.invoke(["check", "--now", "2026-11-04T06:00:00Z"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[:2] for line in out.splitlines()] == [
        ["ok", "config"],
        ["ok", "key"],
        ["ok", "api"],
        ["ok", "log"],
        ["ok", "disk"],
    ]
    assert "gateway has 1 file for 2026-10" in out
    assert KEY not in out
    assert sorted(here.rglob("*")) == before


def test_check_ends_with_the_worst(here, fake_run, capsys, monkeypatch):
    """Everything is looked at even when something is wrong, and the exit code is the worst of them."""
    assert cli.invoke(["check"]) == 3
    assert "wrong  log     request_logs: gateway: found no file for " in capsys.readouterr().out
    monkeypatch.delenv("ANTHROPIC_ADMIN_KEY")
    (here / "log").mkdir()
    (here / "log" / "a.jsonl").write_text("{}\n")
    assert cli.invoke(["check"]) == 2
    out = capsys.readouterr().out
    assert "wrong  key     billing.key: the environment variable ANTHROPIC_ADMIN_KEY is not set or empty" in out
    assert "ok     disk" in out
    (here / "config.yaml").write_text("organization: 1\ndata_dir: 2\n")
    assert cli.invoke(["check"]) == 2
    assert capsys.readouterr().out.splitlines() == [
        "wrong  config  config.yaml:1: organization: got 1, expected text. Write it in quotes",
        "wrong  config  config.yaml:2: data_dir: got 2, expected text. Write it in quotes",
    ]


def test_check_finds_another_organization_and_workspaces_without_a_rule(here, fake_run, capsys):
    """The key's organization is compared with the config's, and who has no rule is named."""
    config = here / "config.yaml"
    rules = "allocation: {cost_centers: {A: {name: A}}, rules: [{workspace: wrkspc_b, to: A}, {tag: cost_center}]}\n"
    config.write_text("organization: X\n" + rules)
    assert cli.invoke(["check"]) == 0
    assert (
        capsys.readouterr()
        .out.splitlines()[2]
        .endswith(r'without a rule or pool of their own: "<script>alert(1)</script> & \"Co\""')
    )
    config.write_text("organization: X\norganization_id: org_2\n")
    assert cli.invoke(["check"]) == 3
    assert "the key is of organization org_1, expected org_2" in capsys.readouterr().out


def test_init_writes_every_workspace_as_a_rule_to_be_used(here, fake_run, capsys):
    """The new config loads, names everything, keeps hostile names on their line, and holds no key."""
    target = here / "new.yaml"
    assert cli.invoke(["init", "-c", "new.yaml", "--key-env", "ANTHROPIC_ADMIN_KEY"]) == 0
    written = target.read_text(encoding="utf-8")
    config = load_config(target)
    assert config.organization == 'Example "Ltd"\nevil: true'
    assert config.organization_id == "org_1"
    assert config.allocation.rules == []
    assert KEY not in written + "".join(capsys.readouterr())
    assert fake_run.calls[-1][1] == KEY
    used = written.replace("cost_centers: {}", "cost_centers:").replace("rules: []", "rules:")
    target.write_text(re.sub(r"^( *)#(?=\S)", r"\1", used, flags=re.MULTILINE).replace("shared: []", "shared:"))
    rules = load_config(target).allocation.rules
    assert [rule.workspace for rule in rules] == ["wrkspc_c", "wrkspc_b", "wrkspc_a", None]
    assert rules[-1].tag == "cost_center"
    assert load_config(target).allocation.shared[0].workspace == "default"


def test_init_overwrites_nothing(here, fake_run, capsys):
    """A config that is there stays, and nobody is asked."""
    before = (here / "config.yaml").read_bytes()
    assert cli.invoke(["init", "--key-env", "ANTHROPIC_ADMIN_KEY"]) == 2
    assert (here / "config.yaml").read_bytes() == before
    assert "config.yaml: is there already" in capsys.readouterr().err
    assert fake_run.calls == []


def test_init_never_takes_the_key_itself(here, fake_run, capsys):
    """A key that was typed where its variable's name belongs is refused and not repeated."""
    assert cli.invoke(["init", "-c", "new.yaml", "--key-env", KEY]) == 2
    assert "SECRET" not in "".join(capsys.readouterr())
    assert not (here / "new.yaml").exists()


@pytest.mark.parametrize(
    ("name", "lines", "expected"),
    [
        (
            "logs/2026-10-03/gate.jsonl.gz",
            ['{"request_id": "r", "timestamp": "t", "model": "m", "usage": {}, "labels": {"team": "x", "app": "y"}}'],
            ("requests", "logs/{day}/gate.jsonl.gz", ["app", "team"]),
        ),
        ("raw-2026-10.jsonl", ['{"timestamp": "t", "message": {"usage": {}}}'], ("messages", "raw-{month}.jsonl", [])),
        ("sse.log", ["event: message_start", 'data: {"type": "message_start"}'], ("messages", "sse.log", [])),
        ("table.csv", ["request_id,timestamp"], ("requests", "table.csv", [])),
    ],
)
def test_init_looks_at_a_log(here, fake_run, name, lines, expected):
    """The reader is told by the first lines, labels by their names, and a date in the path becomes a placeholder."""
    path = here / name
    path.parent.mkdir(parents=True, exist_ok=True)
    content = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert cli.invoke(["init", "-c", "new.yaml", "--key-env", "ANTHROPIC_ADMIN_KEY", "--log", name]) == 0
    (log,) = load_config(here / "new.yaml").request_logs
    assert (log.format, log.path.removeprefix(f"{here}/"), log.labels) == expected
    assert log.files(Period.parse("2026-10")) == (path,)


@pytest.mark.parametrize("content", [b"hello\n", b'{"a": 1}\n', b""])
def test_init_refuses_what_is_no_log(here, fake_run, capsys, content):
    """A file that no reader knows stops before anything is written."""
    (here / "x.txt").write_bytes(content)
    assert cli.invoke(["init", "-c", "new.yaml", "--key-env", "ANTHROPIC_ADMIN_KEY", "--log", "x.txt"]) == 2
    assert "looks like neither" in capsys.readouterr().err
    assert not (here / "new.yaml").exists()


# demo and sandbox


def test_what_was_planted_stands_beside_what_was_found():
    """A reason is as planted, off by so much, or not planted; what nets to nothing is told by what it moved."""
    sandbox = SimpleNamespace(
        truth=[
            SimpleNamespace(reason="duplicate", amount_usd="-1.002"),
            SimpleNamespace(reason="duplicate", amount_usd="-0.002"),
            SimpleNamespace(reason="unlogged", amount_usd="0.10"),
            SimpleNamespace(reason="time_zone", amount_usd="0.50"),
            SimpleNamespace(reason="workspace", amount_usd="0"),
        ],
        moved_usd={"duplicate": "1.004", "workspace": "7.5"},
    )
    lines = list(text.planted_beside_found(sandbox, outcome(), {"workspace": Decimal("7.25"), "duplicate": Decimal(2)}))
    assert [" ".join(line.split()) for line in lines[2:7]] == [
        "duplicate -1.00 -1.00 as planted",
        "unlogged 0.10 0.33 off by 0.23",
        "time_zone 0.50 - off by -0.50",
        "workspace, moved 7.50 7.25 off by -0.25",
        "no_key - 0.33 not planted",
    ]


def test_a_sandbox_never_overwrites_a_real_config(here, capsys):
    """Both commands refuse a folder with a config.yaml that no sandbox wrote."""
    before = (here / "config.yaml").read_bytes()
    for command in ("demo", "sandbox"):
        assert cli.invoke([command, "--dir", "."]) == 2
        assert "holds a config.yaml that no sandbox wrote" in capsys.readouterr().err
    assert (here / "config.yaml").read_bytes() == before


# The process


def python(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own command
        [sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=60, **options
    )


def test_help_imports_nothing_heavy():
    """`--help` answers at once: what is heavy is imported by the command that needs it."""
    script = (
        "import sys; from reconcile import cli; cli.invoke(['--help']); cli.invoke(['close', '--help']);"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    ran = python("-c", script)
    assert ran.stderr == "[]\n"
    assert ran.stdout.count("Usage: reconcile") == 2


def test_the_module_runs_as_a_command():
    """`python -m reconcile` is the command, with its exit code."""
    assert python("-m", "reconcile", "--version").stdout == f"reconcile, version {reconcile.__version__}\n"
    ran = python("-m", "reconcile", "close", "-c", "nowhere.yaml")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("nowhere.yaml: is not there. ")


@pytest.mark.parametrize(
    "script", ["import reconcile.cli as c; sys.exit(c.invoke(['--help']))", "say('x' * 10**6); say('y')"]
)
def test_a_reader_that_left_is_no_discrepancy(script):
    """When nobody reads stdout any more, the exit code stays what it was, and never becomes 1."""
    read, write = os.pipe()
    os.close(read)
    try:
        ran = subprocess.run(  # noqa: S603 - our own command
            [sys.executable, "-c", f"import sys; from reconcile.cli.output import say; {script}"],
            stdout=write,
            stderr=subprocess.PIPE,
            check=False,
            timeout=60,
        )
    finally:
        os.close(write)
    assert (ran.returncode, ran.stderr) == (0, b"")


def test_a_name_cannot_drive_the_terminal(capsys):
    """Escape sequences of a name are not printed."""
    say("\x1b[2Jname\r\u202e", "next")
    assert capsys.readouterr().out == "\ufffd[2Jname\ufffd\ufffd\nnext\n"


def test_progress_without_a_terminal_is_a_line_a_stage_and_a_notice(capsys):
    """Steps are not repeated line by line; what is told without a step being done is."""
    with progress() as tell:
        for step in range(3):
            tell(f"pull: usage {step}", step, 3)
        tell("pull: speed is not reported", 2, 3)
        tell("load: pages", 0, 6)
        tell("load: reading gateway", 0, 2)
    assert capsys.readouterr().err.splitlines() == ["pull …", "pull: speed is not reported", "load …"]


def test_a_sandbox_serves_until_it_is_interrupted(tmp_path):
    """`sandbox` says where it answers and where its key is; `check` passes against it, and Ctrl-C ends it with 130."""
    directory = tmp_path / "sandbox"
    arguments = ["sandbox", "--dir", str(directory), "--requests", "500", "--port", "0"]
    served = subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "-m", "reconcile", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert re.match(r"The sandbox answers at http://127\.0\.0\.1:\d+\. ", served.stdout.readline())
        key = (directory / "admin-key").read_text().strip()
        assert (directory / "admin-key").stat().st_mode & 0o777 == 0o600
        environment = {**os.environ, "RECONCILE_SANDBOX_KEY": key}
        checked = python(
            *["-m", "reconcile", "check", "-c", str(directory / "config.yaml"), "--now", "2026-11-04T06:00:00Z"],
            env=environment,
        )
        assert (checked.returncode, checked.stderr) == (0, "")
        assert 'answers for "Example Trading Ltd"' in checked.stdout
        refused = python("-m", "reconcile", "check", "-c", str(directory / "config.yaml"))
        assert refused.returncode in {2, 3}
        assert "wrong  key" in refused.stdout
    finally:
        served.send_signal(signal.SIGINT)
        out, err = served.communicate(timeout=30)
    assert served.returncode == 130
    assert key not in out + err + checked.stdout


def assert_findings_are_explained(directory: Path) -> None:
    """A row of discrepancy.csv is found by its id, as text and as an object that holds the same amount."""
    config = str(directory / "config.yaml")
    with (directory / "var" / "reports" / "2026-10" / "discrepancy.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    named = [row for row in rows if row["reason"] == "duplicate"][:1]
    assert named
    for row in [*named, rows[0]]:
        told = python("-m", "reconcile", "explain", row["id"], "-c", config, "--requests", "3", "--json")
        assert (told.returncode, told.stderr) == (0, "")
        answer = json.loads(told.stdout)
        assert answer["finding"]["amount_usd"] == row["amount_usd"]
        assert len(answer["requests"]) == min(3, answer["requests_behind"])
        assert answer["requests_behind"] or row not in named
    shown = python("-m", "reconcile", "explain", rows[0]["id"], "-c", config, "--requests", "3")
    assert shown.stdout.endswith(f"More: docs/reasons.md#{rows[0]['reason']}\n")


def test_the_demo_runs_twice_and_shows_the_key_nowhere(tmp_path):
    """The demo ends with 0, prints bridge, chargeback and what was planted; again, it finds its revision unchanged."""
    ran = [python("-m", "reconcile", "demo", "--requests", "2000", cwd=tmp_path) for _ in range(2)]
    assert [one.returncode for one in ran] == [0, 0], ran[0].stderr
    assert "(r1): billed " in ran[0].stdout
    assert "(r1, unchanged): billed " in ran[1].stdout
    for heading in ("Bridge", "Cost center", "Planted beside found, USD"):
        assert re.search(f"^{heading}", ran[0].stdout, re.MULTILINE)
    assert re.search(r"^duplicate +\S+ +\S+ +as planted$", ran[0].stdout, re.MULTILINE)
    pages = re.findall(r"^Report +(\S+)$", ran[0].stdout, re.MULTILINE)
    names = ["index.html", "discrepancy.html", "allocation.html", "rollforward.html"]
    assert [Path(page).name for page in pages] == names
    assert_findings_are_explained(tmp_path / "var" / "demo")
    key = Sandbox.build(Scenario(requests=1)).key.encode()
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 100
    assert not [path for path in written if key in path.read_bytes()]
    assert key.decode() not in "".join(one.stdout + one.stderr for one in ran)
