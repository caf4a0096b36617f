"""Stage load: of the lines of one request, which one stands; names that stand for ids."""
# ruff: noqa: E501 - lines of a log read as lines

import gzip
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from logs import jsonl, loaded, log_of, requests
from month import line, tokens

AT = "2026-10-05T10:30:00Z"
LATER = "2026-10-05T10:31:00Z"


def written(value, **more):
    """A line's text with further keys at its end."""
    return json.dumps(value)[:-1] + "".join(f', "{name}": {json.dumps(part)}' for name, part in more.items()) + "}"


@pytest.mark.parametrize("name", ["log.jsonl", "log.jsonl.gz"])
def test_of_equal_lines_the_largest_text_stands(tmp_path, name):
    """Equal in id, time and output: the largest text of the line decides, whatever its parsed values."""
    small = json.dumps(line(AT, usage=tokens(99, 5), workspace_id="a"))
    large = json.dumps(line(AT, usage=tokens(1, 5), workspace_id="b"))
    content = jsonl([large, small]).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    with loaded(tmp_path) as ledger:
        assert small < large
        assert requests(ledger, "workspace_id, uncached_input_tokens") == [("b", 1)]


def test_the_text_decides_between_logs_too(tmp_path):
    """Two logs that hold one request with the same values: the log whose line is larger as text stands."""
    (tmp_path / "a.jsonl").write_text(written(line(AT, usage=tokens(1, 5)), note="a") + "\n")
    (tmp_path / "b.jsonl").write_text(written(line(AT, usage=tokens(1, 5)), note="b") + "\n")
    with loaded(tmp_path, [log_of(tmp_path, "a.jsonl", name="a"), log_of(tmp_path, "b.jsonl", name="b")]) as ledger:
        assert requests(ledger, "log") == [("b",)]
        assert ledger.execute("select log, kept_log from source.removed").fetchall() == [("a", "b")]


def test_ties_are_broken_in_csv_and_parquet_too(tmp_path):
    """The text of a CSV line is the record, that of a row of Parquet its JSON."""
    header = "request_id,timestamp,model,usage.input_tokens,usage.output_tokens,workspace_id\n"
    (tmp_path / "log.csv").write_text(header + f"r1,{AT},claude-opus-4-7,10,5,w\nr1,{AT},claude-opus-4-7,9,5,w\n")
    with loaded(tmp_path) as ledger:
        assert requests(ledger, "uncached_input_tokens") == [(9,)]
        ledger.execute(f"""
            copy (
                select 'r2' as request_id, '{AT}' as timestamp, 'claude-opus-4-7' as model, 5 as "usage.output_tokens",
                    unnest([10, 9]) as "usage.input_tokens"
            ) to '{tmp_path}/log.parquet' (format parquet)
        """)
    with loaded(tmp_path) as ledger:
        assert requests(ledger, "request_id, uncached_input_tokens") == [("r1", 9), ("r2", 9)]


def test_the_text_is_asked_only_where_nothing_else_tells(tmp_path):
    """Time and output rank before the text; a line's text is not kept for what is settled without it."""
    (tmp_path / "log.jsonl").write_text(
        jsonl([
            line(LATER, "req_1", usage=tokens(7, 50), workspace_id="z"),
            line(AT, "req_1", usage=tokens(5, 50)),
            line(AT, "req_1", usage=tokens(6, 40), workspace_id="z"),
        ])
    )  # fmt: skip
    with loaded(tmp_path) as ledger:
        assert requests(ledger, "uncached_input_tokens") == [(5,)]
        assert ledger.execute("select count(*) from tied").fetchone() == (0,)


START = line(AT, "req_1", event="message_start", usage=tokens(1000, 1), workspace_id="wrkspc_s")
DELTA = line(LATER, "req_1", event="message_delta", usage={"output_tokens": 400}, workspace_id="wrkspc_d")


@pytest.mark.parametrize(
    ("first", "second", "kept", "removed"),
    [
        ([START], [DELTA], "first", [("stream_sum", "first", 2)]),
        ([DELTA], [START], "second", [("stream_sum", "second", 2)]),
        ([START], [START, DELTA], "second", [("duplicate", "first", 1), ("stream_sum", "second", 2)]),
        ([START, DELTA], [START, DELTA], "first", [("duplicate", "second", 2), ("stream_sum", "first", 2)]),
        ([START], [START], "first", [("duplicate", "second", 1)]),
    ],
)
def test_a_stream_in_two_logs_is_one_request(tmp_path, first, second, kept, removed):
    """The log that holds the whole stream stands; where none does, all events together are the request."""
    (tmp_path / "a.jsonl").write_text(jsonl(first))
    (tmp_path / "b.jsonl").write_text(jsonl(second))
    logs = [log_of(tmp_path, "a.jsonl", name="first"), log_of(tmp_path, "b.jsonl", name="second")]
    with loaded(tmp_path, logs) as ledger:
        whole = DELTA in [*first, *second]
        assert requests(ledger, "log, workspace_id, uncached_input_tokens, output_tokens, cut") == [
            (kept, "wrkspc_s", 1000, 400 if whole else 1, not whole)
        ]
        found = ledger.execute("select reason, log, sum(lines)::int from source.removed group by all order by all")
        assert [row for row in found.fetchall() if row[2]] == removed


