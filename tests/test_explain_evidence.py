"""What stands behind a finding: its figures, its requests, its words, its picture, and who signed for it."""

import json
import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from month import closed, cost, days, line, tokens, usage, write_config
from test_cases import CASES, configured, read

from reconcile import explain, ledger, reasons, render
from reconcile.config import REASONS

AT, HOUR, DAY = "2026-10-05T10:30:00Z", "2026-10-05T10:00:00Z", "2026-10-05"


def case(name, folder):
    """A month of tests/cases, closed."""
    rows = [[make(**row) for row in read(CASES / name, f"{kind}.json", [])] for kind, make in KINDS]
    config = configured(CASES / name, folder)
    return closed(folder, *rows, [], config=config, **read(CASES / name, "pull.json", {}))


KINDS = (("usage", usage), ("cost", cost))


def findings(connection, reason):
    return ledger.rows(connection, "select * from report.finding where reason = ? order by id", [reason])


def behind(connection, finding, limit=1000):
    found = explain.requests_behind(connection, finding["id"], limit)
    return list(found.rows), found.requests


def shifted(folder):
    """A week of hourly requests whose log is three hours ahead: no two hours have the same tokens."""
    begun = datetime(2026, 10, 5, tzinfo=UTC)
    hours = [(begun + timedelta(hours=n), 1000 + 37 * (n * n % 101), 200 + 11 * (n * n % 89)) for n in range(168)]
    usages = [usage(f"{at:%Y-%m-%dT%H}:00:00Z", input=read, output=written) for at, read, written in hours]
    lines = [
        line(f"{at + timedelta(hours=3):%Y-%m-%dT%H}:20:00Z", f"req_{n}", usage=tokens(read, written))
        for n, (at, read, written) in enumerate(hours)
    ]
    return closed(folder, usages, [], lines)


# Words


def test_every_reason_has_its_words():
    """Each code of the closed list stands once, in the bridge's order, with a title and whole sentences."""
    assert tuple(one.code for one in reasons.BEFORE_BILLED) == REASONS
    assert len({one.code for one in reasons.ALL}) == len(reasons.ALL)
    for one in reasons.ALL:
        assert not one.title.endswith(".")
        assert all(text.endswith(".") and text[0].isupper() for text in (one.meaning, one.to_do, one.confirm))


def test_a_ledger_holds_the_words(tmp_path):
    """report.reason has every code with its words, so that a ledger can be read without the program."""
    with closed(tmp_path, [], [], []) as connection:
        kept = connection.execute("select reason, title, meaning, to_do, confirm from report.reason").fetchall()
    assert kept == [(one.code, one.title, one.meaning, one.to_do, one.confirm) for one in reasons.ALL]


# Requests


@pytest.mark.parametrize(
    ("name", "reason", "column"),
    [
        ("d_two_logs_hold_the_same_request", "duplicate", "amount_usd"),
        ("d_one_request_on_three_lines", "duplicate", "amount_usd"),
        ("d_stream_events_added_up", "stream_sum", "amount_usd"),
        ("c_app_prices_cached_input_twice", "app_price", "amount_usd"),
        ("c_log_counts_cached_tokens_in_the_input_too", "cache_inclusive", "quantity"),
        ("m_compaction_outside_the_top_level", "iterations", "quantity"),
    ],
)
def test_requests_add_up_to_their_finding(name, reason, column, tmp_path):
    """What is known request by request sums to the finding, to the last digit."""
    with case(name, tmp_path) as connection:
        found = findings(connection, reason)
        assert found
        for finding in found:
            rows, count = behind(connection, finding)
            assert len(rows) == count > 0
            assert all(row["known"] and row["request_id"] for row in rows)
            assert sum(row[column] for row in rows) == finding[column]


def test_a_duplicate_names_both_logs(tmp_path):
    """The line that was taken away stands with its own log, and with the log that kept the request."""
    with case("d_two_logs_hold_the_same_request", tmp_path) as connection:
        [finding] = findings(connection, "duplicate")
        [row], _ = behind(connection, finding)
    assert (row["request_id"], row["log"], row["note"]) == ("req_1", "app", "1 line more; kept in gateway")
    assert row["amount_usd"] == Decimal("-0.005")


