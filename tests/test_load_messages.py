"""Stage load: the reader of what the Messages API answered."""
# ruff: noqa: E501 - lines of a log read as lines

import json
from pathlib import Path

import pytest
from logs import jsonl, loaded, log_of, rejected, requests
from month import bridge, closed, cost, tokens, usage, write_config

AT = "2026-10-05T10:30:00Z"
SPLIT = {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 50}
START = {
    "type": "message_start",
    "message": {
        "id": "msg_1", "type": "message", "model": "claude-opus-4-7", "content": [],
        "usage": tokens(
            25, 1, cache_creation_input_tokens=150, cache_read_input_tokens=7, cache_creation=SPLIT,
            service_tier="priority", inference_geo="us", speed="fast",
        ),
    },
}  # fmt: skip
TEXT = {
    "type": "content_block_delta",
    "index": 0,
    "delta": {"type": "text_delta", "text": 'Open "Sesame"\ndata: {"no": 1}'},
}


def delta(**used):
    return {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": used}


def sse(events, end="\n"):
    """A stream's text as it comes over the wire."""
    return "".join(f"event: {event['type']}{end}data: {json.dumps(event)}{end}{end}" for event in events)


def body(usage, **more):
    return {
        "id": "msg_1",
        "type": "message",
        "model": "claude-opus-4-7",
        "content": [{"text": "Sesame"}],
        "usage": usage,
    } | more


def read(folder, lines, columns, **settings):
    """The kept requests of a messages log with these lines, and what could not be read."""
    (folder / "log.jsonl").write_text(jsonl(lines))
    with loaded(folder, [log_of(folder, format="messages", **settings)]) as ledger:
        return requests(ledger, columns), [why for _, _, why in rejected(ledger)]


COUNTERS = (
    "uncached_input_tokens, cache_write_5m, cache_write_1h, cache_read_input_tokens, output_tokens, web_search_requests"
)


def test_a_body_brings_its_usage_and_its_wrapper_the_rest(tmp_path):
    """Who asked and when stands in the wrapper; what was used, and the model, in the body."""
    wrapped = {
        "timestamp": "2026-10-05T12:30:00+02:00", "request_id": "req_1", "workspace_id": "wrkspc_a",
        "api_key_id": "apikey_a", "status": 200, "cost_usd": "0.5", "labels": {"team": "search", "who": "x"},
        "response": body(tokens(2679, 510, cache_creation_input_tokens=150, cache_creation=SPLIT, service_tier="standard",
                                server_tool_use={"web_search_requests": 2})),
    }  # fmt: skip
    columns = f"request_id, logged_at::varchar, model, workspace_id, api_key_id, status, own_cost_usd::double, labels, {COUNTERS}"
    assert read(tmp_path, [wrapped], columns) == (
        [("req_1", "2026-10-05 10:30:00", "claude-opus-4-7", "wrkspc_a", "apikey_a", 200, 0.5, {"team": "search"},
          2679, 100, 50, 0, 510, 2)],
        [],
    )  # fmt: skip


def test_the_response_s_headers_say_what_the_wrapper_does_not(tmp_path):
    """request-id and anthropic-workspace-id count where the key itself is absent, in any letter case; then the message's id."""
    headers = {"Request-Id": "req_h", "anthropic-workspace-id": "wrkspc_h"}
    lines = [
        {"timestamp": AT, "headers": headers, "response": body(tokens(1))},
        {
            "timestamp": AT,
            "headers": headers,
            "request_id": "req_w",
            "workspace_id": "wrkspc_a",
            "response": body(tokens(2)),
        },
        {"timestamp": AT, "response": body(tokens(3))},
        {"timestamp": AT, "response": body(tokens(4), id=None)},
    ]
    assert read(tmp_path, lines, "uncached_input_tokens, request_id, workspace_id") == (
        [(1, "req_h", "wrkspc_h"), (2, "req_w", "wrkspc_a"), (3, "msg_1", None), (4, None, None)],
        [],
    )


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("form", ["events", "stream"])
def test_a_captured_stream_is_folded(tmp_path, form, end):
    """The last value of each counter counts; split, tier, geography and speed are those of message_start."""
    events = [START, TEXT, delta(output_tokens=5), delta(input_tokens=40, output_tokens=90, cache_read_input_tokens=None),
              delta(server_tool_use={"web_search_requests": 3}), {"type": "message_stop"}]  # fmt: skip
    captured = {"timestamp": AT, form: events if form == "events" else sse(events, end)}
    assert read(tmp_path, [captured], f"request_id, {COUNTERS}, service_tier, inference_geo, speed, cut") == (
        [("msg_1", 40, 100, 50, 7, 90, 3, "priority", "us", "fast", False)],
        [],
    )


EXAMPLES = Path(__file__).parent / "examples" / "streams.json"


@pytest.mark.parametrize("name", ["basic", "tool_use", "web_search"])
@pytest.mark.parametrize("form", ["events", "stream"])
def test_the_documented_streams_fold_to_their_final_usage(tmp_path, name, form):
    """The provider's own examples of streams give the usage that it says they end with."""
    documented = json.loads(EXAMPLES.read_text())
    expected = {"web_search_requests": 0} | documented["expected_final_usage"][name]
    captured = documented[name] if form == "events" else sse(documented[name])
    assert read(
        tmp_path, [{"timestamp": AT, form: captured}], "uncached_input_tokens, output_tokens, web_search_requests, cut"
    ) == ([(expected["input_tokens"], expected["output_tokens"], expected["web_search_requests"], False)], [])


@pytest.mark.parametrize("form", ["events", "stream"])
def test_a_stream_without_its_last_usage_is_cut(tmp_path, form):
    """A capture that ends before any message_delta with usage keeps the start's counters, and is marked."""
    captured = [START, TEXT] if form == "events" else sse([START, TEXT]) + 'event: message_delta\ndata: {"type": "messa'
    assert read(tmp_path, [{"timestamp": AT, form: captured}], "output_tokens, cut") == ([(1, True)], [])


def test_a_whole_capture_stands_before_a_cut_one(tmp_path):
    """Of two captures of one request the cut one is the duplicate, though it came first; nothing is a stream sum."""
    lines = [
        {"timestamp": "2026-10-05T10:30:00Z", "request_id": "req_1", "events": [START]},
        {"timestamp": "2026-10-05T10:31:00Z", "request_id": "req_1", "events": [START, delta(output_tokens=90)]},
    ]
    (tmp_path / "log.jsonl").write_text(jsonl(lines))
    with loaded(tmp_path, [log_of(tmp_path, format="messages")]) as ledger:
        assert requests(ledger, "output_tokens, cut") == [(90, False)]
        assert ledger.execute("select reason, lines from source.removed").fetchall() == [("duplicate", 1)]


def test_nothing_is_claimed_of_a_captured_stream(tmp_path):
    """Capturing is a way of writing: what was logged is what was folded, and ties out with the bill."""
    config = write_config(tmp_path, request_logs=[{"name": "app", "path": "log*.jsonl", "format": "messages"}])
    with closed(
        tmp_path,
        [usage("2026-10-05T10:00:00Z", input=10682, output=510, workspace_id="wrkspc_a")],
        [cost("2026-10-05", "5.341", "uncached_input_tokens"), cost("2026-10-05", "1.275", "output_tokens")],
        [{
            "timestamp": AT, "workspace_id": "wrkspc_a", "api_key_id": "apikey_a",
            "events": [
                {"type": "message_start", "message": {"model": "claude-opus-4-7", "usage": tokens(2679, 3)}},
                delta(input_tokens=10682, output_tokens=510),
            ],
        }],
        config=config,
    ) as ledger:  # fmt: skip
        assert bridge(ledger) == {
            "logged": "0.06616",
            "recorded": "0.06616",
            "reported": "0.06616",
            "billed": "0.06616",
        }


def test_batch_results_are_of_the_tier_batch(tmp_path):
    """A succeeded result carries usage; errored, canceled and expired ones are readable and used nothing."""
    succeeded = {"type": "succeeded", "message": body(tokens(11, 36), id="msg_b")}
    lines = [
        {"timestamp": AT, "custom_id": "a", "result": succeeded},
        {"timestamp": AT, "custom_id": "b", "result": {"type": "errored", "error": {"type": "error"}}},
        {"timestamp": AT, "custom_id": "c", "result": {"type": "canceled"}},
        {"timestamp": AT, "custom_id": "d", "result": {"type": "expired"}},
        {"custom_id": "e", "result": succeeded},
    ]
    (tmp_path / "log.jsonl").write_text(jsonl(lines))
    with loaded(tmp_path, [log_of(tmp_path, format="messages")]) as ledger:
        assert requests(ledger, "request_id, service_tier, uncached_input_tokens, output_tokens") == [
            ("msg_b", "batch", 11, 36)
        ]
        assert rejected(ledger) == [("log.jsonl", 5, "has no timestamp")]
        assert ledger.execute("select lines, rejected, unused, requests from source.log").fetchone() == (5, 1, 3, 1)


def test_a_bare_body_needs_a_timestamp_beside_it(tmp_path):
    """A line may be the response itself with a timestamp in it; without one nobody knows its day."""
    lines = [{"timestamp": AT, **body(tokens(5, 6))}, body(tokens(7, 8), id="msg_2")]
    assert read(tmp_path, lines, "request_id, uncached_input_tokens, output_tokens") == (
        [("msg_1", 5, 6)],
        ["has no timestamp"],
    )


def test_an_error_s_body_used_nothing(tmp_path):
    """An answer that is an error is readable, and no request."""
    overloaded = {"timestamp": AT, "status": 529, "response": {"type": "error", "error": {"type": "overloaded_error"}}}
    assert read(tmp_path, [overloaded, {"timestamp": AT, "type": "error", "error": {}}], "request_id") == ([], [])


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ({"timestamp": AT}, "has no response, events, stream or result"),
        ({"timestamp": AT, "response": body(tokens(1)), "events": [START]},
         "has more than one of response, events, stream, result and a bare body"),
        ({"timestamp": AT, "events": [delta(output_tokens=5)]}, "has a stream without its message_start"),
        ({"timestamp": AT, "stream": "data: nothing"}, "has a stream without its message_start"),
        ({"timestamp": AT, "result": {"message": body(tokens(1))}}, "has a result without a type"),
        ({"timestamp": AT, "response": {"model": "claude-opus-4-7"}}, "has no usage"),
        ({"timestamp": AT, "response": body(tokens(1), model=None)}, "has no model"),
        ({"timestamp": AT, "response": body(tokens(-1))}, "input_tokens is -1, expected a whole number of at least 0"),
        ({"timestamp": AT, "response": 5}, "has no model"),
        ('{"timestamp": "2026-10-05T10:30:00Z", "response": {"mod', "is not one JSON object"),
    ],
)  # fmt: skip
def test_a_line_that_cannot_be_read_says_why(tmp_path, bad, why):
    """What is missing or too much is named, and the line is counted."""
    assert read(tmp_path, [bad], "request_id") == ([], [why])


def test_no_content_enters_the_ledger(tmp_path):
    """Completions that stand in bodies and streams are nowhere in the ledger."""
    lines = [
        {"timestamp": AT, "response": body(tokens(1))},
        {"timestamp": AT, "stream": sse([START, TEXT])},
        {"timestamp": AT, "events": [START, TEXT]},
    ]
    read(tmp_path, lines, "request_id")
    assert b"Sesame" not in (tmp_path / "built.duckdb").read_bytes()
