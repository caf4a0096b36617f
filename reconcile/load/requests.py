"""The reader of the canonical request log: `format: requests` as JSONL, CSV or Parquet."""

from collections.abc import Sequence

import duckdb

from reconcile.config import RequestLog
from reconcile.load.csv_files import CsvFiles
from reconcile.load.lines import (
    USAGE_FIELDS,
    USAGE_TYPE,
    identifier,
    json_lines,
    label_type,
    labels,
    literals,
)

_TOP = ("request_id", "timestamp", "model", "workspace_id", "api_key_id", "event", "cost_usd", "status")


def select_json(log: RequestLog, files: Sequence[str], longest: int, *, with_text: bool = False) -> str:
    """A query over JSONL files: one row a line, every field as the text that stands there.

    Columns, the same for every reader: file, line_text, request_id, timestamp, model, workspace_id, api_key_id, event,
    cost_usd, status, those of ``USAGE_FIELDS``, labels (a map of the configured ones), unread (why the line cannot be
    read, null where it can), unused (it says that nothing was used), cut (a stream without its last usage).
    """
    columns = dict.fromkeys(_TOP, "VARCHAR") | {"usage": USAGE_TYPE}
    if log.labels:
        columns["labels"] = label_type(log)
    usage = ", ".join(f"usage.{path} as {column}" for path, column in USAGE_FIELDS.items())
    spelled = {name: f"labels.{identifier(name)}" for name in log.labels}
    return f"""
        select
            file, line_text, {", ".join(identifier(name) for name in _TOP)}, {usage}, {labels(log, spelled)} as labels,
            case
                when timestamp is null and model is null and usage is null and request_id is null
                then 'is not one JSON object'
            end as unread,
            false as unused, false as cut,
        from {json_lines(files, columns, longest, with_text=with_text)}
    """


def select_parquet(
    connection: duckdb.DuckDBPyConnection, log: RequestLog, files: Sequence[str], *, with_text: bool = False
) -> str:
    """A query over Parquet files with dotted columns, in the columns of ``select_json``."""
    source = f"read_parquet({literals(files)}, filename = true, union_by_name = true)"
    present = [row[0] for row in connection.execute(f"describe select * exclude (filename) from {source}").fetchall()]
    text = (
        f"to_json(struct_pack({', '.join(f'{identifier(name)} := {identifier(name)}' for name in present)}))::varchar"
    )
    return _select_dotted(log, present, source, "filename", text if with_text else "null::varchar")


def select_csv(log: RequestLog, files: CsvFiles, *, with_text: bool = False) -> str:
    """A query over CSV files with one header, in the columns of ``select_json``."""
    text = files.line_text() if with_text else "null::varchar"
    return _select_dotted(log, files.columns, files.source(), "filename", text)


def _select_dotted(log: RequestLog, present: Sequence[str], source: str, file: str, text: str) -> str:
    def spelled(name: str) -> str:
        return f"{identifier(name)}::varchar" if name in present else "null::varchar"

    top = ", ".join(f"{spelled(name)} as {identifier(name)}" for name in _TOP)
    usage = ", ".join(
        f"{_iterations(spelled(f'usage.{path}')) if column == 'iterations' else spelled(f'usage.{path}')} as {column}"
        for path, column in USAGE_FIELDS.items()
    )
    mapped = labels(log, {name: spelled(f"labels.{name}") for name in log.labels})
    return f"""
        select
            {file} as file, {text} as line_text, {top}, {usage}, {mapped} as labels, null::varchar as unread,
            false as unused, false as cut,
        from {source}
    """


def _iterations(text: str) -> str:
    return f"case when json_valid({text}) then {text}::json end"
