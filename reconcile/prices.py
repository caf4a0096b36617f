"""The price book: dated list prices, the contract's rates over them, and the names that models go by."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Context, Decimal, InvalidOperation, localcontext
from fnmatch import fnmatchcase
from functools import cache
from hashlib import sha256
from importlib import metadata, resources
from itertools import pairwise
from typing import Annotated, Any, Literal, Protocol, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from reconcile.errors import ConfigError
from reconcile.money import SCALE, at_scale

TOKEN_METERS = (
    "uncached_input_tokens",
    "cache_creation.ephemeral_5m_input_tokens",
    "cache_creation.ephemeral_1h_input_tokens",
    "cache_read_input_tokens",
    "output_tokens",
)
SEARCHES = "web_search_requests"

_BOOK = "prices.yaml"
_EXACT = Context(prec=76)
_WINDOWS = {"0-200k": (0, 200_000), "200k-1M": (200_000, 1_000_000)}  # prompts longer than the first, up to the second
_ANYWHERE = frozenset({"global", "not_available"})


class Dated(Protocol):
    """Something that holds from a day (inclusive) until a day (exclusive); None is open."""

    @property
    def from_on(self) -> date | None:
        """First day."""

    @property
    def until_on(self) -> date | None:
        """First day after."""


class ContractRate(Dated, Protocol):
    """A negotiated rate over list; ``reconcile.config.ContractRate`` is one."""

    @property
    def model(self) -> str:
        """The model's name in any spelling, or a pattern with ``*``."""

    @property
    def discount_percent(self) -> Decimal:
        """Percent off list."""


@dataclass(frozen=True)
class Rate:
    """One dated price of one meter in one combination of dimensions.

    ``from_on`` is inclusive, ``until_on`` exclusive, both within the days that were asked for. Prices are USD for a
    million tokens (``MTok``) or for one ``search``; ``list_price_usd`` has the modifiers in it, ``price_usd`` the
    contract too. For ``web_search_requests`` the dimensions from model to speed are None.
    """

    model: str | None
    service_tier: str | None
    context_window: str | None
    inference_geo: str | None
    speed: str | None
    meter: str
    from_on: date
    until_on: date | None
    prompt_over: int
    """0, or the prompt length inside the context window above which this price holds for the whole request."""
    price_unit: str
    list_price_usd: Decimal
    price_usd: Decimal
    source: str


# --- The file -------------------------------------------------------------------------------------------------------


def _quoted(value: object) -> Decimal:
    if not isinstance(value, str):
        raise ValueError(f"got {value!r}, expected a decimal in quotes, so that it is read exactly")  # noqa: TRY004 - pydantic reports ValueErrors
    try:
        return Decimal(value)
    except InvalidOperation:
        raise ValueError(f"got {value!r}, expected a decimal") from None


