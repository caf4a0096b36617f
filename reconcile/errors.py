"""The expected failures of a run, each with its exit code.

ReconcileError
├── ConfigError     2   config or arguments, the key's variable not set
├── SourceError     3   a source is unavailable, refused, incomplete, or not what it should be
├── InvariantError  4   an invariant broke or something was changed; nothing is published
└── NotReadyError   5   the period cannot be closed yet

A discrepancy is a row and never raises. Anything that is not a ReconcileError is a bug (exit 70).
"""

from typing import ClassVar


class ReconcileError(Exception):
    """An expected failure: says where, what (with both values), and what to do about it."""

    exit_code: ClassVar[int]

    def __init__(self, where: str, what: str, do: str) -> None:
        super().__init__(where, what, do)
        self.where = where
        self.what = what
        self.do = do

    def __str__(self) -> str:
        return f"{self.where}: {self.what}. {self.do}"


class ConfigError(ReconcileError):
    """The config, an argument or the key's place is wrong."""

    exit_code = 2


class SourceError(ReconcileError):
    """A source is unavailable, refused, incomplete, or not what it should be."""

    exit_code = 3


class InvariantError(ReconcileError):
    """A control total broke, or something was changed after the fact."""

    exit_code = 4


class NotReadyError(ReconcileError):
    """The period is not over, or its data has not settled."""

    exit_code = 5
