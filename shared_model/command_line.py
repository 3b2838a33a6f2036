"""How each of our commands ends: done, or with one line that says what is wrong, where and what to do."""

import sys
from collections.abc import Callable
from typing import Any

import click

from shared_model.errors import EXIT_INPUT, EXIT_RUN, MtsunetError, one_line

EXIT_INTERRUPTED = 130


def exit_code_of(name: str, command: Callable[..., Any], interrupted: str) -> int:
    """Run a command to its end.

    Args:
        name: of the program, before its line.
        command: a Typer app.
        interrupted: what is said of an interrupt from the keyboard.
    """
    try:
        code = command(standalone_mode=False)
    except MtsunetError as error:
        return _said(name, str(error), error.exit_code)
    except click.ClickException as error:
        error.show()
        return EXIT_INPUT
    except (click.Abort, KeyboardInterrupt):
        return _said(name, interrupted, EXIT_INTERRUPTED)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        what = one_line(f"{where}{error.strerror or type(error).__name__}")
        return _said(name, f"{what}. Look at the rights of its folder, and at the disk's space.", EXIT_RUN)
    return code if isinstance(code, int) else 0


def _said(name: str, line: str, code: int) -> int:
    print(f"{name}: {line}", file=sys.stderr)
    return code
