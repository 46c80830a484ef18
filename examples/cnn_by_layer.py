"""Local complexity of a small convolutional network, layer by layer, before and after training.

Run: python examples/cnn_by_layer.py        (needs scikit-learn; about ten seconds)
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

import pylinregion as plr

torch.manual_seed(0)
images, labels = load_digits(return_X_y=True)
x = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
y = torch.tensor(labels)

model = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1),
    nn.BatchNorm2d(16),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Conv2d(16, 32, 3, padding=1),
    nn.ReLU(),
    nn.Flatten(),
    nn.Linear(512, 10),
)
print(plr.explain(model, x), "\n")

before = plr.count_regions(model, x[:200], radius=0.05)

optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
for _ in range(5):
    for batch in torch.randperm(1500).split(50):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()

# The capture is reused; the counts are those of the new weights. Eval mode is switched on meanwhile and put back.
after = plr.count_regions(model, x[:200], radius=0.05)
assert model.training

print(f"{'layer':>8}  {'before':>8}  {'after':>8}   mean number of neurons that change within 0.05 of an image")
for name in after.layers:
    print(f"{name:>8}  {before.mean(name).mean:8.2f}  {after.mean(name).mean:8.2f}")
mean, low, high = after.mean()
print(f"local complexity after training: {mean:.2f}, 99 % interval over images [{low:.2f}, {high:.2f}]")
