"""The folder of one pull: pages as received, the manifest that lists them."""

import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from reconcile.errors import ConfigError, SourceError
from reconcile.pull.client import Call, Reply
from reconcile.pull.pages import instant

MANIFEST = "manifest.json"
RESUME_WITHIN = timedelta(days=1)
"""Pages of an interrupted pull older than this are fetched again: a report may be revised."""

KINDS = ("organization", "workspaces", "workspace", "api_keys", "usage_hour", "usage_day", "cost_day")
"""The order in which a manifest lists its pages, then by listing, then by number."""

_STAMP = re.compile(r"\d{8}T\d{6}Z")
_PARTIAL = ".partial"
_JOURNAL = "journal.jsonl"


@dataclass(frozen=True)
class Kept:
    """A page in the folder: where it came from, the digest of its bytes."""

    file: str
    kind: str
    url: str
    parameters: tuple[tuple[str, str], ...]
    status: int
    request_id: str | None
    fetched_at: str
    sha256: str

    @property
    def stem(self) -> str:
        """The listing that the page belongs to."""
        return self.file.rpartition("-")[0]

    @property
    def order(self) -> tuple[int, str, int]:
        """Kinds in their order, listings by name, pages by number."""
        return KINDS.index(self.kind), self.stem, int(self.file.rpartition("-")[2].removesuffix(".json"))


@dataclass(frozen=True)
class Manifest:
    """What a pull holds. ``completed_at`` is None while it is not complete; instants are texts in UTC."""

    period: str
    base_url: str
    organization_id: str
    organization: str
    started_at: str
    through_on: str
    usage_until: str
    completed_at: str | None = None
    default_workspace_id: str | None = None
    pages: tuple[Kept, ...] = ()

    def asks_the_same(self, other: "Manifest") -> bool:
        """Whether both ask the same API, organization and range."""
        return all(
            getattr(self, name) == getattr(other, name)
            for name in ("period", "base_url", "organization_id", "through_on", "usage_until")
        )

    def file(self) -> bytes:
        """The manifest as a complete pull holds it."""
        pages = sorted(self.pages, key=lambda kept: kept.order)
        return json.dumps(
            {"manifest": 1, "api": "admin"} | asdict(replace(self, pages=tuple(pages))), indent=1
        ).encode()

    def journal(self) -> bytes:
        """The manifest as a pull in progress holds it: a line without pages, then a line a page as it was kept."""
        return b"".join([_line(replace(self, pages=())), *map(_line, self.pages)])

    @classmethod
    def of_file(cls, folder: Path) -> "Manifest | None":
        """The manifest of a complete pull, None where there is none that can be read."""
        try:
            content = json.loads((folder / MANIFEST).read_bytes())
            pages = tuple(map(_kept, content.pop("pages")))
            del content["manifest"], content["api"]
            return cls(pages=pages, **content)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    @classmethod
    def of_journal(cls, folder: Path) -> "Manifest | None":
        """The manifest of an interrupted pull. What was being written when it ended (the last line) does not count."""
        try:
            first, *lines = (folder / _JOURNAL).read_bytes().splitlines(keepends=True)
            manifest = cls(**json.loads(first) | {"pages": ()})
            pages = {kept.file: kept for kept in (_kept(json.loads(line)) for line in lines if line.endswith(b"\n"))}
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return replace(manifest, pages=tuple(pages.values()))


