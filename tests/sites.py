"""Places where months are closed: against a sandbox over HTTP, or offline out of pages that were made up."""

import json
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from month import cost, line, tokens, usage, write_config, write_pull

from reconcile import cli, ledger, run
from reconcile.config import load_config
from reconcile.period import Period
from reconcile.sandbox import Fault, Faults, Sandbox

OCTOBER = Period.parse("2026-10")
REPOSITORY = Path(__file__).parents[1]
VARYING = {"input_digest", "revision", "sha256", "digest"}
"""Columns of report views that name an input rather than say what follows from it."""


@dataclass(frozen=True)
class Site:
    """A folder with logs and config, closed against a server of its own each time."""

    folder: Path
    simulated: Sandbox

    @property
    def var(self) -> Path:
        """The data_dir."""
        return self.folder / "var"

    def configure(self, url: str, *edits: tuple[str, str]) -> Path:
        """Write the config for a server, with parts of its text replaced."""
        text = self.simulated.config(url)
        for old, new in edits:
            assert old in text
            text = text.replace(old, new)
        path = self.folder / "config.yaml"
        path.write_text(text)
        return path

    def close(self, *faults: Fault, edits=(), month=OCTOBER, now=None, **options) -> run.Outcome:
        """Close against a server with these faults."""
        with self.simulated.serve(faults=Faults(faults)) as server:
            config = load_config(self.configure(server.url, *edits))
            return run.close(config, period=month, now=now or self.simulated.now, **options)

    def invoke(self, *faults: Fault, edits=(), month="2026-10", now=None, options=()) -> int:
        """Close by the command line, in this process."""
        with self.simulated.serve(faults=Faults(faults)) as server:
            return cli.invoke([*self.arguments(self.configure(server.url, *edits), month, now), *options])

    def arguments(self, config: Path, month="2026-10", now=None) -> list[str]:
        """What stands on the command line."""
        return ["close", "-c", str(config), "--month", month, "--now", (now or self.simulated.now).isoformat()]

    def spawn(self, config: Path, *options: str) -> subprocess.Popen:
        """Close by the command line, in another process."""
        command = [sys.executable, "-m", "reconcile", *self.arguments(config), *options]
        return subprocess.Popen(  # noqa: S603 - our own command
            command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def published(self) -> dict[str, str]:
        """The digest of every published file: the revisions and the reports."""
        return digests(self.var / "ledger") | digests(self.var / "reports")

    def revisions(self) -> list[str]:
        """What lies in the ledger's folder."""
        return sorted(path.name for path in (self.var / "ledger").glob("*"))


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def views(path: Path, leave_out=frozenset()) -> dict[str, list]:
    """The rows of every report view."""
    found = {}
    with ledger.reading(path) as connection:
        names = connection.execute("select view_name from duckdb_views() where schema_name = 'report'").fetchall()
        for (name,) in names:
            rows = ledger.rows(connection, f'select * from report."{name}"')
            found[name] = [{key: value for key, value in row.items() if key not in leave_out} for row in rows]
    return found


@dataclass(frozen=True)
class Desk:
    """A folder whose month was pulled already, of a few made-up rows: closed offline, in about a second."""

    folder: Path

    @property
    def var(self) -> Path:
        """The data_dir."""
        return self.folder / "var"

    @property
    def config(self) -> Path:
        """The config file."""
        return self.folder / "config.yaml"

    def configure(self, **sections) -> None:
        """Write the config: one log, one workspace of one cost center, unless ``sections`` say otherwise."""
        write_config(self.folder, **sections)

    def pull(self, usages, costs, stamp="20261102T060012Z", **more) -> Path:
        """A complete pull of October with these rows."""
        return write_pull(self.var / "raw" / "2026-10" / stamp, usages, costs, **more)

    def log(self, *lines, name="log.jsonl") -> None:
        """The lines of the log."""
        (self.folder / name).write_text("".join(f"{json.dumps(one)}\n" for one in lines))

    def close(self, now=datetime(2026, 11, 4, 6, tzinfo=UTC), **options) -> run.Outcome:
        """Close October offline."""
        return run.close(load_config(self.config), period=OCTOBER, now=now, offline=True, **options)

    def entries(self) -> list[dict]:
        """What the register says."""
        return run.Room(self.var).register.entries()


def quiet_month(folder: Path, **sections) -> Desk:
    """A month that ties out: what was logged on two days was reported and billed."""
    desk = Desk(folder)
    hours = ("2026-10-05T10", "2026-10-06T10")
    desk.pull(
        [usage(f"{hour}:00:00Z", input=4000, output=100) for hour in hours],
        [
            row
            for day in ("2026-10-05", "2026-10-06")
            for row in (cost(day, "2", "uncached_input_tokens"), cost(day, "0.25", "output_tokens"))
        ],
    )
    desk.log(*(line(f"{hour}:30:00Z", f"req_{hour}", usage=tokens(4000, 100)) for hour in hours))
    desk.configure(**sections)
    return desk
