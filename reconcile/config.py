"""The config file: one YAML document, validated, with every error on a line that names file, key and values."""

import csv
import json
import re
import subprocess
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from difflib import get_close_matches
from fnmatch import fnmatchcase
from glob import escape, glob
from hashlib import sha256
from ipaddress import ip_address
from os import environ
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from reconcile.errors import ConfigError
from reconcile.period import Period

UNALLOCATED = "unallocated"
"""The reserved name of the chargeback's row for what no rule catches."""


REASONS = (
    "duplicate",
    "stream_sum",
    "app_price",
    "time_zone",
    "cutoff",
    "cache_inclusive",
    "cache_ttl",
    "model",
    "service_tier",
    "context_window",
    "inference_geo",
    "speed",
    "workspace",
    "unlogged_key",
    "no_key",
    "iterations",
    "cut_stream",
    "log_gap",
    "unlogged",
    "unreported",
    "discount",
    "price_book",
    "price_interval",
    "uncharged",
    "unpriced",
    "code_execution",
    "session_usage",
    "rounding",
    "residual",
)
"""The closed list of reasons between logged and billed, in the bridge's order (design.md section 6)."""

SCOPES = {
    **dict.fromkeys(("duplicate", "stream_sum", "time_zone", "cutoff", "service_tier"), ("log",)),
    **dict.fromkeys(("context_window", "inference_geo", "speed", "log_gap"), ("log",)),
    **dict.fromkeys(("app_price", "cache_inclusive", "cache_ttl", "model", "iterations"), ("log", "model")),
    "workspace": ("log", "workspace"),
    **dict.fromkeys(("cut_stream", "unreported"), ("log", "workspace", "model")),
    **dict.fromkeys(("unlogged_key", "no_key", "code_execution", "session_usage"), ("workspace",)),
    **dict.fromkeys(("unlogged", "residual"), ("workspace", "model")),
    **dict.fromkeys(("discount", "price_book", "price_interval", "uncharged", "unpriced"), ("model",)),
    "rounding": (),
}
"""What an accepted difference can be narrowed to: its place (docs/decisions/0011), as the config names it."""

METERS = (
    "uncached_input_tokens",
    "cache_creation.ephemeral_5m_input_tokens",
    "cache_creation.ephemeral_1h_input_tokens",
    "cache_read_input_tokens",
    "output_tokens",
    "web_search_requests",
    "code_execution",
    "session_usage",
)
"""What the provider counts (design.md section 1)."""

SERVICE_TIERS = ("standard", "batch", "priority", "priority_on_demand", "flex", "flex_discount")
"""The service tiers of the reports (design.md section 4)."""

FIELDS = ("api_key", "log", "model", "service_tier", "context_window", "inference_geo", "speed")
"""What a rule may split by besides a label: fields that every recorded request has."""

Location = tuple[str | int, ...]
"""Where a value stands in the document: keys and list indexes from the top."""

_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d{1,3})?", re.ASCII)
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_MONTH = re.compile(r"\d{4}-(0[1-9]|1[0-2])", re.ASCII)


def _wrong(what: str, do: str) -> PydanticCustomError:
    """What a validator raises: the two sentences that end up behind the file, line and key."""
    return PydanticCustomError("reconcile", "{what}. {do}", {"what": what, "do": do})


def _decimal(value: object) -> object:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return Decimal(value)
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise _wrong(f"got {_shown(value)}, expected a number", "Write a number like 12.50")
    return value


def _day(value: object) -> object:
    try:
        if isinstance(value, str) and _DAY.fullmatch(value):
            return date.fromisoformat(value)
    except ValueError:
        raise _wrong(f"got {value}, which is no day of the calendar", "Correct the day") from None
    if type(value) is not date:
        raise _wrong(f"got {_shown(value)}, expected a day", "Write a day like 2026-10-15")
    return value


def _month(value: object) -> object:
    if not isinstance(value, str) or not _MONTH.fullmatch(value):
        raise _wrong(f"got {_shown(value)}, expected a month", "Write a month like 2026-10")
    return value


def _not_blank(value: str) -> str:
    if not value.strip():
        raise _wrong(f"got {_shown(value)}, which is blank, expected text", "Correct the value")
    return value


def _time_zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):
        raise _wrong(
            f"got {value!r}, expected a time zone of the IANA database", "Write one like Europe/Berlin"
        ) from None
    return value


def _absolute(value: Path, info: ValidationInfo) -> Path:
    """Paths are relative to the config file, which the loader names in the context."""
    base_dir: Path = (info.context or {}).get("base_dir", Path())
    return base_dir / value


def _absolute_glob(value: str, info: ValidationInfo) -> str:
    if unknown := sorted(set(re.findall(r"{[^{}]*}", value)) - {"{day}", "{month}"}):
        raise _wrong(f"got {unknown[0]}, expected only {{day}} or {{month}} in braces", "Correct the glob")
    base_dir: Path | None = (info.context or {}).get("base_dir")
    return value if base_dir is None else str(Path(escape(str(base_dir))) / value)


