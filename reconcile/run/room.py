"""The folder in which a run reads and writes: what lies where, who may write, what a crash left."""

import errno
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path

from reconcile import ledger
from reconcile.errors import ConfigError, SourceError
from reconcile.export import Kind
from reconcile.period import Period
from reconcile.register import Register

_UNWRITABLE = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.EEXIST}
)
_LEFT_OVER = re.compile(r"(\d{4}-\d{2})\.(?:next|next\.partial|partial|former)")


@dataclass(frozen=True)
class Room:
    """Where a run reads and writes: the folders of ``data_dir``."""

    root: Path

    @property
    def raw(self) -> Path:
        """What was pulled, by month."""
        return self.root / "raw"

    @property
    def scratch(self) -> Path:
        """What spills while a revision is built."""
        return self.root / "tmp"

    @property
    def snapshots(self) -> Path:
        """Copies of logs that are being written, for as long as a run reads them."""
        return self.root / "snapshots"

    @property
    def shelf(self) -> ledger.Shelf:
        """The published revisions."""
        return ledger.Shelf(self.root / "ledger")

    @property
    def register(self) -> Register:
        """What happened to the months."""
        return Register(self.root / "register.jsonl")

    def reports(self, period: Period) -> Path:
        """The published reports of a month."""
        return self.root / "reports" / str(period)

    def exports(self, period: Period, kind: Kind) -> Path:
        """A folder a month; what is a file a view has one of its own in it."""
        folder = self.root / "exports" / str(period)
        return folder / kind if kind in {"csv", "parquet"} else folder

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one run; what is new in it is for the owner only.

        Raises ``SourceError`` when another run holds it, ``ConfigError`` when it cannot be written.
        """
        before = os.umask(0o077)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with (self.root / ".lock").open("a") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise SourceError(
                        f"data_dir: {self.root}",
                        "another run is writing there, expected none",
                        "Wait until it has ended",
                    ) from None
                try:
                    yield
                finally:
                    shutil.rmtree(self.snapshots, ignore_errors=True)
        except OSError as error:
            if error.errno not in _UNWRITABLE:
                raise
            raise ConfigError(
                f"data_dir: {self.root}",
                f"{error.filename or 'a file'} cannot be written ({error.strerror})",
                "Make room, or correct owner and mode",
            ) from None
        finally:
            os.umask(before)

    def tidy(self) -> None:
        """Make good what a run that was cut off left: half-built files go, links follow, reports stand in place."""
        self.register.entries()
        self.shelf.tidy()
        shutil.rmtree(self.scratch, ignore_errors=True)
        shutil.rmtree(self.snapshots, ignore_errors=True)
        for path in sorted((self.root / "reports").glob("*")):
            if found := _LEFT_OVER.fullmatch(path.name):
                reports = path.with_name(found[1])
                if path.name.endswith(".former") and not reports.exists():
                    path.rename(reports)
                else:
                    shutil.rmtree(path)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return file_digest(stream, "sha256").hexdigest()
