"""Networks with maxima of several values on slices, for the engine's tests. Nothing is tested here."""

import numpy as np

from cases.engine import Case, plane_of, stage, units
from cases.networks import NETWORK_KINDS, SLICE_KINDS, random_network, random_slice
from pylinregion.lowering.linear_maps import Dense
from pylinregion.lowering.stages import INPUT, Stage, Stages
from pylinregion.lowering.units import candidates, sums


def maxima(number, blocks, bias, sizes, sign=1.0):
    """Candidates of maxima as stage ``number``, and the stage that makes maxima of them."""
    chosen = candidates(np.cumsum([0, *sizes]).astype(np.int64), sign)
    blocks = {source: Dense(np.ascontiguousarray(weight, dtype=np.float64)) for source, weight in blocks.items()}
    return [
        Stage(blocks, np.ascontiguousarray(bias, dtype=np.float64), chosen),
        Stage({number: sums(chosen)}, np.zeros(len(sizes)), units(["identity"] * len(sizes))),
    ]


def windows(rng, width):
    """Windows over values: some of them overlap, some are of one value."""
    count = int(rng.integers(1, 5))
    return [
        np.sort(rng.choice(width, min(width, int(rng.choice([1, 2, 2, 3, 4, 9]))), replace=False)) for _ in range(count)
    ]


def maxima_case(kind, slice_kind, seed):
    """Maxima anywhere in a small network: of affine functions, of rectified ones, of maxima, minima, and skips."""
    rng = np.random.default_rng([NETWORK_KINDS.index(kind), seed])
    inputs = int(rng.integers(2, 4))
    found, widths = [], {INPUT: inputs}
    before = INPUT
    depth = int(rng.integers(1, 4))
    top = int(rng.integers(0, depth))  # a layer of maxima for certain
    for layer in range(depth):
        how = str(rng.choice(["relu", "maxout", "maxout", "pool", "leaky_relu 0.25"]))
        if layer == top and how in ("relu", "leaky_relu 0.25"):
            how = "maxout"
        number = len(found)
        blocks, bias = {}, None
        if how == "pool" and before != INPUT:
            chosen = windows(rng, widths[before])
            blocks = {before: np.eye(widths[before])[np.concatenate(chosen)]}
            sizes = [len(window) for window in chosen]
            bias = np.zeros(sum(sizes))
        else:
            sizes = rng.choice([2, 2, 2, 3, 3, 4, 5], int(rng.integers(1, 4))).tolist()
            if how == "maxout" and rng.random() < 0.1:
                sizes = [9, 2]
            rows = sum(sizes) if how in ("maxout", "pool") else int(rng.integers(2, 6))
            sources = {before, *([INPUT] if rng.random() < 0.2 else [])}
            for place, source in enumerate(sorted(sources)):
                weights, biases = random_network(kind, (widths[source], rows, 1), seed + 100 * layer + 10 * place)
                blocks[source], bias = weights[0], biases[0]
        if how in ("maxout", "pool"):
            if rng.random() < 0.2:  # another order, of the same or repeated candidates
                order = rng.integers(0, len(bias), len(bias))
                blocks, bias = {source: block[order] for source, block in blocks.items()}, bias[order]
            sign = float(rng.choice([1.0, 1.0, -1.0]))
            found += maxima(number, blocks, bias, sizes, sign)
            widths[number + 1] = len(sizes)
        else:
            found.append(stage(blocks, bias, how))
            widths[number] = rows
        before = len(found) - 1
        if how == "pool" and rng.random() < 0.3:
            found.append(stage({before: np.eye(widths[before])}, np.zeros(widths[before]), "relu"))
            widths[before + 1], before = widths[before], before + 1
    weights, biases = random_network(kind, (widths[before], 2), seed)
    found.append(stage({before: weights[0]}, biases[0], "identity"))
    *slice_, corners = random_slice(slice_kind, inputs, seed)
    return Case(Stages(found), plane_of(*slice_), corners)


def wide_maxima_case(kind, seed):
    """Many maxima of which most have one candidate far above the others: what the engine folds away."""
    rng = np.random.default_rng([NETWORK_KINDS.index(kind), seed])
    count, size, after = [(24, 3, 20), (40, 2, 8), (10, 4, 40), (6, 9, 12)][seed % 4]
    weights, biases = random_network(kind, (2, 4, count * size, 1), seed)
    second, _ = random_network(kind, (count, after, 1), seed + 1)
    typical = float(np.abs(weights[1]).sum(axis=1).max()) * (1 + float(np.abs(biases[0]).max()))
    clear = rng.random(count) < 0.85
    lifted = np.zeros((count, size))
    lifted[clear, rng.integers(0, size, count)[clear]] = 16 * typical
    far = np.where(rng.random(after) < 0.8, rng.choice([-64.0, 64.0], after) * typical * count, 0.0)
    sign = float(rng.choice([1.0, -1.0]))
    found = [
        stage({INPUT: weights[0]}, biases[0], "relu"),
        *maxima(1, {0: weights[1]}, biases[1] + lifted.reshape(-1), [size] * count, sign),
        stage({2: second[0]}, far - second[0] @ (sign * lifted.max(axis=1)), "relu"),
    ]
    if seed % 3 == 0:  # maxima of what is mostly folded, and last
        found += maxima(4, {3: np.eye(after)[np.arange(after // 2 * 2)]}, np.zeros(after // 2 * 2), [2] * (after // 2))
    width = after // 2 if seed % 3 == 0 else after
    weights, biases = random_network(kind, (width, 1), seed)
    found.append(stage({len(found) - 1: weights[0]}, biases[0], "identity"))
    *slice_, corners = random_slice(("generic", "grid")[seed % 2], 2, seed)
    return Case(Stages(found), plane_of(*slice_), corners * 2.0 ** -int(rng.integers(0, 3)))


def nearly_tied_case(seed):
    """Ties that are broken, or not, by the last bits: numbers moved by some units in the places 2^-30 to 2^-52."""
    rng = np.random.default_rng(seed)
    kind = str(rng.choice(["small_int", "duplicated", "zero_bias", "grid"]))
    case = maxima_case(kind, str(rng.choice(["grid", "corner", "edge"])), seed)
    place = -int(rng.integers(30, 53))
    stages = case.stages.stages
    for each in stages:
        for source, block in each.matrices.items():
            if source != INPUT and stages[source].units.groups is not None:
                continue  # sums
            moved = rng.random(block.shape) < 0.3
            factors = np.where(moved, 1 + rng.integers(-3, 4, block.shape) * 2.0**place, 1.0)
            each.blocks[source] = Dense(block * factors)
        each.bias += (rng.random(each.rows) < 0.3) * rng.integers(-2, 3, each.rows) * 2.0**place
    return case


def any_case(seed):
    """A case of any kind, and what it is; the same for the same seed."""
    kind, slice_kind = NETWORK_KINDS[seed // 6 % len(NETWORK_KINDS)], SLICE_KINDS[seed // 90 % len(SLICE_KINDS)]
    about = {"activation": "maxima", "polygon": "given"}
    if seed % 6 == 4:
        return wide_maxima_case(kind, seed), {"structure": "wide", "kind": kind, "slice": "several", **about}
    if seed % 6 == 5:
        nearly = {"structure": "nearly tied", "kind": "nearly tied", "slice": "several", **about}
        return nearly_tied_case(seed), nearly
    return maxima_case(kind, slice_kind, seed), {"structure": "mixed", "kind": kind, "slice": slice_kind, **about}