Amount = Annotated[Decimal, BeforeValidator(_decimal), Field(allow_inf_nan=False, max_digits=38, decimal_places=12)]
Percent = Annotated[Decimal, BeforeValidator(_decimal), Field(ge=0, le=100, allow_inf_nan=False, decimal_places=4)]
Day = Annotated[date, BeforeValidator(_day)]
Month = Annotated[str, BeforeValidator(_month)]
TimeZone = Annotated[str, AfterValidator(_time_zone)]
Located = Annotated[Path, AfterValidator(_absolute)]
NonEmpty = Annotated[str, Field(min_length=1), AfterValidator(_not_blank)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class _Dated(_Model):
    """Something that holds on the days from `from` (inclusive) until `until` (exclusive)."""

    from_on: Day | None = Field(None, alias="from", description="First day, inclusive; null is since ever")
    until_on: Day | None = Field(None, alias="until", description="First day after, exclusive; null is without an end")

    @model_validator(mode="after")
    def _ordered(self) -> "_Dated":
        if self.from_on and self.until_on and self.from_on >= self.until_on:
            raise _wrong(f"`from` {self.from_on} must lie before `until` {self.until_on}", "Correct one of the two")
        return self

    def holds_on(self, day: date) -> bool:
        """Whether ``day`` lies in the span."""
        return (self.from_on is None or self.from_on <= day) and (self.until_on is None or day < self.until_on)


VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
"""The name of an environment variable. An admin key never looks like one: it has dashes."""


class Key(_Model):
    """Where the admin key is found: exactly one of the three. The key itself never stands in the config."""

    env: str | None = Field(None, description="Name of an environment variable")
    file: Located | None = Field(None, description="Path of a file with mode 0600")
    command: list[str] | None = Field(None, min_length=1, description="A command that prints the key")

    @model_validator(mode="after")
    def _one(self) -> "Key":
        given = [name for name in ("env", "file", "command") if getattr(self, name) is not None]
        if len(given) != 1:
            raise _wrong(f"got {' and '.join(given) or 'none'} of env, file, command, expected exactly one", "Keep one")
        if self.env is not None and not VARIABLE.fullmatch(self.env):
            raise _wrong("env is no name of an environment variable", "Name the variable, never write the key itself")
        return self

    def place(self) -> str:
        """How messages name the key's place."""
        if self.env is not None:
            return f"the environment variable {self.env}"
        return f"the file {self.file}" if self.file is not None else f"the command {' '.join(self.command or [])}"

    def read(self, name: str = "billing.key", what: str = "an Admin API key") -> str:
        """The secret, one word. Raises ``ConfigError`` when it is not there, or its file is readable for others.

        ``name`` and ``what`` say in messages what of the config it is.
        """
        if self.env is not None:
            found = environ.get(self.env, "")
        elif self.file is not None:
            found = self._read_file(self.file, name)
        else:
            found = self._run(self.command or [], name)
        key = found.strip()
        if not key:
            raise ConfigError(name, f"{self.place()} is not set or empty", f"Put {what} there")
        if not key.isascii() or not key.isprintable() or " " in key:
            # an HTTP client would quote such a header's value in its message
            raise ConfigError(
                name,
                f"{self.place()} holds more than one word of printable ASCII, expected {what} alone",
                f"Put nothing but {what} there",
            )
        return key

    @staticmethod
    def _read_file(path: Path, name: str) -> str:
        try:
            mode = path.stat().st_mode & 0o777
            if mode & 0o077:
                raise ConfigError(
                    f"{name}.file", f"{path} has mode {mode:04o}, expected 0600", f"Run: chmod 600 {path}"
                )
            return path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise ConfigError(
                f"{name}.file", f"{path} cannot be read ({error.strerror})", "Correct the path or its owner"
            ) from None

    @staticmethod
    def _run(command: list[str], name: str) -> str:
        try:
            ran = subprocess.run(  # noqa: S603 - the user's own config names it
                command, capture_output=True, encoding="utf-8", errors="replace", timeout=60, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ConfigError(
                f"{name}.command", f"{command[0]!r} did not run ({type(error).__name__})", "Try it in a shell"
            ) from None
        if ran.returncode:
            raise ConfigError(
                f"{name}.command", f"{command[0]!r} ended with {ran.returncode}, expected 0", "Try it in a shell"
            )
        return ran.stdout


class Billing(_Model):
    """Where the provider's side comes from."""

    api: Literal["admin"] = Field("admin", description="admin: Usage & Cost Admin API")
    base_url: str = Field("https://api.anthropic.com", description="https, or http on loopback only")
    key: Key = Field(default=Key(env="ANTHROPIC_ADMIN_KEY"), description="Where the Admin API key is found")
    default_workspace_id: str | None = Field(
        None, description="Real id of the default workspace, where no API tells it"
    )
    settle_hours: int = Field(
        24, ge=0, strict=True, description="Hours to wait after the month's end before a final close"
    )
    arrangement: Literal["invoiced", "prepaid"] = Field(
        "invoiced", description="prepaid: billed is drawn from credits, there is no invoice to tie to"
    )
    amounts: Literal["auto", "net", "list"] = Field(
        "auto", description="Whether the cost report is net of a contract's discount; auto measures it"
    )

    @field_validator("base_url")
    @classmethod
    def _secure(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            host = parts.hostname or ""
            loopback = host == "localhost" or (bool(host) and ip_address(host).is_loopback)
        except ValueError:  # no URL, or a host that is no address
            loopback = False
        if not value.startswith("https://") and not (loopback and parts.scheme == "http"):
            raise _wrong(
                f"got {_shown(value)}, must begin with https:// (http is for loopback only)", "Correct the URL"
            )
        if "@" in value:
            raise _wrong("holds a user or password", "Take it out: the key alone says who asks")
        return value.rstrip("/")


class RequestLog(_Model):
    """One log of the organization's applications."""

    name: NonEmpty = Field(description="How reports call it")
    format: Literal["requests", "messages"] = Field("requests", description="The reader")
    path: Annotated[NonEmpty, AfterValidator(_absolute_glob)] = Field(
        description="Glob; {day} is 2026-10-03, {month} 2026-10"
    )
    time_zone: TimeZone = Field("UTC", description="Of timestamps without an offset")
    workspace_id: str | None = Field(None, description="For rows that carry none")
    labels: list[NonEmpty] = Field([], description="The only labels that are kept")

    def files(self, period: Period) -> tuple[Path, ...]:
        """The files that ``path`` finds for the period and the day either side, in order."""
        days = (period.start_on - timedelta(days=1), *period.days(), period.end_on)
        patterns = {self.path.replace("{day}", f"{day}").replace("{month}", f"{day:%Y-%m}") for day in days}
        found = {Path(path) for pattern in patterns for path in glob(pattern, recursive=True)}  # noqa: PTH207 - patterns are absolute
        return tuple(sorted(path for path in found if path.is_file()))


class ContractRate(_Dated):
    """A negotiated rate, over list."""

    model: NonEmpty = Field(description="The name that the reports use; * as wildcard")
    discount_percent: Percent = Field(description="Percent off list")


class Prices(_Model):
    """What lies over the list prices."""

    contract: list[ContractRate] = Field([], description="Dated rates over list; where two hold, the first one counts")


class Tolerance(_Model):
    """What is too small to be a discrepancy: a finding stays within while it exceeds neither."""

    usd: Annotated[Amount, Field(ge=0)] = Field(Decimal("1.00"), description="USD, of a finding and of their sum")
    percent: Percent = Field(Decimal("0.5"), description="Percent of billed, of a finding and of their sum")
    unallocated_percent: Percent | None = Field(
        None, description="Percent of billed that may stay without a cost center; null is any"
    )


class Accepted(_Model):
    """A difference that is known and signed for. It expires."""

    reason: NonEmpty = Field(description="A reason of the closed list")
    log: NonEmpty | None = Field(None, description="* as wildcard; null is any")
    workspace: NonEmpty | None = Field(None, description="Id or name, * as wildcard; null is any")
    model: NonEmpty | None = Field(None, description="* as wildcard; null is any")
    up_to_usd: Annotated[Amount, Field(ge=0)] = Field(
        description="USD of all that it covers together; above it all of it counts again"
    )
    who: NonEmpty = Field(description="Who accepted it")
    why: NonEmpty = Field(description="Why it is fine")
    until: Day = Field(description="First day on which it no longer holds")

    @field_validator("log", "workspace", "model")
    @classmethod
    def _any(cls, value: str | None) -> str | None:
        return None if value == "*" else value  # any: also of findings that have none


AFTER_BILLED = Literal["contract_discount", "credit", "commitment", "tax", "earlier_period", "invoice_rounding"]


class InvoiceLine(_Model):
    """What lies between billed and invoiced."""

    reason: AFTER_BILLED = Field(description="A reason after billed")
    amount_usd: Amount = Field(description="USD with the bridge's sign: a credit is negative")


class Invoice(_Model):
    """The provider's invoice of a period."""

    period: Month = Field(description="The month that it is for, like 2026-10")
    number: NonEmpty = Field(description="The invoice's number")
    on: Day = Field(description="The day it was issued")
    amount_usd: Amount = Field(description="USD, as invoiced")
    lines: list[InvoiceLine] = Field([], description="What lies between billed and invoiced")


class CostCenter(_Model):
    """Who receives."""

    name: NonEmpty = Field(description="How reports call it")
    account: str | None = Field(None, description="The account that the journal books to; text, in quotes")


class _Selection(_Dated):
    """Which charges are meant: those that fit every key that is written."""

    workspace: NonEmpty | None = Field(
        None, description="Id or name, * as wildcard; `default` is the default workspace"
    )
    model: NonEmpty | None = Field(None, description="As the reports call it, * as wildcard")
    service_tier: NonEmpty | None = Field(None, description="As the reports call it, * as wildcard")
    meter: NonEmpty | None = Field(None, description="As the reports call it, * as wildcard; so code_execution")
    charge: Literal["no_key", "residual"] | None = Field(
        None, description="no_key: what was used without an API key. residual: what nothing explains"
    )

    @field_validator("service_tier", "meter", mode="after")
    @classmethod
    def _known(cls, value: str | None, info: ValidationInfo) -> str | None:
        known = METERS if info.field_name == "meter" else SERVICE_TIERS
        if value is not None and not any(like(value, one) for one in known):
            raise _wrong(f"got {_shown(value)}, which can never match", nearest(value, known))
        return value

    def selects(self) -> dict[str, str]:
        """The keys that are written, with their patterns."""
        names = ("workspace", "model", "service_tier", "meter", "charge")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


class Rule(_Selection):
    """Assigns charges to who pays. The first rule that matches wins."""

    api_key: NonEmpty | None = Field(None, description="Id or name, * as wildcard")
    tag: NonEmpty | None = Field(None, description="The workspace's tag whose value names the cost center")
    split_by: Annotated[str, Field(pattern=rf"^(label\..+|{'|'.join(FIELDS)})$")] | None = Field(
        None, description="label.NAME, or a field that every request has: " + ", ".join(FIELDS)
    )
    to: str | dict[str, str] | None = Field(
        None, description="A cost center; with split_by, value -> cost center, * for every other value"
    )
    pool: NonEmpty | None = Field(None, description="In place of `to`: the pool that takes it")
    unlogged: str | None = Field(
        None, description="What no log covers: proportional, a cost center, or unallocated; null is unallocated"
    )
    unlabeled: str | None = Field(
        None, description="What was logged without the label: proportional, a cost center, or unallocated; null as that"
    )

    @model_validator(mode="after")
    def _whole(self) -> "Rule":
        self._one_target()
        if self.split_by is None:
            for name in ("unlogged", "unlabeled"):
                if getattr(self, name) is not None:
                    raise _wrong(f"`{name}` belongs to a rule with split_by", f"Take it out or add {_SPLIT_BY}")
        elif self.charge is not None:
            raise _wrong(
                f"`charge: {self.charge}` cannot be split by what was logged",
                "Take charge or split_by out of this rule",
            )
        if self.api_key is not None and self.charge is not None:
            raise _wrong(f"`charge: {self.charge}` has no API key", "Take charge or api_key out of this rule")
        if not (self.selects() or self.api_key or self.tag):
            raise _wrong("has no workspace, api_key or tag", "Say what the rule is for")
        return self

    def _one_target(self) -> None:
        if self.tag is not None:
            if any(given is not None for given in (self.to, self.pool, self.split_by, self.api_key)):
                raise _wrong(
                    "`tag` names the cost center itself", "Take to, pool, split_by and api_key out of this rule"
                )
        elif self.pool is not None:
            if self.to is not None or self.split_by is not None:
                raise _wrong("`pool` takes all that the rule is for", "Take to and split_by, or pool, out of this rule")
        elif self.split_by is not None:
            if not isinstance(self.to, dict):
                raise _wrong("`split_by` has no cost center for its label's values", "Write `to: {value: cost center}`")
        elif not isinstance(self.to, str):
            raise _wrong("has no cost center", f"Write `to: COST-CENTER`, or add {_SPLIT_BY}")


_SPLIT_BY = "`split_by: label.NAME`"


@dataclass(frozen=True)
class DriverRow:
    """A line of a driver's file: what a cost center weighs from a day on."""

    line: int
    from_on: date
    until_on: date | None
    cost_center: str
    weight: Decimal


@dataclass(frozen=True)
class Driver:
    """Weights by cost center and day, read from a CSV file with the config, so that a result names its input.

    A row holds from its day until its own `until`, or until the next row of its cost center.
    """

    name: str
    rows: tuple[DriverRow, ...]

    @classmethod
    def read(cls, value: object, info: ValidationInfo) -> "Driver":
        """The file that the config names, relative to its folder; every mistake in it names file, line and value."""
        if isinstance(value, Driver):
            return value
        if not isinstance(value, str):
            raise _wrong(f"got {_shown(value)}, expected a path", "Name a CSV file, like drivers/headcount.csv")
        path = Path((info.context or {}).get("base_dir", Path())) / value
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise _wrong(f"{value} cannot be read ({why})", "Correct the path, or the file") from None
        reader = csv.reader(text.splitlines())
        columns = [column.strip() for column in next(reader, [])]
        if not {"from", "cost_center", "weight"} <= set(columns) <= {"from", "until", "cost_center", "weight"}:
            raise _wrong(
                f"{value}:1: got the columns {', '.join(columns) or 'none'}, expected from, cost_center, weight",
                "Correct the first line; `until` may stand there too",
            )
        lines = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
        if not lines:
            raise _wrong(f"{value} has no row", "Write one for each cost center")
        rows = [cls._row(f"{value}:{line}", line, columns, row) for line, row in lines]
        return cls(name=path.name, rows=tuple(rows))

    @staticmethod
    def _row(where: str, line: int, columns: list[str], cells: list[str]) -> DriverRow:
        if len(cells) != len(columns):
            raise _wrong(f"{where}: got {len(cells)} columns, expected {len(columns)}", "Correct the line")
        cell = {column: text.strip() for column, text in zip(columns, cells, strict=True)}
        days = []
        for name in ("from", "until"):
            try:
                days.append(date.fromisoformat(cell[name]) if cell.get(name) else None)
            except ValueError:
                raise _wrong(f"{where}: {name}: got {_shown(cell[name])}, expected a day", _WRITE_A_DAY) from None
        if days[0] is None:
            raise _wrong(f"{where}: from: got nothing, expected a day", _WRITE_A_DAY)
        if days[1] is not None and days[0] >= days[1]:
            raise _wrong(f"{where}: from {days[0]} must lie before until {days[1]}", "Correct one of the two")
        weight = cell["weight"]
        if not _PLAIN_NUMBER.fullmatch(weight):
            raise _wrong(f"{where}: weight: got {_shown(weight)}, expected a number from 0 up", "Correct the weight")
        return DriverRow(
            line=line, from_on=days[0], until_on=days[1], cost_center=cell["cost_center"], weight=Decimal(weight)
        )


_WRITE_A_DAY = "Write a day like 2026-10-15"
_PLAIN_NUMBER = re.compile(r"\d{1,12}(\.\d{1,6})?", re.ASCII)


class OutsideLine(_Model):
    """A charge that the provider's cost report does not hold."""

    on: Day = Field(description="The day that it belongs to; it counts in that day's month")
    amount_usd: Amount = Field(description="USD; a credit is negative")
    what: NonEmpty = Field(description="What it is, in words that a team lead understands")


class Pool(_Selection):
    """What no rule caught, what rules and other pools send, and what stands outside the cost report: split."""

    name: NonEmpty = Field(description="How reports call it")
    split: Literal["proportional", "quantity", "requests", "even", "driver"] | dict[str, Percent] = Field(
        "proportional",
        description="By direct cost, tokens or requests of each cost center, even, by a driver file, or percentages",
    )
    driver: Annotated[
        Driver | None,
        BeforeValidator(lambda value, info: None if value is None else Driver.read(value, info)),
        WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}),
    ] = Field(None, description="For split: driver. A CSV file with the columns from, cost_center, weight")
    among: list[NonEmpty] = Field([], description="Cost centers, or pools, that take part; empty is every cost center")
    lines: list[OutsideLine] = Field([], description="Dated charges from outside the provider's cost report")
    invoice: list[AFTER_BILLED] = Field([], description="Lines of the month's invoice that this pool splits, by reason")

    @field_validator("split", mode="after")
    @classmethod
    def _hundred(cls, value: object) -> object:
        if isinstance(value, dict) and sum(value.values()) != 100:  # noqa: PLR2004 - a whole
            raise _wrong(f"shares add up to {sum(value.values())} %, must be 100 %", "Correct the percentages")
        return value

    @model_validator(mode="after")
    def _whole(self) -> "Pool":
        if (self.split == "driver") != (self.driver is not None):
            raise _wrong("`split: driver` and `driver: FILE` belong together", "Write both, or neither")
        if self.among and not isinstance(self.split, str):
            raise _wrong("`among` and percentages both say who receives", "Keep one of them")
        if self.among and self.driver is not None:
            raise _wrong("`among` and `driver` both say who receives", "Keep one of them")
        return self

    @property
    def weighs_cost_centers(self) -> bool:
        """Whether it is split by what cost centers use themselves, so that no other pool can receive."""
        return isinstance(self.split, str) and self.split in {"proportional", "quantity", "requests"}

    def receivers(self) -> dict[str, tuple[Location, str]]:
        """Who is named to receive, with the place in the pool and in its file; empty where every cost center does."""
        if isinstance(self.split, dict):
            return {name: (("split", name), "") for name in self.split}
        if self.driver is not None:
            lines = {row.cost_center: row.line for row in reversed(self.driver.rows)}
            return {name: (("driver",), f"{self.driver.name}:{line}: ") for name, line in lines.items()}
        return {name: (("among", n), "") for n, name in enumerate(self.among)}


class Allocation(_Model):
    """Who pays."""

    cost_centers: dict[NonEmpty, CostCenter] = Field({}, description="Who receives, by code")
    rules: list[Rule] = Field([], description="First match wins")
    shared: list[Pool] = Field([], description="Pools: what no rule caught, and what comes from outside, split")

    _path: Path | None = PrivateAttr(default=None)

    def model_post_init(self, context: Any, /) -> None:
        """Keep the file that it was read from."""
        self._path = (context or {}).get("path")

    def place(self, *location: str | int) -> str:
        """How an error names a key in it: file, line and key where it was read from a file."""
        where: Location = ("allocation", *location)
        try:
            return _Document.read(self._path).place(where) if self._path else _dotted(where)
        except ConfigError:  # the file went away after it was read
            return _dotted(where)

    def key(self, *location: str | int) -> str:
        """How a warning names a key in it: without the line and the folder, which are no input of a result."""
        return (f"{self._path.name}: " if self._path else "") + _dotted(("allocation", *location))

    def pool_order(self) -> list[int]:
        """The pools' indexes, a pool that feeds another before it. Raises ``ValueError`` with a cycle's names."""
        index = {pool.name: n for n, pool in enumerate(self.shared)}
        feeds = [[index[name] for name in pool.receivers() if name in index] for pool in self.shared]
        order: list[int] = []
        path: list[int] = []

        def follow(n: int) -> None:
            if n in path:
                raise ValueError(" -> ".join(self.shared[i].name for i in [*path[path.index(n) :], n]))
            if n not in order:
                path.append(n)
                for fed in feeds[n]:
                    follow(fed)
                path.pop()
                order.append(n)

        for n in range(len(self.shared)):
            follow(n)
        return order[::-1]


def _budget_period(value: object) -> object:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not re.fullmatch(r"20\d{2}(-(0[1-9]|1[0-2]))?", text, re.ASCII):
        raise _wrong(
            f"got {_shown(value)}, expected a month or a year", "Write a month like 2026-10, or a year like 2026"
        )
    return text


class Budget(_Model):
    """What a cost center may spend in a month, or in a calendar year."""

    cost_center: NonEmpty = Field(description="Its code")
    period: Annotated[str, BeforeValidator(_budget_period)] = Field(
        description="A month like 2026-10, or a year like 2026: a twelfth a month"
    )
    amount_usd: Annotated[Amount, Field(ge=0)] = Field(description="USD")

    @property
    def year(self) -> int:
        """The calendar year that it is of."""
        return int(self.period[:4])

    @property
    def month(self) -> int | None:
        """The month of it; None for the whole year."""
        return int(self.period[5:]) if len(self.period) > 4 else None  # noqa: PLR2004 - a year's digits


class Datev(_Model):
    """What the header of a DATEV posting batch (EXTF, Buchungsstapel) says."""

    consultant: int = Field(1001, ge=1001, le=9_999_999, strict=True, description="Number of the tax consultant")
    client: int = Field(1, ge=1, le=99_999, strict=True, description="Number of the consultant's client")
    account_length: int = Field(4, ge=4, le=8, strict=True, description="Digits of a general ledger account")
    fiscal_year_starts: int = Field(1, ge=1, le=12, strict=True, description="Month in which the fiscal year starts")
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = Field("EUR", description="The books' currency")
    usd_rate: Annotated[Amount, Field(gt=0)] | None = Field(
        None, description="USD for one unit of the books' currency; needed unless the books are in USD"
    )


class NetSuite(_Model):
    """What a NetSuite journal needs beside the lines."""

    subsidiary: str | None = Field(None, description="The subsidiary that books, in OneWorld accounts")


class Xero(_Model):
    """What a Xero manual journal needs beside the lines."""

    tax_rate: NonEmpty = Field("Tax Exempt", description="Name of the tax rate of every line")
    tracking: NonEmpty = Field(
        "Cost center", description="Name of the tracking category that cost centers are options of"
    )


JournalField = Literal[
    "entry",
    "kind",
    "date",
    "line",
    "account",
    "cost_center",
    "name",
    "debit_usd",
    "credit_usd",
    "signed_usd",
    "currency",
    "memo",
    "period",
    "revision",
]


class Journal(_Model):
    """How `reconcile export journal` books. It changes no figure, only the file."""

    template: Literal["generic", "datev", "netsuite", "quickbooks", "xero"] = Field(
        "generic", description="The layout that the accounting system takes"
    )
    accrue: Literal["billed", "run_rate"] = Field(
        "billed",
        description="Of a running month: billed is what was billed by now, run_rate estimates the days that remain too",
    )
    credit_account: str | None = Field(None, description="What is owed to the provider, or paid in advance; in quotes")
    cost_account: str | None = Field(None, description="Of cost centers that name no account; in quotes")
    unallocated_account: str | None = Field(None, description="Of what is unallocated; in quotes")
    columns: dict[NonEmpty, JournalField] = Field(
        {}, description="For generic: heading -> field, in order; {} is every field under its own name"
    )
    day_format: Literal["YYYY-MM-DD", "MM/DD/YYYY", "DD/MM/YYYY"] | None = Field(
        None, description="How days are written; null is as the template's system expects"
    )
    datev: Datev = Field(default=Datev(), description="For the template datev")
    netsuite: NetSuite = Field(default=NetSuite(), description="For the template netsuite")
    xero: Xero = Field(default=Xero(), description="For the template xero")


class Schedule(_Model):
    """When `reconcile schedule` closes."""

    day: int = Field(3, ge=1, le=28, strict=True, description="Day of the month")
    time: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")] = Field("06:00", description="Hours:minutes")
    time_zone: TimeZone = Field("UTC", description="IANA name")
    provisional: bool = Field(False, strict=True, description="Close the running month each day too")
    recheck_days: Annotated[int, Field(ge=1, strict=True)] | None = Field(
        30, description="Days after its end at which a closed month is rechecked once; null is never"
    )


class Notify(_Model):
    """Who is told how a close ended: a webhook or a command, exactly one of the two."""

    webhook: Key | None = Field(None, description="Where the address is found: it gets a POST with a JSON object")
    command: list[str] | None = Field(None, min_length=1, description="A command that gets the JSON object on stdin")
    exits: list[int] | None = Field(None, min_length=1, description="Only of these exit codes; null is all")

    @model_validator(mode="after")
    def _one(self) -> "Notify":
        given = [name for name in ("webhook", "command") if getattr(self, name) is not None]
        if len(given) != 1:
            raise _wrong(f"got {' and '.join(given) or 'none'} of webhook, command, expected exactly one", "Keep one")
        return self


class Retention(_Model):
    """How long what is not a figure is kept, for `reconcile purge`. It changes no figure."""

    requests_days: Annotated[int, Field(ge=1, strict=True)] | None = Field(
        None, description="Days after the month's end that request rows stay in the ledger; null is for good"
    )
    raw_days: Annotated[int, Field(ge=1, strict=True)] | None = Field(
        None, description="Days after the month's end that raw pages of a closed month are kept; null is for good"
    )


class Config(_Model):
    """The whole file."""

    organization: NonEmpty = Field(description="How reports call the organization")
    organization_id: str | None = Field(None, description="Refuse a key of another organization")
    data_dir: Located = Field(Path("var"), validate_default=True, description="Where pages, ledger and reports go")
    billing: Billing = Field(default=Billing(), description="Where the provider's side comes from")
    request_logs: list[RequestLog] = Field([], description="The logs of the organization's applications")
    prices: Prices = Field(default=Prices(), description="What lies over the list prices")
    tolerance: Tolerance = Field(default=Tolerance(), description="What is too small to be a discrepancy")
    accepted: list[Accepted] = Field([], description="Known differences; each expires")
    invoices: list[Invoice] = Field([], description="The provider's invoices")
    allocation: Allocation = Field(default=Allocation(), description="Who pays")
    journal: Journal = Field(default=Journal(), description="How `reconcile export journal` books")
    budgets: list[Budget] = Field([], description="What each cost center may spend")
    schedule: Schedule = Field(default=Schedule(), description="When `reconcile schedule` closes")
    notify: list[Notify] = Field([], description="Who is told how a close ended")
    metrics: Located | None = Field(None, description="A file of the last close's figures, for Prometheus")

    retention: Retention = Field(default=Retention(), description="How long what is not a figure is kept")

    _base_dir: Path = PrivateAttr(default=Path())

    def model_post_init(self, context: Any, /) -> None:
        """Keep the folder that relative paths were resolved against."""
        self._base_dir = (context or {}).get("base_dir", Path())

    @property
    def base_dir(self) -> Path:
        """The config file's folder: what relative paths were relative to, for showing them so again."""
        return self._base_dir


def pattern_matches(pattern: str, tagged_id: str | None, name: str | None) -> bool:
    """Whether a `workspace:` or `api_key:` of the config means this one.

    It is compared with the id where it begins like one (``wrkspc_``, ``apikey_``) or is ``default``, else with the
    name; ``*`` is a wildcard, nothing else is.
    """
    target = tagged_id if pattern.startswith(("wrkspc_", "apikey_")) or pattern == "default" else name
    return target is not None and like(pattern, target)


def like(pattern: str, text: str) -> bool:
    """Whether a text is as the pattern says; ``*`` is a wildcard, nothing else is."""
    return fnmatchcase(text, pattern.replace("[", "[[]").replace("?", "[?]"))


# Reading the file


class InvalidConfig(ConfigError):  # noqa: N818 - it is a ConfigError, of many lines
    """Everything that is wrong with a config file, a line each, in file order; where, what and do are the first's."""

    def __init__(self, problems: Sequence[ConfigError]) -> None:
        super().__init__(problems[0].where, problems[0].what, problems[0].do)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


def load_config(path: Path) -> Config:
    """Read and validate a config file; relative paths in it become absolute, relative to its folder.

    Raises ``ConfigError`` for a file that cannot be read, and ``InvalidConfig`` for one that says wrong things.
    """
    document = _Document.read(path)
    try:
        config = Config.model_validate(
            document.tree, context={"base_dir": path.absolute().parent, "path": path.absolute()}
        )
    except ValidationError as error:
        located = [(*document.locate(details), details) for details in error.errors()]
        found = [(place, *_sentence(place, details)) for place, meant, details in located if meant]
    else:
        found = list(_inconsistencies(config))
    if found:
        problems = sorted((document.problem(*one) for one in found), key=lambda problem: problem[0])
        raise InvalidConfig([problem for _, problem in problems])
    return config


def config_digest(config: Config) -> str:
    """SHA-256, in hex, over everything in the config that a result depends on, defaults included.

    Not over where the pages come from and where results go (base_url, key, data_dir), nor over when (schedule), who is
    told (notify, metrics), how it is booked (journal) and how long it is kept (retention): the pages themselves are
    digested. Paths count as they were written, so that a folder may be moved.
    """
    content = config.model_dump(
        mode="json",
        by_alias=True,
        exclude={
            "data_dir": True,
            "schedule": True,
            "notify": True,
            "metrics": True,
            "journal": True,
            "retention": True,
            "billing": {"base_url": True, "key": True},
        },
    )
    for log in content["request_logs"]:
        log["path"] = log["path"].removeprefix(escape(str(config.base_dir)) + "/")
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class _Yaml(yaml.SafeLoader):
    """Plain scalars as a person means them.

    Only true and false are booleans (`on` is a key of an invoice), numbers are whole or decimal, days are days; what
    YAML 1.1 would make of 0o17, 1_000 or 12:30 stays text, and so does a number with leading zeros: it is a code.
    """

    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML's way to begin with none of its own


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9]{0,30})", list("-+0123456789")),
    ("float", r"[-+]?((0|[1-9][0-9]*)\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]{1,3})?", list("-+.0123456789")),
    ("timestamp", r"[0-9]{4}-[0-9]{2}-[0-9]{2}", list("0123456789")),
):
    _Yaml.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), _first)


