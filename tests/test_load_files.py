"""Stage load: what stands in a file, whatever its form, and what is broken in it."""
# ruff: noqa: E501 - the tables of broken lines read as tables

import csv
import gzip
import io
import json

import duckdb
import pytest
import zstandard
from logs import jsonl, loaded, log_of, rejected, requests
from month import PERIOD, line, tokens

from reconcile import load
from reconcile.errors import SourceError

FULL = line(
    "2026-10-05T10:30:00.5Z",
    usage=tokens(
        2679, 510, cache_creation_input_tokens=30, cache_read_input_tokens=7, service_tier="batch",
        cache_creation={"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
        server_tool_use={"web_search_requests": 2},
    ),
    cost_usd="0.026145", status=200, labels={"team": "search", "who": "x"}, prompt="Tell me, Sesame",
)  # fmt: skip
COLUMNS = (
    "request_id, logged_at::varchar, workspace_id, model, service_tier, inference_geo, api_key_id, uncached_input_tokens,"
    " cache_write_5m, cache_write_1h, cache_read_input_tokens, output_tokens, web_search_requests,"
    " own_cost_usd::varchar, labels"
)
KEPT = (
    "req_1", "2026-10-05 10:30:00.5", "wrkspc_a", "claude-opus-4-7", "batch", "global", "apikey_a", 2679, 10, 20, 7, 510,
    2, "0.026145000000000000", {"team": "search"},
)  # fmt: skip
HEADER = "request_id,timestamp,model,usage.input_tokens,labels.team\n"


def record(number, timestamp="2026-10-05T10:00:00Z", count=5, team="search"):
    return f"r{number},{timestamp},claude-opus-4-7,{count},{team}\n"


def dotted(value, prefix=""):
    """A line as the columns of a table: the keys of nested objects joined by dots."""
    found = {}
    for name, part in value.items():
        if isinstance(part, dict):
            found |= dotted(part, f"{prefix}{name}.")
        else:
            found[prefix + name] = part
    return found


def write(folder, kind):
    """The one line, in one of the forms that the reader takes."""
    path = folder / f"log.{kind}"
    text = jsonl([FULL]).encode()
    flat = dotted(FULL)
    table = io.StringIO()
    writer = csv.DictWriter(table, flat)
    writer.writeheader()
    writer.writerow(flat)
    match kind:
        case "jsonl":
            path.write_bytes(text)
        case "jsonl.gz":
            path.write_bytes(gzip.compress(text))
        case "jsonl.zst":
            path.write_bytes(zstandard.ZstdCompressor().compress(text))
        case "csv":
            path.write_text(table.getvalue())
        case "csv.gz":
            path.write_bytes(gzip.compress(table.getvalue().encode()))
        case "csv.zst":
            path.write_bytes(zstandard.ZstdCompressor().compress(table.getvalue().encode()))
        case "tsv":
            path.write_text(table.getvalue().replace(",", "\t").replace('"Tell me\t Sesame"', "Tell me"))
        case "parquet":
            (folder / "flat.json").write_text(json.dumps(flat))
            duckdb.sql(f"copy (from '{folder}/flat.json') to '{path}' (format parquet)")


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "jsonl.zst", "csv", "csv.gz", "csv.zst", "tsv", "parquet"])
def test_every_form_of_a_log_gives_the_same_request(tmp_path, kind):
    """A line says the same as JSONL, CSV and Parquet, compressed or not; only configured labels are kept."""
    write(tmp_path, kind)
    with loaded(tmp_path) as ledger:
        assert requests(ledger, COLUMNS) == [KEPT]
        assert rejected(ledger) == []


@pytest.mark.parametrize("kind", ["jsonl.gz", "csv", "parquet"])
def test_nothing_else_of_a_line_enters_the_ledger(tmp_path, kind):
    """A prompt that a line holds is nowhere in the DuckDB file, in no letter case and no compression."""
    write(tmp_path, kind)
    with loaded(tmp_path) as ledger:
        ledger.execute("checkpoint")
        tables = ledger.execute("select schema_name, table_name from duckdb_tables() where not temporary").fetchall()
        for schema, table in tables:
            held = str(ledger.execute(f"from {schema}.{table}").fetchall())
            assert "Sesame" not in held
            assert "who" not in held
    assert b"Sesame" not in (tmp_path / "built.duckdb").read_bytes()


