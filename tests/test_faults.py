"""What comes from outside and is wrong, strange or in motion: a clear error or a counted reject, no good line lost."""

import csv
import io
import json
import os
import subprocess
from copy import deepcopy
from datetime import date
from hashlib import sha256
from pathlib import Path

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from logs import describe_run, jsonl, loaded, log_of, rejected, requests
from month import PERIOD, bridge, closed, cost, line, tokens, usage, write_pull

from reconcile import ledger, load
from reconcile.errors import ConfigError, InvariantError, SourceError
from reconcile.prices import PriceBook

AT = "2026-10-05T10:30:00Z"
HOUR = "2026-10-05T10:00:00Z"
DAY = "2026-10-05"
ROWS = [usage(HOUR, input=1000, output=10)]
COSTS = [cost(DAY, "0.5", "uncached_input_tokens"), cost(DAY, "0.025", "output_tokens")]
GPU = {"cost_type": "gpu_rental", "model": None, "service_tier": None, "context_window": None, "inference_geo": None}


# The provider's pages -------------------------------------------------------------------------------------------------


def pages(folder: Path, usages, costs) -> duckdb.DuckDBPyConnection:
    """The ledger after stage load has read these pages, in memory."""
    connection = duckdb.connect()
    ledger.prepare(connection)
    describe_run(connection)
    raw = write_pull(folder / "raw", ROWS, COSTS)
    manifest = json.loads((raw / "manifest.json").read_text())
    for page in manifest["pages"]:  # the control total stays that of the good rows
        if page["kind"] in {"usage_hour", "cost_day"}:
            rows = usages if page["kind"] == "usage_hour" else costs
            body = json.dumps({
                "data": [{"starting_at": rows[0]["at"], "ending_at": rows[0]["at"], "results": rows}],
                "has_more": False, "next_page": None,
            }).encode()  # fmt: skip
            (raw / page["file"]).write_bytes(body)
            page["sha256"] = sha256(body).hexdigest()
    (raw / "manifest.json").write_text(json.dumps(manifest))
    try:
        load.load_pages(connection, load.Pull.read(raw))
    except BaseException:
        connection.close()
        raise
    return connection


def test_what_the_provider_adds_is_booked_and_named(tmp_path):
    """New enum values, a new charge, a new kind of token and new fields: every cent is there, under a reason."""
    strange = {"service_tier": "turbo", "inference_geo": "mars", "context_window": "9M", "model": "claude-zzz"}
    usages = [*ROWS, usage(HOUR, input=7, **strange), usage(HOUR, input=1) | {"vault_id": "x", "thinking_tokens": 5}]
    costs = [
        cost(DAY, "0.5005", "uncached_input_tokens", shiny={"x": [1]}),
        cost(DAY, "0.025", "output_tokens"),
        cost(DAY, "1.25", "uncached_input_tokens", **strange),
        cost(DAY, "3.5", "thinking_tokens"),
        cost(DAY, "12.5", None, description="GPU rental", **GPU),
    ]
    with closed(tmp_path, usages, costs, [line(AT, usage=tokens(1001, 10, shiny=3), new="x")]) as connection:
        walked = bridge(connection)
        found = connection.execute(
            "select meter, amount_usd::varchar from report.discrepancy where reason = 'residual'"
        )
        assert found.fetchall() == [("gpu_rental", "0.125000000000")]
        assert (walked["unpriced"], walked["billed"]) == ("0.0475", "0.177755")
        assert connection.execute("select service_tier from report.cell where model = 'claude-zzz'").fetchall() == [
            ("turbo",)
        ]