def test_a_shifted_log_names_the_lines_that_change_their_day(tmp_path):
    """Of a log that is three hours ahead, the lines of each day's first three hours were counted the day before."""
    with shifted(tmp_path) as connection:
        [finding] = findings(connection, "time_zone")
        rows, count = behind(connection, finding)
        assert len(rows) == count > 0
        for row in rows:
            assert row["logged_at"].hour < 3
            assert f"counted at {row['logged_at'].date().replace(day=row['logged_at'].day - 1)}" in row["note"]


def test_requests_under_another_tier_are_listed_by_hour_and_place(tmp_path):
    """What was recorded as standard and reported as batch is known where all of its hour and place was moved."""
    with case("b_log_does_not_know_that_it_is_a_batch", tmp_path) as connection:
        [finding] = findings(connection, "service_tier")
        rows, count = behind(connection, finding)
        logged = connection.execute("select count(*) from source.request").fetchall()[0][0]
        assert 0 < count <= logged
        assert {row["service_tier"] for row in rows} == {"standard"}
        assert any(row["known"] for row in rows)


def test_lines_in_a_wrong_workspace_are_known_by_their_key(tmp_path):
    """A line whose key belongs to another workspace is named, with the workspace of its key."""
    with case("a_log_names_another_workspace", tmp_path) as connection:
        found = findings(connection, "workspace")
        assert found
        for finding in found:
            rows, count = behind(connection, finding)
            assert len(rows) == count > 0
            assert all(row["known"] for row in rows)
            assert finding["workspace_id"] not in {row["workspace_id"] for row in rows}
            assert {row["note"] for row in rows} == {f"its key belongs to {finding['workspace_id']}"}


def test_an_error_is_known_to_be_unreported_and_comes_first(tmp_path):
    """Of requests that the provider may not have counted, the one with an error status is named first."""
    lines = [line(AT, f"req_{n}", usage=tokens(10_000 * n), status=200) for n in (1, 2, 3)]
    lines.append(line(AT, "req_failed", usage=tokens(5_000), status=529))
    usages = [usage(HOUR, input=30_000)]
    with closed(tmp_path, usages, [cost(DAY, "15", "uncached_input_tokens")], lines) as connection:
        listed = [row for finding in findings(connection, "unreported") for row in behind(connection, finding)[0]]
    first, *others = listed
    assert (first["request_id"], first["known"], first["note"]) == ("req_failed", True, "error status")
    assert not any(row["known"] for row in others)


def test_what_no_log_holds_has_no_requests(tmp_path):
    """Usage that was never logged, and charges without a quantity, have no request to name."""
    for name, reason in (("m_key_that_no_log_names", "unlogged_key"), ("m_use_without_a_key", "no_key")):
        with case(name, tmp_path / name) as connection:
            assert [behind(connection, finding) for finding in findings(connection, reason)] == [([], 0)]


def test_what_is_unlogged_is_seen_beside_what_is_used_there(tmp_path):
    """In two of five hours more was reported than recorded; a third one has too much, a fourth is quiet."""
    hours = [f"2026-10-05T{hour:02}" for hour in range(10, 15)]
    used = [5000, 6000, 7000, 0, 8000]
    said = [5000, 4000, 7500, 0, 2000]
    usages = [usage(f"{hour}:00:00Z", input=one) for hour, one in zip(hours, used, strict=True)]
    lines = [line(f"{hour}:30:00Z", hour, usage=tokens(one)) for hour, one in zip(hours, said, strict=True)]
    with closed(tmp_path, usages, [cost(DAY, "13", "uncached_input_tokens")], lines) as connection:
        [finding] = findings(connection, "unlogged")
    told = json.loads(finding["evidence"])
    assert (told["tokens_reported_in_its_place"], told["hours_with_more_reported_than_recorded"]) == ("26000", "2 of 4")


def test_requests_have_a_total_order_and_a_limit(tmp_path):
    """The largest come first, the count is of all, and asking for none still counts."""
    lines = [line(AT, f"req_{n}", usage=tokens(1000), cost_usd=cost_usd) for n, cost_usd in enumerate("7295")]
    with closed(tmp_path, [usage(HOUR, input=4000)], [], lines) as connection:
        [finding] = findings(connection, "app_price")
        assert [row["request_id"] for row in behind(connection, finding, 2)[0]] == ["req_2", "req_0"]
        assert behind(connection, finding, 0) == ([], 4)
        assert [row["request_id"] for row in behind(connection, finding)[0]] == ["req_2", "req_0", "req_3", "req_1"]


