"""A hospital's first steps: its key, its config, and what a plan means in plain words."""

from dataclasses import dataclass
from pathlib import Path

from client.privacy.floor import agreed
from shared_model.checkpoint import write_bytes
from shared_model.config import DataConfig, Plan, SiteConfig
from shared_model.errors import ConfigError, RefusedError
from shared_model.signing import create_site_key, fingerprint, to_line
from shared_model.skeleton import skeleton
from shared_model.tasks import TASKS


@dataclass(frozen=True)
class Made:
    """What `create` made.

    Attributes:
        public_key: the file to send.
        fingerprint: what to read out by telephone.
    """

    config: Path
    public_key: Path
    fingerprint: str


def create(folder: Path, name: str) -> Made:
    """Write config.yaml, site.pub and the private key below state/ (mode 0600).

    Raises:
        ConfigError: there is a config or a key already, or the name will not do.
    """
    path = folder / "config.yaml"
    if path.exists():
        raise ConfigError(f"{path}: there is a config already", "name another --folder")
    data = DataConfig(folder=Path("cases"), labels=Path("cases.csv"))
    try:
        config = SiteConfig(site=name, data=data, tasks=tuple(TASKS), state=Path("state"))
    except ValueError:
        raise ConfigError(f"'{name}' is no name for a site", "use a-z, 0-9 and dashes, at most 40") from None
    key = create_site_key(folder / config.key)
    (folder / config.state).chmod(0o700)
    write_bytes(folder / "site.pub", f"{to_line(key)} {name}\n".encode())
    write_bytes(path, skeleton(config).encode())
    return Made(path, folder / "site.pub", fingerprint(key))


def in_words(plan: Plan, config: SiteConfig) -> list[str]:
    """What a plan would have this hospital do, a line each."""
    tasks = [TASKS[task].title for task in plan.tasks if task in config.tasks]
    training = plan.training
    crop = " x ".join(str(side) for side in training.crop)
    return [
        f"plan {plan.name}, hash {plan.digest()}",
        f"sites: {', '.join(plan.sites)}",
        f"{plan.rounds} rounds, each with {training.local_steps} steps on {training.batch_size} crops of {crop} voxels",
        f"this hospital trains: {', '.join(tasks) or 'nothing'}",
        f"the network: MTS-UNET, preset {plan.model.preset}; updates are combined by {plan.aggregation.rule}",
        "each round the weights it trained leave this hospital, with counts of cases rounded down to multiples of "
        f"{config.minimum_cell}, and results on held-out cases ({', '.join(config.policy.metrics) or 'none'})",
        "a released model is offered to every enrolled hospital; its card shows each site's permitted counts and "
        "results under a number that is drawn anew",
        _privacy(plan, config),
    ]


def _privacy(plan: Plan, config: SiteConfig) -> str:
    try:
        own = agreed(config, plan)
    except RefusedError as error:
        return f"this hospital would decline: {error.what}"
    if own is None:
        return "no differential privacy: the coordinator sees this hospital's update as it is"
    return (
        f"differential privacy: each patient's gradient is cut to norm {own.clip:g}, a step takes a patient with "
        f"probability {own.rate:.3g}, and noise of {own.noise:g} times that norm is added "
        f"(what it costs: mtsunet-client plan-privacy --site CONFIG {plan.digest()[:12]})"
    )
