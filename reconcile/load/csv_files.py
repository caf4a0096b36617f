"""CSV files of a request log: their header and separator, and what is broken in them."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

from reconcile.load.lines import BYTE_ORDER_MARK, MAX_LINE, identifier, literal, literals, opened

_SEPARATORS = (",", ";", "\t", "|")


@dataclass(frozen=True)
class CsvFiles:
    """Files that share a header. Broken records (columns, quotes, encoding) are left out and named by DuckDB.

    ``strict`` is false for files that mix line endings, which only the tolerant parser reads; it drops surplus fields.
    """

    files: tuple[str, ...]
    columns: tuple[str, ...]
    separator: str
    strict: bool = True

    def source(self) -> str:
        """A table function over the files: every field as text, and ``filename``."""
        spelled = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in self.columns)
        return f"""read_csv(
            {literals(self.files)}, columns = {{{spelled}}}, delim = {literal(self.separator)}, quote = '"',
            escape = '"', header = true, auto_detect = false, store_rejects = true, rejects_limit = 0,
            filename = true, max_line_size = {MAX_LINE}, buffer_size = {4 * MAX_LINE},
            strict_mode = {str(self.strict).lower()}
        )"""

    def line_text(self) -> str:
        """An expression: the record as it is written with as few quotes as can be."""
        fields = ", ".join(
            f"case when regexp_matches({name}, '[\"\\r\\n{'|' if self.separator == '|' else self.separator}]')"
            f" then '\"' || replace({name}, '\"', '\"\"') || '\"' else coalesce({name}, '') end"
            for name in map(identifier, self.columns)
        )
        return f"concat_ws({literal(self.separator)}, {fields})"


def by_header(files: Sequence[str]) -> list[CsvFiles]:
    """Group files by their header line; an empty file is in no group. Raises ``OSError`` for one that is not whole."""
    grouped: dict[str, list[str]] = {}
    for file in files:
        with opened(file, None) as lines:
            first = lines.readline(MAX_LINE).rstrip("\n")
        if first:
            grouped.setdefault(first.removeprefix(BYTE_ORDER_MARK), []).append(file)
    return [_parsed(header, found) for header, found in grouped.items()]


def _parsed(header: str, files: Sequence[str]) -> CsvFiles:
    text = header.encode("latin-1").decode("utf-8", "replace")
    separator = max(_SEPARATORS, key=text.count)
    names: list[str] = []
    for position, name in enumerate(next(csv.reader([text], delimiter=separator))):
        # DuckDB compares names without case; of two alike the first is read
        taken = {known.lower() for known in names} | {"filename", ""}
        names.append(name if name.lower() not in taken else f"column {position}")
    return CsvFiles(tuple(files), tuple(names), separator)


def broken_records(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, int, str]]:
    """What DuckDB left out of the scans since this was last asked: file, record (the header is 1), why."""
    found = connection.execute("""
        select scan.file_path, error.line, lower(any_value(error.error_type::varchar order by error.column_idx)),
        from reject_errors as error
        join reject_scans as scan on scan.scan_id = error.scan_id and scan.file_id = error.file_id
        group by scan.file_path, error.line
        order by all
    """).fetchall()
    connection.execute("drop table reject_errors; drop table reject_scans")
    return [(file, line, f"is not a CSV record: {why}") for file, line, why in found]
