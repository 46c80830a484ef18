"""What papers on grokking measure of a network, besides its linear regions.

Each measure is a function of a model and points that leaves the model as it was: its mode, gradients, hooks, buffers,
and torch's random state. Those with per-layer results take the layers that :func:`pylinregion.capture` finds; a layer's
features are its pre-activations. docs/measures.md has them all on a page.
"""

from pylinregion.measures.curvature import largest_eigenvalue, sharpness
from pylinregion.measures.entropy import (
    PerturbedInformation,
    matrix_entropy,
    matrix_mutual_information,
    perturbed_information,
)
from pylinregion.measures.feature_rank import feature_ranks, tunnel_length
from pylinregion.measures.linear_probing import ProbeAccuracy, linear_probes
from pylinregion.measures.neighbours import neighbour_function
from pylinregion.measures.patel_montufar import density_local_complexity, local_rank, total_variation
from pylinregion.measures.robustness import RobustAccuracy, perturbation_error, robust_accuracy
from pylinregion.measures.symmetry import commutativity, logit_commutativity
from pylinregion.measures.weight_norms import last_layer_norm, weight_norm

__all__ = [
    "PerturbedInformation",
    "ProbeAccuracy",
    "RobustAccuracy",
    "commutativity",
    "density_local_complexity",
    "feature_ranks",
    "largest_eigenvalue",
    "last_layer_norm",
    "linear_probes",
    "local_rank",
    "logit_commutativity",
    "matrix_entropy",
    "matrix_mutual_information",
    "neighbour_function",
    "perturbation_error",
    "perturbed_information",
    "robust_accuracy",
    "sharpness",
    "total_variation",
    "tunnel_length",
    "weight_norm",
]
