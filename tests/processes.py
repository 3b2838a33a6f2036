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
    return [one for one in family if any(program in part for part in command_of(one)[:4])]


def message_processes(parent: psutil.Process) -> list[psutil.Process]:
    """Those below one in which messages are worked on: what a client's fork server has started."""
    return [child for server in descendants(parent, FORK_SERVER) for child in server.children()]


FORK_SERVER = "multiprocessing.forkserver"
"""In the command line of a fork server, and of all that it starts."""
