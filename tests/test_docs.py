"""The documentation and the program say the same, in both directions."""

import ast
import re
from pathlib import Path
from textwrap import indent

import click
import pytest
from month import closed, tokens, usage
from month import line as log_line

from reconcile import cli, errors, explain, ledger, reasons
from reconcile.config import REASONS, load_config

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
REASONS_PAGE = (ROOT / "docs" / "reasons.md").read_text(encoding="utf-8")
PARTS = ("How it happens", "How we know", "Confidence", "Confirm it", "Fix it", "Mistaken for")
CRON = "15 6 3 * * /opt/reconcile/bin/reconcile close -c /etc/reconcile/config.yaml --json >>/var/log/reconcile.jsonl"


def section(title: str) -> str:
    """The README between a heading and the next of its level."""
    level = title.split(" ", maxsplit=1)[0]
    found = re.search(rf"^{re.escape(title)}\n(.*?)(?=^{level} |\Z)", README, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def options(command: click.Command) -> set[tuple[str, str | None]]:
    """A command's visible options as its usage writes them: the shortest name and what it takes."""
    return {
        (min(option.opts, key=len), None if option.is_flag else option.metavar)
        for option in command.params
        if isinstance(option, click.Option) and not option.hidden
    }


def test_every_command_and_option_is_in_the_readme_and_the_other_way_round():
    """The README's usage lines are those of the commands, no more and no less."""
    block = re.search(r"```\n(reconcile .*?)```", section("## The commands"), re.DOTALL)
    assert block
    written = {}
    for line in block[1].splitlines():
        _, command, usage = line.split(maxsplit=2)
        written[command] = {
            (option, metavar or None)
            for option, metavar in re.findall(r"(?:^|[ [])(-{1,2}[\w-]+)(?: ([\w|]+))?", usage)
        }
    assert written == {name: options(command) for name, command in cli.commands.commands.items()}


def test_every_command_is_described():
    """Each command has a sentence under its usage line, and a help of its own."""
    described = re.findall(r"^- `(\w+)` ", section("## The commands"), re.MULTILINE)
    assert described == list(cli.commands.commands)
    assert all(command.help for command in cli.commands.commands.values())
    assert all(
        option.help
        for command in cli.commands.commands.values()
        for option in command.params
        if isinstance(option, click.Option)
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_page_names_only_commands_and_options_that_exist(page):
    """`reconcile x` and `--x` in any page are of this version; so no page speaks of what is not there."""
    text = page.read_text(encoding="utf-8")
    spoken = {*re.findall(r"(?:`|bin/|^)reconcile ([a-z]+)", text, re.MULTILINE)}
    assert spoken <= set(cli.commands.commands)
    known = {name for command in cli.commands.commands.values() for option in command.params for name in option.opts}
    known |= {"--help", "--version"}
    assert set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text)) <= known


def test_the_exit_codes_are_those_of_the_errors():
    """The README's table, the help and the error classes have the same codes."""
    table = [int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)]
    classes = {error.exit_code for error in errors.ReconcileError.__subclasses__()}
    assert table == [0, 1, *sorted(classes), cli.BUG, cli.INTERRUPTED]
    assert [int(code) for code in re.findall(r"^ +(\d+) ", cli.commands.help, re.MULTILINE)] == table


def test_the_reasons_are_those_of_the_program():
    """The README lists every reason once, in the bridge's order."""
    table = "".join(re.findall(r"^\|.*$", section("### The reasons"), re.MULTILINE))
    assert tuple(re.findall(r"`(\w+)`", table)) == REASONS
    assert tuple(reason for reason, _, _ in explain.REASONS) == REASONS


def test_the_page_of_reasons_is_complete():
    """docs/reasons.md has a section for every reason in the bridge's order, and no other."""
    assert re.findall(r"^### (.*)$", REASONS_PAGE, re.MULTILINE) == [one.code for one in reasons.ALL]
    linked = re.findall(r"\]\(#(\w+)\)", REASONS_PAGE)
    assert set(linked) == {one.code for one in reasons.ALL}


