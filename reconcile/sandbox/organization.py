"""Who the simulated organization is: workspaces, API keys, logs, where traffic comes from, what goes wrong where."""

from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

NAME = "Example Trading Ltd"
ADMIN_KEY = "sk-ant-admin01-sandbox-only-not-a-secret"


@cache
def tagged_id(prefix: str, name: str) -> str:
    """An id that looks like the provider's and is the same in every sandbox: prefix, 01, and 22 characters."""
    number = int.from_bytes(sha256(f"{prefix}/{name}".encode()).digest(), "big")
    text = ""
    for _ in range(22):
        number, rest = divmod(number, 58)
        text += _BASE58[rest]
    return f"{prefix}_01{text}"


def _uuid(name: str) -> str:
    digits = sha256(name.encode()).hexdigest()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:32]}"


ORGANIZATION_ID = _uuid(NAME)


@dataclass(frozen=True)
class Workspace:
    """A workspace. The default one has a real id too, but the reports show it as null."""

    name: str
    cost_center: str | None = None
    default_geo: str = "global"
    archived_on_day: int | None = None  # day of the sandbox's month
    is_default: bool = False
    color: str = "#6C5BB9"

    @property
    def id(self) -> str:
        """The tagged id, also of the default workspace."""
        return tagged_id("wrkspc", self.name)

    @property
    def reported_id(self) -> str | None:
        """How the reports name it: null for the default workspace."""
        return None if self.is_default else self.id


@dataclass(frozen=True)
class ApiKey:
    """An API key. Without a workspace it belongs to the organization and acts as a service account."""

    name: str
    workspace: Workspace | None
    status: str = "active"
    created_by: str | None = "amara"
    service_account: str | None = None

    @property
    def id(self) -> str:
        """The tagged id."""
        return tagged_id("apikey", self.name)


@dataclass(frozen=True)
class Log:
    """What one application writes, and how: the config's side of it and the writer's."""

    name: str
    path: str
    file: str
    workspace: Workspace | None = None  # set in the config, because the lines do not say
    labels: tuple[str, ...] = ()
    names_workspace: bool = True
    names_key: bool = True
    names_geo: bool = True
    own_cost: bool = False
    clock_minutes: int = 0  # the application writes its local time, with its offset
    prefix: str = ""  # a vendor prefix before the model's name
    drops_dates: bool = False  # writes the alias of a dated model
    nulls_ids: bool = False


@dataclass(frozen=True)
class Source:
    """One stream of traffic: who sends it, how much, and what its requests look like.

    ``share`` is relative to the other sources. Medians are in tokens. ``plants`` are those of the example that may
    touch single requests, the first whose turn it is; ``exists_for`` names the plant without which the source does
    not exist.
    """

    name: str
    log: str | None
    workspace: Workspace
    key: ApiKey | None
    share: float
    models: tuple[tuple[str, float], ...]
    rhythm: str = "office"
    tier: str = "standard"
    uncached: int = 900
    cached: int = 3000
    cache_share: float = 0.55
    hour_share: float = 0.2
    output: int = 350
    long_share: float = 0.0
    search_share: float = 0.0
    us_share: float = 0.0
    fast_share: float = 0.0
    teams: tuple[str | None, ...] = (None,)
    account: str | None = None
    service_account: str | None = None
    exists_for: str | None = None
    plants: tuple[str, ...] = ()


@dataclass(frozen=True)
class ChargeWithoutRequest:
    """Something that is billed by the hour and stands in no request log."""

    cost_type: str
    workspace: Workspace
    hours_per_day: float
    description: str


