"""mtsunet-client: what a hospital runs."""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 2) // 2)))

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from shared_model.command_line import exit_code_of
from shared_model.errors import EXIT_INPUT, ConfigError

EXIT_WARNINGS = 1
Preset = Literal["tiny", "base", "small"]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console(stderr=False, soft_wrap=True)
SiteFile = Annotated[Path, typer.Option("--site", help="The hospital's config file (YAML).")]


@app.callback(invoke_without_command=True)
def client(
    context: typer.Context,
    site: Annotated[Path | None, typer.Option(help="The hospital's config file (YAML): join, and stay joined.")] = None,
) -> None:
    """A hospital's side of a federation. Images, labels and patient rows stay on this machine."""
    if context.invoked_subcommand is not None:
        return
    if site is None:
        raise typer.BadParameter("name the hospital's config file", param_hint="--site")
    from client.join import Joined

    Joined(site, _say).run()


def _say(line: str) -> None:
    console.print(line, markup=False, highlight=False)


@app.command()
def init(
    name: Annotated[str, typer.Argument(help="Name of the hospital in the federation: a-z, 0-9 and dashes.")],
    folder: Annotated[Path, typer.Option(help="Folder for the config and the hospital's state.")] = Path(),
) -> None:
    """Make a key pair and a config with every field explained, and say what to send to the coordinator."""
    from client.setup import create

    made = create(folder, name)
    _say(f"config: {made.config}")
    _say(f"send to the coordinator: {made.public_key}")
    _say(f"and read it out to them by telephone: {made.fingerprint}")


@app.command()
def plans(site: SiteFile) -> None:
    """List the plans that this site was sent, and whether they are approved."""
    from client.config import load_site
    from client.policy import Approvals

    for plan, approved in Approvals(load_site(site).state).rows():
        _say(f"{plan.digest()[:12]}  {'approved' if approved else 'waits   '}  {plan.name}")


@app.command()
def show(site: SiteFile, plan: Annotated[str, typer.Argument(metavar="HASH", help="Or how it begins.")]) -> None:
    """Say in plain words what a plan would have this hospital do."""
    from client.config import load_site
    from client.policy import Approvals
    from client.setup import in_words

    config = load_site(site)
    found, approved = Approvals(config.state).find(plan)
    for line in in_words(found, config):
        _say(line)
    _say("approved" if approved else f"not approved yet: mtsunet-client approve --site {site} {found.digest()[:12]}")


@app.command()
def approve(site: SiteFile, plan: Annotated[str, typer.Argument(metavar="HASH", help="Or how it begins.")]) -> None:
    """Approve a plan; the site takes part when it is next asked."""
    from client.audit import AuditLog
    from client.config import load_site
    from client.policy import Approvals

    config = load_site(site)
    approvals = Approvals(config.state)
    found, _ = approvals.find(plan)
    approvals.approve(found)
    AuditLog(config.state).append("approved", {"plan": found.digest()})
    _say(f"approved {found.name} ({found.digest()[:12]})")


@app.command()
def audit(
    site: SiteFile,
    verify: Annotated[bool, typer.Option("--verify", help="Look for an edited, removed or moved line.")] = False,
) -> None:
    """Print the audit log, or check that it is whole. Exit 2 if it is not."""
    from client.audit import AuditLog
    from client.config import load_site

    log = AuditLog(load_site(site).state)
    if not verify:
        for line in log.lines():
            _say(line)
        return
    if fault := log.verify():
        raise ConfigError(f"{log.path}: {fault}", "keep the file as it is and look into it")
    _say(f"whole; its head is {log.head}")


@app.command()
def ledger(
    site: SiteFile,
    plan: Annotated[str | None, typer.Option(metavar="HASH", help="How many rounds of this plan still fit.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For other programs.")] = False,
) -> None:
    """Print what private training has spent of this hospital's budget, and what is left."""
    from client.config import load_site
    from client.policy import Approvals
    from client.privacy.report import balance, in_words

    config = load_site(site)
    asked = Approvals(config.state).find(plan)[0] if plan is not None else None
    found = balance(config, asked)
    if as_json:
        print(json.dumps({**asdict(found), "left": found.left}, indent=1, sort_keys=True))
        return
    for line in in_words(found, asked):
        _say(line)


