"""How an exported file is written: whole or not at all, for its owner only, without a formula in it."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb

from reconcile.errors import ConfigError

_FORMULA = re.compile(r"[=+@\t\r-]")


@contextmanager
def whole(target: Path) -> Iterator[Path]:
    """A path beside ``target`` to write to; when the body is through, the file takes its place, with mode 0600.

    Raises ``ConfigError`` where the place cannot be written.
    """
    aside = target.with_name(f"{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
        yield aside
        aside.chmod(0o600)
        aside.replace(target)
    except (OSError, duckdb.IOException) as error:
        said = error.strerror if isinstance(error, OSError) else str(error).partition("\n")[0]
        raise ConfigError(
            str(target), f"cannot be written ({said})", "Make room, correct owner and mode, or choose --out"
        ) from None
    finally:
        with suppress(OSError):  # it took its place, or never was
            aside.unlink()


def harmless(text: str) -> str:
    """A text for CSV: one that a spreadsheet would take for a formula gets an apostrophe in front."""
    return f"'{text}" if _FORMULA.match(text) else text


def copy_csv(connection: duckdb.DuckDBPyConnection, relation: str, target: Path, columns: tuple[str, ...] = ()) -> None:
    r"""A table or view as CSV, exact: decimals in full, NULL empty (an empty text is ``""``), UTF-8, ``\n``, a header.

    ``columns`` are those to write, all without it. Texts are made `harmless`. DuckDB writes, so that no amount passes
    through Python.
    """
    selected = []
    for name, kind in _columns(connection, relation, columns):
        if kind == "VARCHAR":
            guarded = f"""if(regexp_matches("{name}", '^[=+@\\t\\r-]'), '''' || "{name}", "{name}")"""
            selected.append(f'{guarded} as "{name}"')
        elif kind == "TIMESTAMP":
            selected.append(f"""strftime("{name}", '%Y-%m-%dT%H:%M:%SZ') as "{name}\"""")
        else:
            selected.append(f'"{name}"')
    _copy(connection, relation, selected, target, "format csv, header")


def copy_parquet(
    connection: duckdb.DuckDBPyConnection, relation: str, target: Path, columns: tuple[str, ...] = ()
) -> None:
    """A table or view as Parquet: amounts stay decimals, quantities BIGINT, texts as they are."""
    selected = [f'"{name}"' for name, _ in _columns(connection, relation, columns)]
    _copy(connection, relation, selected, target, "format parquet, compression zstd")


def _columns(connection: duckdb.DuckDBPyConnection, relation: str, columns: tuple[str, ...]) -> list[tuple[str, str]]:
    kinds = {name: kind for name, kind, *_ in connection.execute(f"describe {relation}").fetchall()}
    return [(name, kinds[name]) for name in columns or kinds]


def _copy(connection: duckdb.DuckDBPyConnection, relation: str, selected: list[str], target: Path, how: str) -> None:
    with whole(target) as aside:
        path = str(aside).replace("'", "''")
        connection.execute(f"copy (select {', '.join(selected)} from {relation}) to '{path}' ({how})")
