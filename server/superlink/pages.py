"""Our own pages on the public port, for enrolled sites: how the coordinator sees you, and the released models."""

from collections.abc import Callable
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from server.registry import Registry
from shared_model.released import RELEASED, SIGNATURE
from shared_model.shell import DIGEST
from shared_model.wire import RELEASE


def build(registry: Registry, online: Callable[[], set[int]], releases: Path) -> Starlette:
    """The pages; the door has put the site's name into the request."""

    def hello(request: Request) -> Response:
        site = request.scope["site"]
        row = registry.sites().get(site)
        if row is None:  # revoked since the door let it in
            return JSONResponse({"detail": f"the enrolment of '{site}' was revoked"}, 401)
        return JSONResponse(
            {"site": site, "release": RELEASE, "shell": DIGEST, "online": row.node is not None and row.node in online()}
        )

    def models(request: Request) -> Response:
        found = sorted(path.name for path in releases.iterdir() if (path / SIGNATURE).exists())
        return JSONResponse({"models": found})

    def model(request: Request) -> Response:
        run, name = request.path_params["run"], request.path_params["name"]
        file = releases / run / name
        known = name in RELEASED and run in {path.name for path in releases.iterdir()}
        if not known or file.parent.is_symlink() or file.is_symlink() or not file.is_file():
            return JSONResponse({"detail": "no such file"}, 404)
        return FileResponse(file)

    releases.mkdir(parents=True, exist_ok=True)
    return Starlette(
        routes=[
            Route("/v1/site/hello", hello),
            Route("/v1/site/models", models),
            Route("/v1/site/models/{run}/{name}", model),
        ]
    )