@app.command("plan-privacy")
def plan_privacy(
    site: SiteFile,
    plan: Annotated[str, typer.Argument(metavar="HASH", help="Or how it begins.")],
    epsilon: Annotated[float | None, typer.Option(help="Also say the noise that this epsilon needs.")] = None,
) -> None:
    """Say what a plan's privacy would cost here, with the patients that the policy declares."""
    from client.config import load_site
    from client.policy import Approvals
    from client.privacy.floor import agreed
    from shared_model.planning import lines

    config = load_site(site)
    found, _ = Approvals(config.state).find(plan)
    floor, own = config.policy.privacy, agreed(config, found)
    if floor is None or own is None or found.privacy is None:
        raise ConfigError(f"plan {found.name}: is not trained privately at this site", "see: policy.privacy, the plan")
    here = found.model_copy(update={"privacy": found.privacy.model_copy(update={"noise": own.noise})})
    for line in lines(here, [floor.patients], epsilon):
        _say(line)


@app.command()
def models(
    site: SiteFile,
    get: Annotated[str | None, typer.Option("--get", metavar="RUN", help="Fetch this one.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Of fetched models; state/models if left out.")] = None,
) -> None:
    """List the released models that the coordinator offers, or fetch one; it is kept only if it is genuine."""
    from client.config import load_site
    from client.models import get_model, kept_models, list_models

    config = load_site(site)
    folder = folder or kept_models(config)
    if get is not None:
        _say(f"genuine, and here: {get_model(config, get, folder)}")
        return
    for run in list_models(config):
        _say(f"{run}  {'here   ' if (folder / run).exists() else 'offered'}")


@app.command()
def predict(
    model: Annotated[Path, typer.Option(help="Folder of a released model, as `models --get` writes it.")],
    case: Annotated[Path, typer.Option(help="Folder with the NIfTI files of one case, named as in BraTS or BIDS.")],
    out: Annotated[Path | None, typer.Option(help="New folder for the result; predictions/CASE if left out.")] = None,
    flips: Annotated[
        bool, typer.Option("--flips", help="The mean over eight mirrorings: eight times the work.")
    ] = False,
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="Where the network runs.")] = "cpu",
) -> None:
    """Segment one case and tell its classes with a released model. Research only, not for clinical use."""
    from client.prediction import in_words, predict_folder

    place, facts = predict_folder(model, case, out, flips, device)
    for line in in_words(facts):
        _say(line)
    _say(f"written: {place}")


@app.command()
def report(
    site: SiteFile,
    run: Annotated[str, typer.Argument(metavar="RUN", help="Id of a run, as `models` lists it.")],
    as_json: Annotated[bool, typer.Option("--json", help="For other programs.")] = False,
) -> None:
    """Show this hospital's own results, which stay here, beside the federation's."""
    from client.config import load_site
    from client.report import compare, table

    found = compare(load_site(site), run)
    if as_json:
        print(json.dumps(found.to_json(), indent=1, sort_keys=True))
    else:
        console.print(table(found))


@app.command()
def status(
    site: SiteFile,
    as_json: Annotated[bool, typer.Option("--json", help="For other programs.")] = False,
) -> None:
    """Say what the client is doing now: whether it runs, what it last said, and how far training is."""
    from client.config import load_site
    from client.status import in_words, read_status

    found = read_status(load_site(site))
    if as_json:
        print(json.dumps(found.to_json(), indent=1, sort_keys=True))
        return
    for line in in_words(found):
        _say(line)