@dataclass(frozen=True)
class Placement:
    """A plant in its place: one source, one log or all of them (both None), on some days or always.

    ``strength`` is in the plant's unit, None for the scenario's own. ``days`` are days of the month counted from 0, the
    second one exclusive. ``variant`` chooses among the shapes of a plant, ``value`` is what the log says instead (a
    model, a tier, a workspace's name). ``models`` are those of price plants: the first that is served in the month;
    ``meters`` which of its prices. ``seconds`` is how much earlier than the provider counts a log stamps, from and to;
    of the variant `fetched`, which stamps later, how often results are fetched, and within which time. ``from_hour`` is
    the hour of the month in which a gap begins.
    """

    plant: str
    log: str | None = None
    source: str | None = None
    strength: float | None = None
    days: tuple[int, int] | None = None
    variant: str = ""
    value: str | None = None
    models: tuple[str, ...] = ()
    meters: tuple[int, ...] = (0, 1, 2, 3, 4)
    seconds: tuple[int, int] = (0, 0)
    from_hour: float = 0.0

    def concerns(self, source: "Source") -> bool:
        """Whether a source's requests are in its place."""
        return (self.log is None or self.log == source.log) and (self.source is None or self.source == source.name)


@dataclass(frozen=True)
class Organization:
    """A whole organization. The default workspace, where there is one, is the first.

    With ``one_each`` a request has at most one plant, and of every plant an even share of the requests, the first one
    always; without it chance decides, and plants meet. ``spares_steps`` leaves requests alone whose price does not
    show in their dimensions. ``margin_days`` is how many days either side of the month are simulated, ``allocation``
    the section of the config as YAML lines, in which MID_MONTH stands for the month's 16th.
    """

    workspaces: tuple[Workspace, ...]
    api_keys: tuple[ApiKey, ...]
    logs: tuple[Log, ...]
    sources: tuple[Source, ...]
    charges: tuple[ChargeWithoutRequest, ...]
    placements: tuple[Placement, ...]
    one_each: bool = False
    spares_steps: bool = False
    margin_days: int = 1
    allocation: tuple[str, ...] = ()

    def log(self, name: str) -> Log:
        """The log of a name."""
        return next(log for log in self.logs if log.name == name)

    def workspace(self, name: str) -> Workspace:
        """The workspace of a name."""
        return next(workspace for workspace in self.workspaces if workspace.name == name)

    def active_sources(self, plants: frozenset[str]) -> tuple[Source, ...]:
        """The sources that exist under these plants."""
        return tuple(source for source in self.sources if source.exists_for is None or source.exists_for in plants)


DEFAULT = Workspace("Default", is_default=True, color="#A0A0A0")
SEARCH = Workspace("Search")
ADS_RANKING = Workspace("Ads Ranking", color="#D97757")
ADS_CREATIVE = Workspace("Ads Creative", color="#D97757")
PLATFORM = Workspace("Platform")
SUPPORT = Workspace("Support Assistant", cost_center="CC-400")
HELP_CENTER = Workspace("Help Center", cost_center="CC-400")
EVALUATIONS = Workspace("Evaluations", cost_center="CC-700")
CATALOG = Workspace("Catalog Enrichment", cost_center="CC-100")
FIELD = Workspace("Field Service", cost_center="CC-400")
STUDIO = Workspace("Studio", cost_center="CC-300")
RESEARCH = Workspace("Research Notebooks", cost_center="CC-700", default_geo="us")
COPILOT = Workspace("Developer Copilot", cost_center="CC-500")
INTAKE = Workspace("Document Intake")
MOBILE = Workspace("Mobile App", cost_center="CC-100")
CLAUDE_CODE = Workspace("Claude Code")
LEGAL = Workspace("Legal", cost_center="CC-600")
GROWTH = Workspace("Growth", cost_center="CC-300")
PAYMENTS = Workspace("Payments", cost_center="CC-600")
LEGACY = Workspace("Legacy Importer", archived_on_day=20)
SCRIPT = Workspace('<script>alert(1)</script> & "Co"', cost_center="CC-600")
FORMULA = Workspace("=SUM(A1:A9) Analytics", cost_center="CC-600")
PEOPLE = Workspace("People Team", cost_center="CC-600")
FINANCE = Workspace("Finance Reports", cost_center="CC-600")
SKUNKWORKS = Workspace("Skunkworks")

