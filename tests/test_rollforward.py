"""Open discrepancies from month to month: opening + new - cleared - accepted = closing, by their stable id."""

from decimal import Decimal

import pytest
from month import closed, cost, line, tokens, usage, write_config

from reconcile import ledger, render
from reconcile.run import CARRIED

HOUR, AT = "2026-10-05T10:00:00Z", "2026-10-05T10:30:00Z"
COLUMNS = ("opening", "new", "cleared", "accepted", "closing")
KNOWN = {"reason": "no_key", "up_to_usd": 100, "who": "Ann", "why": "-", "until": "2027-01-01"}


@pytest.fixture(scope="module")
def month(tmp_path_factory):
    """A month with two discrepancies of $10.00 and one accepted of $3.00."""
    folder = tmp_path_factory.mktemp("month")
    config = write_config(folder, accepted=[KNOWN], tolerance={"usd": 0, "percent": 0})
    usages = [
        usage(HOUR, input=2_000_000, context_window="200k-1M"),
        usage(HOUR, input=600_000, context_window="200k-1M", api_key_id=None),
        usage(HOUR, input=2_000_000, context_window="200k-1M", api_key_id="apikey_b"),
    ]
    costs = [cost("2026-10-05", "2300", "uncached_input_tokens", context_window="200k-1M")]
    extra = line("2026-10-07T10:30:00Z", "req_2", model="claude-opus-4-6", usage=tokens(2_000_000))
    lines = [line(AT, "req_1", usage=tokens(2_000_000)), extra]
    with closed(folder, usages, costs, lines, config=config) as connection:
        yield connection


def rolled(month, *before) -> dict[str, tuple]:
    """The roll-forward by reason, after a month that left these open: (id, reason, opened in, USD)."""
    rows = [(one, reason, *[None] * 8, since, usd) for one, reason, since, usd in before]
    ledger.insert(month, "source.earlier_open", CARRIED, rows)
    ledger.check(month)
    return {
        row["reason"]: (
            row["opened_in"],
            row["age_months"],
            *(
                format(row[f"{name}_usd"].normalize(), "f")
                for name in ("opening", "new", "cleared", "accepted", "closing")
            ),
        )
        for row in ledger.rows(month, "select * from report.rollforward")
    }


@pytest.fixture(scope="module")
def ids(month) -> dict[str, str]:
    return dict(month.execute("select reason, id from report.finding").fetchall())


def test_a_first_month_begins_with_nothing(month):
    """All that is open is new; what was accepted at once is new and accepted."""
    assert rolled(month) == {
        "unlogged_key": ("2026-10", 1, "0", "10", "0", "0", "10"),
        "unreported": ("2026-10", 1, "0", "10", "0", "0", "10"),
        "no_key": ("2026-10", 1, "0", "3", "0", "3", "0"),
    }


def test_what_was_open_is_carried_by_its_id(month, ids):
    """What grew has more that is new, what shrank is cleared in part, what is gone in full; accepted is closed."""
    assert rolled(
        month,
        (ids["unlogged_key"], "unlogged_key", "2026-07", "4"),
        (ids["unreported"], "unreported", "2026-09", "12.5"),
        (ids["no_key"], "no_key", "2025-12", "1"),
        ("0123456789ab", "log_gap", "2026-08", "7"),
    ) == {
        "unlogged_key": ("2026-07", 4, "4", "6", "0", "0", "10"),
        "unreported": ("2026-09", 2, "12.5", "0", "2.5", "0", "10"),
        "no_key": ("2025-12", 11, "1", "2", "0", "3", "0"),
        "log_gap": ("2026-08", 3, "7", "0", "7", "0", "0"),
    }


def test_the_closing_column_is_what_the_first_page_has_in_question(month, ids):
    """And what the next month begins with; a cause that is gone is carried no further."""
    rolled(month, ("0123456789ab", "log_gap", "2026-08", "7"))
    assert month.execute("select sum(closing_usd) from report.rollforward").fetchone() == (Decimal(20),)
    assert month.execute("select discrepancy_usd from report.verdict").fetchone() == (Decimal(20),)
    left = month.execute("select id from report.rollforward where closing_usd > 0 order by id").fetchall()
    assert left == sorted((ids[reason],) for reason in ("unlogged_key", "unreported"))


def test_the_page_adds_up(month, ids, tmp_path):
    """Cents that are rounded add up across every row and down every column."""
    rolled(
        month,
        (ids["unlogged_key"], "unlogged_key", "2026-07", "4.004"),
        (ids["unreported"], "unreported", "2026-09", "12.504"),
        ("0123456789ab", "log_gap", "2026-08", "7.004"),
    )
    rows = render._carried(render.fetch(month, "select * from report.rollforward"), Decimal(20))
    for row in (*rows.rows, rows.total):
        assert row.opening_usd + row.new_usd - row.cleared_usd - row.accepted_usd == row.closing_usd
    assert (rows.total.opening_usd, rows.total.closing_usd) == (Decimal("23.51"), Decimal("20.00"))
    render.render(month, tmp_path / "out")
    page = (tmp_path / "out" / "rollforward.html").read_text()
    assert "$20.00 stays in question" in page
    assert "October 2026 began with $23.51 in question." in page
    assert "The oldest is open for <b>4 months</b>" in page
