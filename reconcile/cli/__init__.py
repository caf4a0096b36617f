"""The commands: what a person or a scheduler types, and the exit code that comes back.

```
output         text for people, JSON for programs, progress
text           a close in a few lines
finding        one finding with its evidence
first_config   what `init` writes
checks         what `check` looks at
telling        how a close ended, to those who want to know
scheduled      what `schedule` does when something is due
```

What is heavy (duckdb, httpx, pydantic, charts) is imported by the command that needs it: `--help` answers at once.
"""

import os
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import rmtree
from threading import Event
from typing import TYPE_CHECKING, Any

import click

from reconcile import __version__
from reconcile.cli import text
from reconcile.cli.checks import checks
from reconcile.cli.first_config import first_config, log_lines, quoted
from reconcile.cli.output import BUG, INTERRUPTED, counted, instant_text, progress, say, say_json
from reconcile.errors import ConfigError, ReconcileError
from reconcile.period import Period

if TYPE_CHECKING:
    from reconcile.export import Kind
    from reconcile.register import Role, Standing
    from reconcile.sandbox import Sandbox

EXPORTS = ("focus", "journal", "xlsx", "csv", "parquet")
FOCUS_VERSIONS = ("1.2", "1.4")
ROLES = ("preparer", "reviewer")


# From arguments to exit code ------------------------------------------------------------------------------------------


def invoke(arguments: Sequence[str]) -> int:
    """Run a command and return its exit code. An expected failure ends here, as a line on stderr; a bug goes on."""
    try:
        return int(commands.main(list(arguments), prog_name="reconcile", standalone_mode=False) or 0)
    except click.exceptions.NoArgsIsHelpError as error:
        say(error.format_message(), err=True)
        return ConfigError.exit_code
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "reconcile"
        wrong = ConfigError(command, error.format_message().removesuffix("."), f"See `{command} --help`")
        return _failure(wrong, arguments)
    except ReconcileError as error:
        return _failure(error, arguments)
    except (click.Abort, KeyboardInterrupt):
        say("Interrupted.", err=True)
        return INTERRUPTED
    except SystemExit:  # click's answer to a reader of --help that left
        return 0


def bug(error: BaseException, arguments: Sequence[str]) -> int:
    """Show what nobody expected, and return 70."""
    say("".join(traceback.format_exception(error)), err=True)
    if "--json" in arguments:
        what = f"{type(error).__name__}: {error}"
        do = "Report it with the traceback on stderr"
        say_json({"exit": BUG, "error": {"where": "reconcile", "what": what, "do": do}})
    return BUG


def _failure(error: ReconcileError, arguments: Sequence[str]) -> int:
    """Tell an expected failure: a line each for people, one object for programs."""
    for problem in getattr(error, "problems", (error,)):
        line = " ".join(str(problem).split())
        say(line if line.endswith(("?", ".")) else f"{line}.", err=True)
    if "--json" in arguments:
        told = {"where": error.where, "what": error.what, "do": error.do}
        say_json({"exit": error.exit_code, "error": told})
    return error.exit_code


# What commands share --------------------------------------------------------------------------------------------------


def _month(_context: click.Context, _parameter: click.Parameter, value: str | None) -> Period | None:
    return None if value is None else Period.parse(value)