WORKSPACES = (
    DEFAULT,
    SEARCH,
    ADS_RANKING,
    ADS_CREATIVE,
    PLATFORM,
    SUPPORT,
    HELP_CENTER,
    EVALUATIONS,
    CATALOG,
    FIELD,
    STUDIO,
    RESEARCH,
    COPILOT,
    INTAKE,
    MOBILE,
    CLAUDE_CODE,
    LEGAL,
    GROWTH,
    PAYMENTS,
    LEGACY,
    SCRIPT,
    FORMULA,
    PEOPLE,
    FINANCE,
    SKUNKWORKS,
)
"""Every workspace, oldest first; the default one is the first."""


def _key(name: str, workspace: Workspace, created_by: str | None = "amara") -> ApiKey:
    return ApiKey(name, workspace, created_by=created_by)


SEARCH_KEY = _key("search-api", SEARCH)
PRIORITY_KEY = _key("search-premium", SEARCH)
LAPTOP_KEY = _key("mk-laptop-test", SEARCH, "mikkel")
RANKING_KEY = _key("ads-ranking", ADS_RANKING, "jonas")
CREATIVE_KEY = _key("ads-creative", ADS_CREATIVE, "jonas")
PLATFORM_KEY = _key("platform-gateway", PLATFORM)
DEFAULT_KEY = _key("first-key", DEFAULT, None)
SCRIPTS_KEY = _key("ops-scripts", DEFAULT)
SUPPORT_KEY = _key("support-assistant", SUPPORT, "ines")
HELP_KEY = _key("help-center", HELP_CENTER, "ines")
EVALUATIONS_KEY = _key("evaluation-runner", EVALUATIONS, "mikkel")
CATALOG_KEY = _key("catalog-runner", CATALOG)
FIELD_KEY = _key("field-tablets", FIELD, "ines")
STUDIO_KEY = _key("studio-backend", STUDIO, "jonas")
RESEARCH_KEY = _key("research-notebooks", RESEARCH, "mikkel")
COPILOT_KEY = _key("copilot-ide", COPILOT)
INTAKE_KEY = _key("intake-pipeline", INTAKE)
MOBILE_KEY = _key("mobile-backend", MOBILE)
CODE_AMARA_KEY = _key("claude_code_key_amara", CLAUDE_CODE, None)
CODE_JONAS_KEY = _key("claude_code_key_jonas", CLAUDE_CODE, None)
LEGAL_KEY = _key("legal-review", LEGAL)
GROWTH_KEY = _key("growth-experiments", GROWTH, "jonas")
PAYMENTS_KEY = _key("payments-disputes", PAYMENTS)
LEGACY_KEY = ApiKey("legacy-importer", LEGACY, "archived")
SCRIPT_KEY = _key('<img src=x onerror="alert(2)">', SCRIPT)
FORMULA_KEY = _key("@analytics", FORMULA)
PEOPLE_KEY = _key("people-helpdesk", PEOPLE)
FINANCE_KEY = _key("finance-close", FINANCE)
SKUNKWORKS_KEY = _key("skunk", SKUNKWORKS, "mikkel")

API_KEYS = (
    DEFAULT_KEY,
    SCRIPTS_KEY,
    SEARCH_KEY,
    PRIORITY_KEY,
    LAPTOP_KEY,
    RANKING_KEY,
    CREATIVE_KEY,
    PLATFORM_KEY,
    SUPPORT_KEY,
    HELP_KEY,
    EVALUATIONS_KEY,
    CATALOG_KEY,
    FIELD_KEY,
    STUDIO_KEY,
    RESEARCH_KEY,
    COPILOT_KEY,
    INTAKE_KEY,
    MOBILE_KEY,
    CODE_AMARA_KEY,
    CODE_JONAS_KEY,
    LEGAL_KEY,
    GROWTH_KEY,
    PAYMENTS_KEY,
    LEGACY_KEY,
    SCRIPT_KEY,
    FORMULA_KEY,
    PEOPLE_KEY,
    FINANCE_KEY,
    SKUNKWORKS_KEY,
    ApiKey("search-2025", SEARCH, "archived"),
    ApiKey("load-test", PLATFORM, "inactive"),
    ApiKey("contractor-summer", STUDIO, "expired", "jonas"),
    ApiKey("billing-reader", None, "active", "amara", service_account="billing-reader"),
)
"""Every key, oldest first. The last one belongs to the organization; four keys never carry traffic."""

