"""The config: what the file says is what the run gets, and every mistake is one line."""

import json
import re
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from reconcile.config import (
    REASONS,
    SCOPES,
    Config,
    Key,
    Location,
    _Document,
    _models,
    config_digest,
    load_config,
    pattern_matches,
)
from reconcile.errors import ConfigError

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "config.example.yaml"
SCHEMA = ROOT / "docs" / "config.schema.json"

COST_CENTERS = """
allocation:
  cost_centers:
    CC-100: {name: Search}
    CC-200: {name: Ads}
"""


def load(folder: Path, text: str) -> Config:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path)


def complaints(folder: Path, text: str) -> list[str]:
    """The lines that a wrong config gives, without the folder."""
    with pytest.raises(ConfigError) as caught:
        load(folder, text)
    assert caught.value.exit_code == 2
    return str(caught.value).replace(f"{folder}/", "").splitlines()


def test_numbers_are_decimals_from_their_text(tmp_path):
    """A number without quotes is the decimal that it spells, however many digits a float would lose."""
    config = load(tmp_path, "organization: X\ntolerance: {usd: 1234567890123.123456789012, percent: 0.5}\n")
    assert config.tolerance.usd == Decimal("1234567890123.123456789012")
    assert config.tolerance.percent == Decimal("0.5")


@given(st.decimals(min_value=0, max_value=10**20, places=12))
def test_any_amount_survives(tmp_path_factory, usd):
    """Every amount of twelve decimals is read as written, with quotes and without."""
    folder = tmp_path_factory.mktemp("amount")
    for written in (f"{usd:f}", f'"{usd:f}"'):
        assert load(folder, f"organization: X\ntolerance: {{usd: {written}}}\n").tolerance.usd == usd


def test_plain_scalars_mean_what_a_person_means(tmp_path):
    """`on` is a key, `yes` a text, a day a day, a time a text and an account with leading zeros keeps them."""
    config = load(
        tmp_path,
        """
organization: yes
schedule: {time: 06:00}
invoices: [{period: 2026-10, number: no, on: 2026-11-02, amount_usd: 12}]
allocation:
  cost_centers: {0815: {name: off, account: 00420}}
  rules: [{workspace: on, to: 0815, until: 2026-10-15}]
""",
    )
    assert config.organization == "yes"
    assert config.schedule.time == "06:00"
    invoice = config.invoices[0]
    assert (invoice.period, invoice.number, invoice.on) == ("2026-10", "no", date(2026, 11, 2))
    assert config.allocation.cost_centers["0815"].account == "00420"
    assert config.allocation.rules[0].until_on == date(2026, 10, 15)


@pytest.mark.parametrize("written", ["1_000", "0o17", "0x1F", "12:30", ".inf", ".nan", "true", "'1_0'"])
def test_what_only_looks_like_a_number_is_refused(tmp_path, written):
    """YAML 1.1's octals, underscores and sexagesimals never become an amount."""
    assert complaints(tmp_path, f"organization: X\ntolerance:\n  usd: {written}\n")[0].startswith(
        "config.yaml:3: tolerance.usd: got "
    )


