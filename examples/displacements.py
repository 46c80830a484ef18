"""Why local complexity costs a fraction of a forward pass: how far the vertices move a neuron, and how far they may.

Run: python examples/displacements.py [PICTURE]      (needs matplotlib; a few seconds)
"""

import sys

import matplotlib
import torch
from torch import nn

import pylinregion as plr

matplotlib.use("agg")
from matplotlib import pyplot

torch.manual_seed(0)
linears = [nn.Linear(784, 200), nn.Linear(200, 200), nn.Linear(200, 200)]
model = nn.Sequential(*(module for linear in linears for module in (linear, nn.ReLU())), nn.Linear(200, 10)).double()
x = torch.rand(200, 784, dtype=torch.float64)
radius = 0.05
frame = plr.random_frame((784,), 25)

counts = plr.count_regions(model, x, radius, frame=frame, displacement=True)
vertices = plr.count_regions(model, x, radius, frame=frame, displacement=False)
same = torch.equal(counts.changes, vertices.changes) and torch.equal(counts.regions, vertices.regions)
print(f"{counts.mean().mean:.2f} of 600 neurons change around a point; both ways find the same: {same}")

# By hand, around one point: pre-activations at the point and at the vertices of each pair, layer by layer.
with torch.no_grad():
    centre = x[0]
    plus, minus = x[0] + radius * frame, x[0] - radius * frame
    odd, even = (plus - minus) / 2, torch.zeros_like(plus)
    figure, axes = pyplot.subplots(1, 3, figsize=(12, 3.6), sharey=True)
    for layer, (linear, axis) in enumerate(zip(linears, axes, strict=True), start=1):
        reach = linear.weight.norm(dim=1) * (odd.norm(dim=1) + even.norm(dim=1)).max()
        z, plus, minus = (linear(value) for value in (centre, plus, minus))
        moved = torch.stack([plus - z, minus - z]).abs().amax(dim=(0, 1))
        order = z.abs().argsort()
        changed = ((torch.cat([plus, minus]) > 0) != (z > 0)).any(dim=0)
        axis.plot(z.abs()[order], color="#333333", lw=1, label="|z| at the point")
        axis.scatter(range(200), moved[order], s=3, color="#3b75af", label="how far the vertices move it")
        axis.plot(reach[order], color="#c03d3e", lw=1, label="how far they may: |row| times rho")
        at = changed[order].nonzero().flatten()
        axis.scatter(at, z.abs()[order][at], s=30, facecolors="none", edgecolors="k", label="changes")
        open_rows = int((z.abs() <= reach).sum())
        axis.set_title(
            f"layer {layer}: {open_rows} of 200 neurons must be looked at, {int(changed.sum())} change", fontsize=9
        )
        axis.set_yscale("log"), axis.set_ylim(1e-4, 10), axis.set_xlabel("neurons, by |z|")
        axis.set_yticks([0.001, 0.01, 0.1, 1], ["0.001", "0.01", "0.1", "1"]), axis.minorticks_off()
        centre, plus, minus = z.relu(), plus.relu(), minus.relu()
        odd, even = (plus - minus) / 2, (plus + minus) / 2 - centre
    axes[0].legend(fontsize=7, loc="upper left")
    figure.tight_layout()
path = sys.argv[1] if len(sys.argv) > 1 else "displacements.png"
figure.savefig(path, dpi=110)
print(f"picture: {path}")
