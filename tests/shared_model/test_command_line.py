"""How a command ends, by what ended it."""

from collections.abc import Callable
from typing import Any

import click
import pytest

from shared_model.command_line import exit_code_of
from shared_model.errors import ConfigError, RunError


def raising(error: BaseException) -> Callable[..., Any]:
    def command(standalone_mode: bool) -> None:
        assert not standalone_mode
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigError("plan.yaml: rounds: is missing", "add it"), 2, "program: plan.yaml: rounds: is missing. Add it."),
        (RunError("too few sites", "wait"), 3, "program: too few sites. Wait."),
        (PermissionError(13, "Permission denied", "state/a\nb"), 3, r"program: state/a\nb: Permission denied. Look at"),
        (OSError(28, "No space left on device"), 3, "program: No space left on device. Look at the rights"),
        (KeyboardInterrupt(), 130, "program: the run goes on"),
        (click.Abort(), 130, "program: the run goes on"),
        (click.UsageError("no such option: --x"), 2, "no such option: --x"),
    ],
)
def test_what_goes_wrong_is_one_line_and_a_code(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code_of("program", raising(error), "the run goes on") == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert said in lines[-1]
    assert len(lines) == 1


def test_a_commands_own_code_is_its_exit_code() -> None:
    assert exit_code_of("program", lambda standalone_mode: 3, "") == 3
    assert exit_code_of("program", lambda standalone_mode: None, "") == 0


def test_a_fault_of_the_program_stays_one() -> None:
    with pytest.raises(ZeroDivisionError):
        exit_code_of("program", raising(ZeroDivisionError()), "")
