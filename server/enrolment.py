"""The invitation: what a hospital needs to join, in one file. Nothing in it is secret; its reader trusts the CA and the
release key in it, so it is handed over by a way that both sides trust.
"""

from pathlib import Path

from server.certificates import read_certificate
from server.coordinator import Coordinator
from shared_model.checkpoint import write_bytes
from shared_model.config import Invitation
from shared_model.signing import release_public_key
from shared_model.skeleton import skeleton


def write_invitation(coordinator: Coordinator, site: str) -> Path:
    """Write invitations/SITE.yaml.

    Raises:
        ConfigError: the authority or the release key cannot be read.
    """
    read_certificate(coordinator.authority)
    invitation = Invitation(
        site=site,
        address=coordinator.config.address,
        authority=coordinator.authority.read_text(),
        release_key=release_public_key(coordinator.release_key),
    )
    path = coordinator.folder / "invitations" / f"{site}.yaml"
    write_bytes(path, skeleton(invitation).encode())
    return path