GATEWAY = Log("gateway", "logs/gateway/{day}/*.jsonl.gz", "logs/gateway/{day}/requests.jsonl.gz", labels=("team",))
ASSISTANT = Log("assistant", "logs/assistant/{day}.jsonl.gz", "logs/assistant/{day}.jsonl.gz")
BATCH = Log("batch", "logs/batch/{day}*.jsonl", "logs/batch/{day}.jsonl")
TABLETS = Log(
    "tablets",
    "logs/tablets/{day}.jsonl.gz",
    "logs/tablets/{day}.jsonl.gz",
    workspace=FIELD,
    names_workspace=False,
    names_key=False,
    clock_minutes=120,
)
STUDIO_APP = Log("studio", "logs/studio/{day}.jsonl.gz", "logs/studio/{day}.jsonl.gz", own_cost=True)
NOTEBOOKS = Log(
    "notebooks",
    "logs/notebooks/{month}/{day}.jsonl.gz",
    "logs/notebooks/{month}/{day}.jsonl.gz",
    names_geo=False,
    prefix="anthropic/",
    drops_dates=True,
    nulls_ids=True,
)
IDE = Log("copilot", "logs/copilot/{day}.jsonl.gz", "logs/copilot/{day}.jsonl.gz")
PIPELINE = Log("intake", "logs/intake/{day}.jsonl.gz", "logs/intake/{day}.jsonl.gz")
BACKEND = Log("mobile", "logs/mobile/{day}.jsonl.gz", "logs/mobile/{day}.jsonl.gz")
TERMINALS = Log(
    "claude-code", "logs/claude-code/{day}.jsonl.gz", "logs/claude-code/{day}.jsonl.gz", names_workspace=False
)

LOGS = {
    log.name: log
    for log in (GATEWAY, ASSISTANT, BATCH, TABLETS, STUDIO_APP, NOTEBOOKS, IDE, PIPELINE, BACKEND, TERMINALS)
}

_OPUS_4_7 = "claude-opus-4-7"
_OPUS_4_6 = "claude-opus-4-6"
_OPUS_5 = "claude-opus-5"
_OPUS_5_5 = "claude-opus-5-5"
_OPUS_4_8 = "claude-opus-4-8"
_OPUS_4_5 = "claude-opus-4-5-20251101"
_SONNET_4_5 = "claude-sonnet-4-5-20250929"
_SONNET_4_6 = "claude-sonnet-4-6"
_SONNET_5 = "claude-sonnet-5"
_SONNET_5_5 = "claude-sonnet-5-5"
_HAIKU_4_5 = "claude-haiku-4-5-20251001"
_HAIKU_5_5 = "claude-haiku-5-5"
_FABLE = "claude-fable-5-1"
UNLISTED = "claude-harbor-1"
"""A model that answers and is billed, and that no price book has."""

FALLBACK_MODELS = (_SONNET_4_6, _SONNET_4_5, _HAIKU_4_5, "claude-sonnet-4-20250514", "claude-3-haiku-20240307")
"""What a source uses in a month in which none of its own models is served, in order."""

USERS = {name: tagged_id("user", name) for name in ("amara", "jonas", "ines", "mikkel")}
SERVICE_ACCOUNT = tagged_id("svac", "finance-bot")


def _small(name: str, workspace: Workspace, key: ApiKey, share: float, *models: tuple[str, float]) -> Source:
    return Source(name, "gateway", workspace, key, share, models, teams=(name,))