def test_every_mistake_is_one_line_in_file_order(tmp_path):
    """All mistakes are told at once, each with its line, its key, both values and what to do."""
    assert complaints(
        tmp_path,
        """organization: 4711
billing:
  setle_hours: 24
  settle_hours: -1
  base_url: http://example.com
request_logs:
  - name: gateway
    format: reqests
invoices:
  - {period: 2026-13, number: A, on: 2026-02-30, amount_usd: 12.50}
allocation:
  shared:
    - name: Pool
      workspace: default
      split: {CC-100: 60, CC-200: 35}
""",
    ) == [
        "config.yaml:1: organization: got 4711, expected text. Write it in quotes",
        "config.yaml:3: billing.setle_hours: is no known key. Did you mean `settle_hours`?",
        "config.yaml:4: billing.settle_hours: got -1, must be greater than or equal to 0. Correct the value",
        (
            "config.yaml:5: billing.base_url: got 'http://example.com', must begin with https:// "
            "(http is for loopback only). Correct the URL"
        ),
        "config.yaml:7: request_logs[0].path: is missing. Add it",
        "config.yaml:8: request_logs[0].format: got 'reqests', must be 'requests' or 'messages'. Correct the value",
        "config.yaml:10: invoices[0].period: got '2026-13', expected a month. Write a month like 2026-10",
        "config.yaml:10: invoices[0].on: got 2026-02-30, which is no day of the calendar. Correct the day",
        "config.yaml:15: allocation.shared[0].split: shares add up to 95 %, must be 100 %. Correct the percentages",
    ]


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("accepted: [x]", "accepted[0]: got 'x', expected a mapping"),
        ("billing: [x]", "billing: got a list, expected a mapping"),
        ("allocation: {cost_centers: 3}", "allocation.cost_centers: got 3, expected a mapping"),
        ("request_logs: {name: x}", "request_logs: got a mapping, expected a list"),
        ("billing: {base_url: null}", "billing.base_url: got nothing, expected text"),
        ("data_dir: [x]", "data_dir: got a list, expected text"),
        ("billing: {settle_hours: 1.5}", "billing.settle_hours: got 1.5, expected a whole number"),
    ],
)
def test_another_shape_is_told_in_the_words_of_yaml(tmp_path, written, said):
    """Where a mapping, a list, a text or a whole number belongs, the line says so; no class of the program is named."""
    assert complaints(tmp_path, f"organization: X\n{written}\n") == [f"config.yaml:2: {said}. Correct the value"]


@pytest.mark.parametrize("key", ["who", "why", "workspace", "model"])
@pytest.mark.parametrize("written", ["''", "'  '"])
def test_blank_text_is_refused(tmp_path, key, written):
    """Who signs, why and for what is written out: neither nothing nor blanks stand for it."""
    entry = {"reason": "unlogged", "up_to_usd": "1", "who": "Ann", "why": "known", "until": "2027-01-01"}
    spelled = ", ".join(f"{name}: {value}" for name, value in (entry | {key: written}).items())
    (line,) = complaints(tmp_path, f"organization: X\naccepted:\n  - {{{spelled}}}\n")
    assert line.startswith(f"config.yaml:3: accepted[0].{key}: got {written}, ")


def test_an_acceptance_of_a_log_that_is_none_is_refused(tmp_path):
    """It is told with the nearest name that there is."""
    rest = "up_to_usd: 1, who: M, why: x, until: 2026-12-01"
    logs = "request_logs:\n  - {name: app, path: a}\n"
    (line,) = complaints(tmp_path, f"organization: X\n{logs}accepted:\n  - {{reason: duplicate, log: ap, {rest}}}\n")
    said = "got 'ap', which is no log of request_logs, so it can never match. Did you mean `app`?"
    assert line.startswith(f"config.yaml:5: accepted[0].log: {said}")
    for wide in ("workspace: '*'", "log: null", "log: a*", "model: '*'"):
        load(tmp_path, f"organization: X\n{logs}accepted:\n  - {{reason: duplicate, {wide}, {rest}}}\n")


def test_the_scopes_are_the_places_of_the_reasons():
    """Every reason can be accepted by those of log, workspace and model that decision 0011 places it by."""
    page = (ROOT / "docs" / "decisions" / "0011-one-place-a-cause.md").read_text(encoding="utf-8")
    places = {
        reason: re.sub(r"\(.*?\)", "", place)
        for reasons, place in re.findall(r"^\| ([a-z_, ]+) \| (.*) \|$", page, re.MULTILINE)
        for reason in reasons.split(", ")
    }
    spelled = {"log": "log", "workspace_id": "workspace", "model": "model"}
    for reason in REASONS:
        place = [part.strip() for part in places.get(reason, "").split(",")]
        assert SCOPES[reason] == tuple(spelled[part] for part in place if part in spelled)


def test_a_key_that_is_no_name_is_told_with_its_place(tmp_path):
    """A cost center needs a code: an empty one is a line like any other mistake."""
    (line,) = complaints(tmp_path, "organization: X\nallocation:\n  cost_centers:\n    '': {name: Search}\n")
    assert line.startswith("config.yaml:4: allocation.cost_centers[\"\"]: got '', must have at least 1 character. ")


