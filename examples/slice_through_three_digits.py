"""The linear regions of a small network on a slice through three digits: count, proof, decision boundary, picture.

Run: python examples/slice_through_three_digits.py [PICTURE]      (needs scikit-learn and matplotlib; a few seconds)
"""

import sys

import matplotlib
import torch
from sklearn.datasets import load_digits
from torch import nn

import pylinregion as plr

matplotlib.use("agg")
from matplotlib import pyplot
from matplotlib.offsetbox import AnnotationBbox, OffsetImage

torch.manual_seed(0)
images, labels = load_digits(return_X_y=True)
x, y = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)

model = nn.Sequential(
    nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 10)
)
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
for _ in range(20):
    for batch in torch.randperm(1500).split(50):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
accuracy = (model(x[1500:]).argmax(1) == y[1500:]).float().mean()
print(f"a 64-100x3-10 network, {accuracy:.1%} of unseen digits right\n")

digits = [  # the first 2, 3 and 6
    int((y == k).nonzero()[0]) for k in (2, 3, 6)
]
part = plr.partition(model, plr.Slice.through(*x[digits], margin=0.35))
print(part, "\n")

part.verify(model)
segments, cells, classes = part.decision_boundary()
table = part.statistics()
print(f"{part.n_regions} regions, {part.linear_regions().max() + 1} of them after joining those with equal maps")
print(f"the decision boundary has {len(segments)} segments in {len(set(cells.tolist()))} regions")
for name, row in table.items():
    print(f"{name:>18}: {row['regions']:6.0f} regions, {row['regions_per_area']:7.1f} per unit of area")

figure, axes = pyplot.subplots(1, 2, figsize=(12.6, 4.2), layout="constrained")
figure.get_layout_engine().set(wspace=0.06)
for ax, color, title in zip(
    axes,
    ("slope", "class"),
    (f"{part.n_regions} linear regions by the norm of their slope", "The class that the network gives"),
    strict=True,
):
    part.plot(ax, color=color)
    ax.set_title(title, loc="left")
    for index, (s, t) in zip(digits, part.slice.coordinates(x[digits]).st, strict=True):
        thumbnail = OffsetImage(x[index].reshape(8, 8), zoom=3.4, cmap="gray_r")
        ax.add_artist(AnnotationBbox(thumbnail, (s, t), pad=0.15, bboxprops={"edgecolor": "black"}, zorder=6))
figure.savefig(sys.argv[1] if len(sys.argv) > 1 else "slice_through_three_digits.png", dpi=130, bbox_inches="tight")