SOURCES = (
    Source(
        "search-api",
        "gateway",
        SEARCH,
        SEARCH_KEY,
        16,
        ((_OPUS_4_7, 3), (_HAIKU_5_5, 4), (_SONNET_5_5, 2), (_HAIKU_4_5, 1)),
        rhythm="consumer",
        long_share=0.03,
        search_share=0.05,
        fast_share=0.01,
        teams=("search",),
        plants=("duplicate", "unlogged", "price_interval"),
    ),
    Source(
        "search-premium",
        "gateway",
        SEARCH,
        PRIORITY_KEY,
        4,
        ((_OPUS_4_6, 2), (_SONNET_4_6, 1)),
        rhythm="consumer",
        teams=("search",),
        plants=("uncharged",),
    ),
    Source(
        "ads-ranking",
        "gateway",
        ADS_RANKING,
        RANKING_KEY,
        13,
        ((_SONNET_4_5, 4), (_HAIKU_5_5, 4), (_OPUS_4_8, 2)),
        rhythm="office",
        us_share=0.15,
        long_share=0.02,
        teams=("ads",),
        plants=("duplicate", "unlogged"),
    ),
    Source(
        "ads-creative",
        "gateway",
        ADS_CREATIVE,
        CREATIVE_KEY,
        3,
        ((_OPUS_5, 2), (_SONNET_5, 3)),
        output=900,
        fast_share=0.05,
        teams=("ads",),
        plants=("workspace",),
    ),
    Source(
        "platform",
        "gateway",
        PLATFORM,
        PLATFORM_KEY,
        9,
        ((_OPUS_4_7, 4), (_OPUS_4_6, 2), (_SONNET_4_6, 4)),
        us_share=0.1,
        long_share=0.04,
        teams=("search", "ads", "infra", "infra", None),
        plants=("context_window", "iterations", "duplicate", "uncharged"),
    ),
    Source(
        "default",
        "gateway",
        DEFAULT,
        DEFAULT_KEY,
        4,
        ((_SONNET_5, 2), (_HAIKU_4_5, 2), (_SONNET_4_5, 1)),
        teams=("infra", None),
    ),
    Source("ops-scripts", "gateway", DEFAULT, SCRIPTS_KEY, 1, ((_HAIKU_4_5, 1),), rhythm="always", teams=("infra",)),
    Source(
        "support",
        "assistant",
        SUPPORT,
        SUPPORT_KEY,
        11,
        ((_SONNET_5_5, 5), (_HAIKU_4_5, 3), (_OPUS_5_5, 2)),
        rhythm="consumer",
        search_share=0.12,
        plants=("cut_stream", "stream_sum"),
    ),
    Source(
        "help-center",
        "assistant",
        HELP_CENTER,
        HELP_KEY,
        2.5,
        ((_SONNET_4_6, 1), (_HAIKU_4_5, 3)),
        rhythm="consumer",
        plants=("cut_stream", "stream_sum"),
    ),
    Source(
        "evaluations",
        "batch",
        EVALUATIONS,
        EVALUATIONS_KEY,
        5,
        ((_OPUS_5, 1), (_SONNET_4_6, 2), (_HAIKU_5_5, 2)),
        rhythm="night",
        tier="batch",
        cache_share=0.2,
        plants=("service_tier",),
    ),
    Source(
        "catalog",
        "batch",
        CATALOG,
        CATALOG_KEY,
        7,
        ((_HAIKU_4_5, 4), (_SONNET_5, 2)),
        rhythm="night",
        tier="batch",
        cache_share=0.3,
        plants=("cutoff",),
    ),
    Source(
        "tablets",
        "tablets",
        FIELD,
        FIELD_KEY,
        3,
        ((_SONNET_5_5, 2), (_HAIKU_4_5, 1)),
        rhythm="always",
        plants=("time_zone",),
    ),
    Source(
        "studio",
        "studio",
        STUDIO,
        STUDIO_KEY,
        4,
        ((_OPUS_5_5, 3), (_SONNET_5_5, 2), (_OPUS_4_6, 1)),
        output=800,
        hour_share=0.5,
        plants=("duplicate",),
    ),
    Source(
        "research",
        "notebooks",
        RESEARCH,
        RESEARCH_KEY,
        2,
        ((_SONNET_4_5, 2), (_OPUS_4_5, 1), (_HAIKU_4_5, 1), (_OPUS_4_7, 2)),
        us_share=1.0,
        long_share=0.05,
        plants=("duplicate", "unreported"),
    ),
    Source(
        "copilot",
        "copilot",
        COPILOT,
        COPILOT_KEY,
        5,
        ((_OPUS_5_5, 3), (_SONNET_4_6, 3), (_HAIKU_5_5, 2)),
        cached=6000,
        cache_share=0.9,
        plants=("cache_inclusive",),
    ),
    Source(
        "intake",
        "intake",
        INTAKE,
        INTAKE_KEY,
        5,
        ((_SONNET_4_6, 3), (_OPUS_4_6, 1), (_HAIKU_5_5, 2)),
        rhythm="always",
        cached=5000,
        cache_share=0.7,
        hour_share=0.75,
        plants=("cache_ttl",),
    ),
    Source(
        "mobile",
        "mobile",
        MOBILE,
        MOBILE_KEY,
        6,
        ((_HAIKU_4_5, 3), (_SONNET_5_5, 2)),
        rhythm="always",
        uncached=2500,
        plants=("log_gap",),
    ),
    Source(
        "claude-code-amara",
        "claude-code",
        CLAUDE_CODE,
        CODE_AMARA_KEY,
        1.5,
        ((_OPUS_5_5, 3), (_OPUS_4_7, 2), (_HAIKU_4_5, 2)),
        cached=18000,
        cache_share=0.97,
    ),
    Source(
        "claude-code-jonas",
        "claude-code",
        CLAUDE_CODE,
        CODE_JONAS_KEY,
        1.5,
        ((_OPUS_5_5, 2), (_FABLE, 1), (_HAIKU_4_5, 2)),
        cached=18000,
        cache_share=0.97,
    ),
    Source(
        "legal",
        "gateway",
        LEGAL,
        LEGAL_KEY,
        1.5,
        ((_OPUS_5_5, 3), (_SONNET_4_6, 1)),
        uncached=6000,
        teams=("legal",),
        plants=("model",),
    ),
    Source(
        "growth",
        "gateway",
        GROWTH,
        GROWTH_KEY,
        2,
        ((_OPUS_5, 3), (_OPUS_5_5, 2)),
        fast_share=0.2,
        teams=("growth",),
        plants=("speed", "unreported"),
    ),
    Source(
        "payments",
        "gateway",
        PAYMENTS,
        PAYMENTS_KEY,
        2,
        ((_SONNET_4_6, 2), (_OPUS_4_7, 1)),
        us_share=0.4,
        teams=("payments",),
        plants=("inference_geo",),
    ),
    _small("legacy-importer", LEGACY, LEGACY_KEY, 1, (_SONNET_4_5, 1), (_HAIKU_4_5, 1)),
    _small("script", SCRIPT, SCRIPT_KEY, 0.8, (_SONNET_5, 1), (_OPUS_4_5, 1)),
    _small("formula", FORMULA, FORMULA_KEY, 0.7, (_HAIKU_5_5, 2), (_OPUS_4_7, 1)),
    _small("people", PEOPLE, PEOPLE_KEY, 0.4, (_HAIKU_4_5, 1)),
    _small("finance", FINANCE, FINANCE_KEY, 0.4, (_OPUS_4_7, 1), (_SONNET_4_6, 1)),
    _small("skunkworks", SKUNKWORKS, SKUNKWORKS_KEY, 0.3, (_FABLE, 1), (_OPUS_5_5, 1)),
    Source(
        "preview",
        "gateway",
        SKUNKWORKS,
        SKUNKWORKS_KEY,
        0.2,
        ((UNLISTED, 1),),
        teams=("skunkworks",),
        exists_for="unpriced",
    ),
    Source(
        "laptop",
        None,
        SEARCH,
        LAPTOP_KEY,
        1.5,
        ((_OPUS_4_7, 2), (_SONNET_5_5, 1)),
        exists_for="unlogged_key",
    ),
    Source("console", None, DEFAULT, None, 0.6, ((_OPUS_5_5, 1), (_SONNET_4_6, 1)), exists_for="no_key"),
    Source(
        "oauth-ines",
        None,
        CLAUDE_CODE,
        None,
        0.6,
        ((_OPUS_5_5, 2), (_SONNET_4_6, 1)),
        cached=18000,
        cache_share=0.97,
        account=USERS["ines"],
        exists_for="no_key",
    ),
    Source(
        "oauth-mikkel",
        None,
        CLAUDE_CODE,
        None,
        0.4,
        ((_OPUS_5_5, 1), (_HAIKU_4_5, 1)),
        cached=18000,
        cache_share=0.97,
        account=USERS["mikkel"],
        exists_for="no_key",
    ),
    Source(
        "finance-bot",
        None,
        FINANCE,
        None,
        0.3,
        ((_SONNET_4_6, 1),),
        rhythm="night",
        service_account=SERVICE_ACCOUNT,
        exists_for="no_key",
    ),
)
"""Every source of traffic. The shares of those that always exist add up to the scenario's number of requests."""