def test_names_that_nobody_has_are_found(tmp_path):
    """A cost center or a reason that does not exist is told with the nearest that does."""
    assert complaints(
        tmp_path,
        COST_CENTERS
        + """    Unallocated: {name: Nobody}
  rules:
    - {workspace: a, to: CC-10}
    - workspace: b
      split_by: label.team
      to: {search: CC-100, ads: CC-999}
      unlogged: CC-300
  shared:
    - {name: Pool, workspace: default, split: {CC-100: 60, cc-200: 40}}
accepted:
  - {reason: loggap, up_to_usd: 1, who: M, why: x, until: 2026-12-01}
organization: X
request_logs:
  - {name: gateway, path: a, labels: [team]}
""",
    ) == [
        (
            "config.yaml:6: allocation.cost_centers.Unallocated: the name is reserved for what no rule catches. "
            "Choose another name"
        ),
        (
            "config.yaml:8: allocation.rules[0].to: got 'CC-10', which allocation.cost_centers does not hold. "
            "Did you mean `CC-100`?"
        ),
        (
            "config.yaml:11: allocation.rules[1].to.ads: got 'CC-999', which allocation.cost_centers does not hold. "
            "Write one of CC-100, CC-200, Unallocated"
        ),
        (
            "config.yaml:12: allocation.rules[1].unlogged: got 'CC-300', which allocation.cost_centers does not hold. "
            "Did you mean `CC-200`?"
        ),
        (
            "config.yaml:14: allocation.shared[0].split.cc-200: got 'cc-200', "
            "which allocation.cost_centers does not hold. Did you mean `CC-200`?"
        ),
        "config.yaml:16: accepted[0].reason: got 'loggap', which is no reason. Did you mean `log_gap`?",
    ]


def test_names_that_are_used_twice_are_found(tmp_path):
    """A log's name and an invoice's number are unique."""
    assert complaints(
        tmp_path,
        """organization: X
request_logs:
  - {name: gateway, path: a}
  - {name: gateway, path: b}
invoices:
  - {period: 2026-10, number: A, on: 2026-11-02, amount_usd: 1}
  - {period: 2026-11, number: A, on: 2026-12-02, amount_usd: 1}
""",
    ) == [
        "config.yaml:4: request_logs[1].name: 'gateway' is that of request_logs[0] too, must be unique. Change one",
        "config.yaml:7: invoices[1].number: 'A' is that of invoices[0] too, must be unique. Change one",
    ]


@pytest.mark.parametrize(
    ("rule", "what"),
    [
        ("{workspace: a}", "has no cost center"),
        ("{to: CC-100}", "has no workspace, api_key or tag"),
        ("{tag: t, to: CC-100}", "`tag` names the cost center itself"),
        ("{workspace: a, split_by: label.team, to: CC-100}", "`split_by` has no cost center for its label's values"),
        ("{workspace: a, to: CC-100, unlogged: CC-100}", "`unlogged` belongs to a rule with split_by"),
        (
            "{workspace: a, to: CC-100, from: 2026-10-02, until: 2026-10-02}",
            "`from` 2026-10-02 must lie before `until` 2026-10-02",
        ),
    ],
)
def test_a_rule_is_whole_or_refused(tmp_path, rule, what):
    """A rule says what it is for and who pays, exactly once."""
    (line,) = complaints(tmp_path, f"organization: X{COST_CENTERS}  rules:\n    - {rule}\n")
    assert line.startswith(f"config.yaml:7: allocation.rules[0]: {what}. ")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("organization: X\norganization: Y\n", "config.yaml:2: organization is there twice, first in line 1. Keep one"),
        ("organization: [a\n", "config.yaml:2: is not YAML: "),
        ("organization: !!python/name:os.system x\n", "config.yaml:1: holds the tag "),
        ("a: &a [*a]\n", "config.yaml:1: holds an alias of itself. "),
        ("organization: X\nb: a\x07b\n", "config.yaml:2: holds a character that YAML does not allow. "),
        ("", "config.yaml:1: holds no keys. "),
    ],
)
def test_what_is_no_plain_yaml_is_refused(tmp_path, text, line):
    """A key that is there twice, broken YAML, a tag, a cycle and an empty file are told with their line."""
    assert complaints(tmp_path, text)[0].startswith(line)


