"""What this hospital asks the coordinator beside Flower's own traffic: how it is seen, and released models."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from shared_model.config import Invitation, SiteConfig, load_config
from shared_model.errors import ConfigError, RunError
from shared_model.shell import DIGEST
from shared_model.signing import CLOCK_REFUSED, SitePrivateKey, signed_headers
from shared_model.wire import RELEASE

TIMEOUT_SECONDS = 20.0
PAGE_BYTES = 1 << 20
"""Most bytes of an answer, but for a model."""


class UnreachableError(RunError):
    """No coordinator answers: the network, a proxy, or the coordinator is down. Worth trying again."""


class RefusedHereError(RunError):
    """The coordinator answers, and will not have us, or we not it. Somebody has to mend something."""


class ClockError(RefusedHereError):
    """The clocks differ too much. Somebody has to mend one, or a time service does so soon."""


@dataclass(frozen=True)
class Hello:
    """How the coordinator sees this hospital.

    Attributes:
        release: the coordinator's.
        online: whether a node with this key is connected now.
        ahead: seconds that this machine's clock is ahead of the coordinator's.
    """

    release: str
    online: bool
    ahead: float


def read_invitation(config: SiteConfig) -> Invitation:
    """The invitation that the config names.

    Raises:
        ConfigError: none named, unreadable, or for another site.
    """
    if config.invitation is None:
        raise ConfigError("invitation: missing", "name the file that the coordinator sent when it enrolled this site")
    invitation = load_config(Invitation, config.invitation)
    if invitation.site != config.site:
        raise ConfigError(f"invitation: it is for '{invitation.site}', this site is '{config.site}'", "use your own")
    return invitation


def hello(
    invitation: Invitation, key: SitePrivateKey, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> Hello:
    """Ask the coordinator how it sees us.

    Raises:
        UnreachableError: no answer.
        RefusedHereError: with the coordinator's own words, or what is wrong with its certificate or release.
        ClockError: the clocks differ too much.
    """
    with _client(invitation) as client:
        response = _get(client, "/v1/site/hello", key, clock(), PAGE_BYTES)
        ahead = _ahead(response, clock())
    try:
        values = response.json()
        found, shell = Hello(str(values["release"]), values["online"] is True, ahead), values["shell"]
    except (ValueError, KeyError, TypeError, RecursionError):
        what = f"{invitation.address}: what answers there is no coordinator of this software"
        raise RefusedHereError(what, "check the address in the invitation, and the proxy") from None
    if found.release != RELEASE or shell != DIGEST:
        what = f"the coordinator runs release {found.release}, this client is {RELEASE}"
        raise RefusedHereError(what, "install the same release on both sides")
    return found


def fetch(invitation: Invitation, key: SitePrivateKey, path: str, limit: int = PAGE_BYTES) -> bytes:
    """A page of the coordinator's, e.g. a file of a released model.

    Args:
        limit: bytes that it may have.

    Raises:
        UnreachableError, RefusedHereError: as for `hello`; or it is longer.
    """
    with _client(invitation) as client:
        return _get(client, f"/v1/site/{path}", key, datetime.now(UTC), limit).content


def _client(invitation: Invitation) -> httpx.Client:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=invitation.authority)
    except (ssl.SSLError, ValueError):
        raise ConfigError("invitation: authority: no certificate", "ask the coordinator to send it again") from None
    return httpx.Client(base_url=f"https://{invitation.address}", verify=context, timeout=TIMEOUT_SECONDS)


def _get(client: httpx.Client, path: str, key: SitePrivateKey, now: datetime, limit: int) -> httpx.Response:
    where = client.base_url.netloc.decode()
    try:
        response = _whole(client, path, signed_headers(key, now), limit)
    except httpx.ConnectError as error:
        cause = _ssl_cause(error)
        if isinstance(cause, ssl.SSLCertVerificationError):
            what = f"{where}: its certificate is not vouched for by the invitation's authority ({cause.verify_message})"
            raise RefusedHereError(what, "ask the coordinator for a new invitation") from None
        if isinstance(cause, ssl.SSLError) and "WRONG_VERSION_NUMBER" in str(cause):
            remedy = "check the address in the invitation, and the proxy"
            raise RefusedHereError(f"{where}: what answers there speaks plain HTTP, not TLS", remedy) from None
        raise UnreachableError(f"{where}: cannot be reached", "check the network, the firewall and the proxy") from None
    except httpx.ProxyError as error:
        raise UnreachableError(f"{where}: the proxy refuses ({error})", "ask IT to let this address through") from None
    except httpx.HTTPError as error:
        raise UnreachableError(f"{where}: {type(error).__name__}", "check the network and the proxy") from None
    if response.status_code >= 500:
        raise UnreachableError(f"{where}: answers {response.status_code}", "wait, or ask the coordinator")
    if response.status_code == 401 and _value(response, "code") == CLOCK_REFUSED:
        raise ClockError(f"{where}: {_words(response)}", "let NTP set this machine's clock, or ask the coordinator")
    if response.status_code != 200:
        raise RefusedHereError(f"{where}: {_words(response)}", "ask the coordinator")
    return response


def _whole(client: httpx.Client, path: str, headers: dict[str, str], limit: int) -> httpx.Response:
    """An answer with its body as it was sent: a compressed one is not unpacked, since a few bytes may become gigabytes.

    Raises:
        RefusedHereError: the body is longer than `limit`.
    """
    body = bytearray()
    with client.stream("GET", path, headers={**headers, "accept-encoding": "identity"}) as response:
        for piece in response.iter_raw():
            body += piece
            if len(body) > limit:
                where = client.base_url.netloc.decode()
                raise RefusedHereError(f"{where}: answers with more than {limit} bytes", "ask the coordinator")
    date = {"date": response.headers["date"]} if "date" in response.headers else {}
    return httpx.Response(response.status_code, headers=date, content=bytes(body))


def _ssl_cause(error: BaseException | None) -> ssl.SSLError | None:
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    return error


def _words(response: httpx.Response) -> str:
    return str(_value(response, "detail") or f"answers {response.status_code}")[:300]


def _value(response: httpx.Response, name: str) -> object:
    """A field of a refusal; None where it has none."""
    try:
        return response.json()[name]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _ahead(response: httpx.Response, now: datetime) -> float:
    """Of our clock, by the whole seconds of the coordinator's Date."""
    try:
        return (now - parsedate_to_datetime(response.headers["date"])).total_seconds()
    except (KeyError, ValueError):
        return 0.0
