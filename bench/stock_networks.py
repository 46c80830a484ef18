"""Networks of torchvision, timm and Hugging Face's transformers: ``python bench/stock_networks.py``.

Each with random weights, nothing is downloaded: counted exactly on a slice around a random input, or refused. What is
counted is checked: the partition verifies itself, counting alone gives the same number, and so do two tilings of the
slice; points drawn on it have the patterns of their cells, by what the module gives its own activations
(``tests/cases/sampled.py``). Every network has a process of its own, with a limit of time. Exit code 1: a wrong count,
or a refusal that is not expected or has another reason, or interrupted: then what was measured before is written.

    python bench/stock_networks.py --small --sampling 10  # small images, few channels if they can be chosen
    python bench/stock_networks.py                    # as they are used: hours
    python bench/stock_networks.py --only resnet18 --radius 0.01

Libraries that are not installed are left out. They need not be there to use or to test the package.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import re
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
import pytest
import torch
from architectures import settled
from peak_memory import process_peak
from tables import markdown
from torch import Tensor, nn

import pylinregion as plr
from pylinregion.exact.many_slices import ManySlices

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from cases.sampled import check_samples
from cases.tilings import counted_in_tiles, force, slices_of

TILINGS = ((2, 1), (2, 3))
_TRIED = 16  # points, of which the forward pass is timed
_WATCHED = 3  # times as long as a forward pass takes one whose kinks are read off
_LONG = 60  # seconds of a count after which the slice is not made larger

Make = Callable[[bool], nn.Module]


@dataclass(frozen=True)
class Stock:
    """A network of a library.

    Attributes:
        package: The module that is imported.
        name: What the library calls it, and in which variant.
        make: Makes it; True: with few channels, if the library lets them be chosen.
        shape, small_shape: Of an input.
        refused: What the refusal must say, as a regular expression; None: it must be counted.
    """

    package: str
    name: str
    make: Make
    shape: tuple[int, ...] = (3, 224, 224)
    small_shape: tuple[int, ...] = (3, 32, 32)
    refused: str | None = None

    @property
    def key(self) -> str:
        return f"{self.package} {self.name}"


# ---- torchvision


def vision(
    name: str,
    refused: str | None = None,
    shape: tuple[int, ...] = (3, 224, 224),
    small_shape: tuple[int, ...] = (3, 32, 32),
    **given: Any,
) -> Stock:
    def make(small: bool) -> nn.Module:
        from torchvision import models

        return getattr(models, name)(**given)

    return Stock("torchvision", name, make, shape, small_shape, refused)


# ---- timm


def image_model(name: str, refused: str | None = None, small_shape: tuple[int, ...] = (3, 32, 32)) -> Stock:
    def make(small: bool) -> nn.Module:
        import timm

        return timm.create_model(name, pretrained=False)

    return Stock("timm", name, make, small_shape=small_shape, refused=refused)


# ---- transformers


def classifier(kind: str, few: dict[str, Any], variant: str = "", refused: str | None = None, **given: Any) -> Stock:
    def make(small: bool) -> nn.Module:
        import transformers

        config = getattr(transformers, f"{kind}Config")(**given, **(few if small else {}))
        return plr.select(getattr(transformers, f"{kind}ForImageClassification")(config), "logits")

    return Stock("transformers", kind + variant, make, refused=refused)


class DecoderOfSegFormer(nn.Module):
    """The head that takes the four maps of the encoder, here one behind the other as one vector."""

    SHAPES = ((32, 56, 56), (64, 28, 28), (160, 14, 14), (256, 7, 7))
    SMALL = ((4, 8, 8), (6, 4, 4), (8, 2, 2), (8, 1, 1))

    def __init__(self, small: bool) -> None:
        super().__init__()
        from transformers import SegformerConfig
        from transformers.models.segformer.modeling_segformer import SegformerDecodeHead

        self.shapes = self.SMALL if small else self.SHAPES
        few = {"decoder_hidden_size": 8, "num_labels": 4} if small else {}
        config = SegformerConfig(hidden_sizes=[channels for channels, *_ in self.shapes], **few)
        self.head = SegformerDecodeHead(config)

    def forward(self, x: Tensor) -> Tensor:
        maps = x.split([math.prod(shape) for shape in self.shapes], dim=1)
        return self.head([part.unflatten(1, shape) for part, shape in zip(maps, self.shapes, strict=True)])

    @classmethod
    def stock(cls) -> Stock:
        sizes = [(sum(map(math.prod, shapes)),) for shapes in (cls.SHAPES, cls.SMALL)]
        return Stock("transformers", "Segformer, decoder", cls, *sizes)


def block_of_vit(small: bool) -> nn.Module:
    from transformers import ViTConfig, ViTModel

    few = {"hidden_size": 12, "intermediate_size": 24, "num_attention_heads": 2, "image_size": 32} if small else {}
    model = ViTModel(ViTConfig(hidden_act="relu", num_hidden_layers=2, **few))
    return plr.to(plr.at(model, "layers.1.mlp"), "layers.1.mlp")


def block_of_gpt2(small: bool) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    few = {"n_embd": 12, "n_head": 2, "vocab_size": 50} if small else {}
    model = GPT2LMHeadModel(GPT2Config(activation_function="relu", n_layer=2, **few))
    return plr.to(plr.at(model, "transformer.h.1.mlp"), "transformer.h.1.mlp")


GATE = "(hard)?sigmoid in module .*: (a smooth activation|it multiplies two values)"
FEW = {"embedding_size": 4, "hidden_sizes": [4, 6, 8, 8], "depths": [1, 1, 1, 1]}

STOCK = (
    vision("vgg11"),
    vision("vgg11_bn"),
    vision("resnet18"),
    vision("resnet50"),
    vision("resnext50_32x4d"),
    vision("densenet121"),
    vision("mobilenet_v2"),
    vision("mnasnet1_0"),
    vision("shufflenet_v2_x1_0"),
    vision("squeezenet1_0"),
    vision("googlenet", init_weights=False, aux_logits=False),
    vision("inception_v3", None, (3, 299, 299), (3, 96, 96), init_weights=False, aux_logits=False),
    vision("regnet_x_400mf"),
    vision("regnet_y_400mf", GATE),
    vision("convnext_tiny", "layer_norm"),
    classifier("ResNet", FEW, ", basic", layer_type="basic"),
    classifier("ResNet", FEW, ", bottleneck"),
    classifier("MobileNetV2", {"depth_multiplier": 0.1, "min_depth": 4, "depth_divisible_by": 2}),
    classifier("RegNet", FEW | {"groups_width": 2}, ", x", layer_type="x"),
    classifier("RegNet", FEW | {"groups_width": 2}, ", y", GATE),
    classifier("ConvNext", {"hidden_sizes": [4, 6, 8, 8], "depths": [1, 1, 1, 1]}, "", "layer_norm"),
    DecoderOfSegFormer.stock(),
    Stock("transformers", "ViT, MLP with ReLU", block_of_vit, (197, 768), (5, 12)),
    Stock("transformers", "GPT2, MLP with ReLU", block_of_gpt2, (64, 768), (5, 12)),
    image_model("resnet26d"),
    image_model("resnetv2_50"),
    image_model("regnetx_002"),
    image_model("repvgg_a0"),
    image_model("efficientnet_lite0"),
    image_model("dla34"),
    image_model("hrnet_w18_small"),
    image_model("res2net50_26w_4s"),
    image_model("selecsls42b"),
    image_model("vovnet39a"),
    image_model("darknet53"),
    image_model("ghostnet_100", "mul in module .*: it multiplies two values"),
    image_model("skresnet18", "softmax in module .*: it is not piecewise affine"),
    image_model("mixer_s32_224", "layer_norm", (3, 224, 224)),
)


Row = dict[str, Any]


def measured(
    stock: Stock, small: bool, radius: float, points: int, sampling: float = 600, regions: int = 1
) -> Iterator[Row]:
    """Count one network around a random input, and check what was counted: what is known after each step.

    Args:
        stock: The network.
        small: With few channels, a small image.
        radius: Of the slice, at least.
        points: How many are sampled.
        sampling: Fewer of them where their forward passes would take more than so many seconds.
        regions: The radius is doubled until there are so many, or counting takes long.
    """
    shape = stock.small_shape if small else stock.shape
    row: Row = {"network": stock.key, "shape": list(shape), "radius": radius, "outcome": "unfinished"}
    try:
        for step in _steps(stock, small, radius, points, sampling, regions):
            row |= step
            yield row
        row["outcome"] = "counted"
    except (plr.UnsupportedModelError, plr.BudgetExceededError) as error:
        row |= {"outcome": "refused", "said": str(error)}
    except Exception as error:
        row |= {"outcome": "failed", "said": f"{type(error).__name__}: {error}", "where": traceback.format_exc()}
    yield row


def _steps(stock: Stock, small: bool, radius: float, points: int, sampling: float, regions: int) -> Iterator[Row]:
    torch.manual_seed(0)
    x = torch.randn(stock.small_shape if small else stock.shape)
    model = settled(stock.make(small), x.expand(4, *x.shape), batches=3).double()
    begin = time.process_time()
    network = plr.capture(model, x[None].double())
    layers = [layer.units for layer in network.layers]
    yield {"capture": time.process_time() - begin, "layers": len(layers), "neurons": sum(layers)}
    counted: list[plr.Partition] = []
    while True:
        around = plr.Slice.around(x, radius)
        begin = time.process_time()
        megabytes = process_peak(lambda where=around: counted.append(plr.partition(model, where, cells=False)))
        seconds = time.process_time() - begin
        found = {"radius": radius, "megabytes": megabytes, "seconds": seconds, "regions": counted[-1].n_regions}
        yield found
        if counted[-1].n_regions >= regions or seconds > _LONG:
            break
        radius *= 2
    begin = time.process_time()
    part = plr.partition(model, around)
    yield {"with_cells": time.process_time() - begin}
    part.verify(samples=0)
    if part.n_regions != counted[-1].n_regions:
        raise AssertionError(f"{part.n_regions} regions with cells, {counted[-1].n_regions} without")
    begin = time.process_time()
    for grid in TILINGS:
        in_tiles = _in_tiles(part, around, grid)
        if in_tiles != part.n_regions:
            raise AssertionError(f"{part.n_regions} regions, {in_tiles} in tiles {grid}")
    yield {"tilings": len(TILINGS), "tiling": time.process_time() - begin}
    some = x.double().expand(_TRIED, *x.shape)
    points = max(100, min(points, int(sampling / (harness.cpu_seconds(lambda: model(some)) / _TRIED * _WATCHED))))
    begin = time.process_time()
    found = check_samples(part, model, points, at_a_time=max(1, min(500, 10**8 // sum(layers))))
    seconds = time.process_time() - begin
    yield {"points": points, "cells": found.cells, "doubtful": found.doubtful, "sampling": seconds}
    begin = time.process_time()
    part.verify(model, samples=4)
    yield {"verifying": time.process_time() - begin}


def _in_tiles(part: plr.Partition, where: plr.Slice, grid: tuple[int, int]) -> int:
    """How many regions are counted in tiles, so many in either direction."""
    with pytest.MonkeyPatch.context() as patch:
        force(patch, *grid)
        found = counted_in_tiles(ManySlices(part.stages), slices_of(where.plane, where.polygon))
    return int(found.regions[0, -1])


def asked(stock: Stock, chosen: argparse.Namespace) -> Row:
    """Ask a process of its own, which is ended when its time is over."""
    command = [sys.executable, __file__, "--one", stock.key, "--radius", str(chosen.radius), "--points"]
    command += [
        str(chosen.points),
        "--sampling",
        str(chosen.sampling),
        "--regions",
        str(chosen.regions),
        *(["--small"] if chosen.small else []),
    ]
    row: Row = {"network": stock.key, "radius": chosen.radius, "outcome": "failed"}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        try:
            ended = f"ended with {subprocess.run(command, stdout=out, stderr=err, timeout=chosen.seconds).returncode}"
        except subprocess.TimeoutExpired:
            ended = f"not done after {chosen.seconds:g} s"
        out.seek(0), err.seek(0)
        lines, errors = out.read().splitlines(), err.read()
    row |= json.loads(lines[-1]) if lines else {}
    if row["outcome"] in ("failed", "unfinished") and "said" not in row:
        row |= {"outcome": "failed", "said": ended, "where": errors[-2000:]}
    return row


def is_right(stock: Stock, row: Row) -> bool:
    """Whether it was counted, or refused for the reason that it has."""
    if stock.refused is None:
        return row["outcome"] == "counted"
    return row["outcome"] == "refused" and re.search(stock.refused, row["said"]) is not None


def table(rows: list[Row]) -> str:
    def number(row: Row, name: str, form: str) -> str:
        return format(row[name], form) if row.get(name) is not None else "-"

    head = [
        "network",
        "input",
        "neurons",
        "r",
        "regions",
        "CPU s",
        "MB",
        "tilings",
        "points",
        "in cells",
        "doubtful",
        "outcome",
    ]
    cells = [
        [
            row["network"],
            "x".join(map(str, row.get("shape", []))),
            number(row, "neurons", ",").replace(",", " "),
            number(row, "radius", "g"),
            number(row, "regions", ",").replace(",", " "),
            number(row, "seconds", ".2f"),
            number(row, "megabytes", ".0f"),
            number(row, "tilings", "d"),
            number(row, "points", "d"),
            number(row, "cells", "d"),
            number(row, "doubtful", "d"),
            row["outcome"] if row["right"] else f"{row['outcome']} (!)",
        ]
        for row in rows
    ]
    said = [f"- {row['network']}: {row['said']}" for row in rows if row.get("said")]
    return "\n".join([markdown(head, cells), "", *said])


def main(given: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="few channels, small images")
    parser.add_argument("--only", nargs="+", default=[""], metavar="NAME", help="those with this in their name")
    parser.add_argument("--radius", type=float, default=1e-3, help="of the slices; default: 0.001")
    parser.add_argument("--points", type=int, default=20_000, help="that are sampled; default: 20000")
    parser.add_argument("--sampling", type=float, default=600, help="seconds, by fewer points; default: 600")
    parser.add_argument("--regions", type=int, default=100, help="twice the radius until there are; default: 100")
    parser.add_argument("--seconds", type=float, default=1800, help="for one network; default: 1800")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # measure it in this process
    harness.add_out(parser)
    chosen = parser.parse_args(given)
    if chosen.one:
        harness.one_thread()
        warnings.simplefilter("ignore")  # of the libraries
        (stock,) = [stock for stock in STOCK if stock.key == chosen.one]
        for row in measured(stock, chosen.small, chosen.radius, chosen.points, chosen.sampling, chosen.regions):
            print(json.dumps(row), flush=True)
        return 0
    rows: list[Row] = []
    interrupted = False
    try:
        for row in _each(chosen):
            rows.append(row)
    except KeyboardInterrupt:
        interrupted = True
        harness.progress("interrupted: what has been measured is kept")
    if not rows:
        return 0
    print(f"\n{table(rows)}")
    harness.write({"stock": rows}, chosen.out)
    return 0 if all(row["right"] for row in rows) and not interrupted else 1


def _each(chosen: argparse.Namespace) -> Iterator[Row]:
    for stock in STOCK:
        if not any(name in stock.key for name in chosen.only):
            continue
        if importlib.util.find_spec(stock.package) is None:
            harness.progress(f"{stock.key}: {stock.package} is not installed")
            continue
        row = asked(stock, chosen)
        harness.progress(f"{stock.key}: {row['outcome']}, {row.get('said') or row.get('regions')}")
        yield row | {"right": is_right(stock, row)}


if __name__ == "__main__":
    raise SystemExit(main())