def test_parquet_keeps_types_apart(tmp_path):
    """Numbers, doubles that are whole, and instants with a zone are read from Parquet as they are meant."""
    duckdb.sql(f"""
        copy (
            select 'req_1' as request_id, timestamptz '2026-10-05 23:30:00-05' as timestamp, 'claude-opus-4-7' as model,
                1000.0::double as "usage.input_tokens", 5::utinyint as "usage.output_tokens",
                0.25::decimal(9, 6) as cost_usd
        ) to '{tmp_path}/log.parquet' (format parquet)
    """)
    with loaded(tmp_path) as ledger:
        assert requests(ledger, "logged_at::varchar, uncached_input_tokens, output_tokens, own_cost_usd::double") == [
            ("2026-10-06 04:30:00", 1000, 5, 0.25)
        ]


def test_paths_of_days_and_months_reach_the_neighbors(tmp_path):
    """{day} and {month} find the period and a day either side; lines further outside are counted and skipped."""
    for day in ("2026-09-29", "2026-09-30", "2026-10-01", "2026-10-31", "2026-11-01", "2026-11-02"):
        (tmp_path / f"{day}.jsonl").write_text(jsonl([line(f"{day}T12:00:00Z", day, usage=tokens(5))]))
        (tmp_path / day[:7]).mkdir(exist_ok=True)
        (tmp_path / day[:7] / "all.csv").open("a").write("")
    (tmp_path / "2026-09" / "all.csv").write_text(
        HEADER + record(1, "2026-09-29T23:59:59Z") + record(2, "2026-09-30T00:00:00Z")
    )
    logs = [log_of(tmp_path, "{day}.jsonl", name="days"), log_of(tmp_path, "{month}/*.csv", name="months")]
    with loaded(tmp_path, logs) as ledger:
        assert requests(ledger, "request_id, in_period") == [
            ("2026-09-30", False), ("2026-10-01", True), ("2026-10-31", True), ("2026-11-01", False), ("r2", False),
        ]  # fmt: skip
        assert ledger.execute("select log, files, lines, outside, requests from source.log order by log").fetchall() == [
            ("days", 4, 4, 0, 4), ("months", 3, 2, 1, 1),
        ]  # fmt: skip


def test_files_of_one_log_may_differ_in_form_and_columns(tmp_path):
    """A log's files are read by what each of them is; a column that a file lacks is null there."""
    (tmp_path / "log1.csv").write_text(HEADER + record(1))
    (tmp_path / "log2.csv").write_text(
        "timestamp;usage.output_tokens;model;request_id\n2026-10-05T10:00:00Z;7;claude-opus-4-7;r2\n"
    )
    (tmp_path / "log3.jsonl").write_text(jsonl([line("2026-10-05T10:00:00Z", "r3", usage=tokens(1))]))
    with loaded(tmp_path) as ledger:
        assert requests(ledger, "request_id, uncached_input_tokens, output_tokens, labels") == [
            ("r1", 5, 0, {"team": "search"}), ("r2", 0, 7, {"team": None}), ("r3", 1, 0, {"team": None}),
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "kept", "bad"),
    [
        (HEADER + record(1) + "r2,2026\n" + record(3), ["r1", "r3"], [(3, "is not a CSV record: missing columns")]),
        (HEADER + record(1) + record(2, team="a,b") + record(3), ["r1", "r3"], [(3, "is not a CSV record: too many columns")]),
        (HEADER + record(1) + record(2, team='"op"en') + record(3), ["r1", "r3"], [(3, "is not a CSV record: unquoted value")]),
        (HEADER + record(1).replace("r1", "r\xff") + record(2), ["r2"], [(2, "is not a CSV record: invalid encoding")]),
        (HEADER + record(1, team='"two\nlines"') + record(2, count=-5) + "\n" + record(3, count="1.5") + "r4\n" + record(5),
         ["r1", "r5"],
         [(4, "input_tokens is -5, expected a whole number of at least 0"),
          (6, "input_tokens is 1.5, expected a whole number of at least 0"), (7, "is not a CSV record: missing columns")]),
        ("\xef\xbb\xbf" + HEADER + record(1), ["r1"], []),
        ((HEADER + record(1) + record(2)).replace("\n", "\r\n"), ["r1", "r2"], []),
        (HEADER + record(1) + record(2).replace("\n", "\r\n") + record(3), ["r1", "r2", "r3"], []),
        ((HEADER + record(1)).rstrip("\n"), ["r1"], []),
        (HEADER + record(1, team='"say ""hi"", ok"'), ["r1"], []),
        (HEADER, [], []),
        ("", [], []),
        (HEADER + '"",2026-10-05T10:00:00Z,claude-opus-4-7,5,\n' * 2, [None, None], []),
        (HEADER.replace(",", "|") + record(1).replace(",", "|"), ["r1"], []),
        (HEADER.replace("labels.team", "request_id") + record(1), ["r1"], []),
    ],
)  # fmt: skip
def test_csv_loses_no_good_record(tmp_path, text, kept, bad):
    """What is not a record is counted with its line, whatever stands around it; blank fields are null."""
    (tmp_path / "log.csv").write_bytes(text.encode("latin-1"))
    with loaded(tmp_path) as ledger:
        assert [request_id for (request_id,) in requests(ledger)] == kept
        assert rejected(ledger) == [("log.csv", number, why) for number, why in bad]
        assert ledger.execute("select lines, rejected from source.log").fetchone() == (len(kept) + len(bad), len(bad))


