"""The config file: one YAML document, validated, with every error on a line that names file, key and values."""

import subprocess
from collections.abc import Mapping
from datetime import date
from decimal import Decimal, InvalidOperation
from fnmatch import fnmatchcase
from os import environ
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from reconcile.errors import ConfigError

UNALLOCATED = "unallocated"
"""The reserved name of the chargeback's row for what no rule catches."""


def _decimal(value: object) -> object:
    if isinstance(value, str):
        try:
            return Decimal(value)
        except InvalidOperation:
            return value
    return value


def _period(value: object) -> str:
    text = str(value)
    if len(text) != 7 or not (text[:4].isdigit() and text[4] == "-" and text[5:].isdigit() and 1 <= int(text[5:]) <= 12):
        raise ValueError("expected a month like 2026-10")
    return text


def _time_zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError("expected a time zone of the IANA database, like Europe/Berlin") from error
    return value


Amount = Annotated[Decimal, BeforeValidator(_decimal), Field(allow_inf_nan=False)]
Percent = Annotated[Decimal, BeforeValidator(_decimal), Field(ge=0, le=100, allow_inf_nan=False)]
Month = Annotated[str, BeforeValidator(_period)]
TimeZone = Annotated[str, AfterValidator(_time_zone)]
NonEmpty = Annotated[str, Field(min_length=1)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class _Dated(_Model):
    """Something that holds on the days from `from` (inclusive) until `until` (exclusive)."""

    from_on: date | None = Field(None, alias="from", description="First day, inclusive; null is since ever")
    until_on: date | None = Field(None, alias="until", description="First day after, exclusive; null is without an end")

    @model_validator(mode="after")
    def _ordered(self) -> "_Dated":
        if self.from_on and self.until_on and self.from_on >= self.until_on:
            raise ValueError(f"`from` {self.from_on} must lie before `until` {self.until_on}")
        return self

    def holds_on(self, day: date) -> bool:
        """Whether ``day`` lies in the span."""
        return (self.from_on is None or self.from_on <= day) and (self.until_on is None or day < self.until_on)


class Key(_Model):
    """Where the admin key is found: exactly one of the three. The key itself never stands in the config."""

    env: str | None = Field(None, description="Name of an environment variable")
    file: Path | None = Field(None, description="Path of a file with mode 0600")
    command: list[str] | None = Field(None, min_length=1, description="A command that prints the key")

    @model_validator(mode="after")
    def _one(self) -> "Key":
        given = [name for name in ("env", "file", "command") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"needs exactly one of env, file, command, got {', '.join(given) or 'none'}")
        return self

    def place(self) -> str:
        """How messages name the key's place."""
        if self.env is not None:
            return f"the environment variable {self.env}"
        return f"the file {self.file}" if self.file is not None else f"the command {' '.join(self.command or [])}"

    def read(self) -> str:
        """The key. Raises ``ConfigError`` when it is not there, or its file is readable for others."""
        if self.env is not None:
            found = environ.get(self.env, "")
        elif self.file is not None:
            found = self._read_file(self.file)
        else:
            found = self._run(self.command or [])
        if not found.strip():
            raise ConfigError("billing.key", f"{self.place()} is not set or empty", "Put an Admin API key there")
        return found.strip()

    @staticmethod
    def _read_file(path: Path) -> str:
        try:
            mode = path.stat().st_mode & 0o777
            if mode & 0o077:
                raise ConfigError(
                    "billing.key.file", f"{path} has mode {mode:04o}, expected 0600", f"Run: chmod 600 {path}"
                )
            return path.read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                "billing.key.file", f"{path} cannot be read ({error.strerror})", "Correct the path or its owner"
            ) from None

    @staticmethod
    def _run(command: list[str]) -> str:
        try:
            ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603 - the user's own config names it
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ConfigError(
                "billing.key.command", f"{command[0]!r} did not run ({type(error).__name__})", "Try it in a shell"
            ) from None
        if ran.returncode:
            raise ConfigError("billing.key.command", f"{command[0]!r} ended with {ran.returncode}, expected 0", "Try it in a shell")
        return ran.stdout


class Billing(_Model):
    """Where the provider's side comes from."""

    api: Literal["admin"] = Field("admin", description="admin: Usage & Cost Admin API")
    base_url: str = Field("https://api.anthropic.com", description="https, or http on loopback only")
    key: Key = Field(default=Key(env="ANTHROPIC_ADMIN_KEY"), description="Where the Admin API key is found")
    default_workspace_id: str | None = Field(None, description="Real id of the default workspace, where no API tells it")
    settle_hours: int = Field(24, ge=0, description="Hours to wait after the month's end before a final close")
    arrangement: Literal["invoiced", "prepaid"] = Field(
        "invoiced", description="prepaid: billed is drawn from credits, there is no invoice to tie to"
    )
    amounts: Literal["auto", "net", "list"] = Field(
        "auto", description="Whether the cost report is net of a contract's discount; auto measures it"
    )

    @field_validator("base_url")
    @classmethod
    def _secure(cls, value: str) -> str:
        rest = value.removeprefix("http://")
        host = rest.split("/")[0].rsplit("@")[-1]
        name = host[1:].split("]")[0] if host.startswith("[") else host.split(":")[0]
        loopback = rest != value and (name in {"localhost", "::1"} or name.startswith("127."))
        if not value.startswith("https://") and not loopback:
            raise ValueError("must begin with https:// (http is for loopback only)")
        return value.rstrip("/")