def test_a_page_that_was_cut_on_disk_is_exit_4(tmp_path):
    """What lies there is not what was pulled: the page is named, with both digests, and nothing is loaded."""
    raw = write_pull(tmp_path / "raw", ROWS, COSTS)
    page = raw / "usage_hour.json"
    whole = page.read_bytes()
    page.write_bytes(whole[: len(whole) // 2])
    cut, kept = (sha256(content).hexdigest() for content in (page.read_bytes(), whole))
    with pytest.raises(InvariantError, match=rf"usage_hour\.json: the manifest has sha256 {kept}, the file has {cut}"):
        load.Pull.read(raw)


@pytest.mark.parametrize("amount", ["1e999", "NaN", "-Infinity", "", "12,5", "0x1F", " 1", None, True, [], "9" * 40])
def test_an_amount_that_is_none_is_refused(tmp_path, amount):
    """What is no finite decimal in cents is exit 3, with what stood there."""
    with pytest.raises(SourceError, match="expected a decimal string in cents"):
        pages(tmp_path, ROWS, [cost(DAY, amount, "uncached_input_tokens")])


def test_an_amount_of_thirty_decimals_is_kept(tmp_path):
    """Its dollars are those of twelve decimals, and what that takes is rounding, not lost."""
    costs = [cost(DAY, "0.525000000049999999999999999999", "output_tokens"), COSTS[0]]
    with closed(tmp_path, [usage(HOUR, input=1000, output=210)], costs, [line(AT, usage=tokens(1000, 210))]) as ledger_:
        assert ledger_.execute("select billed_usd from report.summary").fetchone()[0] == sum(
            row[0] for row in ledger_.execute("select billed_usd from report.cell").fetchall()
        )
        assert bridge(ledger_).get("residual") is None


def test_ten_thousand_cells_a_day(tmp_path):
    """A day of ten thousand cells is a day like any other: nothing is lost, the check of every line holds."""
    usages = [usage(HOUR, workspace_id=f"wrkspc_{number:05d}", api_key_id=None, input=1000) for number in range(10_000)]
    costs = [cost(DAY, "0.5", "uncached_input_tokens", workspace_id=f"wrkspc_{number:05d}") for number in range(10_000)]
    with closed(tmp_path, usages, costs, []) as connection:
        assert connection.execute("select count(*) from report.cell").fetchone() == (10_000,)
        assert bridge(connection) == {
            "logged": "0", "recorded": "0", "no_key": "50", "reported": "50", "billed": "50"
        }  # fmt: skip


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.just({}), st.just([]),
    st.sampled_from(["EUR", "1e999", "2026-13-01T00:00:00Z", -1, 2**63, "sk-ant-x", "\x00", "a" * 5000]),
)  # fmt: skip


@st.composite
def damaged(draw):
    """Good rows, of which one field (or a field of a field) is another value, missing or new."""
    usages, costs = deepcopy(ROWS), deepcopy(COSTS)
    row = draw(st.sampled_from([usages[0], costs[0], usages[0]["cache_creation"], usages[0]["server_tool_use"]]))
    name = draw(st.sampled_from([key for key in row if key != "at"] + ["new"]))
    if draw(st.booleans()):
        row[name] = draw(VALUES)
    else:
        row.pop(name, None)
    return usages, costs


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=damaged())
def test_no_page_is_a_traceback(tmp_path_factory, rows):
    """150 damaged pages: each is read whole, or refused with a line that says where and what."""
    try:
        connection = pages(tmp_path_factory.mktemp("fuzz"), *rows)
    except SourceError:
        return
    with connection:
        assert connection.execute("select count(*) from source.billed").fetchone() == (2,)


# The request logs -----------------------------------------------------------------------------------------------------

