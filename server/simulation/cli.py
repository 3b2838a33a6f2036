"""mtsunet-simulate: a federation on this machine, on the built-in synthetic cohort or on folders that a plan names."""

import server.simulation.environment  # noqa: F401  (before Flower, Ray and torch)

# isort: split
import os
import sys
import threading
from importlib.resources import as_file, files
from itertools import count
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from shared_model.command_line import exit_code_of

console = Console(stderr=False)


class Bars:
    """A progress bar for each step, and a line for each refusal."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def progress(self, step: str, done: int, total: int) -> None:
        if step not in self._tasks:
            self._tasks[step] = self._progress.add_task(step, total=total)
        self._progress.update(self._tasks[step], completed=done, total=total)

    def event(self, name: str, facts: dict[str, Any]) -> None:
        if name == "opened":
            self._progress.print(f"sites: {', '.join(facts['sites'])}", highlight=False)
        elif name == "round":
            self.progress(f"round {facts['round']}", 0, max(1, len(facts["sites"])))
        elif name == "reply":
            self._progress.advance(self._tasks[f"round {facts['round']}"])
        elif name in ("refused", "absent", "flagged"):
            self._progress.print(f"{name}: {facts['site']}: {facts['reason']}", markup=False, highlight=False)
        elif name == "committed":
            task = self._tasks[f"round {facts['round']}"]
            self._progress.update(task, description=f"round {facts['round']} committed")


def _free_folder(name: str) -> Path:
    """runs/NAME, or the first of runs/NAME-2, runs/NAME-3, ... that is not there."""
    root = Path("runs")
    names = (name if number == 1 else f"{name}-{number}" for number in count(1))
    return next(root / name for name in names if not (root / name).exists())


def simulate(
    plan: Annotated[
        Path | None, typer.Argument(help="Plan file (YAML); left out, the built-in synthetic cohort.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; runs/NAME if left out.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run in this folder.")] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say what the plan's folders hold, and train nothing.")
    ] = False,
    baselines: Annotated[bool, typer.Option(help="Train and test the same network without a federation too.")] = True,
) -> None:
    """Train MTS-UNET over several virtual hospitals, and compare it with training without a federation."""
    from server.report import terminal_table
    from server.simulation.preparation import load_plan
    from server.simulation.reaper import watch
    from server.simulation.simulate import new_run, resumed_run

    if resume is not None and (plan is not None or out is not None):
        raise typer.BadParameter("--resume takes the plan and the folder from the run")
    if explain:
        _explain(plan)
        return
    with Progress(
        TextColumn("{task.description:<20}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    ) as progress:
        bars = Bars(progress)
        if resume is not None:
            run = resumed_run(resume, bars)
        else:
            with as_file(files("server.simulation") / "demo.yaml") as demo:
                simulation = load_plan(plan or demo)
            run = new_run(out or _free_folder(simulation.plan.name), simulation, baselines, bars)
        watch()
        summary = run.complete()
    console.print(terminal_table(summary))
    for caveat in summary.caveats:
        console.print(caveat, markup=False, highlight=False)
    console.print(f"report: {run.folder / 'report.html'}", markup=False, highlight=False, soft_wrap=True)


def _explain(plan: Path | None) -> None:
    from server.simulation.explain import lines, table
    from server.simulation.gathering import gather
    from server.simulation.preparation import load_plan

    if plan is None:
        raise typer.BadParameter("--explain needs a plan")
    simulation = load_plan(plan)
    if simulation.phantoms is not None:
        raise typer.BadParameter("--explain needs a plan with sites: this one generates its cohort")
    gathered = gather(simulation)
    console.print(table(gathered, simulation.plan.grade_edition))
    for line in lines(gathered):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def main() -> None:
    """Entry point: bad input and failed runs end with one line and a set exit code."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(simulate)
    _leave(exit_code_of("mtsunet-simulate", app, "stopped. Go on with --resume and the folder of the run."))


def _leave(code: int) -> NoReturn:
    """End now, also where a thread of Flower still waits for replies; what its processes leave, the reaper ends."""
    sys.stdout.flush()
    sys.stderr.flush()
    if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
