"""What a fold gives is within its bounds: compared with the network in fractions."""

from fractions import Fraction as F

import numpy as np

from cases.engine import box, stage
from pylinregion.exact.slice_fold import SliceFolder
from pylinregion.exact.slice_systems import Slices
from pylinregion.lowering.stages import INPUT, Stages


def little_left_of_large_weights(between=0):
    """A network on whose slices a layer is off by what the first has rounded, behind some that round little."""
    rng = np.random.default_rng(0)
    weight = 1e8 * rng.standard_normal((1, 2))
    weight[0, 1] = -weight[0, 0] * (1 + 1e-9)
    layers = [stage({-1: weight}, [5.0], "relu")]
    layers += [stage({number: [[1.0]]}, [0.0], "relu") for number in range(between)]
    layers.append(stage({between: [[1.0], [2.0]]}, [-5.0, -10.0], "relu"))
    stages = Stages([*layers, stage({between + 1: [[1.0, 1.0]]}, [0.0], "identity")])
    origins = rng.standard_normal((8, 1)) * np.ones((8, 2))
    return stages, Slices(np.ones((1, 2)), np.array([[0.0, 1.0]]), origins, np.stack([box(-1, 1) * [1, 1e-9]] * 8))


def exact_rows(stages, point):
    """``[lines]``: arguments less kinks of all units at a point, in fractions, and ``[lines]`` who is on."""
    units, rows, on = {INPUT: point}, [], []
    for number, here in enumerate(stages.stages):
        z = [F(float(bias)) for bias in here.bias]
        for source, weight in here.matrices.items():
            z = [
                sum((F(float(w)) * x for w, x in zip(row, units[source], strict=True) if w), start)
                for start, row in zip(z, weight, strict=True)
            ]
        given = []
        begin, n = here.units.line_begin, here.units
        for r, value in enumerate(z):
            own = [value - F(float(kink)) for kink in n.kinks[begin[r] : begin[r + 1]]]
            if n.groups is None:
                above = [each > 0 for each in own]
            else:
                group = int(np.searchsorted(n.groups, r, side="right")) - 1
                members = range(n.groups[group], n.groups[group + 1])
                above = [max(members, key=lambda m: (z[m], -m)) == r]
            piece = int(begin[r]) + r + sum(above)
            given.append((F(float(n.slopes[piece])) * value + F(float(n.intercepts[piece]))) / F(n.denominator))
            rows += own
            on += above
        units[number] = given
    return rows, on


def check_bounds(stages, slices, seed, found=None):
    rng = np.random.default_rng(seed)
    found = SliceFolder(stages).fold(slices) if found is None else found
    column = 0
    most = 0.0
    groups = [each.units.groups is not None for each in stages.stages for _ in range(each.units.lines)]
    for k in range(len(slices)):
        begin, end = found.begin[k], found.begin[k + 1]
        lines, n = found.line[begin:end], int(end - begin)
        matrix = found.columns[column : column + n * (n + 8)].reshape(n, n + 8)
        column += n * (n + 8)
        assert not matrix[:, n:].any() and not np.tril(matrix[:, :n]).any()
        settled = np.unpackbits(found.on[k], count=stages.lines, bitorder="little").astype(bool)
        assert not settled[lines].any() and (np.diff(lines) > 0).all()
        signs: dict[int, set[int]] = {}  # of settled lines: a line that is 0 anywhere is so everywhere
        u, v = (side[k if len(side) > 1 else 0] for side in (slices.u, slices.v))
        for weights in [*np.eye(slices.corners.shape[1]), *rng.dirichlet(np.ones(slices.corners.shape[1]), 4)]:
            s, t = (F(float(x)) for x in weights @ slices.corners[k])
            if (weights == 1).any():
                s, t = (F(float(x)) for x in slices.corners[k][int(np.argmax(weights))])
            point = [
                F(float(o)) + s * F(float(a)) + t * F(float(b)) for o, a, b in zip(slices.origins[k], u, v, strict=True)
            ]
            rows, on = exact_rows(stages, point)
            for line in set(range(stages.lines)) - set(lines.tolist()):
                assert on[line] == settled[line]
                if not groups[line]:
                    signs.setdefault(line, set()).add((rows[line] > 0) - (rows[line] < 0))
            for i, line in enumerate(lines.tolist()):
                a, b, c = (F(float(x)) for x in found.affine[:, begin + i])
                value = a * s + b * t + c
                for j, other in enumerate(lines[:i].tolist()):
                    if on[other]:
                        value += F(float(matrix[j, i])) * rows[other]
                off = abs(value - rows[line])
                assert off <= F(float(found.error[begin + i]))
                most = max(most, float(off) / float(found.error[begin + i]))
        assert all(len(each) == 1 for each in signs.values())
    return most