GOOD = jsonl([line("2026-10-05T10:00:00Z", "good", usage=tokens(5))])


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ('{"request_id": "b\xff"}', "is not one JSON object"),
        ("\xef\xbb\xbf" + GOOD.strip(), "begins with a byte order mark: write the file as UTF-8 without one"),
        ("\0\0\0", "is not one JSON object"),
        ('{"request_id": "a\0b", "model": "m"}', "is not one JSON object"),
        ("[1, 2]", "is not one JSON object"),
        ('"text"', "is not one JSON object"),
        (GOOD.strip() * 2, "is not one JSON object"),
        ('{"request_id": "x", "model": "m"}', "has no timestamp"),
        (json.dumps(line("2026-10-05T10:00:00Z", usage="a lot")), "has no usage"),
        (json.dumps(line("2026-10-05T10:00:00Z", usage=[1])), "has no usage"),
        (json.dumps(line("infinity", usage=tokens(1))), "timestamp is infinity, expected an instant like 2026-10-03T14:05:06Z"),
        (json.dumps(line("2026-10-05T10:00:00Z", usage=tokens({"a": 1}))), 'input_tokens is {"a":1}, expected a whole number of at least 0'),
        (json.dumps(line("2026-10-05T10:00:00Z", usage=tokens(1e308))), "input_tokens is 1e+308, expected a whole number of at least 0"),
        (GOOD.strip().replace(": 5", ": 1e999"), "input_tokens is 1e999, expected a whole number of at least 0"),
        (json.dumps(line("2026-10-05T10:00:00Z", usage=tokens(5_000_000_000))), "input_tokens is 5000000000, expected a whole number of at least 0"),
        (json.dumps(line("2026-10-05T10:00:00Z", usage=tokens(1.5))), "input_tokens is 1.5, expected a whole number of at least 0"),
        (json.dumps(line("2026-10-05T10:00:00Z", usage=tokens(1), event="message_stop")), "event is message_stop, expected final, message_start or message_delta"),
    ],
)  # fmt: skip
def test_a_broken_line_among_good_ones(tmp_path, bad, why):
    """Whatever a line is, it is counted with its number, and the lines around it are read."""
    (tmp_path / "log.jsonl").write_bytes(
        (GOOD + "\n\t \n" + bad + "\n" + GOOD.replace("good", "last")).encode("latin-1")
    )
    with loaded(tmp_path) as ledger:
        assert rejected(ledger) == [("log.jsonl", 4, why)]
        assert requests(ledger) == [("good",), ("last",)]


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (line("2026-10-05T10:00:00Z", usage=tokens(1000.0)), 1000),
        (line("2026-10-05T10:00:00Z", usage=tokens("12")), 12),
        (line("2026-10-05T10:00:00Z", usage=tokens(7), labels={"team": {"of": ["a"]}}), 7),
        (line("2026-10-05T10:00:00Z", usage=tokens(7), labels="search"), 7),
        (line("2026-10-05T10:00:00Z", usage=tokens(7, iterations="many", cache_creation=5)), 7),
        ('{"request_id": "a", "request_id": "b", "timestamp": "2026-10-05T10:00:00Z", "model": "m", "usage": {"input_tokens": 1, "input_tokens": 2}}', 1),
        (line("2026-10-05T10:00:00Z", usage={}, status=429), 0),
    ],
)  # fmt: skip
def test_an_odd_line_is_read_where_its_meaning_is_clear(tmp_path, value, read):
    """Whole floats, numbers as text, nested labels and fields of another type stop no line; of equal keys the first counts."""
    (tmp_path / "log.jsonl").write_text(jsonl([value]))
    with loaded(tmp_path) as ledger:
        assert requests(ledger, "uncached_input_tokens") == [(read,)]
        assert rejected(ledger) == []


