"""A network at the vertices around the points of a request."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from pylinregion.counting.request import CountRequest
from pylinregion.runtime.evaluator import Evaluator
from pylinregion.runtime.vertices import Split, vertices_of_own_frames


class VertexEvaluator:
    """The network of a request in some dtype, and what it makes of the frame.

    Attributes:
        evaluator: Of the network. It returns the output if it is counted, and what the model looks at unseen.
    """

    def __init__(self, request: CountRequest, dtype: torch.dtype) -> None:
        self._request = request
        network = request.network
        # oneDNN's float32 convolutions are about twice as fast on channels_last images.
        convolves = any(node.op_name in ("conv2d", "convolution") for node in network.nodes)
        last = convolves and dtype == torch.float32 and not request.x.is_cuda and len(network.input_shape) == 3
        self.evaluator = Evaluator(
            network,
            dtype,
            request.counted,
            outputs=request.options.include_output,
            split=not request.own_frames,
            channels_last=last,
            also=request.unseen,
        )

    @functools.cached_property
    def _directions(self) -> list[Tensor]:
        """What the network's prefix makes of the frame."""
        return self.evaluator.prefix_directions(self._request.frame.to(self._request.x.dtype).to(self.evaluator.dtype))

    def start(self, rows: slice | Tensor) -> list[Any]:
        """What the evaluator starts from, for these points: splits, or the vertices themselves."""
        request, dtype = self._request, self.evaluator.dtype
        x, radii = request.x[rows].to(dtype), request.radii[rows]
        if request.own_frames:
            return [vertices_of_own_frames(x, radii, request.frame[rows].to(dtype))]
        prefix = self.evaluator.prefix(x)
        return [Split(centre, v, radii) for centre, v in zip(prefix, self._directions, strict=True)]