Exact = Annotated[Decimal, BeforeValidator(_quoted), Field(ge=0, allow_inf_nan=False)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Entry(_Model):
    from_on: date | None = Field(None, alias="from")
    until_on: date | None = Field(None, alias="until")
    source: str = Field(min_length=1)
    checked_on: date


E = TypeVar("E", bound=_Entry)
D = TypeVar("D", bound=Dated)


def _history(entries: list[E]) -> list[E]:
    """Refuse entries that are out of order, overlap or leave a gap."""
    for entry in entries:
        if entry.from_on and entry.until_on and entry.from_on >= entry.until_on:
            raise ValueError(f"the entry from {entry.from_on} ends on {entry.until_on}, expected a later day")
    for earlier, later in pairwise(entries):
        if earlier.until_on is None or later.from_on is None or earlier.until_on > later.from_on:
            raise ValueError(
                f"the entry from {earlier.from_on} until {earlier.until_on} overlaps the one from {later.from_on}"
            )
        if earlier.until_on < later.from_on:
            raise ValueError(f"no entry holds from {earlier.until_on} until {later.from_on}")
    return entries


def _complete(usd_by_meter: dict[str, Decimal]) -> dict[str, Decimal]:
    if set(usd_by_meter) != set(TOKEN_METERS):
        raise ValueError(f"prices {', '.join(usd_by_meter)}, expected the five token meters: {', '.join(TOKEN_METERS)}")
    return usd_by_meter


UsdByMeter = Annotated[dict[str, Exact], AfterValidator(_complete)]


class _LongPrompts(_Model):
    over: int = Field(gt=0)
    usd_per_mtok: UsdByMeter


class _Price(_Entry):
    usd_per_mtok: UsdByMeter
    long_prompts: _LongPrompts | None = None


class _Factor(_Entry):
    times: Exact


class _TierFactor(_Factor):
    fast: bool = True


class _FastFactor(_Factor):
    flat: bool = False


class _SearchPrice(_Entry):
    usd_per_search: Exact


class _PricedModel(_Model):
    name: str = Field(min_length=1)
    aliases: list[str] = []
    supports_geo: bool = True
    retired_on: date | None = None
    prices: Annotated[list[_Price], Field(min_length=1), AfterValidator(_history)]
    fast: Annotated[list[_FastFactor], AfterValidator(_history)] = []


class _Modifiers(_Model):
    service_tier: dict[str, Annotated[list[_TierFactor], AfterValidator(_history)]]
    inference_geo: dict[str, Annotated[list[_Factor], AfterValidator(_history)]]


class _Book(_Model):
    book: Literal[1]
    modifiers: _Modifiers
    web_search_requests: Annotated[list[_SearchPrice], AfterValidator(_history)]
    models_without_geo: list[str]
    models: dict[str, _PricedModel]

    @model_validator(mode="after")
    def _one_model_a_name(self) -> "_Book":
        owner: dict[str, str] = {}
        for model, priced in self.models.items():
            for name in (model, *priced.aliases):
                if owner.setdefault(_spelled(name), model) != model:
                    raise ValueError(f"the name {name!r} belongs to {owner[_spelled(name)]} and to {model}")
        return self

    def entries(self) -> Iterator[_Entry]:
        for model in self.models.values():
            yield from (*model.prices, *model.fast)
        for tier in self.modifiers.service_tier.values():
            yield from tier
        for geo in self.modifiers.inference_geo.values():
            yield from geo
        yield from self.web_search_requests


class _Loader(yaml.SafeLoader):
    """YAML without the trap that the last of two equal keys silently wins."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.constructor.ConstructorError(None, None, f"the key {twice[0]!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


@cache
def _parse(content: bytes) -> _Book:
    """The book, validated. Raises ``ConfigError`` that names the model and the entry's first day."""
    try:
        document = yaml.load(content, _Loader)  # noqa: S506 - a SafeLoader
        return _Book.model_validate(document)
    except yaml.YAMLError as error:
        raise ConfigError(_BOOK, f"is not YAML ({error})", "Correct the file: docs/prices.md") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = f"{_BOOK}: {_place(document, first['loc'])}".removesuffix(": ")
        raise ConfigError(where, first["msg"].removeprefix("Value error, "), "Correct it: docs/prices.md") from None


def _place(document: Any, location: Sequence[int | str]) -> str:
    """A place like ``models.claude-opus-4-6.prices[from 2026-02-05].source``."""
    text, node = "", document
    for step in location:
        if isinstance(step, int):
            node = node[step]
            first_day = node.get("from", "ever") if isinstance(node, dict) else step
            text += f"[from {first_day}]"
        else:
            node = node.get(step) if isinstance(node, dict) else None
            text += f".{step}" if text else step
    return text


# --- Names ----------------------------------------------------------------------------------------------------------

_DAY = re.compile(r"-(20\d\d)-?([01]\d)-?([0-3]\d)$")
_BEDROCK = re.compile(r"(^|/)(amazon-)?bedrock[\w-]*[/:]|\banthropic\.claude|^arn:aws[\w-]*:bedrock|^claude.*-v\d+:\d")
_VERTEX = re.compile(r"(^|/)(google-)?vertex[\w-]*[/:]|publishers/anthropic/|claude[^/]*@")


def _spelled(name: str) -> str:
    """One spelling for the many that logs hold: ``us.anthropic.Claude-Opus-4.7-v1:0`` is ``claude-opus-4-7``."""
    text = re.sub(r"[\s_]+", "-", name.strip().lower())
    text = text.rsplit("/", 1)[-1]  # anthropic/…, bedrock/us-east-1/…, arn:…/…
    text = re.sub(r"^(?:[a-z-]+[.:])+(?=claude)", "", text)  # us.anthropic.…, anthropic:…
    text = re.sub(r"\[[^\]]*\]$", "", text)  # Claude Code's …[1m]
    text = re.sub(r"-v\d+(?::\w+)*$", "", text)  # Bedrock's …-v1:0
    text = re.sub(r"[@-](?:latest|default)$", "", text)
    text = re.sub(r"[@.]", "-", text)  # Vertex' …@20250929, claude-opus-4.7
    text = _DAY.sub(r"-\1\2\3", text)
    return re.sub(r"^claude-(\d(?:-\d)?)-([a-z]+)", r"claude-\2-\1", text)  # claude-3-5-haiku as claude-haiku-3-5


def _undated(spelled: str) -> str:
    return _DAY.sub("", spelled)


def _fits(pattern: str, name: str) -> bool:
    """Whether a pattern, in which ``*`` alone is a wildcard, fits the whole name."""
    return fnmatchcase(name, pattern.replace("[", "[[]").replace("?", "[?]"))


# --- Prices ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Tariff:
    """The prices of some days: steps of (prompts longer than, USD by meter), ascending, the first over 0."""

    from_on: date | None
    until_on: date | None
    steps: tuple[tuple[int, Mapping[str, Decimal]], ...]
    source: str


def _tariff(price: _Price) -> _Tariff:
    steps: list[tuple[int, Mapping[str, Decimal]]] = [(0, price.usd_per_mtok)]
    if price.long_prompts is not None:
        steps.append((price.long_prompts.over, price.long_prompts.usd_per_mtok))
    return _Tariff(price.from_on, price.until_on, tuple(steps), f"price book: {price.source}")


_GENAI_KEYS = {
    "uncached_input_tokens": "input_mtok",
    "cache_creation.ephemeral_5m_input_tokens": "cache_write_mtok",
    "cache_creation.ephemeral_1h_input_tokens": "cache_write_1h_mtok",
    "cache_read_input_tokens": "cache_read_mtok",
    "output_tokens": "output_mtok",
}


def _genai_tariffs(model: str) -> list[_Tariff]:
    """What the installed ``genai-prices`` bundles for a Claude model, standard speed and tier; [] where it has none.

    Reads the package's own table: no network, no update. Its table matches ids by their beginning; a price is taken
    only where the name without its date is the table's own id, so that a new model never gets an older one's price.
    """
    from genai_prices.data import providers  # noqa: PLC0415 - heavy, and seldom needed
    from genai_prices.types import ModelPrice, StartDateConstraint  # noqa: PLC0415 - as above

    spelled = _spelled(model)
    anthropic = next(provider for provider in providers if provider.id == "anthropic")
    found = anthropic.find_model(model.strip().lower()) or anthropic.find_model(spelled)
    if found is None or _undated(_spelled(found.id)) != _undated(spelled):
        return []
    if isinstance(found.prices, ModelPrice):
        starts: list[tuple[date | None, Any]] = [(None, found.prices)]
    else:
        starts = [(None, found.prices[0].prices)]
        for conditional in found.prices[1:]:
            if not isinstance(conditional.constraint, StartDateConstraint):
                return []  # a price by the hour of the day has no place in a book of days
            starts.append((conditional.constraint.start_date, conditional.prices))
    ends = [start for start, _ in starts[1:]] + [None]
    source = f"genai-prices {metadata.version('genai-prices')}"
    return [
        _Tariff(start, end, _genai_steps(prices), source) for (start, prices), end in zip(starts, ends, strict=True)
    ]


def _genai_steps(prices: Any) -> tuple[tuple[int, Mapping[str, Decimal]], ...]:
    values = {meter: getattr(prices, key) for meter, key in _GENAI_KEYS.items()}
    overs = {0} | {tier.start for value in values.values() for tier in getattr(value, "tiers", ())}
    return tuple(
        (over, {meter: _genai_usd(value, over) for meter, value in values.items() if value is not None})
        for over in sorted(overs)
    )


def _genai_usd(value: Any, over: int) -> Decimal:
    """The price of a prompt just longer than ``over``, through its text should it ever be a float."""
    held = [tier.price for tier in getattr(value, "tiers", ()) if tier.start <= over]
    return Decimal(str(held[-1] if held else getattr(value, "base", value)))


def _holding(entries: Iterable[D], day: date) -> D | None:
    """The first entry that holds on a day."""
    return next(
        (
            entry
            for entry in entries
            if (entry.from_on is None or entry.from_on <= day) and (entry.until_on is None or day < entry.until_on)
        ),
        None,
    )


def _cuts(start_on: date, end_on: date, entries: Iterable[Dated]) -> list[date]:
    """The days inside ``[start_on, end_on)`` on which any entry begins or ends, with both ends around them."""
    edges = {edge for entry in entries for edge in (entry.from_on, entry.until_on) if edge is not None}
    return [start_on, *sorted(edge for edge in edges if start_on < edge < end_on), end_on]


def _inside(
    window: str, steps: Sequence[tuple[int, Mapping[str, Decimal]]]
) -> Iterator[tuple[int, Mapping[str, Decimal]]]:
    """The steps that a context window can hold; the one that holds from its first token begins at 0."""
    shortest, longest = _WINDOWS[window]
    for i, (over, usd_by_meter) in enumerate(steps):
        next_over = steps[i + 1][0] if i + 1 < len(steps) else longest
        if next_over > shortest and over < longest:
            yield (over if over > shortest else 0), usd_by_meter


def _product(list_usd: Decimal, times: Iterable[Decimal]) -> Decimal:
    """Exact up to twelve decimals, beyond them rounded once."""
    with localcontext(_EXACT):
        for factor in times:
            list_usd *= factor
    exponent = list_usd.as_tuple().exponent
    return at_scale(list_usd) if isinstance(exponent, int) and exponent < int(SCALE.as_tuple().exponent) else list_usd


def _percent(percent: Decimal) -> str:
    return f"{percent.normalize():f}"


@dataclass(frozen=True, eq=False)
class PriceBook:
    """List prices with the contract over them, at the day. The same for logged, recorded and reported.

    Where ``prices.yaml`` does not know a model, the installed ``genai-prices`` is asked for it (offline); what neither
    knows has no price, and never the price 0.
    """

    digest: str
    """SHA-256 over the book's bytes, the contract and the version of ``genai-prices``."""
    checked_on: date
    """The newest day on which an entry of the book was compared with its source."""
    _book: _Book
    _contract: tuple[ContractRate, ...]
    _names: Mapping[str, str]
    _tariffs: dict[str, list[_Tariff]] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, contract: Sequence[ContractRate] = ()) -> "PriceBook":
        """The packaged book. Of contract rates that fit a model on a day the first one in order wins."""
        return cls.parse(resources.files("reconcile").joinpath(_BOOK).read_bytes(), contract)

    @classmethod
    def parse(cls, content: bytes, contract: Sequence[ContractRate] = ()) -> "PriceBook":
        """A book from the bytes of its file. Raises ``ConfigError`` where they are not a valid one."""
        book = _parse(content)
        digest = sha256(content)
        for rate in contract:
            terms = (rate.model, rate.from_on, rate.until_on, _percent(rate.discount_percent))
            digest.update(f"\ncontract {terms}".encode())
        digest.update(f"\ngenai-prices {metadata.version('genai-prices')}".encode())
        names = {_spelled(name): model for model, priced in book.models.items() for name in (model, *priced.aliases)}
        checked_on = max(entry.checked_on for entry in book.entries())
        return cls(digest.hexdigest(), checked_on, book, tuple(contract), names)

    def rates(
        self,
        *,
        model: str | None,
        service_tier: str | None,
        context_window: str | None,
        inference_geo: str | None,
        speed: str | None,
        meter: str,
        start_on: date,
        end_on: date,
    ) -> list[Rate]:
        """The prices of one meter in ``[start_on, end_on)``, split at every change, by day, then prompt length.

        A day without a rate has no known price; an empty list is no price at all. A context window inside which the
        price steps up has two rates for the same days, the upper one with ``prompt_over``.
        """
        if start_on >= end_on:
            return []
        if meter == SEARCHES:
            return list(self._search_rates(start_on, end_on))
        if model is None or meter not in TOKEN_METERS or context_window not in _WINDOWS:
            return []
        where = (model, service_tier, context_window, inference_geo, speed, meter)
        whole = Rate(*where, start_on, end_on, 0, "MTok", Decimal(0), Decimal(0), "")
        return _merged(self._token_rates(whole, model, context_window, end_on))

    def report_name(self, logged: str, reported: Collection[str] = ()) -> str:
        """The name under which the usage report shows a model, whatever spelling a log has.

        ``reported`` are the models of this period's reports: an id that stands there wins, also where it alone shares
        the name but for the date. A name that nobody knows comes back as it was logged.
        """
        if logged in reported:
            return logged
        spelled = _spelled(logged)
        base = _undated(spelled)
        known = self._known(spelled)
        by_spelling = {_spelled(name): name for name in sorted(reported, reverse=True)}
        if spelled in by_spelling:
            return by_spelling[spelled]
        if known is not None and known in reported:
            return known
        alike = [name for other, name in by_spelling.items() if _undated(other) == base and base in (spelled, other)]
        return alike[0] if len(alike) == 1 else known or logged

    def other_biller(self, logged: str) -> str | None:
        """Who bills a model instead of the Claude API, where the form of its id tells: ``bedrock``, ``vertex``."""
        name = logged.strip().lower()
        if _BEDROCK.search(name):
            return "bedrock"
        return "vertex" if _VERTEX.search(name) else None

    def supports_geo(self, model: str) -> bool:
        """Whether requests to a model can choose where they are computed: from 4.6 on, and where nobody knows it."""
        spelled = _spelled(model)
        known = self._names.get(spelled) or self._names.get(_undated(spelled))
        if known is not None:
            return self._book.models[known].supports_geo
        return not any(_fits(pattern, spelled) for pattern in self._book.models_without_geo)

    def _known(self, spelled: str) -> str | None:
        """The book's id for a name; a date is dropped only where the book's id has none."""
        if spelled in self._names:
            return self._names[spelled]
        undated = self._names.get(_undated(spelled))
        return undated if undated is not None and not _DAY.search(undated) else None

    def _search_rates(self, start_on: date, end_on: date) -> Iterator[Rate]:
        entries = self._book.web_search_requests
        for from_on, until_on in pairwise(_cuts(start_on, end_on, entries)):
            if (entry := _holding(entries, from_on)) is not None:
                usd, source = entry.usd_per_search, f"price book: {entry.source}"
                anywhere = (None, None, None, None, None, SEARCHES)
                yield Rate(*anywhere, from_on, until_on, 0, "search", usd, usd, source)

    def _token_rates(self, whole: Rate, model: str, window: str, end_on: date) -> Iterator[Rate]:
        tariffs, factors, contract = self._tariffs_of(model), self._factors(whole, model), self._contract_of(model)
        dated = (*tariffs, *contract, *(entry for _, entries in factors for entry in entries))
        for from_on, until_on in pairwise(_cuts(whole.from_on, end_on, dated)):
            tariff = _holding(tariffs, from_on)
            held = [(value, _holding(entries, from_on)) for value, entries in factors]
            modifiers = [(value, factor) for value, factor in held if factor is not None]
            if tariff is None or len(modifiers) < len(held):
                continue
            flat = any(isinstance(factor, _FastFactor) and factor.flat for _, factor in modifiers)
            discount = _holding(contract, from_on)
            for prompt_over, usd_by_meter in _inside(window, tariff.steps[:1] if flat else tariff.steps):
                if whole.meter in usd_by_meter:
                    dates = replace(whole, from_on=from_on, until_on=until_on, prompt_over=prompt_over)
                    yield _priced(dates, usd_by_meter[whole.meter], tariff.source, modifiers, discount)

    def _tariffs_of(self, model: str) -> list[_Tariff]:
        if model not in self._tariffs:
            known = self._known(_spelled(model))
            self._tariffs[model] = (
                [_tariff(price) for price in self._book.models[known].prices] if known else _genai_tariffs(model)
            )
        return self._tariffs[model]

    def _factors(self, cell: Rate, model: str) -> list[tuple[str, Sequence[_Factor]]]:
        """What multiplies the list price, by the value that asks for it. One without entries has no price."""
        known = self._known(_spelled(model))
        tiers: Sequence[_TierFactor] = self._book.modifiers.service_tier.get(cell.service_tier or "", [])
        geos: Sequence[_Factor] = self._book.modifiers.inference_geo.get(cell.inference_geo or "", [])
        if cell.inference_geo not in _ANYWHERE and not self.supports_geo(model):
            geos = []
        factors: list[tuple[str, Sequence[_Factor]]] = [
            (str(cell.service_tier), tiers),
            (str(cell.inference_geo), geos),
        ]
        if cell.speed != "standard":
            fast = self._book.models[known].fast if known and cell.speed == "fast" else []
            factors.append(("fast", fast if all(tier.fast for tier in tiers) else []))
        return factors

    def _contract_of(self, model: str) -> list[ContractRate]:
        name = self.report_name(model)
        return [rate for rate in self._contract if _fits(rate.model, name) or self.report_name(rate.model) == name]


