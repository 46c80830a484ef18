"""Count the linear regions of neural networks around data: exactly, fast, on CPU and CUDA.

>>> import torch, pylinregion as plr
>>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
>>> counts = plr.count_regions(model, torch.zeros(3, 4), radius=0.1, n_directions=4)
>>> counts.total.shape
torch.Size([3])
"""

from pylinregion import measures
from pylinregion._util.errors import BudgetExceededError, PylinregionError, UnsupportedModelError, VerificationError
from pylinregion._util.versions import VERSION as __version__
from pylinregion.capturing.capture import capture
from pylinregion.counting.activation_patterns import ActivationPatterns
from pylinregion.counting.count import count_regions
from pylinregion.counting.counts import Mean, RegionCounts
from pylinregion.counting.explain import Explanation, explain
from pylinregion.counting.patterns import patterns
from pylinregion.geometry.frames import random_frame
from pylinregion.geometry.slice import Slice
from pylinregion.graph.network import Network
from pylinregion.monitor import sinks
from pylinregion.monitor.metrics import Measure
from pylinregion.monitor.training_monitor import Monitor
from pylinregion.regions.enumeration import partition
from pylinregion.regions.many_partitions import partitions
from pylinregion.regions.partition import Partition, load
from pylinregion.regions.trace import Trace, trace
from pylinregion.sharding.sharded_counts import ShardedCounts, count_in_shards
from pylinregion.sharding.sharded_partition import partition_in_shards
from pylinregion.views.free_input import fix
from pylinregion.views.model_part import at, to
from pylinregion.views.output_choice import select

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
    "at",
    "capture",
    "count_in_shards",
    "count_regions",
    "explain",
    "fix",
    "load",
    "measures",
    "partition",
    "partition_in_shards",
    "partitions",
    "patterns",
    "random_frame",
    "select",
    "sinks",
    "to",
    "trace",
]