@app.command()
def check(
    site: SiteFile,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole report as JSON.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if there are warnings.")] = False,
    sheet: Annotated[Path | None, typer.Option(help="Draw all cases with mask outlines into this PNG.")] = None,
    preset: Annotated[Preset, typer.Option(help="Network whose training step is measured here.")] = "tiny",
    crop: Annotated[tuple[int, int, int], typer.Option(help="Its crop, in voxels.")] = (64, 64, 64),
    batch: Annotated[int, typer.Option(help="Its batch.")] = 2,
) -> None:
    """Look at data, machine and network before training: exit 0 clean, 1 warnings with --strict, 2 errors."""
    from client.config import load_site

    config = load_site(site)  # before torch is read, which takes seconds: a mistake is told at once
    from client.data.checks import check_site
    from client.data.reading import read
    from client.data.sheet import write_sheet
    from client.preflight import declared, machine, network

    with _bar() as progress:
        looking = progress.add_task("cases", total=None)
        report = check_site(config, lambda done, total: progress.update(looking, completed=done, total=total))
        measuring = progress.add_task(f"training step, {preset}", total=1)
        facts, found = machine(config, report.cases, preset, crop, batch)
        progress.update(measuring, completed=1)
        asking = progress.add_task("coordinator", total=1)
        seen, refused = network(config)
        progress.update(asking, completed=1)
        report.findings += found + refused + declared(config, report.patients)
        report.sort()
        if sheet is not None:
            drawing = progress.add_task("contact sheet", total=None)
            cases = read(config.data).cases
            write_sheet(cases, sheet, lambda done, total: progress.update(drawing, completed=done, total=total))
    if as_json:
        values = {"site": config.site, "machine": facts, "network": seen, **asdict(report)}
        print(json.dumps(values, indent=1, sort_keys=True))
    else:
        for line in _lines(asdict(report), {**facts, **seen}):
            console.print(line, markup=False, highlight=False)
        for finding in report.findings:
            console.print(str(finding), markup=False, highlight=False)
        numbers = [f"{report.number(severity)} {severity}s" for severity in ("error", "warning", "note")]
        console.print(", ".join(numbers), highlight=False)
    if report.number("error"):
        raise typer.Exit(EXIT_INPUT)
    if strict and report.number("warning"):
        raise typer.Exit(EXIT_WARNINGS)


@app.command()
def prepare(
    site: SiteFile,
    processes: Annotated[int, typer.Option(min=1, help="Cases at the same time.")] = max(1, (os.cpu_count() or 2) // 2),
) -> None:
    """Bring scans to one grid of 1 mm without skulls: from `raw` in the config to `data`. Goes on where it was."""
    from client.config import load_site

    config = load_site(site)
    try:
        from client.data.preparation.prepare import prepare_site
    except ModuleNotFoundError as error:
        raise ConfigError(f"the package {error.name} is missing", "install federated-mtsunet[prepare]") from None
    with _bar() as progress:
        task = progress.add_task("cases", total=None)
        findings = prepare_site(
            config, processes, lambda done, total: progress.update(task, completed=done, total=total)
        )
    for finding in findings:
        console.print(str(finding), markup=False, highlight=False)
    console.print(f"manifest: {config.data.labels}", markup=False, highlight=False)
    if findings:
        raise typer.Exit(EXIT_INPUT)


def _lines(report: dict[str, Any], facts: dict[str, Any]) -> list[str]:
    lines = [f"{report['cases']} cases of {report['patients']} patients, {len(report['left_out'])} left out"]
    for name, classes in report["counts"].items():
        lines.append(f"{name}: " + ", ".join(f"{count} {word}" for word, count in classes.items()))
    return lines + [f"{name.replace('_', ' ')}: {value}" for name, value in facts.items()]


def _bar() -> Progress:
    shown = Console(stderr=True)
    return Progress(
        TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=shown
    )


def main() -> None:
    """Entry point: what goes wrong ends with one line and a set exit code."""
    sys.exit(exit_code_of("mtsunet-client", app, "stopped."))


if __name__ == "__main__":
    main()