# Prices


@pytest.mark.parametrize(
    ("billed", "implied"), [("14", "14.000000"), ("16", "16.000000"), ("14.123457", "14.123457"), ("7.5", "7.500000")]
)
def test_another_rate_stands_beside_that_of_the_book(tmp_path, billed, implied):
    """From the 15th output at USD 15 is billed at another rate, be it a round fraction of 15 or not."""
    usages, costs, lines = [], [], []
    for number, day in enumerate(days("2026-10-01", 31)):
        read, written = 1000 + 7 * number, 90 + 3 * number
        rate = Decimal(billed) if day >= "2026-10-15" else Decimal(15)
        place = {"model": "claude-sonnet-4-6"}
        usages.append(usage(f"{day}T10:00:00Z", input=read, output=written, **place))
        lines.append(line(f"{day}T10:20:00Z", f"r{number}", usage=tokens(read, written), **place))
        costs.append(cost(day, format(read * 3 / Decimal(10000), "f"), "uncached_input_tokens", **place))
        costs.append(cost(day, format(written * rate / 10000, "f"), "output_tokens", **place))
    with closed(tmp_path, usages, costs, lines) as connection:
        (one,) = ledger.rows(connection, "select * from report.finding")
        assert (one["reason"], one["meter"]) == ("price_book", "output_tokens")
        told = json.loads(one["evidence"])
        assert (told["implied_rate_usd"], told["since"]) == ([implied], "2026-10-15")
        assert [Decimal(rate) for rate in told["book_rate_usd"]] == [15]
        assert "book_rate_above_the_step_usd" not in told
        rows, count = behind(connection, one)
        assert len(rows) == count == 17
        assert all(row["known"] and row["quantity"] >= 90 for row in rows)


def test_a_discount_is_seen_beside_requests_that_were_not_charged(tmp_path):
    """Nine tenths of list; on most days a request was refused, so that these days do not divide by nine tenths."""
    place = {"model": "claude-sonnet-4-6"}
    prices = {"uncached_input_tokens": 3, "cache_read_input_tokens": Decimal("0.3"), "output_tokens": 15}
    usages, costs, lines, refused = [], [], [], 0
    for number, day in enumerate(days("2026-10-01", 31)):
        read, written = 10000 + 17 * number, 910 + 13 * number
        lost = 101 + number if number % 3 else 0
        refused += lost
        usages.append(usage(f"{day}T10:00:00Z", input=read + lost, read=7 * read + lost, output=written, **place))
        use = tokens(read, written, cache_read_input_tokens=7 * read)
        lines.append(line(f"{day}T10:20:00Z", f"r{number}", usage=use, **place))
        if lost:
            lines.append(
                line(f"{day}T10:30:00Z", f"no{number}", usage=tokens(lost, cache_read_input_tokens=lost), **place)
            )
        for (meter, price), quantity in zip(prices.items(), (read, 7 * read, written), strict=True):
            costs.append(cost(day, format(quantity * price * Decimal("0.00009"), "f"), meter, **place))
    with closed(tmp_path, usages, costs, lines) as connection:
        found = {one["reason"]: one for one in ledger.rows(connection, "select * from report.finding")}
        assert set(found) == {"discount", "uncharged"}
        assert Decimal(json.loads(found["discount"]["evidence"])["fraction_of_list"]) == Decimal("0.9")
        assert found["uncharged"]["amount_usd"] == -refused * (Decimal("0.0000027") + Decimal("0.00000027"))


HAIKU = {"model": "claude-haiku-5-5"}
SHORT = line("2026-10-20T10:30:00Z", "short", usage=tokens(50000), **HAIKU)
LONG = line("2026-10-20T10:30:00Z", "long", usage=tokens(150000), **HAIKU)


def straddling(folder, reported, cents, lines):
    """A day of a model whose price steps at 100,000 tokens, from USD 0.10 to 0.50."""
    billed = [cost("2026-10-20", cents, "uncached_input_tokens", **HAIKU)]
    return closed(folder, [usage("2026-10-20T10:00:00Z", input=reported, **HAIKU)], billed, lines)


