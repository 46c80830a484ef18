"""The monitor as a callback of Lightning.

>>> from pylinregion.adapters.lightning import MonitorCallback
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from pylinregion._util.optional import optional
from pylinregion.monitor.training_monitor import Monitor


def _library() -> str:
    """The name that Lightning has here: the one that is in use, else one that is installed."""
    names = ("lightning.pytorch", "pytorch_lightning")
    in_use = [name for name in names if sys.modules.get(name) is not None]
    installed = [name for name in names if importlib.util.find_spec(name.split(".")[0]) is not None]
    return (*in_use, *installed, *names)[0]


_lightning: Any = optional(_library(), "this callback", "lightning")


class MonitorCallback(_lightning.Callback):  # type: ignore[misc]
    """Measures before a ``Trainer`` takes its first step, then after steps of the optimiser as the monitor decides.

    Records go to the trainer's loggers, at their step, and to the sinks. They are saved with the trainer's checkpoints
    and go on from there when it is resumed.

    Args:
        probes, radius, settings: Of :class:`pylinregion.Monitor`.
        module: What of the ``LightningModule`` to measure: a function that returns a module which takes points; None:
            the ``LightningModule`` itself. It is called once.

    Attributes:
        monitor: The monitor, from the start of the training on.

    Raises:
        ModuleNotFoundError: On import of this module: neither lightning nor pytorch-lightning is installed
            (``pip install "pylinregion[lightning]"``).
    """

    def __init__(
        self,
        probes: Mapping[str, Tensor | tuple[Tensor, Tensor]],
        radius: float | None = None,
        *,
        module: Callable[[Any], nn.Module] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        self.monitor: Monitor | None = None
        self._make: Callable[[nn.Module], Monitor] = lambda model: Monitor(model, probes, radius, **settings)
        self._module = module
        self._state: dict[str, float] | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Make the monitor: the model is where it trains now. Measure, unless training goes on from a checkpoint."""
        self.monitor = self._make(pl_module if self._module is None else self._module(pl_module))
        if self._state is not None:
            self.monitor.load_state_dict(self._state)
        else:
            self._log(trainer, self.monitor.measure())

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        """Count a step of the optimiser, unless gradients are still being accumulated."""
        assert self.monitor is not None
        while self.monitor.steps < trainer.global_step:
            self._log(trainer, self.monitor.step())

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Close the sinks."""
        if self.monitor is not None:
            self.monitor.close()

    def state_dict(self) -> dict[str, Any]:
        """The monitor's, for the trainer's checkpoint."""
        return {} if self.monitor is None else self.monitor.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state until the monitor is made."""
        self._state = dict(state_dict) or None

    def _log(self, trainer: Any, record: dict[str, float] | None) -> None:
        if record is not None:
            metrics = {key: value for key, value in record.items() if key != "step"}
            for logger in trainer.loggers:
                logger.log_metrics(metrics, step=int(record["step"]))