def test_a_missing_file_says_how_to_get_one(tmp_path):
    """Without a config the first thing to read is where one comes from."""
    with pytest.raises(ConfigError, match=r"nowhere.yaml: is not there. .*reconcile init"):
        load_config(tmp_path / "nowhere.yaml")


def test_a_key_that_was_pasted_is_not_repeated(tmp_path):
    """An admin key in the wrong place is refused without being shown."""
    secret = "sk-ant-admin01-" + "x" * 20
    for text in (
        f"organization: X\nbilling:\n  key: {secret}\n",
        f"organization: X\nbilling:\n  key: {{env: {secret}}}\n",
        f"organization: X\nbilling:\n  api: {secret}\n",
        f"organization: X\nbilling:\n  api_key: {secret}\n",
        f"organization: X\nbilling:\n  base_url: {secret}\n",
    ):
        (line,) = complaints(tmp_path, text)
        assert line.startswith("config.yaml:3: billing.")
        assert secret not in line


def test_base_url_is_https_unless_it_is_loopback(tmp_path):
    """Plain http goes to this machine only, however the host is disguised."""
    for url in ("http://127.0.0.1:8080", "http://[::1]:80", "http://localhost/", "https://proxy.example.com/x"):
        assert load(tmp_path, f"organization: X\nbilling: {{base_url: '{url}'}}\n").billing.base_url == url.rstrip("/")
    for url in (
        "http://127.evil.com",
        "http://127.0.0.1@evil.com",
        "http://10.0.0.1",
        "ftp://127.0.0.1",
        "http://[::1",
    ):
        complaints(tmp_path, f"organization: X\nbilling: {{base_url: '{url}'}}\n")


def test_relative_paths_are_relative_to_the_config(tmp_path):
    """Data, logs and the key's file lie where the config's folder says, wherever the command was started."""
    folder = tmp_path / "with [brackets]"
    folder.mkdir()
    config = load(
        folder,
        "organization: X\nbilling: {key: {file: secret}}\nrequest_logs:\n"
        "  - {name: a, path: 'logs/{day}/*.gz'}\n  - {name: b, path: '/abs/{month}.csv'}\n",
    )
    assert config.data_dir == folder / "var"
    assert config.billing.key.file == folder / "secret"
    assert [log.path for log in config.request_logs] == [
        f"{tmp_path}/with [[]brackets]/logs/{{day}}/*.gz",
        "/abs/{month}.csv",
    ]
    assert config.base_dir == folder
    (line,) = complaints(tmp_path, "organization: X\nrequest_logs: [{name: a, path: 'x/{date}.gz'}]\n")
    assert "got {date}, expected only {day} or {month} in braces" in line


def test_the_digest_is_that_of_the_meaning(tmp_path):
    """Comments, order and folder do not change the digest, nor does where pages come from; a rule does."""
    text = "organization: X\nrequest_logs: [{name: a, path: logs/a}]\n"
    other = tmp_path / "elsewhere"
    other.mkdir()
    digest = config_digest(load(tmp_path, text))
    assert re.fullmatch(r"[0-9a-f]{64}", digest)
    for same in (
        "# a comment\n" + text,
        text + "billing: {settle_hours: 24, base_url: 'http://127.0.0.1:1', key: {env: OTHER}}\ndata_dir: elsewhere\n",
        text + "schedule: {day: 5}\n",
    ):
        assert config_digest(load(other, same)) == digest
    for changed in ("tolerance: {usd: 2}\n", "organization_id: org_1\n", "billing: {amounts: list}\n"):
        assert config_digest(load(tmp_path, text + changed)) != digest


@pytest.mark.parametrize(
    ("pattern", "tagged_id", "name", "matches"),
    [
        ("wrkspc_1", "wrkspc_1", "Search", True),
        ("Search", "wrkspc_1", "Search", True),
        ("S*", "wrkspc_1", "Search", True),
        ("search", "wrkspc_1", "Search", False),
        ("wrkspc_*", "wrkspc_1", "Search", True),
        ("default", "default", "Default", True),
        ("default", "wrkspc_1", "default", False),
        ("[a]?", "wrkspc_1", "[a]?", True),
        ("[a]?", "wrkspc_1", "ab", False),
        ("*", None, None, False),
    ],
)
def test_patterns(pattern, tagged_id, name, matches):
    """A pattern means an id where it begins like one, else a name; only `*` is a wildcard."""
    assert pattern_matches(pattern, tagged_id, name) is matches