class _Document:
    """A YAML file as plain values, with the line of each."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tree: object = None
        self.lines: dict[Location, int] = {(): 1}

    @classmethod
    def read(cls, path: Path) -> "_Document":
        document = cls(str(path))
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except FileNotFoundError:
            raise ConfigError(
                str(path), "is not there", "Name it with -c, or write one with `reconcile init`"
            ) from None
        except OSError as error:
            raise ConfigError(
                str(path), f"cannot be read ({error.strerror})", "Correct the path or its owner"
            ) from None
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            raise document.error(line, "is not UTF-8", "Save the file as UTF-8") from None
        try:
            node = _Yaml(text).get_single_node()
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise document.error(line, f"is not YAML: {error.problem}", "Correct the line, or the one above") from None
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, int(error.position)) + 1
            raise document.error(line, "holds a character that YAML does not allow", "Take it out") from None
        if not isinstance(node, yaml.MappingNode):
            raise document.error(1, "holds no keys", "Begin with `organization: …`, or see config.example.yaml")
        document.tree = document._value(node, ())
        return document

    def error(self, line: int, what: str, do: str) -> ConfigError:
        return ConfigError(f"{self.name}:{line}", what, do)

    def problem(self, location: Location, what: str, do: str) -> tuple[int, ConfigError]:
        """An error and the line that it sorts by: that of the value, else of what holds it."""
        return self._line(location), ConfigError(self.place(location), what, do)

    def place(self, location: Location) -> str:
        """File, line and key, as messages name them."""
        return f"{self.name}:{self._line(location)}" + (f": {_dotted(location)}" if location else "")

    def _line(self, location: Location) -> int:
        return next(self.lines[location[:n]] for n in range(len(location), -1, -1) if location[:n] in self.lines)

    def locate(self, details: ErrorDetails) -> tuple[Location, bool]:
        """Where an error of pydantic stands in the file, and whether it is meant.

        Of a union's branches, whose names pydantic puts into the place, only the one of the written shape is meant.
        """
        location: Location = ()
        tree: Any = self.tree
        meant = True
        for part in details["loc"]:
            if part in (range(len(tree)) if isinstance(tree, list) else tree if isinstance(tree, dict) else ()):
                tree = tree[part]
                location = (*location, part)
            elif details["type"] == "missing":
                location = (*location, part)
            elif part == "[key]":  # the key itself is wrong, not what it stands for
                break
            else:
                meant = str(part).strip("`").startswith("dict[") == isinstance(tree, dict)
        return location, meant

    def _value(self, node: yaml.Node, location: Location, inside: tuple[yaml.Node, ...] = ()) -> object:
        line = node.start_mark.line + 1
        self.lines.setdefault(location, line)
        if node in inside:
            raise self.error(line, "holds an alias of itself", "Take the alias out")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, location, (*inside, node))
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, (*location, n), (*inside, node)) for n, item in enumerate(node.value)]
        plain = _SCALARS.get(node.tag.removeprefix("tag:yaml.org,2002:"))
        try:
            if plain is not None:
                return plain(node.value)
        except (ValueError, ArithmeticError):
            return node.value  # it only looks like one: what is expected there says so
        raise self.error(line, f"holds the tag {node.tag}, expected plain YAML", "Take the tag out")

    def _mapping(self, node: yaml.MappingNode, location: Location, inside: tuple[yaml.Node, ...]) -> dict[str, object]:
        mapping: dict[str, object] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise self.error(line, "has a key that is no text", "Write a plain key")
            if key.value in mapping:
                first = self.lines[*location, key.value]
                raise self.error(
                    line, f"{_dotted((*location, key.value))} is there twice, first in line {first}", "Keep one"
                )
            self.lines[*location, key.value] = line
            mapping[key.value] = self._value(value, (*location, key.value), inside)
        return mapping


_SCALARS: Mapping[str, Callable[[str], object]] = {
    "null": lambda _: None,
    "bool": lambda text: text.lower() == "true",
    "int": int,
    "float": Decimal,
    "timestamp": date.fromisoformat,
    "str": str,
}


def _dotted(location: Location) -> str:
    """`allocation.shared[0].split`; a key that is no plain word stands in brackets and quotes."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        elif re.fullmatch(r"[\w-]+", part):
            text += f".{part}" if text else part
        else:
            text += f"[{json.dumps(part)}]"
    return text


