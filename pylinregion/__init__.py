"""Count the linear regions of neural networks around data: exactly, fast, on CPU and CUDA.

>>> import torch, pylinregion as plr
>>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
>>> counts = plr.count_regions(model, torch.zeros(3, 4), radius=0.1, n_directions=4)
>>> counts.total.shape
torch.Size([3])
"""

from pylinregion import measures, sinks
from pylinregion.capture import capture
from pylinregion.count import count_regions
from pylinregion.counts import Mean, RegionCounts
from pylinregion.errors import BudgetExceededError, PylinregionError, UnsupportedModelError, VerificationError
from pylinregion.explain import Explanation, explain
from pylinregion.files import load
from pylinregion.instruments import Measure
from pylinregion.monitor import Monitor
from pylinregion.neighbourhood import random_frame
from pylinregion.network import Network
from pylinregion.partition import partition
from pylinregion.patterns import ActivationPatterns, patterns
from pylinregion.regions import Partition
from pylinregion.segments import Trace, trace
from pylinregion.sharded import ShardedCounts, count_in_shards, partition_in_shards
from pylinregion.slice import Slice

__version__ = "0.1.0"

__all__ = [
    "ActivationPatterns",
    "BudgetExceededError",
    "Explanation",
    "Mean",
    "Measure",
    "Monitor",
    "Network",
    "Partition",
    "PylinregionError",
    "RegionCounts",
    "ShardedCounts",
    "Slice",
    "Trace",
    "UnsupportedModelError",
    "VerificationError",
    "__version__",
    "capture",
    "count_in_shards",
    "count_regions",
    "explain",
    "load",
    "measures",
    "partition",
    "partition_in_shards",
    "patterns",
    "random_frame",
    "sinks",
    "trace",
]
