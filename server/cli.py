"""mtsunet-server: what a coordinator runs."""

import asyncio
import json
import secrets
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from shared_model.command_line import exit_code_of
from shared_model.errors import ConfigError, RunError

if TYPE_CHECKING:
    from server.coordinator import Coordinator

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)
console = Console(stderr=False, soft_wrap=True)
Folder = Annotated[Path, typer.Option("--folder", envvar="MTSUNET_COORDINATOR", help="The coordinator's folder.")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="Id of a run, as `runs` lists it.")]
HERE = Path()
SIZES = [50, 100, 200, 500]
"""Patients of the sites that `plan-privacy` tells of where none are named."""
FOLLOW_SECONDS = 0.5
ALIVE_SECONDS = 5.0
"""How often a command that follows a run looks at its journal, and asks the server whether its process lives."""


def _say(line: str) -> None:
    console.print(line, markup=False, highlight=False)


def _coordinator(folder: Path) -> "Coordinator":
    from server.coordinator import Coordinator

    coordinator = Coordinator(folder.resolve())
    _ = coordinator.config
    return coordinator


@app.callback()
def coordinator() -> None:
    """A federation's coordinator: it sees updates and permitted counts, never an image, a label or a patient row."""


@app.command()
def init(
    name: Annotated[list[str], typer.Option(help="Host name or IP address by which hospitals reach it; repeatable.")],
    folder: Folder = HERE,
    port: Annotated[int, typer.Option(help="Public port.")] = 8443,
    admin_port: Annotated[int, typer.Option(help="Admin port, on loopback alone.")] = 8444,
    health_port: Annotated[int | None, typer.Option(help="Port of the gRPC health service, on loopback.")] = None,
) -> None:
    """Make the coordinator's folder: authority, certificate, tokens, config.yaml."""
    from server.coordinator import CoordinatorConfig
    from server.coordinator import init as create
    from shared_model.config import parse_config

    values = {"names": name, "port": port, "admin_port": admin_port, "health_port": health_port}
    created = create(folder, parse_config(CoordinatorConfig, values, "init"))
    _say(f"made {created.folder}; back it up, it holds the authority's key")
    _say("start it with: mtsunet-server serve")


@app.command()
def serve(folder: Folder = HERE) -> None:
    """Serve hospitals and this machine's other commands, until SIGTERM."""
    from shared_model.flower_environment import ALLOCATOR, QUICKER
    from shared_model.process import begin_again_with

    begin_again_with(QUICKER | ALLOCATOR)
    from server.certificates import RENEW_DAYS, days_left
    from server.superlink.serve import serve as run

    found = _coordinator(folder)
    left = days_left(found.certificate)
    if left < RENEW_DAYS:
        _say(f"the certificate ends in {left:.0f} days; run: mtsunet-server renew")
    asyncio.run(run(found, _say))


@app.command()
def enrol(
    site: Annotated[str, typer.Argument(help="Name of the hospital in this federation.")],
    key: Annotated[Path, typer.Argument(metavar="SITE.PUB", help="The public key that it sent.")],
    folder: Folder = HERE,
    replace: Annotated[bool, typer.Option("--replace", help="Revoke the key it has.")] = False,
) -> None:
    """Enrol a hospital, and write the file that it joins with; for one that is enrolled, write the file again."""
    from server.certificates import read_certificate
    from server.conduct import Heads
    from server.enrolment import write_invitation
    from shared_model.signing import from_line, to_line

    found = _coordinator(folder)
    try:
        line = key.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{key}: cannot be read ({type(error).__name__})", "check the path") from None
    read_certificate(found.authority)
    row = found.registry.sites().get(site)
    if row is None or row.key != to_line(from_line(line)):
        row = found.registry.enrol(site, line, replace)
        Heads(found.folder / "heads.json").pop(site, None)
    path = write_invitation(found, site)
    _say(f"enrolled {site}, key {row.fingerprint}: compare it with the hospital by telephone")
    _say(f"send back: {path}")


@app.command()
def revoke(site: Annotated[str, typer.Argument(help="Name of the hospital.")], folder: Folder = HERE) -> None:
    """Shut a hospital out from now on."""
    _coordinator(folder).registry.revoke(site)
    _say(f"revoked {site}")