def _shown(value: object) -> str:
    """A value of the config in a message: short, on one line, and never a secret that got there by mistake."""
    if value is None:
        return "nothing"
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    text = repr(value) if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    return "a secret" if "sk-ant-" in text else text if len(text) <= 60 else text[:60] + "…"  # noqa: PLR2004 - fits a line


def _sentence(location: Location, details: ErrorDetails) -> tuple[str, str]:
    """What is wrong at a place, and what to do."""
    kind, context, got = details["type"], details.get("ctx", {}), _shown(details["input"])
    if kind == "reconcile":
        return context["what"], context["do"]
    if kind == "missing":
        return "is missing", "Add it"
    if kind == "extra_forbidden":
        return "is no known key", nearest(str(location[-1]), _keys_at(location[:-1]))
    if location[:2] == ("billing", "key"):  # a key that was pasted here is not repeated
        return "does not say where the key is found", "Write {env: NAME}, {file: PATH} or {command: [PROGRAM]}"
    if kind in {"string_type", "path_type"} and isinstance(details["input"], int | Decimal | date):
        return f"got {got}, expected text", "Write it in quotes"
    if kind in _SHAPES:
        must = f"expected {_SHAPES[kind]}"
    else:
        must = f"must be {context['expected']}" if kind == "literal_error" else details["msg"]
    return f"got {got}, {re.sub(r'^.*? should ', 'must ', must)}", "Correct the value"