def test_the_key_is_read_from_its_place(tmp_path, monkeypatch):
    """Variable, file and command give the key without its line end."""
    monkeypatch.setenv("SOME_KEY", "k1\n")
    secret = tmp_path / "secret"
    secret.write_text("k2\n")
    secret.chmod(0o600)
    assert [Key(env="SOME_KEY").read(), Key(file=secret).read(), Key(command=["echo", "k3"]).read()] == [
        "k1",
        "k2",
        "k3",
    ]


def test_a_key_that_is_not_there_or_not_safe_is_refused(tmp_path, monkeypatch):
    """No key, a key that others can read and a key of several words stop before the network, unshown."""
    monkeypatch.delenv("SOME_KEY", raising=False)
    secret = tmp_path / "secret"
    secret.write_text("hidden one")
    for key, what in (
        (Key(env="SOME_KEY"), "the environment variable SOME_KEY is not set"),
        (Key(file=tmp_path / "nowhere"), "cannot be read"),
        (Key(file=secret), "has mode 0"),
        (Key(command=["false"]), "'false' ended with 1, expected 0"),
        (Key(command=["no-such-program-here"]), "did not run"),
        (Key(command=["cat", str(secret)]), "more than one word"),
    ):
        with pytest.raises(ConfigError, match=re.escape(what)) as caught:
            key.read()
        assert "hidden one" not in str(caught.value)


# config.example.yaml and the schema


def uncommented(text: str) -> str:
    """The example with every commented line put to use."""
    text = re.sub(r"^([^#\n]*):( \[\]| \{\})( +# .*\n *#[^ ])", r"\1:   \3", text, flags=re.MULTILINE)
    return re.sub(r"^( *)#(?=[^ #\n])", r"\1", text, flags=re.MULTILINE)


def fields(model: type[BaseModel]) -> Iterator[tuple[type[BaseModel], str]]:
    """Every key of the config's models."""
    for name, field in model.model_fields.items():
        yield model, field.alias or name
        for inner in _models(field.annotation):
            yield from fields(inner)


def field_at(location: Location) -> tuple[type[BaseModel], str, object] | None:
    """Model, key and default (... when required) of a place in the example; None for what is no key of a model."""
    model: type[BaseModel] = Config
    owner: BaseModel | None = None
    for n, part in enumerate(location):
        names = {field.alias or name: name for name, field in model.model_fields.items()}
        if part not in names:
            continue
        field = model.model_fields[names[part]]
        default = field.default if owner is None else getattr(owner, names[part])
        default = ... if field.is_required() else default
        if n == len(location) - 1:
            return model, str(part), default
        owner = default if isinstance(default, BaseModel) else None
        model = next(_models(field.annotation), model)
    return None


def shown(default: object) -> str:
    return "null" if default is None else str(default).lower() if isinstance(default, bool) else str(default)


def test_the_example_loads_with_the_defaults():
    """The example as it stands is a config of nothing but defaults."""
    assert load_config(EXAMPLE) == Config.model_validate(
        {"organization": "Example Ltd", "data_dir": ROOT / "var", "allocation": {}},
        context={"base_dir": ROOT, "path": EXAMPLE},
    )