@app.command()
def sites(folder: Folder = HERE) -> None:
    """List the hospitals and their keys."""
    for row in _coordinator(folder).registry.rows():
        revoked = f", revoked {row.revoked}" if row.revoked else ""
        _say(f"{row.site}  {row.fingerprint}  enrolled {row.enrolled}{revoked}")


@app.command()
def renew(folder: Folder = HERE) -> None:
    """Make a new certificate for the public port; the server takes it when it starts again."""
    from server.certificates import days_left

    found = _coordinator(folder)
    found.renew()
    _say(f"good for {days_left(found.certificate):.0f} days; now restart the server")


@app.command()
def run(
    plan: Annotated[Path, typer.Argument(help="Plan file (YAML).")],
    folder: Folder = HERE,
    pretrained: Annotated[Path | None, typer.Option(help="A BrainSegFounder file to start from.")] = None,
    start: Annotated[Path | None, typer.Option(help="Folder of a released model to start from.")] = None,
) -> None:
    """Start a run and follow it to its end. Exit 0: done. 3: paused, with the reason; `resume` goes on."""
    from server.superlink.control import Control

    found = _coordinator(folder)
    control = Control(found)
    control.connected()
    name = _create(found, plan, pretrained, start)
    _say(f"run {name}")
    control.start(name)
    _follow(found, name)


@app.command("plan-privacy")
def plan_privacy(
    plan: Annotated[Path, typer.Argument(help="Plan file (YAML).")],
    patients: Annotated[list[int] | None, typer.Option(min=1, help="Training patients of a site; repeatable.")] = None,
    epsilon: Annotated[float | None, typer.Option(help="Also say the noise that this epsilon needs.")] = None,
) -> None:
    """Say what a plan's privacy costs at sites of some sizes, and whether it leaves anything to learn from."""
    from shared_model.config import Plan, load_config
    from shared_model.planning import lines

    for line in lines(load_config(Plan, plan), patients or SIZES, epsilon):
        _say(line)


@app.command()
def resume(name: RunName, folder: Folder = HERE) -> None:
    """Go on with a run from its last committed round, and follow it."""
    from server.journal import DONE, PAUSED, STOPPED, WAITING, Journal
    from server.superlink.control import Control

    found = _coordinator(folder)
    journal = Journal(found.run(name).folder)
    state, _ = journal.status()
    if state == DONE:
        raise RunError(f"run '{name}' is done", "release it with: mtsunet-server release")
    start = journal.size()
    control = Control(found)
    if state in (PAUSED, STOPPED):
        control.stop(name)  # Flower believes for another minute in a process that was killed
    control.start(name)
    journal.set(WAITING)
    _follow(found, name, start)


@app.command()
def stop(name: RunName, folder: Folder = HERE) -> None:
    """End a run's process. What is committed stays, and `resume` goes on."""
    from server.journal import STOPPED, Journal
    from server.superlink.control import Control

    found = _coordinator(folder)
    journal = Journal(found.run(name).folder)
    if not Control(found).stop(name):
        raise RunError(f"run '{name}' is not in progress", "see: mtsunet-server runs")
    journal.note("stopped", {})
    journal.set(STOPPED, "stopped by the coordinator")
    _say(f"stopped {name}")


@app.command()
def runs(folder: Folder = HERE) -> None:
    """List all runs."""
    from server.conduct import overview

    table = Table("run", "plan", "state", "rounds", "reason")
    for row in overview(_coordinator(folder)):
        table.add_row(row.run, row.plan, row.state, f"{row.committed} of {row.rounds}", row.reason)
    console.print(table)


