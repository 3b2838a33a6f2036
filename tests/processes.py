"""What a process runs, where it may end at any moment."""

import psutil


def command_of(process: psutil.Process) -> list[str]:
    """Its program and arguments; none once it has ended."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:  # a zombie is one
        return []


def descendants(parent: psutil.Process, program: str) -> list[psutil.Process]:
    """The living processes below one that run a program."""
    family = parent.children(recursive=True)
    return [one for one in family if any(program in part for part in command_of(one)[:3])]
