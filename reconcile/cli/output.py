"""What the commands print: text for people, one JSON object for programs, progress."""

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import click

from reconcile.period import Period

INTERRUPTED = 130
BUG = 70
"""Exit codes that no ``ReconcileError`` has."""

_SECRET = re.compile(r"sk-ant-[A-Za-z0-9_-]+")

OnProgress = Callable[[str, int, int | None], None]
"""A stage's callback: what it does, how many of its steps are done, and of how many (None: not known)."""


def say(*lines: str, err: bool = False) -> None:
    """Print for people, on stdout or stderr.

    What looks like a key is left out, no control character of a name reaches the terminal, and a reader that has
    left (a closed pipe) stops nothing.
    """
    text = _SECRET.sub("sk-ant-…", "\n".join(lines))
    safe = "".join(letter if letter.isprintable() or letter in "\n\t" else "\ufffd" for letter in text)
    try:
        click.echo(safe, err=err)
    except BrokenPipeError:
        stream = sys.stderr if err else sys.stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # or the flush at the exit would fail again


def say_json(answer: Mapping[str, object]) -> None:
    """Print for programs: one object, on one line of stdout."""
    say(json.dumps(_plain(answer), allow_nan=False))


def counted(number: int, noun: str) -> str:
    """A number of things: 1 key, 2 keys."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def instant_text(at: datetime) -> str:
    """An instant as 2026-11-04T06:00:00Z; the ledger's are UTC without saying so."""
    utc = at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    return utc.isoformat().replace("+00:00", "Z")


def _plain(value: object) -> object:
    """A value as JSON has it: amounts, days and paths as strings."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, datetime):
        return instant_text(value)
    return str(value) if isinstance(value, date | Path | Period) else value


@contextmanager
def progress() -> Iterator[OnProgress]:
    """A bar a stage on stderr when a person watches, else a line when a stage begins and one for each notice.

    What is done now reads ``stage: step``; where nothing more was done since, it is a notice.
    """
    if not sys.stderr.isatty():
        last: dict[str, tuple[int, int | None]] = {}

        def tell(what: str, done: int, total: int | None) -> None:
            stage = what.partition(":")[0]
            if stage not in last:
                say(f"{stage} …", err=True)
            elif (done, total) == last[stage]:
                say(what, err=True)
            last[stage] = done, total

        yield tell
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (TimeElapsedColumn(), BarColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def move(what: str, done: int, total: int | None) -> None:
            stage = what.partition(":")[0]
            if stage not in tasks:
                tasks[stage] = bar.add_task(what, total=total)
            bar.update(tasks[stage], description=what, completed=done, total=total)

        yield move