def _instant(_context: click.Context, _parameter: click.Parameter, value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        at = datetime.min  # noqa: DTZ901 - refused in the next line
    if at.tzinfo is None:
        raise ConfigError("--now", f"got {value!r}, expected an instant with its offset", "Write 2026-11-04T06:00:00Z")
    return at.astimezone(UTC)


def _clock(now: datetime | None) -> datetime:
    """The one place where the time is read."""
    return now or datetime.now(UTC)


def _ticking(now: datetime | None) -> Callable[[], datetime]:
    """The clock, or one that shows ``now`` at this moment and goes on from there."""
    ahead = now - datetime.now(UTC) if now else timedelta()
    return lambda: datetime.now(UTC) + ahead


_config = click.option(
    "-c",
    "--config",
    "config_path",
    default="config.yaml",
    show_default=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The config file.",
)
_chosen_month = click.option(
    "--month", callback=_month, metavar="M", help="The month, YYYY-MM; default: the last complete one in UTC."
)
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout, all else on stderr.")
_now = click.option("--now", callback=_instant, hidden=True, help="Another clock, for a sandbox.")


def _simulation(default_dir: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """The options that say what a sandbox simulates, and where it writes."""
    options = (
        click.option(
            "--dir",
            "directory",
            default=default_dir,
            show_default=True,
            type=click.Path(path_type=Path),
            metavar="DIR",
            help="Where everything is written.",
        ),
        click.option(
            "--month",
            default="2026-10",
            show_default=True,
            callback=_month,
            metavar="M",
            help="The month, YYYY-MM.",
        ),
        click.option(
            "--requests",
            type=click.IntRange(min=1),
            default=200_000,
            show_default=True,
            metavar="N",
            help="About how many requests the month has.",
        ),
        click.option("--seed", type=int, default=1, show_default=True, metavar="S", help="Other seed, other traffic."),
    )

    def decorate(command: Callable[..., int]) -> Callable[..., int]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _build_sandbox(directory: Path, *, month: Period, requests: int, seed: int, now: datetime | None) -> "Sandbox":
    """A sandbox to be written to ``directory``, which must not hold somebody's own config."""
    from reconcile.sandbox import Sandbox, Scenario  # noqa: PLC0415

    if (directory / "config.yaml").exists() and not (directory / "truth.json").exists():
        raise ConfigError(
            "--dir", f"{directory} holds a config.yaml that no sandbox wrote", "Choose a folder of its own with --dir"
        )
    return Sandbox.build(Scenario(period=month, requests=requests, seed=seed, now=now))


def _write_sandbox(simulated: "Sandbox", directory: Path, base_url: str) -> None:
    """Write logs, config and truth, in place of those of a sandbox that was there before."""
    if (directory / "truth.json").exists():
        rmtree(directory / "logs", ignore_errors=True)
    simulated.write(directory, base_url=base_url)


class _Group(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. A pipe that broke inside is a bug: click would take it for a reader that left."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise RuntimeError(f"a pipe broke: {error}") from error


@click.group(cls=_Group, no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="reconcile")
def commands() -> None:
    """Close the month for a Claude API bill.

    Explains every dollar between what your applications logged and what was billed, and splits the bill over cost
    centers to the cent.

    \b
    Exit codes:
      0    ran; no discrepancy
      1    ran; discrepancies
      2    config or arguments, the key's variable not set
      3    a source is unavailable, refused, incomplete, or not what it should be
      4    an invariant broke; nothing was published
      5    not ready: the month is not over, or its data has not settled
      70   a bug
      130  interrupted
    """  # noqa: D301 - \b is click's mark for lines to keep


# The commands ---------------------------------------------------------------------------------------------------------


@commands.command()
@_simulation("var/demo")
def demo(*, directory: Path, month: Period, requests: int, seed: int) -> int:
    """Close a simulated month, on this machine alone.

    Starts a sandbox of the provider's API on loopback, pulls from it over HTTP, and shows what was planted beside what
    was found.
    """
    from reconcile import ledger, run  # noqa: PLC0415
    from reconcile.config import load_config  # noqa: PLC0415
    from reconcile.sandbox.sandbox import KEY_VARIABLE  # noqa: PLC0415

    with progress() as on_progress:
        on_progress("sandbox", 0, None)
        simulated = _build_sandbox(directory, month=month, requests=requests, seed=seed, now=None)
        with simulated.serve(port=0) as server:
            _write_sandbox(simulated, directory, server.url)
            on_progress("sandbox", 1, 1)
            os.environ[KEY_VARIABLE] = simulated.key
            outcome = run.close(
                load_config(directory / "config.yaml"), period=month, now=simulated.now, on_progress=on_progress
            )
    with ledger.reading(outcome.ledger) as connection:
        moved_usd = dict(
            connection.execute("select reason, sum(moved_usd) from report.discrepancy group by reason").fetchall()
        )
    say(*text.summary(outcome), "", *text.planted_beside_found(simulated, outcome, moved_usd))
    say("", *text.pages(outcome))
    return 0


@commands.command()
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8765,
    show_default=True,
    metavar="P",
    help="0 takes any that is free.",
)
@_simulation("var/sandbox")
@click.option(
    "--now", callback=_instant, metavar="INSTANT", help="Its clock; default: the 4th after the month, 06:00Z."
)
def sandbox(*, port: int, directory: Path, month: Period, requests: int, seed: int, now: datetime | None) -> int:
    """Serve a simulated organization's API.

    Answers on loopback until it is interrupted, and writes the logs of the organization's applications, a config and
    the key's file.
    """
    from reconcile.sandbox.sandbox import KEY_VARIABLE  # noqa: PLC0415

    with progress() as on_progress:
        on_progress("sandbox", 0, None)
        simulated = _build_sandbox(directory, month=month, requests=requests, seed=seed, now=now)
    try:
        server = simulated.serve(port=port)
    except OSError as error:
        raise ConfigError("--port", f"{port} cannot be used ({error.strerror})", "Choose another with --port") from None
    with server:
        _write_sandbox(simulated, directory, server.url)
        key_file = directory / "admin-key"
        key_file.unlink(missing_ok=True)
        key_file.touch(mode=0o600)
        key_file.write_text(simulated.key + "\n", encoding="utf-8")
        clock = instant_text(simulated.now)
        say(
            f"The sandbox answers at {server.url}. Its key is in {key_file}, its clock shows {clock}.",
            f'Try: {KEY_VARIABLE}="$(cat {key_file})" reconcile close -c {directory}/config.yaml --month {month}',
        )
        Event().wait()
    return 0


@commands.command()
@_config
@click.option("--key-env", metavar="NAME", help="The variable that holds the Admin API key; asked for when missing.")
@click.option(
    "--base-url", default="https://api.anthropic.com", show_default=True, metavar="URL", help="Where the API answers."
)
@click.option(
    "--log",
    "log_path",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="A file of your request log, to see its format.",
)
def init(*, config_path: Path, key_env: str | None, base_url: str, log_path: Path | None) -> int:
    """Write a config for your organization.

    Reads the organization, its workspaces, keys and tags, and writes every workspace as a commented rule. Overwrites
    nothing.
    """
    if config_path.exists():
        raise ConfigError(str(config_path), "is there already, and stays as it is", "Name another file with -c")
    from reconcile import run  # noqa: PLC0415
    from reconcile.config import VARIABLE, Config, load_config  # noqa: PLC0415

    if key_env is None:
        key_env = click.prompt("Environment variable with the Admin API key", default="ANTHROPIC_ADMIN_KEY", err=True)
    if not VARIABLE.fullmatch(key_env):
        raise ConfigError("--key-env", "got what is no name of a variable", "Name the variable, never the key itself")
    logs = log_lines(log_path, config_path.absolute().parent) if log_path else ["request_logs: []"]
    try:
        asked = {"organization": "?", "billing": {"base_url": base_url, "key": {"env": key_env}}}
        billing = Config.model_validate(asked).billing
    except ValueError:
        raise ConfigError("--base-url", f"got {base_url!r}, must be https, or loopback", "Correct the URL") from None
    directory = run.directory(billing, key=billing.key.read())
    written = first_config(directory, key_env=key_env, base_url=base_url, logs=logs)
    try:
        with config_path.open("x", encoding="utf-8") as stream:
            stream.write(written)
    except OSError as error:
        raise ConfigError(str(config_path), f"cannot be written ({error.strerror})", "Correct the path") from None
    load_config(config_path)
    found = counted(len(directory.workspaces), "workspace")
    say(
        f"{config_path} holds the organization {quoted(directory.organization.name)} and {found}.",
        f"Next: give it logs, cost centers and rules, then `reconcile check -c {config_path}`.",
    )
    return 0


@commands.command()
@_config
@_now
def check(*, config_path: Path, now: datetime | None) -> int:
    """Look at config, key, API, logs and disk.

    Changes nothing. The exit code is that of the worst finding.
    """
    worst = 0
    for exit_code, subject, sentence in checks(config_path, Period.last_complete(_clock(now))):
        worst = max(worst, exit_code)
        say(*(f"{'wrong' if exit_code else 'ok':<5}  {subject:<6}  {line}" for line in sentence.splitlines()))
    return worst


@commands.command()
@_config
@_chosen_month
@click.option("--final", is_flag=True, help="Close for good, if every gate holds; else the close is provisional.")
@click.option("--offline", is_flag=True, help="Use the last complete pull: neither network nor key is needed.")
@_json
@_now
def close(
    *, config_path: Path, month: Period | None, final: bool, offline: bool, as_json: bool, now: datetime | None
) -> int:
    """Close a month: every stage, from pull to reports."""
    from reconcile import run  # noqa: PLC0415
    from reconcile.cli.telling import told  # noqa: PLC0415
    from reconcile.config import load_config  # noqa: PLC0415

    config = load_config(config_path)
    at = _clock(now)
    period = month or Period.last_complete(at)
    with progress() as on_progress:
        outcome, _ = told(
            config,
            period,
            _ticking(now),
            lambda: run.close(config, period=period, now=at, final=final, offline=offline, on_progress=on_progress),
            lambda line: say(f"Warning: {line}.", err=True),
        )
    say(*text.summary(outcome), "", *text.pages(outcome), err=as_json)
    if as_json:
        say_json(
            {
                "exit": outcome.exit_code,
                "period": outcome.period,
                "revision": outcome.revision,
                "summary": outcome.summary,
                "bridge": outcome.bridge,
                "chargeback": outcome.chargeback,
                "files": outcome.files,
            }
        )
    return outcome.exit_code


@commands.command()
@_config
@click.option("--json", "as_json", is_flag=True, help="Log lines as JSON objects.")
@_now
def schedule(*, config_path: Path, as_json: bool, now: datetime | None) -> int:
    """Stay up, and close each month by itself.

    Closes finally from the configured day on, catches up on months that were missed, and ends on SIGTERM. One process
    for a data_dir.
    """
    from reconcile.cli.scheduled import Scheduled  # noqa: PLC0415
    from reconcile.config import load_config  # noqa: PLC0415
    from reconcile.schedule import serve  # noqa: PLC0415

    config = load_config(config_path)
    scheduled = Scheduled(config_path, _ticking(now), as_json=as_json)
    scheduled.log("started")
    serve(config.schedule, config.data_dir, scheduled.work)
    scheduled.log("stopped")
    return 0


@commands.command()
@_config
@_json
def status(*, config_path: Path, as_json: bool) -> int:
    """List periods and their open discrepancies."""
    from reconcile import run  # noqa: PLC0415
    from reconcile.config import load_config  # noqa: PLC0415

    periods = run.status(load_config(config_path))
    if as_json:
        say_json({"exit": 0, "periods": [asdict(period) for period in periods]})
    else:
        say(*text.status(periods))
    return 0


@commands.command()
@_config
@_chosen_month
@click.option("--by", required=True, metavar="NAME", help="Who signs.")
@click.option("--role", required=True, type=click.Choice(ROLES), metavar="|".join(ROLES), help="As what.")
@_json
@_now
def approve(
    *, config_path: Path, month: Period | None, by: str, role: "Role", as_json: bool, now: datetime | None
) -> int:
    """Sign the published figures of a month.

    Two people sign, one as preparer and one as reviewer. What changes the figures takes both signatures away.
    """
    from reconcile import run  # noqa: PLC0415
    from reconcile.config import load_config  # noqa: PLC0415

    clock = _clock(now)
    period = month or Period.last_complete(clock)
    stands = run.approve(load_config(config_path), period=period, by=by, role=role, now=clock)
    _say_standing(stands, as_json=as_json)
    return 0


@commands.command()
@_config
@_chosen_month
@click.option("--reason", required=True, metavar="TEXT", help="Why; it stays in the register and on the pages.")
@_json
@_now
def reopen(*, config_path: Path, month: Period | None, reason: str, as_json: bool, now: datetime | None) -> int:
    """Let a closed month be closed anew.

    Its figures stay as they are until then; its signatures do not hold any more.
    """
    from reconcile import run  # noqa: PLC0415
    from reconcile.config import load_config  # noqa: PLC0415

    clock = _clock(now)
    period = month or Period.last_complete(clock)
    _say_standing(run.reopen(load_config(config_path), period=period, reason=reason, now=clock), as_json=as_json)
    return 0


@commands.command()
@_config
@click.option("--month", callback=_month, required=True, metavar="M", help="The closed month, YYYY-MM.")
@_json
@_now
def recheck(*, config_path: Path, month: Period, as_json: bool, now: datetime | None) -> int:
    """Pull a closed month once more, and book what moved.

    What the provider corrected since is booked in the first later month that is not closed. The closed month stays as
    it is.
    """
    from reconcile import run  # noqa: PLC0415
    from reconcile.config import load_config  # noqa: PLC0415

    with progress() as on_progress:
        found = run.recheck(load_config(config_path), period=month, now=_clock(now), on_progress=on_progress)
    say(*text.rechecked(found), err=as_json)
    if as_json:
        say_json({"exit": 0, **vars(found)})
    return 0


@commands.command()
@_config
@_json
def verify(*, config_path: Path, as_json: bool) -> int:
    """Prove that nothing was changed.

    Compares register, raw pages, revisions and reports with the digests that were taken when they were written. What
    was changed is named, and ends with 4.
    """
    from reconcile import run  # noqa: PLC0415
    from reconcile.config import load_config  # noqa: PLC0415

    proof = run.verify(load_config(config_path))
    if as_json:
        say_json({"exit": 0, **vars(proof)})
    else:
        say(*text.proof(proof))
    return 0


@commands.command()
@_config
@_json
@_now
def purge(*, config_path: Path, as_json: bool, now: datetime | None) -> int:
    """Remove request rows and raw pages that need not be kept any longer.

    As `retention` of the config says. Every figure stays, and so does the proof that nothing else was changed.
    """
    from reconcile import run  # noqa: PLC0415
    from reconcile.config import load_config  # noqa: PLC0415

    purged = run.purge(load_config(config_path), now=_clock(now))
    if as_json:
        say_json({"exit": 0, **vars(purged)})
    else:
        say(
            f"{counted(purged.rows, 'request row')} removed from {counted(len(purged.revisions), 'revision')}"
            f"{''.join(f', {name}' for name in purged.revisions)}.",
            f"{counted(len(purged.raw), 'pull')} removed{''.join(f', {name}' for name in purged.raw)}.",
        )
    return 0


def _say_standing(stands: "Standing", *, as_json: bool) -> None:
    if as_json:
        signed = [vars(signature) for signature in stands.signatures]
        told = {"period": stands.period, "state": stands.state, "revision": stands.revision, "signatures": signed}
        say_json({"exit": 0, **told})
    else:
        say(*text.standing(stands))


@commands.command(name="export")
@click.argument("kind", type=click.Choice(EXPORTS), metavar="|".join(EXPORTS))
@_config
@_chosen_month
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="The folder, or for what is one file the file; default: exports/<month>/ in data_dir.",
)
@click.option(
    "--focus-version",
    type=click.Choice(FOCUS_VERSIONS),
    default=FOCUS_VERSIONS[-1],
    show_default=True,
    metavar="V",
    help="Of focus: the release, 1.2 or 1.4.",
)
@click.option("--focus-draft", is_flag=True, help="Of focus: name token properties as the draft of 1.5 does.")
@click.option("--focus-parquet", is_flag=True, help="Of focus: Parquet in place of CSV.")
@_json
@_now
def export_files(
    *,
    kind: "Kind",
    config_path: Path,
    month: Period | None,
    out: Path | None,
    focus_version: str,
    focus_draft: bool,
    focus_parquet: bool,
    as_json: bool,
    now: datetime | None,
) -> int:
    """Write a closed month for other systems.

    \b
    focus    FOCUS Cost and Usage rows, one a charge and cost center
    journal  double entry by cost center, as `journal:` of the config says
    xlsx     one workbook, with totals as formulas
    csv      every view of the ledger
    parquet  every view of the ledger
    """  # noqa: D301 - \b is click's mark for lines to keep
    from reconcile import run  # noqa: PLC0415
    from reconcile.config import load_config  # noqa: PLC0415

    written = run.export(
        load_config(config_path),
        kind,
        period=month or Period.last_complete(_clock(now)),
        out=out,
        version=focus_version,
        draft=focus_draft,
        parquet=focus_parquet,
    )
    for note in written.notes:
        say(f"Note: {note}.", err=True)
    if as_json:
        say_json({"exit": 0, **asdict(written)})
    else:
        say(*(f"File  {path}" for path in written.files))
    return 0


@commands.command()
@click.argument("finding_id", metavar="ID")
@_config
@click.option("--month", callback=_month, metavar="M", help="The month, YYYY-MM; default: the newest with this id.")
@click.option(
    "--requests",
    type=click.IntRange(min=0, max=10**9),
    default=0,
    show_default=True,
    metavar="N",
    help="Name up to N of the requests behind it, the largest first, where a log has them.",
)
@_json
def explain(*, finding_id: str, config_path: Path, month: Period | None, requests: int, as_json: bool) -> int:
    """Show one finding: what, how much, how we know, and what to do about it.

    Its id stands on the page on the difference, in discrepancy.csv and in the list of `status`.
    """
    from reconcile import run  # noqa: PLC0415
    from reconcile.cli import finding  # noqa: PLC0415
    from reconcile.config import load_config  # noqa: PLC0415

    found = run.explanation(load_config(config_path), finding_id, period=month, requests=requests)
    if as_json:
        told = {**found.finding, "evidence": finding.evidence_of(found.finding)}
        say_json({"exit": 0, **vars(found), "finding": told})
    else:
        say(*finding.explained(found, requests))
    return 0
