"""Proof that nothing was changed: the register's chain, the raw pages, the revisions, the published reports."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from reconcile import load, pull
from reconcile.config import Config
from reconcile.errors import InvariantError
from reconcile.period import Period
from reconcile.register import Entry, last_published
from reconcile.run import reports
from reconcile.run.room import Room, file_sha256

_REVISION = re.compile(r"(\d{4}-\d{2})\.r([1-9]\d*)\.duckdb")


class ChangedError(InvariantError):
    """What is not as it was written, a line each; where, what and do are the first's."""

    def __init__(self, problems: Sequence[InvariantError]) -> None:
        super().__init__(problems[0].where, problems[0].what, problems[0].do)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


@dataclass(frozen=True)
class Proof:
    """What was looked at and found as it was written; ``head`` is the digest of the register's last line."""

    lines: int
    head: str
    pulls: int
    pages: int
    revisions: int
    reports: int


def verify(config: Config) -> Proof:
    """Compare everything in ``data_dir`` with the digests that were taken when it was written.

    Not while a close runs. Raises ``ChangedError`` with everything that is not as it was, files that are gone included.
    """
    room = Room(config.data_dir)
    problems: list[InvariantError] = []
    try:
        entries: Sequence[Entry] = room.register.entries()
    except InvariantError as error:  # the lines after it prove nothing
        problems.append(error)
        entries = ()
    if not room.register.is_whole:
        problems.append(
            InvariantError(
                str(room.register.path),
                "its last line has no end",
                "A run was cut off, or somebody changed it: close again",
            )
        )
    pages = _pages(room, entries, problems)
    if not problems or entries:
        problems += _revisions(room, entries)
        problems += _published(room, entries)
    if problems:
        raise ChangedError(problems)
    periods = room.shelf.periods()
    return Proof(
        lines=len(entries),
        head=room.register.head,
        pulls=len(pages),
        pages=sum(pages.values()),
        revisions=sum(1 for path in room.shelf.folder.glob("*") if _REVISION.fullmatch(path.name)),
        reports=sum(len(reports.files(room.reports(period))) for period in periods),
    )


def _pages(room: Room, entries: Sequence[Entry], problems: list[InvariantError]) -> dict[Path, int]:
    """How many pages each pull holds, checked against its manifest, and that against the register."""
    told = {
        room.raw / entry["period"] / entry["folder"]: entry["manifest_sha256"]
        for entry in entries
        if entry["event"] == "pull"
    }
    purged = {room.raw / entry["period"] / name for entry in entries for name in entry.get("raw_removed", ())}
    counted = {}
    for folder in sorted({*told} - purged | {*pull.complete(room.raw)}):
        manifest = folder / "manifest.json"
        found = file_sha256(manifest) if manifest.is_file() else "nothing"
        if folder in told and found != told[folder]:
            problems.append(_changed(manifest, told[folder], found, "Restore the folder from a backup"))
            continue
        try:
            counted[folder] = len(load.Pull.read(folder).pages)
        except InvariantError as error:
            problems.append(error)
    return counted


def _revisions(room: Room, entries: Sequence[Entry]) -> Iterator[InvariantError]:
    told = {
        room.shelf.folder / f"{entry['period']}.r{entry['revision']}.duckdb": entry["ledger_sha256"]
        for entry in entries
        if "ledger_sha256" in entry
    }
    there = {path for path in room.shelf.folder.glob("*") if _REVISION.fullmatch(path.name)}
    for path in sorted(there - {*told}):
        yield InvariantError(
            str(path),
            "no line of the register closes it",
            "A run was cut off, or the register was shortened: close again",
        )
    for path, digest in sorted(told.items()):
        found = file_sha256(path) if path.is_file() else "nothing"
        if found != digest:
            yield _changed(path, digest, found, "Restore the revision from a backup")
    for period in room.shelf.periods():
        newest, link = room.shelf.newest(period), room.shelf.link(period)
        if newest is not None and (not link.is_file() or file_sha256(link) != file_sha256(newest.path)):
            yield InvariantError(str(link), f"is not {newest.path.name}", "Close the month again: the link follows")


def _published(room: Room, entries: Sequence[Entry]) -> Iterator[InvariantError]:
    """Reports that are not those of the newest revision, by file."""
    for period in room.shelf.periods():
        newest = room.shelf.newest(period)
        told = last_published(entries, period, newest.number if newest else 0)
        if told:
            yield from _reports(room, period, told["reports_digest"])


def _reports(room: Room, period: Period, digest: str) -> Iterator[InvariantError]:
    folder = room.reports(period)
    make_good = f"`reconcile close --month {period} --offline` makes reports good"
    sums, found = folder / reports.SUMS, reports.listing(folder)
    listed = sums.read_bytes() if sums.is_file() else b""
    if listed != found and sha256(found).hexdigest() == digest:
        yield InvariantError(str(sums), "does not list the files beside it", make_good)
    elif sha256(listed).hexdigest() != digest:
        yield _changed(folder, digest, sha256(found).hexdigest(), make_good)
    elif listed != found:
        was, is_now = (_by_file(listing) for listing in (listed, found))
        for name in sorted(was.keys() | is_now.keys()):
            if was.get(name) != is_now.get(name):
                yield _changed(folder / name, was.get(name, "nothing"), is_now.get(name, "nothing"), make_good)


def _by_file(listing: bytes) -> dict[str, str]:
    lines = (line.partition("  ") for line in listing.decode(errors="replace").splitlines())
    return {name: digest for digest, _, name in lines}


def _changed(path: Path, was: str, is_now: str, do: str) -> InvariantError:
    return InvariantError(str(path), f"was written with sha256 {was}, is {is_now}", do)