CHARGES = (
    ChargeWithoutRequest("code_execution", PLATFORM, 14, "Code Execution Usage"),
    ChargeWithoutRequest("code_execution", RESEARCH, 9, "Code Execution Usage"),
    ChargeWithoutRequest("code_execution", DEFAULT, 2, "Code Execution Usage"),
    ChargeWithoutRequest("session_usage", SUPPORT, 11, "Managed Agents Session Usage"),
    ChargeWithoutRequest("session_usage", COPILOT, 5, "Managed Agents Session Usage"),
)


_PLACES: dict[str, Placement] = {
    "cutoff": Placement("cutoff", variant="submission", seconds=(300, 14_400)),
    "model": Placement("model", variant="fallback"),
    "service_tier": Placement("service_tier", days=(17, 24)),
    "workspace": Placement("workspace", days=(5, 20), value=ADS_RANKING.name),
    "log_gap": Placement("log_gap", from_hour=13 * 24 + 9),
    "price_interval": Placement("price_interval"),
    "cache_inclusive": Placement("cache_inclusive", variant="reads and writes"),
}
"""How the example's plants look, where there is more than one way."""


def _placed(plant: str, source: Source) -> Placement:
    place = _PLACES.get(plant, Placement(plant))
    variant = place.variant
    if source.log == "notebooks" and plant == "unreported":
        variant = "bedrock"
    if source.log == "notebooks" and plant == "duplicate":
        variant = "gateway"
    if source is not _PRIORITY_SOURCE and plant == "uncharged":
        variant = "refused"
    return replace(place, source=source.name, variant=variant)


