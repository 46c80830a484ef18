"""The processes that ``torchrun`` starts for the command line."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

import torch
from torch import distributed

from pylinregion._util.errors import PylinregionError


@contextlib.contextmanager
def processes(device: torch.device) -> Iterator[tuple[int, torch.device]]:
    """The processes that ``torchrun`` started, or this one alone; gives its number and its device.

    A process that is told to end (``torchrun`` does so when another one has failed) says that shards are kept.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield 0, device
        return

    def ended(number: int, frame: object) -> None:
        raise PylinregionError("ended from outside. Shards that are done are kept: run the same again to go on")

    before = signal.signal(signal.SIGTERM, ended)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group("gloo")
    try:
        yield distributed.get_rank(), device
    finally:
        distributed.destroy_process_group()
        signal.signal(signal.SIGTERM, before)
