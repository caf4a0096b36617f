"""What the readers share: how fields of a line are spelled in SQL."""

from collections.abc import Mapping, Sequence

from reconcile.config import RequestLog

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


def raw_lines(file: str) -> str:
    """A source of a file's lines as they stand: ``line`` from 1, ``text`` (a character a byte, null when blank)."""
    return f"""(
        select row_number() over () as line, text
        from read_csv(
            {literal(file)}, columns = {{'text': 'VARCHAR'}}, delim = '\\x01', quote = '', escape = '', header = false,
            auto_detect = false, strict_mode = false, encoding = 'latin-1', max_line_size = {2 * MAX_LINE},
            buffer_size = {4 * MAX_LINE}
        )
    )"""