_PRIORITY_SOURCE = next(source for source in SOURCES if source.key is PRIORITY_KEY)

EXAMPLE = Organization(
    WORKSPACES,
    API_KEYS,
    tuple(LOGS.values()),
    SOURCES,
    CHARGES,
    (
        *(_placed(plant, source) for source in SOURCES for plant in source.plants),
        Placement("app_price", log="studio", variant="cache"),
        Placement("discount", models=(_OPUS_4_8, _OPUS_4_5)),
        Placement("price_book", models=(_SONNET_5, _SONNET_4_5), meters=(4,), days=(14, 31)),
    ),
    one_each=True,
    spares_steps=True,
    allocation=(
        "cost_centers:",
        '  CC-100: {name: Search, account: "6150-100"}',
        '  CC-200: {name: Ads, account: "6150-200"}',
        '  CC-300: {name: Brand and Growth, account: "6150-300"}',
        '  CC-400: {name: Customer Service, account: "6150-400"}',
        '  CC-500: {name: Engineering, account: "6150-500"}',
        '  CC-600: {name: Corporate, account: "6150-600"}',
        '  CC-700: {name: Research, account: "6150-700"}',
        "rules:",
        f"  - {{workspace: {SEARCH.id}, to: CC-100}}",
        '  - {workspace: "Ads *", to: CC-200, until: MID_MONTH}',
        '  - {workspace: "Ads *", to: CC-300, from: MID_MONTH}',
        f"  - workspace: {PLATFORM.id}",
        "    split_by: label.team",
        "    to: {search: CC-100, ads: CC-200, infra: CC-500}",
        "    unlogged: proportional",
        "  - {workspace: Claude Code, to: CC-500}",
        f"  - {{workspace: default, api_key: {SCRIPTS_KEY.name}, to: CC-500}}",
        "  - {tag: cost_center}",
        "shared:",
        "  - {name: Document intake, workspace: Document Intake, split: {CC-100: 60, CC-600: 40}}",
        "  - {name: Default workspace, workspace: default, split: proportional}",
    ),
)
"""The organization of the demo."""