class Folder(AbstractContextManager["Folder"]):
    """A pull that is being written: locked, with a journal of its pages, its name ending in ``.partial``.

    Folders have mode 0700 and files 0600. A page counts as kept once the journal says so, on the disk.
    """

    def __init__(self, path: Path, manifest: Manifest, lock: int) -> None:
        self.path = path
        self.manifest = manifest
        self._lock = lock

    @classmethod
    def open(cls, parent: Path, wanted: Manifest, now: datetime) -> "Folder":
        """The newest interrupted pull that asks the same and is not too old, else a new folder."""
        with _writing(parent):
            _make(parent)
            for path in sorted(parent.glob(f"*{_PARTIAL}"), reverse=True):
                found = Manifest.of_journal(path)
                if found is None or not found.asks_the_same(wanted) or not _recent(found.started_at, now):
                    continue
                if (lock := _locked(path)) is not None:
                    return cls(path, found, lock).begin()
        return cls.create(parent, wanted, now)

    @classmethod
    def create(cls, parent: Path, wanted: Manifest, now: datetime) -> "Folder":
        """A new folder, named after ``now``."""
        with _writing(parent):
            _make(parent)
            path = _free(parent, now, _PARTIAL)
            path.mkdir(mode=0o700)
            lock = _locked(path)
            if lock is None:
                raise SourceError(str(path), "another pull holds it", "Wait until that pull has ended")
            return cls(path, wanted, lock).begin()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._lock)

    def stored(self, call: Call, url: str) -> tuple[Kept, bytes] | None:
        """The page as an earlier attempt kept it, None where it has none or its bytes are no longer the same."""
        for kept in self.manifest.pages:
            if (kept.file, kept.url, kept.parameters) == (call.file, url, call.parameters):
                try:
                    content = (self.path / kept.file).read_bytes()
                except OSError:
                    return None
                return (kept, content) if sha256(content).hexdigest() == kept.sha256 else None
        return None

    def keep(self, reply: Reply) -> None:
        """Write a page's bytes, then say in the journal that they are there."""
        kept = Kept(
            file=reply.call.file,
            kind=reply.call.kind,
            url=reply.url,
            parameters=reply.call.parameters,
            status=reply.status,
            request_id=reply.request_id,
            fetched_at=instant(reply.fetched_at),
            sha256=sha256(reply.content).hexdigest(),
        )
        others = (page for page in self.manifest.pages if page.file != kept.file)
        with _writing(self.path):
            _write(self.path / kept.file, reply.content)
            with (self.path / _JOURNAL).open("ab") as journal:
                journal.write(_line(kept))
                journal.flush()
                os.fsync(journal.fileno())
        self.manifest = replace(self.manifest, pages=(*others, kept))

    def link(self, source: Path, pages: tuple[Kept, ...]) -> None:
        """Take over pages of a complete pull by hard link, by copy where the disk knows no links.

        They are not journaled: a pull that began so is not gone on with.
        """
        with _writing(self.path):
            for kept in pages:
                try:
                    os.link(source / kept.file, self.path / kept.file)
                except OSError:
                    shutil.copy2(source / kept.file, self.path / kept.file)
        self.manifest = replace(self.manifest, pages=(*self.manifest.pages, *pages))

    def forget(self, stem: str) -> None:
        """Take a listing's pages out of the journal, so that they are fetched again."""
        self.manifest = replace(self.manifest, pages=tuple(kept for kept in self.manifest.pages if kept.stem != stem))
        with _writing(self.path):
            self.begin()

    def complete(self, now: datetime, completed_at: datetime, default_workspace_id: str | None) -> Path:
        """Write the manifest, drop what it does not list, and give the folder its name."""
        manifest = replace(self.manifest, completed_at=instant(completed_at), default_workspace_id=default_workspace_id)
        with _writing(self.path):
            _write(self.path / MANIFEST, manifest.file())
            listed = {MANIFEST} | {kept.file for kept in manifest.pages}
            for path in self.path.iterdir():
                if path.name not in listed:
                    path.unlink()
            _sync(self.path)
            final = _free(self.path.parent, now)
            self.path.rename(final)
            _sync(final.parent)
        return final

    def drop(self) -> None:
        """Remove the folder: what it held lies elsewhere."""
        shutil.rmtree(self.path, ignore_errors=True)

    def begin(self) -> Self:
        """Write the journal anew, at once."""
        new = self.path / f"{_JOURNAL}.new"
        _write(new, self.manifest.journal())
        new.replace(self.path / _JOURNAL)
        _sync(self.path)
        return self


def all_complete(parent: Path) -> list[Path]:
    """Every complete pull of a period's folder, oldest first."""
    return sorted(path for path in parent.glob("*Z") if _STAMP.fullmatch(path.name) and (path / MANIFEST).is_file())


def newest_complete(parent: Path) -> Path | None:
    """The newest complete pull of a period's folder."""
    return max(all_complete(parent), default=None)


def _free(parent: Path, now: datetime, suffix: str = "") -> Path:
    """The first name at or after ``now`` that no pull has: nothing is ever written over."""
    while True:
        complete = parent / instant(now).replace("-", "").replace(":", "")
        path = complete.with_name(complete.name + suffix)
        if not complete.exists() and not path.exists():
            return path
        now += timedelta(seconds=1)


def _line(entry: Kept | Manifest) -> bytes:
    return json.dumps(asdict(entry)).encode() + b"\n"


def _kept(page: dict[str, Any]) -> Kept:
    return Kept(**page | {"parameters": tuple((str(name), str(value)) for name, value in page["parameters"])})


def _recent(started_at: str, now: datetime) -> bool:
    return timedelta(0) <= now - datetime.fromisoformat(started_at) <= RESUME_WITHIN


def _make(folder: Path) -> None:
    """The folder and what it lies in, for the owner only where it is new."""
    for path in (*reversed(folder.parents), folder):
        if not path.is_dir():
            path.mkdir(mode=0o700, exist_ok=True)


def _locked(folder: Path) -> int | None:
    """An open lock on the folder, None while another process writes it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # it has got its final name just now
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _write(path: Path, content: bytes) -> None:
    """A new file with mode 0600, on the disk; one of that name is taken away first, as it may be a hard link."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:  # noqa: PTH123 - of a descriptor
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """A full or read-only disk is an expected failure."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            str(error.filename or path), f"cannot be written ({error.strerror})", "Free space or correct data_dir"
        ) from None
