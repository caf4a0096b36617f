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
