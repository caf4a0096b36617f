"""What the readers share: how fields of a line are spelled in SQL."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from typing import TextIO

import pyarrow as pa

from reconcile.config import RequestLog

BYTE_ORDER_MARK = b"\xef\xbb\xbf".decode("latin-1")

MAX_LINE = 64 << 20
"""The longest line of a log that is surely read, in bytes."""

USUAL_LINE = 16 << 20
"""Read first with buffers for lines of this size: a buffer is allocated for every thread."""

USAGE_FIELDS = {
    "input_tokens": "input_tokens",
    "cache_creation_input_tokens": "cache_write_total",
    "cache_creation.ephemeral_5m_input_tokens": "cache_write_5m",
    "cache_creation.ephemeral_1h_input_tokens": "cache_write_1h",
    "cache_read_input_tokens": "cache_read_input_tokens",
    "output_tokens": "output_tokens",
    "server_tool_use.web_search_requests": "web_search_requests",
    "service_tier": "service_tier",
    "inference_geo": "inference_geo",
    "speed": "speed",
    "iterations": "iterations",
}
"""The paths of the Messages API's usage object that are read, and the columns that they become."""

USAGE_TYPE = (
    "STRUCT(input_tokens VARCHAR, cache_creation_input_tokens VARCHAR,"
    " cache_creation STRUCT(ephemeral_5m_input_tokens VARCHAR, ephemeral_1h_input_tokens VARCHAR),"
    " cache_read_input_tokens VARCHAR, output_tokens VARCHAR,"
    " server_tool_use STRUCT(web_search_requests VARCHAR),"
    " service_tier VARCHAR, inference_geo VARCHAR, speed VARCHAR, iterations JSON)"
)


def identifier(name: str) -> str:
    """A name quoted for SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text quoted for SQL."""
    return "'" + text.replace("'", "''") + "'"


def literals(texts: Sequence[str]) -> str:
    """A list of texts for SQL."""
    return "[" + ", ".join(literal(text) for text in texts) + "]"


def labels(log: RequestLog, spelled: Mapping[str, str]) -> str:
    """A map of the configured labels, and of no other; ``spelled`` says where each stands."""
    if not log.labels:
        return "map {}::MAP(VARCHAR, VARCHAR)"
    return f"map({literals(log.labels)}, [{', '.join(spelled[name] for name in log.labels)}])"


def label_type(log: RequestLog) -> str:
    """The type of a line's labels, of which only the configured ones are read."""
    return "STRUCT(" + ", ".join(f"{identifier(name)} VARCHAR" for name in log.labels) + ")"


def json_lines(files: Sequence[str], columns: Mapping[str, str], longest: int, *, with_text: bool) -> str:
    """A source of one row a line with these columns, ``file`` and ``line_text`` (null unless asked for: it is slow).

    A line that is not JSON, or not an object, has null everywhere; so has a field that is of another type.
    """
    if not with_text:
        spelled = ", ".join(f"{identifier(name)}: {literal(kind)}" for name, kind in columns.items())
        return f"""(
            select *, filename as file, null::varchar as line_text
            from read_json(
                {literals(files)}, format = 'newline_delimited', columns = {{{spelled}}}, ignore_errors = true,
                filename = true, maximum_object_size = {longest}
            )
        )"""
    spelled = ", ".join(f"{identifier(name)} {kind}" for name, kind in columns.items())
    return f"""(
        select unnest(try_cast(json as STRUCT({spelled}))), filename as file, json::varchar as line_text
        from read_json_objects(
            {literals(files)}, format = 'newline_delimited', ignore_errors = true, filename = true,
            maximum_object_size = {longest}
        )
    )"""


@contextmanager
def opened(file: str, newline: str | None) -> Iterator[TextIO]:
    """A file as text, decompressed by its name, a character a byte: no byte is one that cannot be read.

    ``newline`` is that of ``open``: what ends a line.
    """
    with pa.input_stream(file) as stream, TextIOWrapper(stream, encoding="latin-1", newline=newline) as text:
        yield text


def json_places(file: str) -> Iterator[tuple[int, str]]:
    """Of every line that DuckDB's JSON reader gives a row for, in order: its number, and its beginning."""
    with opened(file, "\n") as lines:
        for number, text in enumerate(lines, start=1):
            if text.strip(" \t\r\n\f"):
                yield number, text[:3]


def csv_places(file: str) -> Iterator[tuple[int, str]]:
    """Of every record of a CSV file, its header first: the number of the line on which it begins, and that line."""
    quotes = 0
    with opened(file, None) as lines:
        for number, text in enumerate(lines, start=1):
            if quotes % 2 == 0:  # after an odd number of quotes a line goes on with the record before it
                yield number, text.rstrip("\n")
            quotes += text.count('"')