LINES = st.lists(
    st.builds(
        lambda number, at, output, event, workspace, key, cost, written: json.dumps(
            line(
                f"2026-10-05T10:30:0{at}Z",
                None if number == 0 else f"req_{number}",
                usage=tokens(
                    number, output, cache_creation_input_tokens=written,
                    cache_creation=None if event == "message_delta"
                    else {"ephemeral_5m_input_tokens": written, "ephemeral_1h_input_tokens": 0},
                ),
                workspace_id=workspace, api_key_id=key, cost_usd=cost, event=event,
            )
        ),
        st.integers(0, 3), st.integers(0, 2), st.one_of(st.none(), st.integers(0, 3)),
        st.sampled_from(["final", "final", "message_start", "message_delta"]),
        st.sampled_from(["wrkspc_a", "wrkspc_b", None]), st.sampled_from(["apikey_a", None]),
        st.sampled_from([None, "0.5", "0.25"]), st.integers(0, 2),
    ),
    min_size=2, max_size=12,
)  # fmt: skip
SHOWN = {
    "source.request": "*",
    "source.removed": "*",
    "source.default_used": "*",
    "source.key_named": "*",
    "source.log_hour": "*",
}


def shown(folder, lines, split, names):
    """Everything that the stage shows, with the lines spread over files of these names in this order."""
    for path in folder.glob("log*"):
        path.unlink()
    for name, part in zip(names, (lines[:split], lines[split:]), strict=True):
        (folder / name).write_text(jsonl(part))
    with loaded(folder) as ledger:
        return {
            table: ledger.execute(f"select {columns} from {table} order by all").fetchall()
            for table, columns in SHOWN.items()
        }


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=LINES, draw=st.data())
def test_no_order_of_lines_or_files_changes_a_row(tmp_path, lines, draw):
    """Lines shuffled, spread over other files, and files renamed: every row of source stays as it is."""
    first = shown(tmp_path, lines, len(lines) // 2, ("log1.jsonl", "log2.jsonl"))
    mixed = draw.draw(st.permutations(lines))
    split = draw.draw(st.integers(0, len(lines)))
    assert shown(tmp_path, mixed, split, ("log9.jsonl", "log10.jsonl")) == first


def test_names_stand_for_ids_where_they_are_unique(tmp_path):
    """A key's or workspace's name is mapped where exactly one has it and it looks like no id; else it is kept."""
    names = ["Search", "Twin", "Twin", "wrkspc_x", "Default"]
    workspaces = [{"id": f"wrkspc_{number}", "name": name} for number, name in enumerate(names)]
    keys = [
        {"id": f"apikey_{number}", "name": name, "status": "active", "scope": {"type": "workspace", "workspace_id": "wrkspc_0"}}
        for number, name in enumerate(["gateway", "twin", "twin", "apikey_x"])
    ]  # fmt: skip
    pairs = [
        ("Search", "gateway", "wrkspc_0", "apikey_0"),
        ("Twin", "twin", "Twin", "twin"),
        ("wrkspc_x", "apikey_x", "wrkspc_x", "apikey_x"),
        ("wrkspc_4", "apikey_1", "default", "apikey_1"),
        ("Default", "apikey_1", "default", "apikey_1"),
        ("default", "apikey_2", "default", "apikey_2"),
        (None, "gateway", "wrkspc_0", "apikey_0"),
        ("nobody", "nothing", "nobody", "nothing"),
    ]
    (tmp_path / "log.jsonl").write_text(
        jsonl([
            line(AT, f"req_{number}", usage=tokens(1), workspace_id=workspace, api_key_id=key)
            for number, (workspace, key, _, _) in enumerate(pairs)
        ])
    )  # fmt: skip
    directory = {"workspaces": workspaces, "api_keys": keys, "default_workspace_id": "wrkspc_4"}
    with loaded(tmp_path, **directory) as ledger:
        assert requests(ledger, "request_id, workspace_id, api_key_id") == [
            (f"req_{number}", workspace_id, api_key_id) for number, (_, _, workspace_id, api_key_id) in enumerate(pairs)
        ]
        assert ledger.execute("select distinct api_key_id from source.key_named order by 1").fetchall() == [
            (key,) for key in sorted({api_key_id for _, _, _, api_key_id in pairs})
        ]
