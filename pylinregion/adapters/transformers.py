"""The monitor as a callback of Hugging Face's ``Trainer``.

>>> from pylinregion.adapters.transformers import MonitorCallback
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from pylinregion._util.optional import optional
from pylinregion.monitor.training_monitor import Monitor

_transformers: Any = optional("transformers", "this callback", "transformers")

_KEY = "pylinregion.Monitor"


class MonitorCallback(_transformers.TrainerCallback):  # type: ignore[misc]
    """Measures before a ``Trainer`` takes its first step, then after steps of the optimiser as the monitor decides.

    Records go to the sinks. The monitor's state is saved in the trainer's checkpoints (``trainer_state.json``), and
    goes on from there with ``trainer.train(resume_from_checkpoint=...)``.

    Args:
        probes, radius, settings: Of :class:`pylinregion.Monitor`.
        module: What of the trainer's model to measure: a function that returns a module which takes points, a tensor,
            and returns a tensor; one that takes a language model's embeddings, say. None: the model itself. It is
            called once.

    Attributes:
        monitor: The monitor, from the start of the training on.

    Raises:
        ModuleNotFoundError: On import of this module: transformers is not installed
            (``pip install "pylinregion[transformers]"``).
    """

    def __init__(
        self,
        probes: Mapping[str, Tensor | tuple[Tensor, Tensor]],
        radius: float | None = None,
        *,
        module: Callable[[Any], nn.Module] | None = None,
        **settings: Any,
    ) -> None:
        self.monitor: Monitor | None = None
        self._make: Callable[[nn.Module], Monitor] = lambda model: Monitor(model, probes, radius, **settings)
        self._module = module

    def on_train_begin(self, args: Any, state: Any, control: Any, *, model: Any, **_: Any) -> None:
        """Make the monitor: the model is where it trains now. Measure, unless training goes on from a checkpoint."""
        self.monitor = self._make(model if self._module is None else self._module(model))
        if state.global_step == 0:
            self.monitor.measure()
        elif _KEY in state.stateful_callbacks:
            self.monitor.load_state_dict(state.stateful_callbacks[_KEY])
        else:
            raise ValueError(f"the checkpoint of step {state.global_step} was saved without a MonitorCallback")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Count a step of the optimiser."""
        assert self.monitor is not None
        self.monitor.step()
        state.stateful_callbacks[_KEY] = self.monitor.state_dict()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Close the sinks."""
        assert self.monitor is not None
        self.monitor.close()
