"""The papers' experiments on grokking: presets, one training loop, run folders, figures. See docs/experiments.md."""

from pylinregion.experiments.config import Config, Data, Measuring, Model, Training
from pylinregion.experiments.interventions import GaussianNoise, commutative_penalty, swapped
from pylinregion.experiments.presets import PRESETS, preset
from pylinregion.experiments.runner import run

__all__ = [
    "PRESETS",
    "Config",
    "Data",
    "GaussianNoise",
    "Measuring",
    "Model",
    "Training",
    "commutative_penalty",
    "preset",
    "run",
    "swapped",
]