GARBAGE = st.one_of(
    st.binary(max_size=60).map(lambda noise: noise.replace(b"\n", b" ").replace(b"\r", b" ")),
    st.recursive(
        VALUES.filter(lambda value: value != "a" * 5000),
        lambda inner: st.dictionaries(
            st.sampled_from(["request_id", "timestamp", "model", "usage", "input_tokens", "event", "cost_usd", "x"]),
            inner,
        ),
        max_leaves=6,
    ).map(lambda value: json.dumps(value).encode()),
    st.builds(
        lambda name, value: json.dumps(line(AT, "bad", usage=tokens(1)) | {name: value}).encode(),
        st.sampled_from(["request_id", "timestamp", "model", "usage", "event", "cost_usd", "status", "labels"]),
        VALUES.filter(lambda value: value != "a" * 5000),
    ),
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(garbage=st.lists(GARBAGE, min_size=40, max_size=40))
@pytest.mark.parametrize("form", ["requests", "messages"])
def test_no_line_is_a_traceback_and_no_good_line_is_lost(tmp_path_factory, form, garbage):
    """480 lines of garbage for each reader, between good ones: every good one is kept, every line is counted."""
    folder = tmp_path_factory.mktemp("fuzz")
    if form == "requests":
        good = [json.dumps(line(AT, f"good_{number}", usage=tokens(5))).encode() for number in range(len(garbage))]
    else:
        body = {"type": "message", "model": "claude-opus-4-7", "usage": tokens(5, 1), "id": "msg_1"}
        good = [
            json.dumps({"timestamp": AT, "request_id": f"good_{number}", "response": body}).encode()
            for number in range(len(garbage))
        ]
    (folder / "log.jsonl").write_bytes(b"\n".join(part for pair in zip(good, garbage, strict=True) for part in pair))
    with loaded(folder, [log_of(folder, format=form)]) as connection:  # its checks count every line
        kept = {row[0] for row in requests(connection)}
        assert {f"good_{number}" for number in range(len(garbage))} <= kept


CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.lists(CELLS, min_size=1, max_size=6), min_size=20, max_size=20))
def test_no_csv_record_is_a_traceback_and_no_good_one_is_lost(tmp_path_factory, rows):
    """240 records of noise between good ones, well quoted: every good one is kept."""
    folder = tmp_path_factory.mktemp("fuzz")
    header = ["request_id", "timestamp", "model", "usage.input_tokens", "usage.output_tokens"]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(header)
    for number, row in enumerate(rows):
        writer.writerow([f"good_{number}", AT, "claude-opus-4-7", "5", "1"])
        writer.writerow(row)
    (folder / "log.csv").write_text(text.getvalue(), newline="")
    with loaded(folder) as connection:
        assert {f"good_{number}" for number in range(len(rows))} <= {row[0] for row in requests(connection)}


def test_strange_numbers_and_days_are_counted(tmp_path):
    """1e308 tokens and negative ones are rejected with their line; 1970 and 2100 are outside the month."""
    (tmp_path / "log.jsonl").write_text(
        jsonl([
            line(AT, "good", usage=tokens(5)),
            json.dumps(line(AT, "huge", usage=tokens(5))).replace('"input_tokens": 5', '"input_tokens": 1e308'),
            line(AT, "negative", usage=tokens(-5)),
            line("1970-01-01T00:00:00Z", "old", usage=tokens(5)),
            line("2100-01-01T00:00:00Z", "new", usage=tokens(5)),
        ])
    )  # fmt: skip
    with loaded(tmp_path) as connection:
        assert requests(connection) == [("good",)]
        assert [(at, why.partition(",")[0]) for _, at, why in rejected(connection)] == [
            (2, "input_tokens is 1e+308"), (3, "input_tokens is -5")
        ]  # fmt: skip
        assert connection.execute("select lines, rejected, outside from source.log").fetchone() == (5, 2, 2)


def test_a_line_of_fifty_megabytes_is_read(tmp_path):
    """A prompt in the line makes it long, not unreadable; the good ones around it are kept."""
    long = json.dumps(line(AT, "long", usage=tokens(7)) | {"prompt": "x" * (50 << 20)})
    (tmp_path / "log.jsonl").write_text(jsonl([line(AT, "a", usage=tokens(5)), long, line(AT, "b", usage=tokens(5))]))
    with loaded(tmp_path) as connection:
        assert requests(connection) == [("a",), ("b",), ("long",)]


