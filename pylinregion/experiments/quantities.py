"""What an experiment measures: rows of a table, each a few :class:`pylinregion.Measure` of the model and the data."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from pylinregion import measures
from pylinregion.counting.count import count_regions
from pylinregion.experiments.config import Config
from pylinregion.experiments.data import Dataset, random_points
from pylinregion.experiments.log_steps import log_spaced_steps, thinned
from pylinregion.experiments.models import embedding_and_body
from pylinregion.monitor.metrics import Measure, local_complexity

_ENTROPY_BATCH = 200  # paper B takes entropies of batches of training
_RANK_POINTS = 10_000
_RARE = ("linear_probes",)  # 9 s on one core for paper C's network, where feature ranks take 3


def probes(dataset: Dataset, config: Config) -> dict[str, tuple[Tensor, Tensor]]:
    """Training and test points with their labels, as a monitor takes them."""
    dtype = getattr(torch, config.training.dtype)
    parts = {"train": (dataset.train_x, dataset.train_y), "test": (dataset.test_x, dataset.test_y)}
    if config.data.name == "characters":  # overlapping pieces of a long text: some of them say as much as all
        count = config.data.test_points or len(dataset.test_x)
        parts["train"] = (dataset.train_x[:count], dataset.train_y[:count])
    return {name: (dataset.points(x, dtype), y) for name, (x, y) in parts.items()}


def steps(config: Config) -> list[int]:
    """The steps of records."""
    return log_spaced_steps(config.training.steps, config.measuring.records)


def measures_of(
    config: Config, dataset: Dataset, points: dict[str, tuple[Tensor, Tensor]], step: Callable[[], int]
) -> list[str | Measure]:
    """The measures of an experiment. Some of them are in few records alone.

    Args:
        config: The experiment.
        dataset: Its data.
        points: Of :func:`probes`.
        step: The step that is being measured.
    """
    found: list[str | Measure] = []
    few = frozenset(thinned(steps(config), config.measuring.probe_records))
    for name in config.measuring.quantities:
        if name in ("accuracy", "weight_norm"):
            found.append(name)
        else:
            measures_of = _TABLE[name](config, dataset, points)
            found += [_at(few, step, measure) for measure in measures_of] if name in _RARE else measures_of
    return found


def _at(few: frozenset[int], step: Callable[[], int], measure: Measure) -> Measure:
    """A measure that has values at some steps only."""
    return replace(measure, function=lambda *args: measure.function(*args) if step() in few else {})


Probes = dict[str, tuple[Tensor, Tensor]]


def _local_complexity(config: Config, dataset: Dataset, points: Probes) -> list[Measure]:
    settings = config.measuring
    counting: dict[str, Any] = {
        "radius": settings.radius,
        "n_directions": settings.directions,
        "include_output": settings.include_output,
        "seed": config.seed,
    }

    def at(x: Tensor, model: nn.Module) -> dict[str, float]:
        embed, body = embedding_and_body(model)
        return local_complexity(body, _embedded(embed, x), None, **counting)

    def at_random(model: nn.Module) -> dict[str, float]:
        """Uniform on the domain of images; tokens have none, so between the extremes of what training points become."""
        embed, body = embedding_and_body(model)
        known = _embedded(embed, points["train"][0][: settings.points])
        low, high = dataset.low, dataset.high
        if low is None or high is None:
            low, high = (float(bound) for bound in torch.aminmax(known))
        count = settings.points or len(points["test"][0])
        x = random_points((count, *known.shape[1:]), low, high, config.seed)
        return local_complexity(body, x.to(known), None, **counting)

    parts = {name: x[: settings.points] for name, (x, _) in points.items()}
    at_points = [Measure(f"{name}/lc", functools.partial(at, x), "model") for name, x in parts.items()]
    return [*at_points, Measure("random/lc", at_random, "model")]


def _robust_accuracy(config: Config, dataset: Dataset, points: Probes) -> list[Measure]:
    """PGD on test points; in the space of embeddings for tokens, and on the last character of a text."""
    settings = config.measuring
    x, y = (tensor[: settings.attack_points] for tensor in points["test"])
    y = y[:, -1] if y.dim() == 2 else y

    def attacked(model: nn.Module) -> dict[str, float]:
        embed, body = embedding_and_body(model)
        found = measures.robust_accuracy(
            _LastPosition(body) if config.data.name == "characters" else body,
            _embedded(embed, x),
            y,
            settings.eps,
            low=dataset.low,
            high=dataset.high,
            alpha=settings.attack_step_size,
            steps=settings.attack_steps,
            seed=config.seed,
        )
        result: dict[str, float] = {}
        for eps, accuracy, still in zip(settings.eps, found.accuracy, found.zero_gradients, strict=True):
            result |= {f"{eps:g}": float(accuracy), f"{eps:g}/zero_gradients": float(still)}
        return result

    return [Measure("test/robust", attacked, "model")]


class _LastPosition(nn.Module):
    """A GPT's body as a classifier of the character after the last."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, embedded: Tensor) -> Tensor:
        out: Tensor = self.body(embedded)[:, :, -1]
        return out


