"""A hospital's config file."""

from pathlib import Path

from shared_model.config import SiteConfig, load_config

SITE_VARIABLE = "MTSUNET_SITE"
"""Environment variable by which a message's process finds the config file."""


def load_site(path: Path) -> SiteConfig:
    """A hospital's config; its relative paths are taken from the file's folder.

    Raises:
        ConfigError: see load_config.
    """
    config = load_config(SiteConfig, path)
    base = path.resolve().parent
    raw = None if config.raw is None else config.raw.below(base)
    invitation = None if config.invitation is None else base / config.invitation
    update = {"data": config.data.below(base), "raw": raw, "state": base / config.state, "invitation": invitation}
    return config.model_copy(update=update)