def test_an_empty_id_is_no_id(tmp_path):
    """Lines whose request id is an empty text are never folded together."""
    (tmp_path / "log.jsonl").write_text(jsonl([line("2026-10-05T10:00:00Z", "", usage=tokens(5))] * 3))
    with loaded(tmp_path) as ledger:
        assert requests(ledger) == [(None,)] * 3


def test_an_empty_file_is_no_error(tmp_path):
    """A file without a byte, plain or named compressed, has no line."""
    for name in ("log1.jsonl", "log2.jsonl.gz", "log3.csv", "log4.parquet"):
        (tmp_path / name).touch()
    (tmp_path / "log5.jsonl").write_text(GOOD)
    (tmp_path / "log6.jsonl.gz").write_bytes(gzip.compress(b""))
    with loaded(tmp_path) as ledger:
        assert requests(ledger) == [("good",)]


def test_a_long_line_is_read(tmp_path):
    """A line far beyond the usual size is read with larger buffers."""
    (tmp_path / "log.jsonl").write_text(
        GOOD + jsonl([line("2026-10-05T10:00:00Z", "long", usage=tokens(5), prompt="z" * (40 << 20))])
    )
    with loaded(tmp_path) as ledger:
        assert requests(ledger) == [("good",), ("long",)]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("log.jsonl.gz", gzip.compress(GOOD.encode() * 9999)[:-50], "Unexpected end of GZIP stream"),
        ("log.csv.gz", gzip.compress((HEADER + record(1) * 9999).encode())[:-50], "Unexpected end of GZIP stream"),
        ("log.jsonl.gz", b"this is not compressed\n" * 9, "not a GZIP stream"),
        ("log.jsonl.zst", b"this is not compressed\n" * 9, "Unknown frame descriptor"),
        ("log.parquet", b"this is no table\n" * 9, "log.parquet"),
        ("log.jsonl", GOOD.encode() + b'{"prompt": "' + b"z" * (140 << 20) + b'"}\n', "log.jsonl"),
    ],
    ids=["cut gzip", "cut csv", "no gzip", "no zstd", "no parquet", "a line of 140 MiB"],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, content, says):
    """What cannot be read to its end stops the run with the file's name: what is missing in it is unknown."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError) as caught, loaded(tmp_path):
        pass
    assert says in str(caught.value)
    assert name in str(caught.value)


def test_a_log_without_files_is_an_error_and_without_lines_a_warning(tmp_path):
    """No file is exit 3; files without a line in the period are told as a warning."""
    with pytest.raises(SourceError, match="found no file"):
        load.find_logs([log_of(tmp_path, "none*")], PERIOD)
    (tmp_path / "log.jsonl").write_text(jsonl([line("2026-07-05T10:00:00Z", usage=tokens(5)), "{"]))
    with loaded(tmp_path) as ledger:
        assert warned(ledger) == [
            "request log app has no line in 2026-10: 1 file with 2 lines, of which 1 could not be read and 1 lie outside the month"
        ]


def test_coverage_names_the_days_without_a_line(tmp_path):
    """What a log covers is compared with the period's complete days, line by line, duplicates included."""
    stood = [day for day in range(1, 32) if day not in {4, 17}]
    (tmp_path / "log.jsonl").write_text(
        jsonl([line(f"2026-10-{day:02d}T{hour}:30:00Z", None, usage=tokens(5)) for day in stood for hour in (10, 11)])
    )
    with loaded(tmp_path) as ledger:
        found = ledger.execute(
            "select log, first_at::varchar, last_at::varchar, hours_with_lines, days_without_lines::varchar"
            " from source.log_coverage"
        ).fetchall()
        assert found == [("app", "2026-10-01 10:30:00", "2026-10-31 11:30:00", 58, "[2026-10-04, 2026-10-17]")]
        assert warned(ledger) == []


@pytest.mark.parametrize(("first", "last", "days"), [(3, 31, 2), (1, 30, 1), (12, 12, 30)])
def test_a_log_that_does_not_reach_over_the_period_is_a_warning(tmp_path, first, last, days):
    """A log that begins after the period's first day or ends before its last says what it covers."""
    (tmp_path / "log.jsonl").write_text(
        jsonl([line(f"2026-10-{day:02d}T10:30:00Z", None, usage=tokens(5)) for day in range(first, last + 1)])
    )
    with loaded(tmp_path) as ledger:
        covered = f"request log app covers 2026-10-{first:02d} to 2026-10-{last:02d} of 2026-10-01 to 2026-10-31"
        assert warned(ledger) == [f"{covered}: {days} {'day' if days == 1 else 'days'} without a line"]


def warned(ledger):
    """What load warns of, in order."""
    return [row[0] for row in ledger.execute("select warning from source.warning order by position").fetchall()]