class RequestLog(_Model):
    """One log of the organization's applications."""

    name: NonEmpty = Field(description="How reports call it")
    format: Literal["requests", "messages"] = Field("requests", description="The reader")
    path: NonEmpty = Field(description="Glob; {day} is 2026-10-03, {month} 2026-10")
    time_zone: TimeZone = Field("UTC", description="Of timestamps without an offset")
    workspace_id: str | None = Field(None, description="For rows that carry none")
    labels: list[NonEmpty] = Field([], description="The only labels that are kept")


class ContractRate(_Dated):
    """A negotiated rate, over list."""

    model: NonEmpty = Field(description="The name that the reports use; * as wildcard")
    discount_percent: Percent = Field(description="Percent off list")


class Prices(_Model):
    """What lies over the list prices."""

    contract: list[ContractRate] = []


class Tolerance(_Model):
    """What is too small to be a discrepancy: a finding stays within while it exceeds neither."""

    usd: Annotated[Amount, Field(ge=0)] = Decimal("1.00")
    percent: Percent = Decimal("0.5")


class Accepted(_Model):
    """A difference that is known and signed for. It expires."""

    reason: NonEmpty
    workspace: str | None = Field(None, description="Id or name, * as wildcard; null is any")
    model: str | None = Field(None, description="* as wildcard; null is any")
    up_to_usd: Annotated[Amount, Field(ge=0)]
    who: NonEmpty
    why: NonEmpty
    until: date = Field(description="First day on which it no longer holds")


AFTER_BILLED = Literal["contract_discount", "credit", "commitment", "tax", "earlier_period", "invoice_rounding"]


class InvoiceLine(_Model):
    """What lies between billed and invoiced."""

    reason: AFTER_BILLED
    amount_usd: Amount


class Invoice(_Model):
    """The provider's invoice of a period."""

    period: Month
    number: NonEmpty
    on: date
    amount_usd: Amount
    lines: list[InvoiceLine] = []


class CostCenter(_Model):
    """Who receives."""

    name: NonEmpty
    account: str | None = None


class Rule(_Dated):
    """Assigns charges: by workspace, by API key, by the workspace's tag, or split by a label. First match wins."""

    workspace: str | None = Field(None, description="Id or name, * as wildcard")
    api_key: str | None = Field(None, description="Id or name, * as wildcard")
    tag: str | None = Field(None, description="The workspace's tag whose value names the cost center")
    split_by: Annotated[str, Field(pattern=r"^label\..+$")] | None = Field(None, description="label.NAME")
    to: str | dict[str, str] | None = Field(None, description="A cost center, or label value -> cost center")
    unlogged: str | None = Field(None, description="For split_by: proportional, or a cost center; null is unallocated")

    @model_validator(mode="after")
    def _whole(self) -> "Rule":
        if self.tag is not None:
            if self.to is not None or self.split_by is not None or self.api_key is not None:
                raise ValueError("`tag` names the cost center itself: no to, split_by or api_key beside it")
        elif self.split_by is not None:
            if not isinstance(self.to, dict):
                raise ValueError("`split_by` needs `to` with a cost center for each label value")
        elif not isinstance(self.to, str):
            raise ValueError("needs `to` with a cost center")
        if self.split_by is None and self.unlogged is not None:
            raise ValueError("`unlogged` belongs to a rule with split_by")
        if self.workspace is None and self.api_key is None and self.tag is None:
            raise ValueError("needs a workspace, an api_key or a tag")
        return self


class Pool(_Dated):
    """What no rule caught in a workspace, split over cost centers."""

    name: NonEmpty
    workspace: NonEmpty = Field(description="Id or name, * as wildcard")
    split: Literal["proportional", "even"] | dict[str, Percent] = "proportional"

    @field_validator("split", mode="after")
    @classmethod
    def _hundred(cls, value: object) -> object:
        if isinstance(value, dict) and sum(value.values()) != 100:  # noqa: PLR2004 - a whole
            raise ValueError(f"shares add up to {sum(value.values())} %, must be 100 %")
        return value


class Allocation(_Model):
    """Who pays."""

    cost_centers: dict[str, CostCenter] = {}
    rules: list[Rule] = []
    shared: list[Pool] = []


class Schedule(_Model):
    """When `reconcile schedule` closes."""

    day: Annotated[PositiveInt, Field(le=28)] = 3
    time: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")] = "06:00"
    time_zone: TimeZone = "UTC"


class Config(_Model):
    """The whole file."""

    organization: NonEmpty
    organization_id: str | None = Field(None, description="Refuse a key of another organization")
    data_dir: Path = Path("var")
    billing: Billing = Billing()
    request_logs: list[RequestLog] = []
    prices: Prices = Prices()
    tolerance: Tolerance = Tolerance()
    accepted: list[Accepted] = []
    invoices: list[Invoice] = []
    allocation: Allocation = Allocation()
    schedule: Schedule = Schedule()

    @model_validator(mode="after")
    def _consistent(self) -> "Config":
        names = [log.name for log in self.request_logs]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"request_logs: the name {twice[0]!r} is used {names.count(twice[0])} times, must be unique")
        return self


def pattern_matches(pattern: str, tagged_id: str | None, name: str | None) -> bool:
    """Whether a `workspace:` or `api_key:` of the config means this one.

    It is compared with the id where it begins like one (``wrkspc_``, ``apikey_``) or is ``default``, else with the
    name; ``*`` is a wildcard, nothing else is.
    """
    target = tagged_id if pattern.startswith(("wrkspc_", "apikey_")) or pattern == "default" else name
    literal = pattern.replace("[", "[[]").replace("?", "[?]")
    return target is not None and fnmatchcase(target, literal)