_SHAPES = {
    "model_type": "a mapping",
    "dict_type": "a mapping",
    "list_type": "a list",
    "string_type": "text",
    "path_type": "text",
    "int_type": "a whole number",
}
"""What pydantic's types of errors expect, in the words of the other messages."""

_MANY = 12


def nearest(word: str, known: Collection[str], *, otherwise: str | None = None) -> str:
    """What to do about a word that is not known; ``otherwise`` where none is near it, in place of all."""
    if near := get_close_matches(word.lower(), known, n=1) or get_close_matches(word, known, n=1):
        return f"Did you mean `{near[0]}`?"
    listed = ", ".join([*known][:_MANY]) + (f" and {len(known) - _MANY} more" if len(known) > _MANY else "")
    return otherwise or f"Write one of {listed or 'none: there are none yet'}"


def _keys_at(location: Location) -> list[str]:
    """The keys that are known at a place in the file."""
    model: type[BaseModel] = Config
    for part in location:
        fields = {field.alias or name: field.annotation for name, field in model.model_fields.items()}
        if part in fields:
            model = next(_models(fields[part]), model)
    return [field.alias or name for name, field in model.model_fields.items()]


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    """The models in an annotation: `list[Rule]` holds Rule."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _inconsistencies(config: Config) -> Iterator[tuple[Location, str, str]]:
    """What no single value shows: names that are used twice, and names that nobody has."""
    yield from _repeated("request_logs", "name", [log.name for log in config.request_logs])
    yield from _repeated("invoices", "number", [invoice.number for invoice in config.invoices])
    for n, accepted in enumerate(config.accepted):
        for key, what, do in _inconsistent_accepted(accepted, [log.name for log in config.request_logs]):
            yield ("accepted", n, key), what, do
    labels = {f"label.{label}": None for log in config.request_logs for label in log.labels}
    for location, what, do in _inconsistent_allocation(config.allocation, labels):
        yield ("allocation", *location), what, do
    yield from _inconsistent_budgets(config)


def _inconsistent_accepted(accepted: Accepted, logs: Collection[str]) -> Iterator[tuple[str, str, str]]:
    """A reason that is none, and a log that is none."""
    if accepted.reason not in REASONS:
        yield "reason", f"got {_shown(accepted.reason)}, which is no reason", nearest(accepted.reason, REASONS)
    if accepted.log is not None and not any(like(accepted.log, log) for log in logs):
        what = f"got {_shown(accepted.log)}, which is no log of request_logs, so it can never match"
        yield "log", what, nearest(accepted.log, logs)


def _repeated(section: str, key: str, names: Sequence[str]) -> Iterator[tuple[Location, str, str]]:
    for n, name in enumerate(names):
        if (first := names.index(name)) < n:
            yield (section, n, key), f"{_shown(name)} is that of {section}[{first}] too, must be unique", "Change one"


def _inconsistent_allocation(allocation: Allocation, labels: Collection[str]) -> Iterator[tuple[Location, str, str]]:
    """Names in `allocation` that stand for two things or for nothing, and pools that feed themselves."""
    cost_centers, pools = allocation.cost_centers, [pool.name for pool in allocation.shared]
    for code in cost_centers:
        if code.casefold() == UNALLOCATED:
            yield ("cost_centers", code), "the name is reserved for what no rule catches", "Choose another name"
        if code in pools:
            yield ("cost_centers", code), "is the name of a pool too, must be one or the other", "Rename the pool"
    yield from _repeated("shared", "name", pools)
    yield from _unknown_receivers(allocation, pools)
    fed = {rule.pool for rule in allocation.rules} | {name for pool in allocation.shared for name in pool.receivers()}
    for n, pool in enumerate(allocation.shared):
        if not (pool.selects() or pool.lines or pool.invoice or pool.name in fed):
            yield ("shared", n), "takes nothing: it has no workspace, and no rule or pool feeds it", "Say what is in it"
    yield from _unknown_in_rules(allocation.rules, pools, labels)
    try:
        allocation.pool_order()
    except ValueError as cycle:
        yield ("shared",), f"{cycle} is a cycle, expected pools that feed only others", "Cut it"


def _unknown_in_rules(
    rules: Sequence[Rule], pools: Collection[str], labels: Collection[str]
) -> Iterator[tuple[Location, str, str]]:
    for n, rule in enumerate(rules):
        if rule.pool is not None and rule.pool not in pools:
            yield ("rules", n, "pool"), f"got {_shown(rule.pool)}, which is no pool", nearest(rule.pool, pools)
        if rule.split_by is not None and rule.split_by.startswith("label.") and rule.split_by not in labels:
            what = f"got {_shown(rule.split_by)}, a label that no log of request_logs keeps, so it can never match"
            yield ("rules", n, "split_by"), what, nearest(rule.split_by, labels)


def _unknown_receivers(allocation: Allocation, pools: Sequence[str]) -> Iterator[tuple[Location, str, str]]:
    cost_centers = allocation.cost_centers
    for location, code in _receivers(allocation):
        if code not in cost_centers:
            what = f"got {_shown(code)}, which allocation.cost_centers does not hold"
            policies = ["proportional", UNALLOCATED] if location[2] in {"unlogged", "unlabeled"} else []
            yield location, what, nearest(code, [*policies, *cost_centers])
    for n, pool in enumerate(allocation.shared):
        known = cost_centers if pool.weighs_cost_centers else {**cost_centers, **dict.fromkeys(pools)}
        for code, (place, line) in pool.receivers().items():
            if code not in known:
                what = f"{line}got {_shown(code)}, which allocation.cost_centers does not hold"
                yield ("shared", n, *place), what, nearest(code, known)


def _inconsistent_budgets(config: Config) -> Iterator[tuple[Location, str, str]]:
    cost_centers, seen = config.allocation.cost_centers, dict[tuple[str, str], int]()
    for n, budget in enumerate(config.budgets):
        code = budget.cost_center
        if code not in cost_centers:
            what = f"got {_shown(code)}, which allocation.cost_centers does not hold"
            yield ("budgets", n, "cost_center"), what, nearest(code, cost_centers)
        year = budget.period[:4]
        overlapping = (
            [budget.period, year] if budget.month else [budget.period, *(f"{year}-{m:02}" for m in range(1, 13))]
        )
        first = min((seen[code, period] for period in overlapping if (code, period) in seen), default=None)
        if first is not None:
            what = f"{_shown(code)} has a budget for {config.budgets[first].period} in budgets[{first}] too"
            yield ("budgets", n, "period"), what, "Keep a yearly amount, or monthly ones"
        seen.setdefault((code, budget.period), n)


def _receivers(allocation: Allocation) -> Iterator[tuple[Location, str]]:
    """Every cost center that a rule or a pool names, with its place under `allocation`."""
    for n, rule in enumerate(allocation.rules):
        if isinstance(rule.to, str):
            yield ("rules", n, "to"), rule.to
        elif rule.to is not None:
            yield from ((("rules", n, "to", label), code) for label, code in rule.to.items())
        for name in ("unlogged", "unlabeled"):
            if getattr(rule, name) not in {None, "proportional", UNALLOCATED}:
                yield ("rules", n, name), str(getattr(rule, name))