def _feature_ranks(config: Config, dataset: Dataset, points: Probes) -> list[Measure]:
    x = points["test"][0][:_RANK_POINTS]

    def ranks(model: nn.Module) -> dict[str, float]:
        embed, body = embedding_and_body(model)
        found = measures.feature_ranks(body, _embedded(embed, x))
        layers = {f"layer/{name}": float(rank) for name, rank in found.items()}
        tunnel = measures.tunnel_length(found, max(1, 3 * config.model.width // 4))  # 300 of 400 in paper C
        return {**layers, "tunnel": float(tunnel)}

    return [Measure("test/rank", ranks, "model")]


def _linear_probes(config: Config, dataset: Dataset, points: Probes) -> list[Measure]:
    (x, y), (x_test, y_test) = points["train"], (part[:_RANK_POINTS] for part in points["test"])

    def accuracies(model: nn.Module) -> dict[str, float]:
        found = measures.linear_probes(model, x, y, x_test, y_test, seed=config.seed)
        return {f"layer/{name}": accuracy for name, accuracy in found.test.items()}

    return [Measure("test/probe", accuracies, "model")]


def _last_layer_norm(config: Config, dataset: Dataset, points: Probes) -> list[Measure]:
    x = points["train"][0][:1]

    def norm(model: nn.Module) -> float:
        embed, body = embedding_and_body(model)
        return measures.last_layer_norm(body, _embedded(embed, x))

    return [Measure("last_layer_norm", norm, "model")]


def _commutativity(config: Config, dataset: Dataset, points: Probes) -> list[Measure]:
    x = points["train"][0]
    return [
        Measure("train/commutativity", functools.partial(measures.commutativity, pairs=x), "model"),
        Measure("train/logit_commutativity", functools.partial(measures.logit_commutativity, pairs=x), "model"),
    ]


def _entropies(config: Config, dataset: Dataset, points: Probes) -> list[Measure]:
    x = points["train"][0][: config.measuring.points]

    def entropies(model: nn.Module) -> dict[str, float]:
        embed, body = embedding_and_body(model)
        found = measures.perturbed_information(
            body, _embedded(embed, x), config.measuring.sigma, seed=config.seed, batch_size=_ENTROPY_BATCH
        )
        return {"pmi": found.pmi, "pe": found.pe, "mid": found.mid, "ed": found.ed}

    return [Measure("train/entropies", entropies, "model")]


def _perturbation_error(config: Config, dataset: Dataset, points: Probes) -> list[Measure]:
    x = points["train"][0][: config.measuring.points]

    def error(model: nn.Module) -> float:
        embed, body = embedding_and_body(model)
        return measures.perturbation_error(body, _embedded(embed, x), config.measuring.sigma, seed=config.seed)

    return [Measure("train/perturbation_error", error, "model")]


def _slice(config: Config, dataset: Dataset, points: Probes) -> list[Measure]:
    """Exact numbers on the slices around some training points."""
    settings = config.measuring
    x = points["train"][0][: settings.slice_points]

    def count(model: nn.Module) -> dict[str, float]:
        counts = count_regions(model, x, settings.slice_radius, "slice", seed=config.seed)
        mean, low, high = counts.mean()
        return {"": mean, "low": low, "high": high, "regions": float(counts.regions.double().mean())}

    return [Measure("train/slice", count, "model")]


def _embedded(embed: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with torch.no_grad():
        return embed(x).detach()


_TABLE: dict[str, Callable[[Config, Dataset, Probes], list[Measure]]] = {
    "local_complexity": _local_complexity,
    "robust_accuracy": _robust_accuracy,
    "last_layer_norm": _last_layer_norm,
    "feature_ranks": _feature_ranks,
    "linear_probes": _linear_probes,
    "commutativity": _commutativity,
    "entropies": _entropies,
    "perturbation_error": _perturbation_error,
    "slice": _slice,
}
