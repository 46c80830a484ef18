"""The papers' settings, by name. docs/experiments.md has them in a table, with their sources.

A: Humayun, Balestriero, Baraniuk, "Deep Networks Always Grok and Here is Why" (arXiv 2402.15555).
B: Tan, Huang, "Understanding Grokking Through A Robustness Viewpoint" (arXiv 2311.06597).
C: Fan, Pascanu, Jaggi, "Deep Grokking: Would Deep Neural Networks Generalize Better?" (arXiv 2405.19454).

Each preset has a twin, ``NAME-small``, that runs in minutes on two cores with bundled or generated data.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pylinregion.experiments.config import Config, Data, Measuring, Model, Training, changed

_ROBUST = ("accuracy", "local_complexity", "robust_accuracy", "weight_norm")
_MODULAR = ("accuracy", "local_complexity", "weight_norm", "commutativity", "entropies", "perturbation_error")


@dataclass(frozen=True)
class Preset:
    """An experiment with a name.

    Attributes:
        config: Its settings.
        source: The figure that it is of.
        shows: What the paper sees there.
    """

    config: Config
    source: str
    shows: str


_MNIST_MLP = Config(
    name="mnist-mlp",
    data=Data("mnist", train_points=1000),
    model=Model("mlp", width=200, depth=4),
    training=Training(steps=100_000, batch=200, weight_decay=0.01, loss="mse", dtype="float64"),
    measuring=Measuring(
        radius=0.05, include_output=True, points=None, attack_steps=100, quantities=(*_ROBUST, "slice")
    ),
)
_CIFAR10 = Config(
    data=Data("cifar10", train_points=None),
    training=Training(steps=500_000, batch=256, weight_decay=0.0, loss="cross_entropy", loss_dtype="float32"),
    measuring=Measuring(quantities=_ROBUST),
)
_MODULAR_ADDITION = Config(
    name="modular-addition",
    data=Data("modular", modulus=113, train_share=0.3),
    model=Model("transformer", width=128, depth=1, heads=4),
    training=Training(
        steps=15_000, batch=None, weight_decay=1.0, betas=(0.9, 0.98), loss="cross_entropy", checkpoint_every=500
    ),
    measuring=Measuring(quantities=_MODULAR, sigma=0.4),
)
_DEEP_MLP = Config(
    name="deep-mlp",
    data=Data("mnist", train_points=2000, order="first"),
    model=Model("mlp", width=400, depth=12, init_scale=8.0),
    training=Training(steps=100_000, batch=200, weight_decay=0.01, loss="mse", dtype="float64"),
    measuring=Measuring(
        radius=0.05,
        include_output=True,
        quantities=(
            "accuracy",
            "local_complexity",
            "weight_norm",
            "last_layer_norm",
            "feature_ranks",
            "linear_probes",
        ),
    ),
)

_FULL = {
    "mnist-mlp": Preset(
        _MNIST_MLP,
        "A, figure 2",
        "Accuracies settle within 100 steps. Local complexity at training points falls (4.9 to 1.65 at step 27), rises "
        "(4.5 at step 670), and falls for good (0.2 at the end); meanwhile adversarial accuracy comes back.",
    ),
    "mnist-mlp-scaled": Preset(
        changed(_MNIST_MLP, {"name": "mnist-mlp-scaled", "model.init_scale": 8.0}),
        "A, figures 7, 10 and 26",
        "Train accuracy is 100 % at step 3 300, test accuracy 12 % there and 80 % at step 39 000. Local complexity has "
        "no first descent: it rises to 18 at about step 5 000 and falls to 1.",
    ),
    "cifar10-resnet18": Preset(
        replace(_CIFAR10, name="cifar10-resnet18", model=Model("resnet18", width=16)),
        "A, figure 1",
        "Test accuracy is 74 % at step 1 000. Adversarial accuracy (0.06) falls to 3 %, is 18 % at step 100 000 and "
        "74 % at 300 000. Local complexity at training points: 53, 41 at step 30, 66 at about 1 000, 35 at 300 000.",
    ),
    "cifar10-cnn": Preset(
        replace(_CIFAR10, name="cifar10-cnn", model=Model("cnn", width=16)),
        "A, figure 6a",
        "Test accuracy is 69 % at step 1 000, adversarial accuracy (0.06) 7 to 10 % until step 30 000, then up to 70 "
        "%. Local complexity at training points: 11.5, 8.4, 16.3 at about 2 000, 6.9.",
    ),
    "modular-addition": Preset(
        _MODULAR_ADDITION,
        "A, figure 8; B, figures 1, 2, 5, 7 to 10 (standard training)",
        "Train accuracy is 100 % at step 400, test accuracy rises much later. Local complexity rises, then falls as "
        "the network generalises. A network that has not grokked fails the Abelian test. Moduli, rates and steps of A "
        "were not found: the settings are those of Nanda et al. (arXiv 2301.05217), which B names.",
    ),
    "gpt-char": Preset(
        Config(
            name="gpt-char",
            data=Data("characters", train_points=None, test_points=1024, context=64),
            model=Model("gpt", width=240, depth=12, heads=12, activation="gelu"),
            training=Training(steps=220_000, batch=64, weight_decay=0.0, loss="cross_entropy"),
            measuring=Measuring(quantities=_ROBUST, eps=(0.03,), points=128, attack_points=256),
        ),
        "A, figure 9",
        "Next characters of Shakespeare: test accuracy is best, 57.6 %, at step 828; adversarial accuracy (0.03) rises "
        "from 0 at step 330 to 47.7 %. Local complexity, in the MLPs: falls, peaks at step 179, falls.",
    ),
    "deep-mlp": Preset(
        _DEEP_MLP,
        "C, figure 1; with other depths and sizes figures 2 to 7",
        "Depth 12, 2 000 points: train accuracy rises at 29 000 to 47 000 steps, test accuracy from then on, to 91.5 "
        "%. Ranks of all layers stay near 400 until step 47 000; then deep layers fall to about 50, and linear probes "
        "of all layers, before that at 85 to 89 % behind the first and 16 to 25 % behind the last, rise at once.",
    ),
    "perturbed": Preset(
        changed(_MODULAR_ADDITION, {"name": "perturbed", "training.noise": (0.5, 0.4)}),
        "B, figures 4b, 5 and 7",
        "With noise on the embeddings modular addition generalises sooner than without, and passes the Abelian test "
        "right after it fits the training set.",
    ),
    "perturbed-mnist": Preset(
        changed(
            _MNIST_MLP,
            {
                "name": "perturbed-mnist",
                "model": {"depth": 3, "init_scale": 8.0},
                "training.noise": (0.06, 0.03),
                "measuring.quantities": (*_ROBUST, "entropies", "perturbation_error"),
            },
        ),
        "B, figure 4a",
        "With noise on the pixels the scaled MNIST network generalises sooner than without.",
    ),
    "commutative": Preset(
        changed(_MODULAR_ADDITION, {"name": "commutative", "training.commutative": 100.0}),
        "B, figure 6",
        "With the penalty on f(a, b) - f(b, a) modular addition generalises sooner still.",
    ),
}

_DIGITS = {"name": "digits", "train_points": 150}
_SMALL_MODULAR: dict[str, Any] = {
    "data": {"modulus": 59, "train_share": 0.5},
    "model.width": 64,
    "training": {"steps": 3000, "learning_rate": 2e-3},
    "measuring": {"points": 500, "records": 60},
}
_SMALL: dict[str, Mapping[str, Any]] = {
    "mnist-mlp": {
        "data": {**_DIGITS, "train_points": 300},
        "model.width": 100,
        "training": {"steps": 20_000, "batch": 60, "learning_rate": 4e-3},
        "measuring": {"records": 60, "points": 500, "attack_points": 200, "attack_steps": 20, "eps": (0.03, 0.06, 0.1)},
    },
    "mnist-mlp-scaled": {
        "data": _DIGITS,
        "model.depth": 3,
        "training": {"steps": 25_000, "batch": 50, "learning_rate": 6e-3, "weight_decay": 0.035},
        "measuring": {
            "records": 50,
            "points": 500,
            "radius": 0.1,
            "attack_points": 200,
            "attack_steps": 20,
            "eps": (0.03, 0.06, 0.1),
        },
    },
    "cifar10-resnet18": {
        "data": {**_DIGITS, "train_points": 500},
        "model.width": 4,
        "training": {"steps": 2000, "batch": 50},
        "measuring": {"records": 30, "points": 100, "attack_points": 100, "eps": (0.03, 0.06, 0.1)},
    },
    "cifar10-cnn": {
        "data": {**_DIGITS, "train_points": 500},
        "model.width": 4,
        "training": {"steps": 5000, "batch": 50},
        "measuring": {"records": 40, "points": 200, "attack_points": 200, "eps": (0.03, 0.06, 0.1)},
    },
    "modular-addition": _SMALL_MODULAR,
    "perturbed": _SMALL_MODULAR,
    "commutative": _SMALL_MODULAR,
    "gpt-char": {
        "data": {"context": 16, "test_points": 256},
        "model": {"width": 48, "depth": 2, "heads": 4},
        "training": {"steps": 3000, "batch": 64},
        "measuring": {"records": 40, "points": 64, "attack_points": 128},
    },
    "deep-mlp": {
        "data": {**_DIGITS, "order": "random"},
        "model": {"width": 100, "depth": 8, "init_scale": 4.0},
        "training": {"steps": 25_000, "batch": 50, "learning_rate": 3e-3, "weight_decay": 0.035},
        "measuring": {"records": 50, "points": 300, "radius": 0.1},
    },
    "perturbed-mnist": {
        "data": _DIGITS,
        "training": {"steps": 25_000, "batch": 50, "learning_rate": 6e-3, "weight_decay": 0.035},
        "measuring": {
            "records": 50,
            "points": 500,
            "radius": 0.1,
            "attack_points": 200,
            "attack_steps": 20,
            "eps": (0.03, 0.06, 0.1),
        },
    },
}

PRESETS: dict[str, Preset] = {}
for _name, _full in _FULL.items():
    PRESETS[_name] = _full
    PRESETS[f"{_name}-small"] = replace(
        _full, config=changed(_full.config, {**_SMALL[_name], "name": f"{_name}-small"})
    )


def preset(name: str) -> Config:
    """The settings of a preset.

    Raises:
        ValueError: There is none of this name.

    >>> preset("mnist-mlp-scaled").model.init_scale
    8.0
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(f"the experiment must be one of {', '.join(PRESETS)}, got {name!r}{hint}")
    return PRESETS[name].config
