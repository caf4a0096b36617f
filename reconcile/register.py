"""The register: what happened to the periods, and where each stands because of it."""

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from reconcile.errors import InvariantError
from reconcile.ledger import sync
from reconcile.period import Period

Entry = Mapping[str, Any]
"""A line of the register: ``event``, ``period`` and ``at`` (an instant in UTC), and what that event says besides."""

State = Literal["open", "provisional", "closed", "reopened", "restated"]
Role = Literal["preparer", "reviewer"]
ROLES: tuple[Role, ...] = ("preparer", "reviewer")

_SIGNED_LINE = re.compile(rb'(\{.*), "sha256": "([0-9a-f]{64})"\}')
_RESTORE = "Somebody changed the register: restore it from a backup"

INPUTS = {
    "pages": "the provider's pages",
    "logs": "the request logs",
    "config": "the config",
    "prices": "the price book",
    "version": "the version of reconcile",
    "earlier": "an earlier month",
    "restated": "the corrections of earlier months",
}
"""What a result is a function of: the parts of its input digest, in words."""


# The file -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Register:
    """What happened to the periods, one JSON line each, append-only.

    Every line ends with the SHA-256 of itself and names that of the line before, so that no byte changes unseen.
    A last line without its end was cut off while it was written: it never counted, and the next one takes its place.
    """

    path: Path

    def entries(self) -> list[dict[str, Any]]:
        """Every line, oldest first. Raises ``InvariantError`` where the chain is broken, naming the line."""
        found: list[dict[str, Any]] = []
        before = ""
        for number, line in enumerate(self._whole().splitlines(), start=1):
            where = f"{self.path}:{number}"
            signed = _SIGNED_LINE.fullmatch(line)
            digest = sha256(signed[1] + b"}").hexdigest() if signed else "none"
            if signed is None or digest != signed[2].decode():
                said = signed[2].decode() if signed else "what is no entry"
                raise InvariantError(where, f"has sha256 {digest}, says {said}", _RESTORE)
            entry = json.loads(line)
            if entry["before"] != before:
                what = f"follows a line with sha256 {before or 'none'}, says {entry['before'] or 'none'}"
                raise InvariantError(where, what, _RESTORE)
            before = sha256(line).hexdigest()
            found.append(entry)
        return found

    def append(self, event: str, **facts: str | int | bool | Mapping[str, str] | Sequence[str]) -> dict[str, Any]:
        """Add one line and wait until it is on the disk; returns it as it stands there. For one process at a time."""
        whole = self._whole()
        before = sha256(whole.splitlines()[-1]).hexdigest() if whole else ""
        content = json.dumps({"event": event, **facts, "before": before}, ensure_ascii=False).encode()
        line = content[:-1] + f', "sha256": "{sha256(content).hexdigest()}"}}'.encode()
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o600)
        with open(descriptor, "wb") as file:  # noqa: PTH123 - of a descriptor
            file.truncate(len(whole))
            file.seek(len(whole))
            file.write(line + b"\n")
            file.flush()
            os.fsync(descriptor)
        sync(self.path.parent)
        entry: dict[str, Any] = json.loads(line)
        return entry

    @property
    def is_whole(self) -> bool:
        """Whether its last line has its end."""
        return not self.path.exists() or self._whole() == self.path.read_bytes()

    @property
    def head(self) -> str:
        """SHA-256 of the last line, empty without one: kept elsewhere, it tells whether lines were taken away."""
        lines = self._whole().splitlines()
        return sha256(lines[-1]).hexdigest() if lines else ""

    def _whole(self) -> bytes:
        """The lines that are there to their end."""
        content = self.path.read_bytes() if self.path.exists() else b""
        return content[: content.rfind(b"\n") + 1]


# What follows from it -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Signature:
    """Who signed a period's figures, and why that no longer holds (empty while it does)."""

    role: Role
    who: str
    at: str
    revision: int
    figures_digest: str
    withdrawn: str = ""