def _priced(
    rate: Rate,
    list_usd: Decimal,
    source: str,
    modifiers: Sequence[tuple[str, _Factor]],
    discount: ContractRate | None,
) -> Rate:
    """A rate with its prices, and in its source everything that they are made of."""
    times = [factor.times for _, factor in modifiers]
    notes = [f"{value} x{factor.times}" for value, factor in modifiers if factor.times != 1]
    left = Decimal(1)
    if discount is not None:
        left -= discount.discount_percent.scaleb(-2)
        since = f" from {discount.from_on}" if discount.from_on else ""
        notes.append(f"contract {_percent(discount.discount_percent)} %{since}")
    return replace(
        rate,
        list_price_usd=_product(list_usd, times),
        price_usd=_product(list_usd, [*times, left]),
        source=", ".join([source, *notes]),
    )


def _merged(rates: Iterable[Rate]) -> list[Rate]:
    """Rates by day, then prompt length; neighbors that differ in their days alone become one."""
    merged: list[Rate] = []
    for rate in sorted(rates, key=lambda rate: (rate.prompt_over, rate.from_on)):
        if (
            merged
            and replace(merged[-1], from_on=rate.from_on, until_on=rate.until_on) == rate
            and merged[-1].until_on == rate.from_on
        ):
            merged[-1] = replace(merged[-1], until_on=rate.until_on)
        else:
            merged.append(rate)
    return sorted(merged, key=lambda rate: (rate.from_on, rate.prompt_over))