def test_a_rate_outside_a_step_stands_beside_both_prices(tmp_path):
    """All requests are known, and billed is what neither price gives."""
    with straddling(tmp_path, 200000, "5", [SHORT, LONG]) as connection:
        (one,) = findings(connection, "price_book")
        told = json.loads(one["evidence"])
        assert list(map(Decimal, told["implied_rate_usd"])) == [Decimal("0.25")]
        assert list(map(Decimal, told["book_rate_usd"])) == [Decimal("0.1")]
        assert list(map(Decimal, told["book_rate_above_the_step_usd"])) == [Decimal("0.5")]
        assert [row["request_id"] for row in behind(connection, one)[0]] == ["long", "short"]


@pytest.mark.parametrize(
    ("reported", "cents", "lines", "interval"),
    [
        (200000, "8", [SHORT], ["0.02", "0.1", "0.02", "0.08"]),
        (200000, "9", [LONG], ["0.02", "0.1", "0.08", "0.1"]),
        (50000, "0.5", [SHORT, LONG], ["0.005", "0.025", "0.005", "0.025"]),
    ],
)
def test_the_interval_with_the_requests_known_lies_in_that_of_the_book(tmp_path, reported, cents, lines, interval):
    """Missing requests may be long or short; so may those that are too many."""
    with straddling(tmp_path, reported, cents, lines) as connection:
        (one,) = findings(connection, "price_interval")
        told = json.loads(one["evidence"])
        bounds = [
            f"{bound}_{by}_usd" for by in ("by_the_book", "with_the_requests_known") for bound in ("lowest", "highest")
        ]
        assert [Decimal(told[name]) for name in bounds] == list(map(Decimal, interval))
        found = explain.requests_behind(connection, one["id"], 10)
        assert (found.requests, found.known) == (len(lines), 0)


# Pictures


def test_the_curve_shows_the_shift(tmp_path):
    """With its clock set right the log lies on the reported curve hour by hour; as logged it lies three hours later."""
    (tmp_path / "month").mkdir()
    with shifted(tmp_path / "month") as connection:
        connection.execute("update explained.finding set beyond_tolerance = true")
        rows = ledger.rows(connection, "select * from report.curve order by hour_of_day")
        page = rendered(connection, tmp_path)
    assert len(rows) == 24
    assert all(row["set_right_tokens"] == row["reported_tokens"] for row in rows)
    assert [row["logged_tokens"] for row in rows] != [row["reported_tokens"] for row in rows]
    assert 'aria-label="Output tokens by hour of the day: as logged, with the clock set right, and as reported"' in page


def test_two_bars_net(tmp_path):
    """What was recorded under one tier and reported under the other is the same quantity, and other dollars."""
    with case("b_log_does_not_know_that_it_is_a_batch", tmp_path / "month") as connection:
        connection.execute("update explained.finding set beyond_tolerance = true")
        [finding] = findings(connection, "service_tier")
        rows = ledger.rows(connection, "select * from report.exchange")
        page = rendered(connection, tmp_path)
    assert {row["at_value"]: row["quantity"] > 0 for row in rows} == {"standard": False, "batch": True}
    assert sum(row["quantity"] for row in rows) == 0
    assert sum(row["amount_usd"] for row in rows) == finding["amount_usd"]
    assert re.search(r'aria-label="Recorded elsewhere than reported: (standard|batch) .*tokens', page)


def rendered(connection, folder):
    render.render(connection, folder / "out")
    return (folder / "out" / "discrepancy.html").read_text()


# Accepted differences

UNREPORTED = (
    [usage(HOUR, input=1_000_000)],
    [cost(DAY, "500", "uncached_input_tokens")],
    [line(AT, f"req_{n}", usage=tokens(100_000)) for n in range(30)],
)
ENTRY = {"reason": "unreported", "workspace": "Search", "up_to_usd": 20, "who": "Kim", "why": "A test tenant"}


