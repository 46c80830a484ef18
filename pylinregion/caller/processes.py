"""Processes of ``torch.distributed`` that work together: who does what, and how results come together."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from pylinregion._util.errors import PylinregionError

Piece = TypeVar("Piece")


@dataclass(frozen=True)
class Ranks:
    """The processes that work together.

    Attributes:
        rank: This one's number.
        world: How many there are.
        group: Of ``torch.distributed``; None: the default group.
    """

    rank: int
    world: int
    group: Any = None

    @classmethod
    def current(cls) -> Ranks:
        """Those of ``torch.distributed``; this process alone where that is not initialised."""
        if distributed.is_available() and distributed.is_initialized():
            return cls(distributed.get_rank(), distributed.get_world_size())
        return ALONE

    @classmethod
    def beside_training(cls) -> Ranks:
        """The same in a group of their own, whatever the training's backend: all of them must call this.

        The group is gloo's, on the CPU: what is exchanged is small, it cannot mix with what training exchanges, and
        gloo notices at once that a process has ended, where NCCL waits for its time limit.

        Raises:
            PylinregionError: Gloo is not there, or a process did not come.
        """
        ranks = cls.current()
        if ranks.world == 1:
            return ranks
        if not distributed.is_gloo_available():
            raise PylinregionError("sharing points needs torch's gloo, which this build has not: give shared=False")
        with _all_there():
            return cls(ranks.rank, ranks.world, distributed.new_group(backend="gloo"))

    def first(self, make: Callable[[], Any]) -> Any:
        """What process 0 makes, for all; an error of it is raised by all."""
        if self.world == 1:
            return make()
        answer: list[Any] = [None]
        if self.rank == 0:
            try:
                answer = [(make(), None)]
            except Exception as error:
                answer = [(None, error)]
        distributed.broadcast_object_list(answer, src=0, group=self.group)
        value, wrong = answer[0]
        if wrong is not None:
            raise wrong
        return value

    def part(self, count: int) -> slice:
        """This process's part of so many things in order; of few things, process 0 gets the fewest."""
        return slice(self.rank * count // self.world, (self.rank + 1) * count // self.world)

    def own(self, pieces: Sequence[Piece]) -> Sequence[Piece]:
        """This process's part of some pieces."""
        return pieces[self.part(len(pieces))]

    # What follows is for a group of its own: tensors go by way of the CPU. A process that is not there any more is a
    # PylinregionError.

    def agreed(self, number: int) -> int:
        """Process 0's number, for all."""
        if self.world == 1:
            return number
        told = torch.tensor([number], device="cpu")
        with _all_there():
            distributed.broadcast(told, 0, self.group)
        return int(told)

    def gathered(self, *numbers: int) -> list[list[int]]:
        """The numbers of each process, in order."""
        if self.world == 1:
            return [list(numbers)]
        own = torch.tensor(numbers, device="cpu")
        found = [torch.empty_like(own) for _ in range(self.world)]
        with _all_there():
            distributed.all_gather(found, own, self.group)
        return [each.tolist() for each in found]

    def summed(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Sums of integer tensors over the processes: the whole, if each has its part, and zeros elsewhere."""
        if self.world == 1:
            return tensors
        flat = torch.cat([tensor.reshape(-1).to("cpu", torch.int64) for tensor in tensors])
        with _all_there():
            distributed.all_reduce(flat, group=self.group)
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        return tuple(part.view(tensor.shape).to(tensor) for part, tensor in zip(parts, tensors, strict=True))

    def take_from_first(self, tensors: Sequence[Tensor]) -> None:
        """Write process 0's values into tensors of the same shapes; those that are equal are left alone."""
        if self.world == 1 or not tensors:
            return
        flat = [tensor.detach().to("cpu", copy=True).reshape(-1).view(torch.uint8) for tensor in tensors]
        together = torch.cat(flat)
        with _all_there():
            distributed.broadcast(together, 0, self.group)
        for tensor, own, told in zip(tensors, flat, torch.split(together, [len(each) for each in flat]), strict=True):
            if not torch.equal(own, told):
                with torch.no_grad():
                    tensor.copy_(told.clone().view(tensor.dtype).view(tensor.shape))


ALONE = Ranks(0, 1)


def checksum(tensors: Sequence[Tensor]) -> int:
    """A number below 2^63 that tells weights apart: sums of their bits, which takes one look at each."""
    whole = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    total = 0
    for tensor in tensors:
        numbers = torch.view_as_real(tensor.detach()) if tensor.is_complex() else tensor.detach()
        bits = numbers.reshape(-1).view(whole[numbers.itemsize])
        total = (31 * total + int(bits.sum(dtype=torch.int64))) % 2**63
    return total


@contextlib.contextmanager
def _all_there() -> Iterator[None]:
    """Say what it means that a connection was closed, or that a time limit is over."""
    try:
        yield
    except RuntimeError as error:
        raise PylinregionError(
            "all ranks share the points, and one of them ended, or did not come before the time limit; all must make "
            "the monitor, and call step() and measure() alike"
        ) from error
