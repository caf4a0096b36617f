"""Stage load: from lines to one row a request, and what cleaning removed."""

import pytest
from month import bridge, closed, cost, line, tokens, usage


def test_a_clean_month_ties_out(tmp_path):
    """What is logged once, reported and billed at list has no difference and no finding."""
    with closed(
        tmp_path,
        [usage("2026-10-05T10:00:00Z", input=1000, output=200)],
        [cost("2026-10-05", "0.5", "uncached_input_tokens"), cost("2026-10-05", "0.5", "output_tokens")],
        [line("2026-10-05T10:30:00Z", usage=tokens(1000, 200))],
    ) as ledger:
        assert bridge(ledger) == {"logged": "0.01", "recorded": "0.01", "reported": "0.01", "billed": "0.01"}
        assert ledger.execute("select count(*) from report.discrepancy").fetchone() == (0,)
        assert ledger.execute("select distinct status from report.cell").fetchall() == [("matched",)]


def test_the_second_line_of_a_request_is_a_duplicate(tmp_path):
    """Of finished lines with one id the earliest stands; the others are taken away at what they logged."""
    with closed(
        tmp_path,
        [usage("2026-10-05T10:00:00Z", input=1000)],
        [cost("2026-10-05", "0.5", "uncached_input_tokens")],
        [
            line("2026-10-05T10:31:00Z", usage=tokens(1000), cost_usd="0.006"),
            line("2026-10-05T10:30:00Z", usage=tokens(1000)),
        ],
    ) as ledger:
        assert bridge(ledger) == {
            "logged": "0.011", "duplicate": "-0.006", "recorded": "0.005", "reported": "0.005", "billed": "0.005",
        }  # fmt: skip


def test_a_stream_is_its_last_values(tmp_path):
    """A stream's usage is cumulative: the sum over its events, less the last values, is stream_sum."""
    start = {"input_tokens": 2679, "output_tokens": 3, "inference_geo": "global"}
    delta = {"input_tokens": 10682, "output_tokens": 510}
    with closed(
        tmp_path,
        [usage("2026-10-05T10:00:00Z", input=10682, output=510)],
        [cost("2026-10-05", "5.341", "uncached_input_tokens"), cost("2026-10-05", "1.275", "output_tokens")],
        [
            line("2026-10-05T10:30:00Z", event="message_start", usage=start),
            line("2026-10-05T10:30:09Z", event="message_delta", usage=delta),
        ],
    ) as ledger:
        # 2,679 x $5 + 3 x $25 for a million
        assert bridge(ledger)["stream_sum"] == "-0.01347"
        assert bridge(ledger)["recorded"] == bridge(ledger)["billed"] == "0.06616"


def test_null_request_ids_are_never_folded(tmp_path):
    """Lines without an id are requests of their own, however equal they look."""
    with closed(
        tmp_path,
        [usage("2026-10-05T10:00:00Z", input=2000)],
        [cost("2026-10-05", "1", "uncached_input_tokens")],
        [line("2026-10-05T10:30:00Z", None, usage=tokens(1000))] * 2,
    ) as ledger:
        assert bridge(ledger)["recorded"] == "0.01"


AT, INSTANT = "2026-10-05T10:30:00Z", "2026-10-03T14:05:06Z"


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ('{"request_id": "req_2", "timest', "is not one JSON object"),
        (line(AT, "req_2", usage=tokens(-5)), "input_tokens is -5, expected a whole number of at least 0"),
        (line("yesterday", "req_2", usage=tokens(5)), f"timestamp is yesterday, expected an instant like {INSTANT}"),
        (line(AT, "req_2", usage=None), "has no usage"),
        (line(AT, "req_2", model="", usage=tokens(5)), "has no model"),
        (line(AT, "req_2", usage=tokens(5), cost_usd="$5"), "cost_usd is $5, expected an amount in USD"),
    ],
)
def test_a_bad_line_is_kept_with_its_number(tmp_path, bad, why):
    """A line that cannot be read is counted and named, and the good ones stay."""
    with closed(
        tmp_path,
        [usage("2026-10-05T10:00:00Z", input=1000)],
        [cost("2026-10-05", "0.5", "uncached_input_tokens")],
        ["", line("2026-10-05T10:30:00Z", usage=tokens(1000)), bad],
    ) as ledger:
        assert ledger.execute("from source.rejected").fetchall() == [("app", "log.jsonl", 3, why)]
        assert bridge(ledger)["recorded"] == "0.005"


def test_an_offset_survives(tmp_path):
    """A timestamp's offset decides its UTC day; one without takes the log's zone."""
    with closed(
        tmp_path,
        [usage("2026-10-06T04:00:00Z", input=1000)],
        [cost("2026-10-06", "0.5", "uncached_input_tokens")],
        [line("2026-10-05T23:30:00-05:00", usage=tokens(1000))],
    ) as ledger:
        assert bridge(ledger)["recorded"] == "0.005"
        assert ledger.execute("select day::varchar, status from report.cell").fetchall() == [("2026-10-06", "matched")]
