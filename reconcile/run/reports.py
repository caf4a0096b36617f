"""The reports of a period: rendered aside, swapped in as a whole, told by their digest."""

import shutil
from collections.abc import Collection
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import duckdb

from reconcile import ledger, render
from reconcile.register import Standing

SUMS = "SHA256SUMS"
"""Lists the digest of every other file of a folder of reports, as `sha256sum --check` reads it."""

FIGURES = ("cell", "usage", "bridge", "discrepancy", "allocation", "chargeback")
"""The views that a signature is for."""

_FIRST = ("index.html", "discrepancy.html", "allocation.html", "rollforward.html")
"""The order in which people read: these pages, then the statements, then tables."""


@dataclass(frozen=True)
class Aside:
    """Rendered reports that are not published yet."""

    folder: Path
    reports: Path
    digest: str

    def swap_in(self) -> None:
        """Let them take the place of the former ones, as a whole."""
        former = self.reports.with_name(f"{self.reports.name}.former")
        if self.reports.exists():
            self.reports.rename(former)
        self.folder.rename(self.reports)
        ledger.sync(self.reports.parent)
        shutil.rmtree(former, ignore_errors=True)


def render_aside(connection: duckdb.DuckDBPyConnection, reports: Path, stands: Standing) -> Aside:
    """Render a period's reports beside where they belong, with the digest of each."""
    folder = reports.with_name(f"{reports.name}.next")
    render.render(connection, folder, stands)
    sums = folder / SUMS
    sums.touch(mode=0o600)
    sums.write_bytes(listing(folder))
    ledger.sync(sums)
    return Aside(folder, reports, digest(folder))


def digest(folder: Path) -> str:
    """SHA-256 over the names and bytes of a folder's files, the list of their digests left out."""
    return sha256(listing(folder)).hexdigest()


def listing(folder: Path) -> bytes:
    """What the list of digests of a folder's files says."""
    lines = (
        f"{sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}\n"
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != SUMS
    )
    return "".join(lines).encode()


def files(folder: Path) -> tuple[Path, ...]:
    """What lies in a folder of reports, in the order in which people read."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    rank = {name: position for position, name in enumerate(_FIRST)}
    order = sorted(found, key=lambda path: (path.suffix != ".html", rank.get(str(path), len(rank)), str(path)))
    return tuple(folder / path for path in order)


def figures_digest(connection: duckdb.DuckDBPyConnection) -> str:
    """SHA-256 over every figure that is published, whatever revision it stands in and whatever it was made from."""
    digests = view_digests(connection, FIGURES)
    return sha256("\n".join(f"{view} {digests[view]}" for view in FIGURES if view in digests).encode()).hexdigest()


def view_digests(connection: duckdb.DuckDBPyConnection, views: Collection[str] = ()) -> dict[str, str]:
    """SHA-256 over the rows of report views, whatever their order; by default of all of them."""
    held = connection.execute("select view_name from duckdb_views() where schema_name = 'report'").fetchall()
    digests = {}
    for view in sorted(name for (name,) in held if not views or name in views):
        (found,) = connection.execute(
            "select sha256(coalesce(string_agg(line, chr(10) order by line), ''))"
            f" from (select sha256(row::varchar) as line from report.{view} as row)"
        ).fetchall()
        digests[view] = found[0]
    return digests
