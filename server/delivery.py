"""The weights of a round on their way to the sites: whole, or as the change since those before them."""

from collections.abc import Collection
from dataclasses import dataclass, field

from server.store import RunStore
from shared_model import wire
from shared_model.parameters import Tensors


@dataclass(frozen=True)
class Change:
    """What a round's weights are told by to who holds those before.

    Attributes:
        tensors: by the plan's codec.
        since: digest of the weights before.
        holders: the sites whose answers are part of the round: each kept what it answered to, or says that it has not.
    """

    tensors: Tensors
    since: str
    holders: Collection[str]


@dataclass
class Delivery:
    """One round's weights, for all sites that get them.

    Attributes:
        tensors, digest: the weights, whole.
        bytes: of the tensors that were sent so far.
    """

    tensors: Tensors
    digest: str
    change: Change | None
    bytes: int = field(init=False, default=0)

    @classmethod
    def read(cls, store: RunStore, index: int) -> "Delivery":
        """Of a committed round.

        Raises:
            WeightsError, RunError: a file of the round is damaged.
        """
        change = None
        if (tensors := store.change(index)) is not None:
            change = Change(tensors, store.manifest(index - 1)["digest"], set(store.record(index)["sites"]))
        return cls(store.model(index), store.manifest(index)["digest"], change)

    def to(self, site: str, header: wire.Work | wire.Closing, whole: bool = False) -> tuple[str, Tensors]:
        """Header text and tensors for a site; the change, unless `whole`, where it holds what that is told against."""
        tensors = self.tensors
        if self.change is not None and not whole and site in self.change.holders:
            header, tensors = header.model_copy(update={"change_of": self.change.since}), self.change.tensors
        self.bytes += sum(value.nbytes for value in tensors.values())
        return wire.encode(header), tensors
