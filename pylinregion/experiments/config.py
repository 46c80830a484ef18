"""What an experiment is: frozen dataclasses of plain values, to and from JSON and the command line."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, cast

QUANTITIES = (
    "accuracy",
    "local_complexity",
    "robust_accuracy",
    "weight_norm",
    "last_layer_norm",
    "feature_ranks",
    "linear_probes",
    "commutativity",
    "entropies",
    "perturbation_error",
    "slice",
)

Section = TypeVar("Section")


@dataclass(frozen=True)
class Data:
    """The data.

    Attributes:
        name: ``"mnist"``, ``"cifar10"``, ``"digits"`` (scikit-learn's), ``"modular"`` (addition modulo a number), or
            ``"characters"`` (the next character of a text).
        path: Where the files are; see docs/experiments.md. None: scikit-learn's or torchvision's loader for images, a
            generated text of additions for ``"characters"``.
        train_points: Points to train on; None: all that there are. ``"modular"`` has ``train_share`` instead.
        test_points: Points to test on, at most; None: all that are left.
        order: Which points to train on: ``"random"`` ones by the seed, or the ``"first"``.
        label_noise: The share of training labels that are replaced by random ones, which may be right by chance.
        modulus, train_share: Of ``"modular"``: all pairs of numbers below ``modulus``, and the share to train on.
        context: Of ``"characters"``: the characters that are seen.
    """

    name: Literal["mnist", "cifar10", "digits", "modular", "characters"] = "mnist"
    path: str | None = None
    train_points: int | None = 1000
    test_points: int | None = None
    order: Literal["random", "first"] = "random"
    label_noise: float = 0.0
    modulus: int = 113
    train_share: float = 0.3
    context: int = 64


@dataclass(frozen=True)
class Model:
    """The network.

    Attributes:
        name: ``"mlp"``, ``"cnn"`` (5 convolutions, 2 linear layers), ``"resnet18"`` (pre-activation), ``"transformer"``
            (of pairs of numbers, without layer norm), ``"gpt"``.
        width: Neurons of a hidden layer, channels of the first convolution, or the size of embeddings (the hidden layer
            of a transformer's MLP is 4 times as wide).
        depth: Linear layers of the MLP, blocks of transformers. The other two have a depth of their own.
        heads: Of attention.
        activation: ``"relu"`` or ``"gelu"``.
        init_scale: Every parameter is multiplied by it after its usual initialisation.
        batch_norm: Whether convolutional networks have batch norm.
    """

    name: Literal["mlp", "cnn", "resnet18", "transformer", "gpt"] = "mlp"
    width: int = 200
    depth: int = 4
    heads: int = 4
    activation: Literal["relu", "gelu"] = "relu"
    init_scale: float = 1.0
    batch_norm: bool = False


@dataclass(frozen=True)
class Training:
    """How it is trained.

    Attributes:
        steps: Of the optimiser.
        batch: Points of a step; None: all. Each epoch is a new random order of the points; a last batch may be smaller.
        optimizer: ``"adamw"`` or ``"adam"`` (whose weight decay is part of the gradient).
        learning_rate, weight_decay, betas: Of the optimiser.
        loss: ``"mse"`` to one-hot labels or ``"cross_entropy"``.
        loss_dtype: Outputs are converted to it, and the loss is taken in it. Cross-entropy is exactly 0, and with it
            the gradient at the right class, for margins above 17 in float32, above 37 in float64.
        dtype: Of parameters and data.
        noise: ``(l1, l2)`` of :class:`pylinregion.experiments.GaussianNoise`; empty: none.
        commutative: Weight of :func:`pylinregion.experiments.commutative_penalty`; 0: none.
        checkpoint_every: Steps between checkpoints to resume from.
    """

    steps: int = 100_000
    batch: int | None = 200
    optimizer: Literal["adamw", "adam"] = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    betas: tuple[float, ...] = (0.9, 0.999)
    loss: Literal["mse", "cross_entropy"] = "mse"
    loss_dtype: Literal["float32", "float64"] = "float64"
    dtype: Literal["float32", "float64"] = "float32"
    noise: tuple[float, ...] = ()
    commutative: float = 0.0
    checkpoint_every: int = 5000


@dataclass(frozen=True)
class Measuring:
    """What is measured, and when.

    Attributes:
        records: At most this many steps, evenly spaced on a logarithmic axis, besides step 0.
        quantities: Of :data:`QUANTITIES`.
        radius, directions: Of neighbourhoods; one frame for all points and steps.
        include_output: Whether local complexity counts the outputs that change their sign too, as one more layer,
            ``"output"``: paper A's code does so for MLPs.
        points: Train, test and random points to take local complexity at, at most so many of each; None: all (and as
            many random points as test points).
        eps, attack_steps, attack_step_size, attack_points: Of robust accuracy, on test points; None: all.
        sigma: Of the noise of entropies and of the perturbation error, on training points.
        slice_points, slice_radius: Training points around which the exact regions of a slice are counted, and its size.
        probe_records: Linear probes are trained at so many of the records at most, evenly chosen, the last among them.
    """

    records: int = 100
    quantities: tuple[str, ...] = ("accuracy", "local_complexity", "robust_accuracy", "weight_norm")
    radius: float = 0.005
    directions: int = 25
    include_output: bool = False
    points: int | None = 1024
    eps: tuple[float, ...] = (0.03, 0.06, 0.10, 0.13, 0.16, 0.20)
    attack_steps: int = 10
    attack_step_size: float = 0.0156
    attack_points: int | None = 1000
    sigma: float = 0.1
    slice_points: int = 100
    slice_radius: float = 0.5
    probe_records: int = 25


@dataclass(frozen=True)
class Config:
    """An experiment.

    Attributes:
        name: Of the preset that it comes from.
        seed: Of the data's split, the initialisation, the batches, all noise and the frame.
        data, model, training, measuring: Its parts.

    Raises:
        ValueError: A value is out of its range, or two do not go together; the message names the key.
    """

    name: str = "mnist-mlp"
    seed: int = 0
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    training: Training = field(default_factory=Training)
    measuring: Measuring = field(default_factory=Measuring)

    def __post_init__(self) -> None:
        _check_ranges(self)
        _check_together(self)


def to_dict(config: Config) -> dict[str, Any]:
    """Plain values, for JSON."""
    return dataclasses.asdict(config)


def flat(values: Mapping[str, Any], within: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` as ``{"a.b": 1}``."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{within}{key}.") if isinstance(value, Mapping) else {within + key: value}
    return found


def changed(config: Config, changes: Mapping[str, Any]) -> Config:
    """The same with other values.

    Args:
        config: The experiment.
        changes: By key: a field, a ``section.field``, or a section with a mapping of its fields, as JSON has them.

    Raises:
        ValueError: A key is unknown, or a value is not one of those that are allowed.
        TypeError: A value has a wrong type.

    >>> changed(Config(), {"training.steps": 10, "model": {"depth": 3}}).model.depth
    3
    """
    return _replaced(config, _nested(changes), "")


_ADDED = {"training.loss_dtype": "float64", "measuring.include_output": False}


def completed(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in the ``config.json`` of a run, with the keys that were not there when an older version wrote it.

    Args:
        values: As JSON has them. If they are not all settings of a run, but some, nothing is added.

    Returns:
        By key: a field or a ``section.field``.
    """
    found = flat(values)
    whole = found.keys() | _ADDED.keys() == flat(to_dict(Config())).keys()
    return {**_ADDED, **found} if whole else found


def parse_setting(text: str) -> tuple[str, Any]:
    """``"training.steps=100"`` as the key, and the value that it spells in JSON; a string, if it is no JSON.

    Several values are separated by commas: ``"training.noise=0.5,0.4"``.

    Raises:
        ValueError: There is no ``=``.
    """
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ValueError(f"a setting must be key=value, such as training.steps=1000, got {text!r}")
    return key, parse_value(value)


def parse_value(text: str) -> Any:
    """A value of the command line."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        pass
    return [parse_value(part) for part in text.split(",") if part] if "," in text else text


def _nested(changes: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in changes.items():
        section, _, name = key.partition(".")
        if name:
            nested.setdefault(section, {})
            if isinstance(nested[section], dict):
                nested[section][name] = value
        elif isinstance(value, Mapping) and isinstance(nested.get(section, {}), dict):
            nested[section] = {**nested.get(section, {}), **value}
        else:
            nested[section] = value
    return nested


def _replaced(section: Section, changes: Mapping[str, Any], within: str) -> Section:
    hints = typing.get_type_hints(type(section))
    found = {}
    for name, value in changes.items():
        if name not in hints:
            raise ValueError(f"{within}{name} is unknown: expected one of {', '.join(within + key for key in hints)}")
        if dataclasses.is_dataclass(hints[name]):
            if not isinstance(value, Mapping):
                raise TypeError(f"{within}{name} must be a section with keys, got {value!r}")
            found[name] = _replaced(getattr(section, name), value, f"{name}.")
        else:
            found[name] = _converted(within + name, hints[name], value)
    return cast(Section, dataclasses.replace(cast(Any, section), **found))


def _converted(key: str, hint: Any, value: Any) -> Any:
    """A value of the type that a field says."""
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value not in options:
            raise ValueError(f"{key} must be one of {', '.join(map(repr, options))}, got {value!r}")
        return value
    if origin is types.UnionType:  # X | None
        wanted = next(option for option in options if option is not types.NoneType)
        return None if value is None else _converted(key, wanted, value)
    if origin is tuple:
        entries = list(value) if isinstance(value, (list, tuple)) else [] if value == "" else [value]
        return tuple(_converted(key, options[0], entry) for entry in entries)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is float and number:
        return float(value)
    if hint is int and number and float(value).is_integer():  # 1e5 is a number of steps
        return int(value)
    if hint in (str, bool) and isinstance(value, hint):
        return value
    words = {int: "an integer", float: "a number", str: "a string", bool: "true or false"}
    raise TypeError(f"{key} must be {words[hint]}, got {value!r}")


_AT_LEAST_ONE = (
    "data.train_points",
    "data.test_points",
    "data.context",
    "model.width",
    "model.depth",
    "model.heads",
    "training.steps",
    "training.batch",
    "training.checkpoint_every",
    "measuring.records",
    "measuring.directions",
    "measuring.points",
    "measuring.attack_steps",
    "measuring.attack_points",
    "measuring.slice_points",
    "measuring.probe_records",
)
_ABOVE_ZERO = (
    "data.train_share",
    "model.init_scale",
    "training.learning_rate",
    "measuring.radius",
    "measuring.slice_radius",
    "measuring.attack_step_size",
    "measuring.sigma",
)
_AT_LEAST_ZERO = ("seed", "data.label_noise", "training.weight_decay", "training.commutative")


def _check_ranges(config: Config) -> None:
    values = flat(to_dict(config))
    rules: tuple[tuple[tuple[str, ...], str, Callable[[Any], bool]], ...] = (
        (_AT_LEAST_ONE, "at least 1", lambda value: value >= 1),
        (_ABOVE_ZERO, "finite and above 0", lambda value: math.isfinite(value) and value > 0),
        (_AT_LEAST_ZERO, "finite and at least 0", lambda value: math.isfinite(value) and value >= 0),
        (("data.train_share", "data.label_noise"), "at most 1", lambda value: value <= 1),
        (("data.modulus",), "at least 2", lambda value: value >= 2),
    )
    for keys, words, holds in rules:
        for key in keys:
            if values[key] is not None and not holds(values[key]):
                raise ValueError(f"{key} must be {words}, got {values[key]}")
    for key, lengths in (("training.betas", (2,)), ("training.noise", (0, 2)), ("measuring.eps", None)):
        several = values[key]
        if lengths is not None and len(several) not in lengths:
            raise ValueError(f"{key} must be {' or '.join(map(str, lengths))} numbers, got {list(several)}")
        if any(not (math.isfinite(value) and value >= 0) for value in several):
            raise ValueError(f"{key} must be finite numbers of at least 0, got {list(several)}")


_MODELS = {  # of which data
    "mlp": ("mnist", "cifar10", "digits"),
    "cnn": ("mnist", "cifar10", "digits"),
    "resnet18": ("mnist", "cifar10", "digits"),
    "transformer": ("modular",),
    "gpt": ("characters",),
}
_NEEDS = {  # quantities that not all data or models have
    "commutativity": (("modular",), tuple(_MODELS)),
    "entropies": (("mnist", "cifar10", "digits", "modular"), tuple(_MODELS)),
    "linear_probes": (("mnist", "cifar10", "digits"), ("mlp", "cnn", "resnet18")),
    "slice": (("mnist", "cifar10", "digits"), ("mlp", "cnn", "resnet18")),
}


def _check_together(config: Config) -> None:
    data, model, training, measuring = config.data, config.model, config.training, config.measuring
    if data.name not in _MODELS[model.name]:
        raise ValueError(f"data.name must be one of {_MODELS[model.name]} for model {model.name!r}, got {data.name!r}")
    if model.name in ("transformer", "gpt") and model.width % model.heads:
        raise ValueError(f"model.width must be a multiple of model.heads, {model.heads}, got {model.width}")
    if model.name == "mlp" and model.depth < 2:
        raise ValueError(f"model.depth must be at least 2 for model 'mlp', got {model.depth}")
    if training.loss == "mse" and data.name == "characters":
        raise ValueError("training.loss must be 'cross_entropy' for data 'characters', got 'mse'")
    if training.commutative and data.name != "modular":
        raise ValueError(f"training.commutative must be 0 for data {data.name!r}, got {training.commutative}")
    if not measuring.quantities:
        raise ValueError("measuring.quantities must be at least one, got none")
    for name in measuring.quantities:
        if name not in QUANTITIES:
            raise ValueError(f"measuring.quantities must be among {', '.join(map(repr, QUANTITIES))}, got {name!r}")
        datas, models = _NEEDS.get(name, ((data.name,), tuple(_MODELS)))
        if data.name not in datas or model.name not in models:
            raise ValueError(
                f"measuring.quantities must not have {name!r} for data {data.name!r} and model {model.name!r}"
            )
