"""The reader of the canonical request log: `format: requests` as JSONL, CSV or Parquet."""

from collections.abc import Sequence

import duckdb

from reconcile.config import RequestLog

MAX_LINE = 64 << 20
"""The longest line of a log that is read, in bytes."""

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

_TOP = ("request_id", "timestamp", "model", "workspace_id", "api_key_id", "event", "cost_usd", "status")

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


def select_text(connection: duckdb.DuckDBPyConnection, log: RequestLog, files: Sequence[str]) -> str:
    """A query over files of one kind: one row a line, every field as the text that stands there.

    Columns: file, request_id, timestamp, model, workspace_id, api_key_id, event, cost_usd, status, those of
    ``USAGE_FIELDS``, labels (a map of the configured ones), readable. A line that is not JSON has readable false.
    """
    if files[0].endswith(".parquet"):
        return _select_dotted(connection, log, f"read_parquet({_list(files)}, filename = true, union_by_name = true)")
    if ".csv" in files[0].rsplit("/", 1)[-1]:
        return _select_dotted(
            connection,
            log,
            f"read_csv({_list(files)}, all_varchar = true, header = true, filename = true, union_by_name = true,"
            f" max_line_size = {MAX_LINE}, null_padding = true)",
        )
    return _select_json(log, files)


def _list(files: Sequence[str]) -> str:
    return "[" + ", ".join(literal(path) for path in files) + "]"


def _labels(log: RequestLog, spell: dict[str, str]) -> str:
    if not log.labels:
        return "map {}::MAP(VARCHAR, VARCHAR)"
    return (
        f"map([{', '.join(literal(name) for name in log.labels)}], [{', '.join(spell[name] for name in log.labels)}])"
    )


def _select_json(log: RequestLog, files: Sequence[str]) -> str:
    columns = ", ".join(f"{name}: 'VARCHAR'" for name in _TOP) + f", usage: {literal(USAGE_TYPE)}"
    if log.labels:
        fields = ", ".join(f"{identifier(name)} VARCHAR" for name in log.labels)
        columns += f", labels: {literal(f'STRUCT({fields})')}"
    usage = ", ".join(f"usage.{path} as {column}" for path, column in USAGE_FIELDS.items())
    spelled = {name: f"labels.{identifier(name)}" for name in log.labels}
    return f"""
        select
            filename as file, {", ".join(identifier(name) for name in _TOP)}, {usage},
            {_labels(log, spelled)} as labels,
            not (timestamp is null and model is null and usage is null and request_id is null) as readable,
        from read_json(
            {_list(files)}, format = 'newline_delimited', columns = {{{columns}}}, ignore_errors = true,
            filename = true, maximum_object_size = {MAX_LINE}
        )
    """


def _select_dotted(connection: duckdb.DuckDBPyConnection, log: RequestLog, source: str) -> str:
    present = {row[0] for row in connection.execute(f"describe select * from {source}").fetchall()}

    def spelled(name: str) -> str:
        return f"{identifier(name)}::varchar" if name in present else "null::varchar"

    top = ", ".join(f"{spelled(name)} as {identifier(name)}" for name in _TOP)
    usage = ", ".join(
        f"{spelled(f'usage.{path}')}{'::json' if column == 'iterations' else ''} as {column}"
        for path, column in USAGE_FIELDS.items()
    )
    labels = _labels(log, {name: spelled(f"labels.{name}") for name in log.labels})
    return f"select filename as file, {top}, {usage}, {labels} as labels, true as readable from {source}"