def test_the_example_is_valid_with_every_line_put_to_use(tmp_path):
    """What the example shows in comments works too (of the key's three places, one)."""
    text = re.sub(r"^ *#(file|command): .*\n", "", EXAMPLE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    config = load(tmp_path, uncommented(text))
    assert len(config.allocation.rules) == 4
    assert config.request_logs[0].labels == ["team"]
    assert config.accepted[0].reason in REASONS


def test_the_example_names_every_key_with_its_default(tmp_path):
    """Every key of the models stands in the example, and its comment says its real default, or that it is required."""
    path = tmp_path / "config.yaml"
    path.write_text(uncommented(EXAMPLE.read_text(encoding="utf-8")), encoding="utf-8")
    document = _Document.read(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    described = set()
    for location, line in document.lines.items():
        found = field_at(location)
        _, separator, comment = lines[line - 1].partition(" # ")
        if found is None or not separator or not isinstance(location[-1], str):
            continue
        model, key, default = found
        if not isinstance(default, BaseModel):
            says = re.search(r"(?:^|, )(required|default (?:.+?))\. ", comment)
            assert says, lines[line - 1]
            assert says[1] == ("required" if default is ... else f"default {shown(default)}"), lines[line - 1]
        described.add((model, key))
    assert described == set(fields(Config))


def test_the_schema_is_that_of_the_models(request):
    """docs/config.schema.json is what the models give; `make golden` writes it anew."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}
    fresh = json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
    if request.config.getoption("--update-goldens", default=False):
        SCHEMA.write_text(fresh, encoding="utf-8")
    assert SCHEMA.read_text(encoding="utf-8") == fresh


# Allocation: what no single value shows

TWO_POOLS = COST_CENTERS + "  shared:\n    - {name: A, workspace: default, split: %s}\n    - {name: B, split: %s}\n"


@pytest.mark.parametrize(
    ("first", "second", "error"),
    [
        ("even", "even", "8: allocation.shared[1]: takes nothing: it has no workspace, and no rule or pool feeds it."),
        (
            "{B: 100}",
            "{A: 50, CC-100: 50}",
            "6: allocation.shared: A -> B -> A is a cycle, expected pools that feed only others. Cut it",
        ),
        ("{A: 50, B: 50}", "{CC-100: 100}", "6: allocation.shared: A -> A is a cycle"),
        (
            "proportional, among: [B]",
            "{CC-100: 100}",
            "7: allocation.shared[0].among[0]: got 'B', which allocation.cost_centers does not hold.",
        ),
        (
            "{CC-100: 100}, among: [CC-100]",
            "{CC-200: 100}",
            "7: allocation.shared[0]: `among` and percentages both say",
        ),
        ("even, driver: x.csv", "even", "7: allocation.shared[0].driver: x.csv cannot be read (No such file"),
        ("driver", "even", "7: allocation.shared[0]: `split: driver` and `driver: FILE` belong together."),
    ],
)
def test_pools_that_cannot_be_split_are_refused(tmp_path, first, second, error):
    """A cycle, a pool of nothing and two ways to say who receives are a line each."""
    found = complaints(tmp_path, f"organization: X{TWO_POOLS % (first, second)}")
    assert found[0].startswith(f"config.yaml:{error}"), found


def test_a_pool_may_stand_where_a_cost_center_does(tmp_path):
    """What feeds comes before what is fed, whatever their order in the file."""
    later_first = TWO_POOLS.replace("name: A", "name: B").replace("name: B, split", "name: A, split")
    for text in (TWO_POOLS % ("{B: 100}", "{CC-100: 100}"), later_first % ("{A: 9, CC-100: 91}", "{CC-100: 100}")):
        assert load(tmp_path, f"organization: X{text}").allocation.pool_order() == [0, 1]


@pytest.mark.parametrize(
    ("rule", "error"),
    [
        (
            "{meter: output_token, to: CC-100}",
            "rules[0].meter: got 'output_token', which can never match. Did you mean",
        ),
        ("{service_tier: fast, to: CC-100}", "rules[0].service_tier: got 'fast', which can never match. Write one of"),
        ("{charge: no_key, api_key: x, to: CC-100}", "rules[0]: `charge: no_key` has no API key"),
        (
            "{charge: residual, split_by: log, to: {a: CC-100}}",
            "rules[0]: `charge: residual` cannot be split by what was logged",
        ),
        ("{workspace: a, pool: P}", "rules[0].pool: got 'P', which is no pool"),
        ("{workspace: a, pool: P, to: CC-100}", "rules[0]: `pool` takes all that the rule is for"),
        (
            "{workspace: a, split_by: label.team, to: {x: CC-100}}",
            "rules[0].split_by: got 'label.team', a label that no log",
        ),
        ("{workspace: a, split_by: team, to: {x: CC-100}}", "rules[0].split_by: got 'team', must match pattern"),
        ("{workspace: a, to: CC-100, unlabeled: CC-100}", "rules[0]: `unlabeled` belongs to a rule with split_by"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused(tmp_path, rule, error):
    """What can never match, or says two things at once, is one line with its place."""
    (line,) = complaints(tmp_path, f"organization: X{COST_CENTERS}  rules:\n    - {rule}\n")
    assert line.startswith(f"config.yaml:7: allocation.{error}"), line


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            "cost_center,weight\n",
            "heads.csv:1: got the columns cost_center, weight, expected from, cost_center",
        ),
        ("", "heads.csv:1: got the columns none"),
        ("from,cost_center,weight\n", "heads.csv has no row"),
        (
            "from,cost_center,weight\n2026-10-01,CC-100,-1\n",
            "heads.csv:2: weight: got '-1', expected a number",
        ),
        ("from,cost_center,weight\n2026-10-01,CC-100,nan\n", "heads.csv:2: weight: got 'nan'"),
        ("from,cost_center,weight\n\n2026-13-01,CC-100,1\n", "heads.csv:3: from: got '2026-13-01', expected a day"),
        ("from,cost_center,weight\n2026-10-01,CC-100\n", "heads.csv:2: got 2 columns, expected 3"),
        ("from,cost_center,weight\n2026-10-01,CC-1,1\n", "heads.csv:2: got 'CC-1', which allocation.cost_centers does"),
        (
            "from,until,cost_center,weight\n2026-10-02,2026-10-02,CC-100,1\n",
            "heads.csv:2: from 2026-10-02 must lie",
        ),
    ],
)
def test_a_mistake_in_a_drivers_file_names_file_line_and_value(tmp_path, text, error):
    """The line of the config that names the file, then the file's own line."""
    (tmp_path / "heads.csv").write_text(text)
    pool = "{name: P, workspace: default, split: driver, driver: heads.csv}"
    (line,) = complaints(tmp_path, f"organization: X{COST_CENTERS}  shared:\n    - {pool}\n")
    assert line.startswith(f"config.yaml:7: allocation.shared[0].driver: {error}"), line


def test_a_drivers_rows_are_part_of_the_digest(tmp_path):
    """Another headcount is another input, also where the config's own text is the same."""
    text = (
        f"organization: X{COST_CENTERS}  shared:\n    - {{name: P, workspace: default, split: driver, driver: h.csv}}\n"
    )
    digests = []
    for weight in ("1", "1", "2"):
        (tmp_path / "h.csv").write_text(f"from,cost_center,weight\n2026-10-01,CC-100,{weight}\n")
        digests.append(config_digest(load(tmp_path, text)))
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    ("budgets", "error"),
    [
        ("[{cost_center: CC-9, period: 2026, amount_usd: 1}]", "budgets[0].cost_center: got 'CC-9', which allocation."),
        ("[{cost_center: CC-100, period: 26, amount_usd: 1}]", "budgets[0].period: got 26, expected a month or a year"),
        (
            "[{cost_center: CC-100, period: 2026-13, amount_usd: 1}]",
            "budgets[0].period: got '2026-13', expected a month",
        ),
        (
            "[{cost_center: CC-100, period: 2026, amount_usd: -1}]",
            "budgets[0].amount_usd: got -1, must be greater than",
        ),
        (
            (
                "[{cost_center: CC-100, period: 2026-10, amount_usd: 1},"
                " {cost_center: CC-100, period: 2026, amount_usd: 9}]"
            ),
            "budgets[1].period: 'CC-100' has a budget for 2026-10 in budgets[0] too. Keep a yearly amount, or monthly",
        ),
    ],
)
def test_a_budget_is_of_one_cost_center_and_one_time(tmp_path, budgets, error):
    """A year's amount and a month's do not stand side by side, and nobody has two of one."""
    (line,) = complaints(tmp_path, f"organization: X{COST_CENTERS}budgets: {budgets}\n")
    assert line.startswith(f"config.yaml:6: {error}"), line


def test_an_error_in_a_rule_names_its_line(tmp_path):
    """What only a month's data shows is told with the file's line too; a warning without: lines are no input."""
    allocation = load(
        tmp_path, f"organization: X{COST_CENTERS}  rules:\n    - {{workspace: a, to: CC-100}}\n"
    ).allocation
    assert allocation.place("rules", 0, "workspace").endswith("config.yaml:7: allocation.rules[0].workspace")
    assert allocation.key("rules", 0) == "config.yaml: allocation.rules[0]"
    (tmp_path / "config.yaml").unlink()
    assert allocation.place("rules", 0) == "allocation.rules[0]"
