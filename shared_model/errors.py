"""Named errors. Each says in one line what is wrong, where, and what to do; a command prints that line alone."""

EXIT_INPUT = 2
"""Exit code for input that has to be mended: a config, a plan, a case, a weights file."""
EXIT_RUN = 3
"""Exit code for a run that could not go on: too few sites, no admitted reply."""
LONGEST = 2000
"""Characters of a fault that are kept."""


def one_line(text: str) -> str:
    """The text as it may stand in a log or on a terminal: names from outside in it can neither end the line nor hold an
    escape sequence, nor fill a disk."""
    kept = text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in kept)


class MtsunetError(Exception):
    """What is wrong, where, and the remedy.

    Args:
        what: the fault with the file or field it sits in, e.g. "plan.yaml: training.crop: 48 is no multiple of 32".
        remedy: what the reader can do about it, as an imperative sentence without a full stop.
    """

    exit_code = EXIT_INPUT

    def __init__(self, what: str, remedy: str) -> None:
        what, remedy = one_line(what), one_line(remedy)
        super().__init__(f"{what}. {remedy[:1].upper()}{remedy[1:]}.")
        self.what = what
        self.remedy = remedy

    def __reduce__(self) -> tuple[type["MtsunetError"], tuple[str, str]]:
        return type(self), (self.what, self.remedy)


class ConfigError(MtsunetError):
    """A configuration or plan file that cannot be used."""


class DataError(MtsunetError):
    """A case, a label table or an image file that cannot be used."""


class WeightsError(MtsunetError):
    """A pretrained file or a checkpoint that cannot be used."""


class WireError(MtsunetError):
    """A message that does not follow the schema of wire.py."""


class RefusedError(MtsunetError):
    """A reply that admission refuses, or a request that a site refuses. The federation goes on without it."""


class LackingError(RefusedError):
    """A site lacks the weights that a change is told against; it has to be sent them whole."""


class RunError(MtsunetError):
    """A run that cannot go on as it stands."""

    exit_code = EXIT_RUN