@dataclass(frozen=True)
class Standing:
    """Where a period stands.

    ``open`` until it has a revision, ``provisional`` until one is final, then ``closed``; ``reopened`` until the next
    final one; ``restated`` when a recheck found that a closed one moved. ``at`` is the instant of the last close,
    ``closed_at`` that of the final one that counts, ``why`` the reason of the reopening,
    ``rechecked_at`` the instant of the last recheck since it was closed; empty where there is none.
    Signatures come in the order in which they were given, also those that no longer hold.
    """

    period: str
    state: State = "open"
    revision: int = 0
    at: str = ""
    closed_at: str = ""
    why: str = ""
    rechecked_at: str = ""
    figures_digest: str = ""
    inputs: Mapping[str, str] | None = None
    signatures: tuple[Signature, ...] = ()

    @property
    def is_closed(self) -> bool:
        """Whether its figures do not change any more, unless it is reopened."""
        return self.state in {"closed", "restated"}

    @property
    def shown_state(self) -> State:
        """What its own pages call it: a month that was restated is as it was closed there."""
        return "closed" if self.is_closed else self.state

    @property
    def shown(self) -> tuple[object, ...]:
        """Everything that its pages say of it."""
        return self.shown_state, self.closed_at, self.why, self.signatures

    @property
    def holding(self) -> tuple[Signature, ...]:
        """The signatures that hold, the preparer's first."""
        return tuple(one for role in ROLES for one in self.signatures if one.role == role and not one.withdrawn)

    @property
    def withdrawn(self) -> tuple[Signature, ...]:
        """The signatures that no longer hold."""
        return tuple(one for one in self.signatures if one.withdrawn)

    def after(self, entry: Entry) -> "Standing":
        """Where it stands when one more thing has happened to it."""
        match entry["event"]:
            case "close":
                return self._after_close(entry)
            case "approve":
                signature = Signature(
                    entry["role"], entry["by"], entry["at"], entry["revision"], entry["figures_digest"]
                )
                return replace(self, signatures=(*self.signatures, signature))
            case "reopen":
                signatures = self._withdrawn(f"reopened: {entry['reason']}")
                return replace(self, state="reopened", closed_at="", why=entry["reason"], signatures=signatures)
            case "recheck" if self.is_closed:
                return replace(self, state="restated" if entry["moved"] else "closed", rechecked_at=entry["at"])
        return self

    def _after_close(self, entry: Entry) -> "Standing":
        closes = entry["final"] and not self.is_closed
        figures, inputs = entry.get("figures_digest", ""), entry.get("inputs")
        signatures = self.signatures
        if figures != self.figures_digest and self.revision:
            signatures = self._withdrawn(f"r{entry['revision']} has other figures: {changed(self.inputs, inputs)}")
        return replace(
            self,
            state="closed" if closes else "provisional" if self.state == "open" else self.state,
            revision=entry["revision"],
            at=entry["at"],
            closed_at=entry["at"] if closes else self.closed_at,
            why="" if closes else self.why,
            rechecked_at="" if closes else self.rechecked_at,
            figures_digest=figures,
            inputs=inputs,
            signatures=signatures,
        )

    def _withdrawn(self, why: str) -> tuple[Signature, ...]:
        return tuple(one if one.withdrawn else replace(one, withdrawn=why) for one in self.signatures)


def standing(entries: Iterable[Entry], period: Period) -> Standing:
    """Where a period stands after all that the register says of it."""
    found = Standing(str(period))
    for entry in entries:
        if entry["period"] == found.period:
            found = found.after(entry)
    return found


def last_published(entries: Sequence[Entry], period: Period, revision: int) -> Entry:
    """The last line that tells the digests of a revision and of its reports; empty where there is none."""
    told = (
        entry
        for entry in reversed(entries)
        if entry["period"] == str(period) and entry.get("revision") == revision and "reports_digest" in entry
    )
    return next(told, {})


def ledger_sha256(entries: Sequence[Entry], period: Period, revision: int) -> str | None:
    """The digest of a revision's file as it was written last; None where no line tells it."""
    told = (
        entry["ledger_sha256"]
        for entry in reversed(entries)
        if entry["period"] == str(period) and entry.get("revision") == revision and "ledger_sha256" in entry
    )
    return next(told, None)


def is_purged(entries: Iterable[Entry], period: Period, revision: int) -> bool:
    """Whether a revision has lost its request rows."""
    return any(
        (entry["event"], entry["period"], entry.get("revision")) == ("purge", str(period), revision)
        for entry in entries
    )


def changed(before: Mapping[str, str] | None, after: Mapping[str, str] | None) -> str:
    """Which inputs are not the same, in words: ``the config and the request logs changed``."""
    names = [words for name, words in INPUTS.items() if (before or {}).get(name) != (after or {}).get(name)]
    return f"{in_words(names) or 'its inputs'} changed"


def in_words(names: Sequence[str]) -> str:
    """A list as people write it: a, b and c."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