@pytest.mark.parametrize(
    ("changes", "state", "shown"),
    [
        ({"until": "2026-11-01"}, "accepted", "Accepted by Kim until 1 Nov 2026, up to $20.00: A test tenant"),
        (
            {"until": "2026-11-01", "up_to_usd": 9},
            "discrepancy",
            "Counts again: Kim accepted it until 1 Nov 2026, up to $9.00 for all that it covers (A test tenant)",
        ),
        (
            {"until": DAY},
            "discrepancy",
            "Counts again: the acceptance by Kim (A test tenant) expired on 5 Oct 2026",
        ),
    ],
)
def test_an_acceptance_holds_until_it_does_not(tmp_path, changes, state, shown):
    """An accepted difference is no discrepancy; too large, or expired, it counts again, and the page says why."""
    config = write_config(tmp_path, accepted=[ENTRY | changes])
    with closed(tmp_path, *UNREPORTED, config=config) as connection:
        [finding] = findings(connection, "unreported")
        page = rendered(connection, tmp_path)
        summary = ledger.rows(connection, "select * from report.summary")[0]
    assert (finding["state"], finding["amount_usd"]) == (state, Decimal(-10))
    assert summary["discrepancy_count"] == (state == "discrepancy")
    assert shown in re.sub(r"</?span[^>]*>", "", page)


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"until": "2026-11-01"}, None),
        ({"until": "2026-11-01", "up_to_usd": "9.99"}, "(Kim) is for up to $9.99, found $10.00: it is not accepted"),
        (
            {"until": "2026-11-01", "up_to_usd": "9.9999"},
            "(Kim) is for up to $10.00, found less than a cent more: it is not accepted",
        ),
        ({"until": DAY}, "(Kim) expired on 2026-10-05: it is not accepted"),
        ({"until": "2026-11-01", "reason": "no_key"}, "(until 2026-11-01, Kim) matches nothing in this period"),
        (
            {"until": "2026-11-01", "reason": "discount", "workspace": "Ads"},
            "(until 2026-11-01, Kim) matches nothing: no finding of discount has a workspace",
        ),
        ({"until": "2026-11-01", "workspace": "Ads"}, "(until 2026-11-01, Kim) matches nothing in this period"),
    ],
)
def test_an_acceptance_that_does_not_hold_is_warned_of(tmp_path, changes, warning):
    """An entry that is about nothing, has expired or is exceeded is a warning on the page on the difference."""
    entry = ENTRY | changes
    config = write_config(tmp_path, accepted=[entry])
    with closed(tmp_path, *UNREPORTED, config=config) as connection:
        warned = [text for (text,) in connection.execute("select warning from explained.warning").fetchall()]
        page = rendered(connection, tmp_path)
    expected = [] if warning is None else [f"accepted {entry['reason']} {entry['workspace']} {warning}"]
    assert warned == expected
    assert all(text in page for text in expected)
    assert (f"<p>accepted {entry['reason']}" in page) == bool(expected)


def test_one_entry_does_not_spend_what_another_covers(tmp_path):
    """Each entry is judged by itself, and one that holds is enough: it is the only one that is told of a finding."""
    entries = [ENTRY | {"until": "2026-10-02", "who": "Kim"}, ENTRY | {"until": "2027-01-01", "who": "Lee"}]
    config = write_config(tmp_path, accepted=entries)
    with closed(tmp_path, *UNREPORTED, config=config) as connection:
        kept = ledger.rows(connection, "select who, standing, until_on from report.accepted")
        assert [tuple(row.values()) for row in kept] == [("Lee", "holds", date(2027, 1, 1))]
        assert findings(connection, "unreported")[0]["state"] == "accepted"


def keyless(folder, *entries):
    """What becomes of $5.00 without a key in Claude Code and of $1.00 in Console under entries of the config.

    The workspaces of the accepted findings, who signed with which standing, the warnings and the page.
    """
    named = {"wrkspc_a": "Claude Code", "wrkspc_b": "Console"}
    charges = (("wrkspc_a", 1_000_000, "500"), ("wrkspc_b", 200_000, "100"))
    usages = [usage(HOUR, input=tokens, api_key_id=None, workspace_id=place) for place, tokens, _ in charges]
    costs = [cost(DAY, cents, "uncached_input_tokens", workspace_id=place) for place, _, cents in charges]
    entries = [{"reason": "no_key", "why": "Known", "until": "2027-01-01"} | entry for entry in entries]
    config = write_config(folder, accepted=entries)
    workspaces = [{"id": place, "name": name} for place, name in named.items()]
    logged = [line(AT, usage=tokens(0))]
    with closed(folder, usages, costs, logged, config=config, workspaces=workspaces) as connection:
        accepted = {named[row["workspace_id"]] for row in findings(connection, "no_key") if row["state"] == "accepted"}
        signed = connection.execute("""
            select finding.workspace_id, accepted.who, accepted.standing
            from report.accepted as accepted
            join report.finding as finding on finding.id = accepted.finding_id
            order by accepted.position, finding.workspace_id
        """).fetchall()
        warned = [text for (text,) in connection.execute("select warning from explained.warning").fetchall()]
        page = rendered(connection, folder)
    return accepted, [(named[place], who, standing) for place, who, standing in signed], warned, page


