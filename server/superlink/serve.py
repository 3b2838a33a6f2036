"""`mtsunet-server serve`: the public and the admin listener, and the executor that starts a process for each run."""

import asyncio
import contextlib
import os
import signal
import sys
from asyncio import constants, sslproto
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn
from anyio import to_thread

from server.coordinator import FOLDER_VARIABLE, Coordinator
from server.superlink import link, pages
from server.superlink.guard import AdminDoor, News, PublicDoor
from server.superlink.requests import PIECE, Requests
from shared_model.errors import RunError
from shared_model.flower_environment import answer_when_there_is_work, environment
from shared_model.health import HealthServer
from shared_model.process import allocate_together, collect_often

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
STOP_SECONDS = 10.0
LOCAL = "127.0.0.1"
THREADS = 8
"""So many requests are worked on at a time: SQLite has one writer, and more would wait, each with a connection."""


class _Listener(uvicorn.Server):
    """A server that leaves signals to us."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(coordinator: Coordinator, say: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        RunError: a port cannot be used.
    """
    allocate_together()
    keep_few_pieces()
    to_thread.current_default_thread_limiter().total_tokens = THREADS
    answer_when_there_is_work()
    config = coordinator.config
    superlink = link.build(coordinator)
    site_pages = pages.build(coordinator.registry, superlink.online, coordinator.folder / "releases")
    news, requests = News(), Requests(coordinator.folder)
    door = PublicDoor(superlink.app, site_pages, coordinator.registry, superlink.arrived, news, requests)
    public = _Listener(
        uvicorn.Config(
            door,
            host=config.listen,
            port=config.port,
            ssl_certfile=coordinator.certificate,
            ssl_keyfile=coordinator.certificate_key,
            lifespan="off",
            access_log=False,
            server_header=False,
            log_config=None,
        )
    )
    admin = _Listener(
        uvicorn.Config(
            AdminDoor(superlink.app, coordinator.token, news, requests),
            host=LOCAL,
            port=config.admin_port,
            lifespan="on",
            access_log=False,
            log_config=None,
        )
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    health = HealthServer(config.health_port) if config.health_port else None
    listeners = {
        f"admin port {LOCAL}:{config.admin_port}": asyncio.create_task(_run(admin)),
        f"public port {config.listen}:{config.port}": asyncio.create_task(_run(public)),
    }
    executor = asyncio.create_task(_supervise(coordinator, stop, say))
    try:
        while not (admin.started and public.started):
            for name, task in listeners.items():
                if task.done():
                    raise RunError(f"the {name} cannot be opened", "choose another in config.yaml, or end its user")
            await asyncio.sleep(0.05)
        collect_often()
        say(f"sites reach this server at {config.address}; the admin port is {LOCAL}:{config.admin_port}")
        if health:
            health.set(True)
        await stop.wait()
    finally:
        stop.set()
        say("stopping")
        if health:
            health.stop()
        await executor
        for server in (public, admin):
            server.should_exit = True
            server.force_exit = not server.started
        news.announce()
        await asyncio.wait(listeners.values(), timeout=STOP_SECONDS)


def keep_few_pieces() -> None:
    """From now on a TLS connection reads one piece at a time, and one waits for who is slow: what once waited there for
    either direction OpenSSL keeps as long as the connection lasts. Python's own are 256 KiB, and 512 to a slow client.
    """
    sslproto.SSLProtocol.max_size = PIECE
    for direction in ("READ", "WRITE"):
        setattr(constants, f"FLOW_CONTROL_HIGH_WATER_SSL_{direction}", PIECE >> 10)


async def _run(server: uvicorn.Server) -> None:
    """Serve; a port in use ends this task, not the process."""
    with contextlib.suppress(SystemExit):
        await server.serve()


async def _supervise(coordinator: Coordinator, stop: asyncio.Event, say: Callable[[str], None]) -> None:
    """Keep the executor running until `stop` is set."""
    pause = FIRST_PAUSE
    while not stop.is_set():
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("flower-superexec")),
            *("--insecure", "--runtime-api-address", f"{LOCAL}:{coordinator.config.admin_port}"),
            *("--superexec-auth-secret-file", str(coordinator.secret_file)),
            *("--parent-pid", str(os.getpid())),
            env=environment(coordinator.folder / "flower") | {FOLDER_VARIABLE: str(coordinator.folder)},
        )
        ended = asyncio.create_task(process.wait())
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            process.terminate()
            try:
                await asyncio.wait_for(ended, STOP_SECONDS)
            except TimeoutError:
                process.kill()
            stopped.cancel()
            return
        stopped.cancel()
        say(f"the executor ended with {process.returncode}; starting it again in {pause:.0f} s")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), pause)
        pause = min(2 * pause, LONGEST_PAUSE)