@pytest.mark.parametrize("one", reasons.ALL, ids=lambda one: one.code)
def test_a_section_says_what_the_pages_say(one):
    """A reason's section begins with the sentences that pages and `explain` show, and has every part, in order."""
    section = re.search(rf"^### {one.code}\n(.*?)(?=^##|\Z)", REASONS_PAGE, re.MULTILINE | re.DOTALL)
    assert section
    text = " ".join(section[1].split())
    assert text.startswith(f"**{one.title}.** {one.meaning} *What to do:* {one.to_do} ")
    assert tuple(re.findall(r"^\*\*([^*]+)\.\*\*", section[1], re.MULTILINE)) == (one.title, *PARTS)


def blocks(language: str, page: str = REASONS_PAGE) -> list[str]:
    """The fenced examples of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def test_every_query_of_the_page_of_reasons_runs(tmp_path):
    """The queries are of this ledger's public views, and each has an order."""
    lines = [log_line("2026-10-05T10:30:00Z", usage=tokens(1000))]
    with closed(tmp_path, [usage("2026-10-05T10:00:00Z", input=1000)], [], lines) as connection:
        for query in blocks("sql"):
            connection.execute(query).fetchall()
            assert set(re.findall(r"\bfrom ([\w.]+)", query)) <= {"report.cell", "report.usage", "report.bridge"}
            assert "order by" in query or "group by" not in query


def test_every_example_of_the_page_of_reasons_is_valid(tmp_path):
    """Config examples are accepted by the config's own check, Python examples parse."""
    for text in blocks("yaml"):
        (tmp_path / "config.yaml").write_text(f"organization: Example\n{text}")
        load_config(tmp_path / "config.yaml")
    for text in blocks("python"):
        compile(text, "docs/reasons.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST)
    assert len(blocks("yaml")) >= 5
    assert len(blocks("python")) >= 10


def test_the_page_of_allocation_says_what_is_there(tmp_path):
    """Its rules, pools and mistakes are one config that closes a month; the views that it names are the ledger's."""
    page = (ROOT / "docs" / "allocation.md").read_text(encoding="utf-8")
    (tmp_path / "headcount.csv").write_text("from,cost_center,weight\n2026-01-01,CC-100,7\n")
    (tmp_path / "config.yaml").write_text(
        "organization: Example\nrequest_logs: [{name: app, path: 'log*.jsonl', labels: [team]}]\nallocation:\n"
        "  cost_centers: {CC-100: {name: Search}, CC-200: {name: Ads}, CC-300: {name: Platform}}\n"
        + indent("".join(blocks("yaml", page)), "  ")
    )
    config = load_config(tmp_path / "config.yaml")
    workspaces = [{"id": f"wrkspc_{name}", "name": name} for name in ("Platform", "Offices", "Ads EU")]
    keys = [{"id": "apikey_a", "name": "gateway-prod", "status": "active"}]
    lines = [log_line("2026-10-05T10:30:00Z", usage=tokens(1000), workspace_id="wrkspc_Platform")]
    used = [usage("2026-10-05T10:00:00Z", input=1000, workspace_id="wrkspc_Platform")]
    with closed(tmp_path, used, [], lines, config=config, workspaces=workspaces, api_keys=keys) as connection:
        views = set(ledger.views(connection))
    named = re.search(r"^## The views\n(.*?)^## ", page, re.MULTILINE | re.DOTALL)
    assert named
    names = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (.*?) \|", named[1], re.MULTILINE))))
    assert {"other", "movement", "budget", "statement_line"} <= names <= views


def test_the_cron_line_is_a_command_that_parses():
    """The README's cron line is the promised one, and its arguments are accepted."""
    assert CRON in README
    arguments = CRON.split(">>", maxsplit=1)[0].split()[6:]
    context = cli.commands.make_context("reconcile", arguments)
    command = cli.commands.commands["close"]
    parsed = command.make_context("close", arguments[1:], parent=context)
    assert parsed.params["as_json"] is True
    assert parsed.params["config_path"] == Path("/etc/reconcile/config.yaml")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    """A link to a file of the repository has its file."""
    links = re.findall(r"(?<!!)\[[^\]]+\]\(([^)#\s]+)\)", page.read_text(encoding="utf-8"))
    assert not [link for link in links if "://" not in link and not (page.parent / link).exists()]


def test_every_make_target_that_is_named_exists():
    """`make x` in the README is a target."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z]+)", README, re.MULTILINE)) <= targets
    assert {"demo", "test", "check"} <= targets