CODE = {"workspace": "Claude Code", "up_to_usd": 5, "who": "Ann"}


def test_what_one_entry_accepts_is_not_counted_against_the_next(tmp_path):
    """Entries are applied in the config's order: one for a workspace, then one for the rest."""
    accepted, signed, warned, _ = keyless(tmp_path, CODE, {"up_to_usd": 1, "who": "Kim"})
    assert accepted == {"Claude Code", "Console"}
    assert signed == [("Claude Code", "Ann", "holds"), ("Console", "Kim", "holds")]
    assert warned == []


@pytest.mark.parametrize(
    ("entries", "signed", "warned"),
    [
        (
            [CODE | {"up_to_usd": "0.10"}, {"up_to_usd": 5000, "who": "Kim"}],
            [("Claude Code", "Kim", "holds"), ("Console", "Kim", "holds")],
            ["accepted no_key Claude Code (Ann) is for up to $0.10, found $5.00: accepted by Kim"],
        ),
        (
            [CODE | {"until": DAY}, CODE | {"who": "Kim"}],
            [("Claude Code", "Kim", "holds")],
            ["accepted no_key Claude Code (Ann) expired on 2026-10-05: accepted by Kim"],
        ),
        (
            [{"up_to_usd": 2, "who": "Kim"}, CODE],
            [("Console", "Kim", "exceeded"), ("Claude Code", "Ann", "holds")],
            ["accepted no_key (Kim) is for up to $2.00, found $6.00: only in part accepted, by Ann"],
        ),
        ([CODE, CODE | {"up_to_usd": 1, "who": "Kim"}], [("Claude Code", "Ann", "holds")], []),
    ],
)
def test_where_one_entry_holds_no_other_says_that_it_counts_again(tmp_path, entries, signed, warned):
    """What one entry accepts is told of that one; that another's limit or date is passed is said as what it is."""
    accepted, told, warnings, page = keyless(tmp_path, *entries)
    assert accepted == {place for place, _, standing in signed if standing == "holds"}
    assert (told, warnings) == (signed, warned)
    assert page.count("Counts again") == sum(standing != "holds" for _, _, standing in signed)


@pytest.mark.parametrize(
    ("scope", "logs"),
    [
        ({"log": "app"}, ["app"]),
        ({"log": "a*"}, ["app"]),
        ({"log": "*"}, ["app", "batch"]),
        ({"workspace": "*", "model": "*"}, ["app", "batch"]),  # these findings have none
    ],
)
def test_an_acceptance_may_be_for_a_log(tmp_path, scope, logs):
    """A reason that is placed by its log is accepted for one log; `*` is any, also where a finding has no value."""
    entry = {"reason": "duplicate", "up_to_usd": 20, "who": "Kim", "why": "Known", "until": "2027-01-01"} | scope
    paths = [{"name": "app", "path": "log.jsonl"}, {"name": "batch", "path": "batch.jsonl"}]
    config = write_config(tmp_path, request_logs=paths, accepted=[entry])
    twice = [[line(AT, name, usage=tokens(100_000))] * 2 for name in ("req_1", "req_2")]
    (tmp_path / "batch.jsonl").write_text("".join(json.dumps(one) + "\n" for one in twice[1]))
    with closed(tmp_path, [usage(HOUR, input=200_000)], [], twice[0], config=config) as connection:
        rows = connection.execute("select log, accepted from report.discrepancy where reason = 'duplicate'").fetchall()
        warned = connection.execute("select warning from explained.warning").fetchall()
    assert dict(rows) == {name: name in logs for name in ("app", "batch")}
    assert warned == []


def test_the_amount_of_an_entry_is_for_all_that_it_covers(tmp_path):
    """$5.00 and $1.00 under one entry are $6.00: up to $5.99 neither is accepted."""
    accepted, signed, warned, _ = keyless(tmp_path, {"up_to_usd": "5.99", "who": "Kim"})
    assert accepted == set()
    assert signed == [("Claude Code", "Kim", "exceeded"), ("Console", "Kim", "exceeded")]
    assert warned == ["accepted no_key (Kim) is for up to $5.99, found $6.00: it is not accepted"]
