"""The weights of a committed round on their way to the sites: whole, or as the change since those before them."""

from server.store import RunStore
from shared_model import wire
from shared_model.parameters import Tensors


class Delivery:
    """One round's weights, for all sites that get them.

    Attributes:
        tensors, digest: the weights, whole.
        bytes: of the tensors that were sent so far.
    """

    def __init__(self, store: RunStore, index: int, made: tuple[Tensors, Tensors | None] | None = None) -> None:
        """
        Args:
            made: model and change, where the round was committed just now; else they are read.

        Raises:
            WeightsError, RunError: a file of the round is damaged.
        """
        self.tensors, self._change = made or (store.model(index), store.change(index))
        self.digest: str = store.manifest(index)["digest"]
        self.bytes = 0
        if self._change is not None:
            self._since: str = store.manifest(index - 1)["digest"]
            self._holders = set(store.record(index)["sites"])

    def to(self, site: str, header: wire.Work | wire.Closing, whole: bool = False) -> tuple[str, Tensors]:
        """Header text and tensors for a site; the change, unless `whole`, where its answer is part of the round.

        Such a site kept what it answered to; if it has not, it says so.
        """
        tensors = self.tensors
        if self._change is not None and not whole and site in self._holders:
            header, tensors = header.model_copy(update={"change_of": self._since}), self._change
        self.bytes += sum(value.nbytes for value in tensors.values())
        return wire.encode(header), tensors