@app.command()
def status(
    folder: Folder = HERE, as_json: Annotated[bool, typer.Option("--json", help="For other programs.")] = False
) -> None:
    """Whether the server runs, which hospitals are connected, and what is in progress. Exit 3 if it does not run."""
    from server.certificates import days_left
    from server.conduct import overview
    from server.superlink.control import Control

    found = _coordinator(folder)
    try:
        connected, reason = Control(found).connected(), ""
    except RunError as error:
        connected, reason = None, str(error)
    facts: dict[str, Any] = {
        "serving": connected is not None,
        "reason": reason,
        "certificate_days": round(days_left(found.certificate), 1),
        "sites": {
            site: connected is not None and row.node in connected for site, row in found.registry.sites().items()
        },
        "runs": [asdict(row) for row in overview(found)],
    }
    if as_json:
        print(json.dumps(facts, indent=1, sort_keys=True))
    else:
        _say("serving" if facts["serving"] else reason)
        _say(f"certificate: {facts['certificate_days']:.0f} days left")
        for site, there in facts["sites"].items():
            _say(f"{site}: {'connected' if there else 'not connected'}")
        for row in overview(found):
            line = f"run {row.run} ({row.plan}): {row.state}, round {row.committed} of {row.rounds}"
            _say(f"{line}: {row.reason}" if row.reason else line)
            for site, since in row.waiting.items():
                there = "" if facts["sites"].get(site) else ", which is not connected,"
                _say(f"  waits for {site}{there} since {datetime.fromtimestamp(since, UTC):%Y-%m-%d %H:%M:%S}Z")
    if connected is None:
        raise typer.Exit(RunError.exit_code)


@app.command()
def report(name: RunName, folder: Folder = HERE) -> None:
    """Write a run's report.html and summary.json."""
    from server.report import write_report
    from server.results import summarise
    from server.summary import write_summary

    store = _coordinator(folder).run(name)
    summary = summarise(store)
    write_summary(summary, store.folder / "summary.json")
    write_report(summary, [], store.folder / "report.html")
    _say(f"report: {store.folder / 'report.html'}")


@app.command()
def release(
    name: RunName,
    folder: Folder = HERE,
    index: Annotated[int | None, typer.Option("--round", help="This round, and not by the plan's rule.")] = None,
) -> None:
    """Sign a closed run's model and offer it to the enrolled hospitals. A release is never replaced."""
    from server.release import release as make

    place = make(_coordinator(folder), name, index)
    _say(f"released: {place}")
    _say(f"hospitals fetch it with: mtsunet-client models --site CONFIG --get {name}")


def _create(found: "Coordinator", path: Path, pretrained: Path | None, start: Path | None) -> str:
    """A new run of a plan file; its id."""
    from server.aggregation import build
    from server.start import Origin, create_run
    from shared_model.config import Plan, load_config
    from shared_model.signing import release_public_key

    plan = load_config(Plan, path)
    build(plan.aggregation)
    enrolled = found.registry.sites()
    if not plan.sites:
        raise ConfigError(f"{path}: sites: missing", "name the enrolled sites that take part")
    if strange := [site for site in plan.sites if site not in enrolled]:
        raise ConfigError(f"{path}: sites: '{strange[0]}' is not enrolled", "see: mtsunet-server sites")
    name = secrets.token_hex(8)
    origin = Origin(pretrained, start, release_public_key(found.release_key))
    create_run(found.folder / "runs" / name, name, plan, origin)
    return name


def _follow(found: "Coordinator", name: str, start: int = 0) -> None:
    """Print what happens until the run ends.

    Raises:
        RunError: it paused or was stopped.
    """
    from server.journal import DONE, PAUSED, RUNNING, STOPPED, WAITING, Journal, told
    from server.superlink.control import Control

    journal = Journal(found.run(name).folder)
    rounds = found.run(name).read()[1].rounds
    control = Control(found)
    active, asked = True, 0.0
    while True:
        if time.monotonic() - asked > ALIVE_SECONDS:
            try:
                active, asked = control.active(name), time.monotonic()
            except RunError as error:
                what = f"run '{name}' is no longer followed: {error.what}"
                raise RunError(what, f"look after the server, then: mtsunet-server resume {name}") from None
        state, reason = journal.status()
        for end, event in journal.events(start):
            start = end
            if line := told(event, rounds):
                _say(line)
        if state == DONE:
            _say(f"done; write the report with: mtsunet-server report {name}")
            return
        if state in (PAUSED, STOPPED) or not active:
            reason = reason or "its process ended without a word; see the server's log"
            if state in (RUNNING, WAITING):
                with suppress(OSError):  # the folder may be what is wrong
                    journal.set(PAUSED, reason)
            raise RunError(f"run '{name}' has paused: {reason}", f"go on with: mtsunet-server resume {name}")
        time.sleep(FOLLOW_SECONDS)


def main() -> None:
    """Entry point: what goes wrong ends with one line and a set exit code."""
    sys.exit(exit_code_of("mtsunet-server", app, "no longer followed; the run goes on."))


if __name__ == "__main__":
    main()