@pytest.fixture
def written(tmp_path):
    """A log of one line, and what is found of it."""
    path = tmp_path / "log.jsonl"
    path.write_text(jsonl([line(AT, "first", usage=tokens(5))]))
    write_pull(tmp_path / "raw", [], [])
    return path


def read(folder: Path, found) -> list[tuple[str, ...]]:
    """The requests of logs that were found, read now."""
    with ledger.building(folder / "built.duckdb", folder / "scratch") as connection:
        describe_run(connection)
        load.load_pages(connection, load.Pull.read(folder / "raw"))
        load.load_logs(connection, found, PriceBook.read([]), PERIOD, "auto", lambda *_: None)
        return requests(connection)


def test_a_log_that_grows_is_read_as_it_was_fingerprinted(tmp_path, written):
    """What was written lately is read from a copy of that moment: what comes later belongs to the next close."""
    found = load.find_logs([log_of(tmp_path)], PERIOD, tmp_path / "snapshots")
    with written.open("a") as stream:
        stream.write(jsonl([line(AT, "second", usage=tokens(5))]))
    assert read(tmp_path, found) == [("first",)]
    later = load.find_logs([log_of(tmp_path)], PERIOD, tmp_path / "later")
    assert later[0].files[0].sha256 != found[0].files[0].sha256


def test_a_file_of_long_ago_that_changes_while_it_is_read_is_exit_3(tmp_path, written):
    """What nobody expected to change is not copied; where it does, both sizes are named and nothing is published."""
    os.utime(written, (1, 1))
    found = load.find_logs([log_of(tmp_path)], PERIOD, tmp_path / "snapshots")
    assert not (tmp_path / "snapshots").exists()
    before = written.stat().st_size
    with written.open("a") as stream:
        stream.write(jsonl([line(AT, "second", usage=tokens(5))]))
    with pytest.raises(SourceError, match=f"it had {before} bytes, and has {written.stat().st_size}"):
        read(tmp_path, found)


def test_a_file_that_vanishes_is_exit_3(tmp_path, written):
    """Between the fingerprint and the reading: the file is named."""
    os.utime(written, (1, 1))
    found = load.find_logs([log_of(tmp_path)], PERIOD, tmp_path / "snapshots")
    written.unlink()
    with pytest.raises(SourceError, match=r"log\.jsonl"):
        read(tmp_path, found)


def test_an_error_about_a_copy_names_the_file_that_it_is_of(tmp_path, written):
    """A gzip cut in the middle is told under its own name, though a copy of it was read."""
    written.with_name("log.jsonl.gz").write_bytes(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x4b")
    written.unlink()
    found = load.find_logs([log_of(tmp_path)], PERIOD, tmp_path / "snapshots")
    with pytest.raises(SourceError) as caught:
        read(tmp_path, found)
    assert str(written.with_name("log.jsonl.gz")) in str(caught.value)
    assert "snapshots" not in str(caught.value)


# The disk and the calendar --------------------------------------------------------------------------------------------


def test_a_disk_that_is_full_is_told_and_leaves_nothing(tmp_path):
    """On a file system of four megabytes the ledger does not fit: one clear line, and no half of it stays."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(  # noqa: S603
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(small)],  # noqa: S607
        capture_output=True, check=False,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip("nobody may mount here; tests/test_ledger.py has the full disk without one")
    try:
        with (
            pytest.raises(ConfigError, match="Make room") as caught,
            ledger.building(small / "x.duckdb", small / "tmp") as connection,
        ):
            connection.execute("create table source.big as select range as a, hash(range) as b from range(3000000)")
        assert caught.value.exit_code == 2
        assert [path.name for path in small.iterdir()] == []
    finally:
        subprocess.run(["umount", str(small)], check=True)  # noqa: S603, S607


def test_leap_day(tmp_path):
    """29 February is a day of its month, and the month after begins on the first."""
    february = type(PERIOD).parse("2028-02")
    assert [*february.days()][-1] == date(2028, 2, 29)
    assert (february.end_on, february.next.start_on) == (date(2028, 3, 1), date(2028, 3, 1))
