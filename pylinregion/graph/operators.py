"""What every operator of a captured network is to its input: the closed table.

An operator is *affine*, a *kink*, a *smooth* activation, or *other*; one outside the table is refused by name. What a
value is, as a function of the network's input, is its degree: constant, a step (piecewise constant, as a comparison
makes it), affine on every activation region, or none of these.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


class Degree(enum.IntEnum):
    """What a value is on one activation region."""

    CONSTANT = 0
    STEP = 1
    AFFINE = 2
    NONLINEAR = 3


class Kind(enum.Enum):
    """What an operator is."""

    AFFINE = "affine"
    KINK = "kink"
    SMOOTH = "smooth"
    OTHER = "other"


@dataclass(frozen=True)
class Op:
    """A row of the table.

    Attributes:
        kind: What the operator is.
        combine: For affine operators, how the degrees of the tensor arguments give that of the result: ``"first"``
            (that of the first, the others must be constant), ``"sum"`` (the largest), ``"product"`` (at most one of
            them may depend on the input, steps aside), ``"add product"`` (the first, plus a product of the others),
            ``"quotient"`` (the divisor must be constant), ``"place"`` (as sum, and where it writes must be constant),
            ``"logic"`` (a step).
        alias: The result may share memory with the first argument.
        refuse: Given the bound arguments, the reason why this call is refused of a value that depends on the input, or
            None.
        chance: The same, of any value.
        kink: For kinks, the name of its form in :mod:`pylinregion.graph.kinks`.
    """

    kind: Kind
    combine: str = "first"
    alias: bool = False
    refuse: Callable[[dict[str, Any]], str | None] | None = None
    chance: Callable[[dict[str, Any]], str | None] | None = None
    kink: str = ""


def _chance(arguments: dict[str, Any]) -> str | None:
    train = arguments.get("train", arguments.get("training", False))
    probability = arguments.get("p", 1.0)
    return "depends on chance (dropout that is on in eval mode)" if train and probability else None


def _batch_statistics(arguments: dict[str, Any]) -> str | None:
    # running_mean is None where a module keeps no running statistics; F.batch_norm then insists on training=True.
    if arguments.get("training") or arguments.get("train") or arguments.get("running_mean") is None:
        return "depends on the batch (batch normalisation without running statistics, or in training mode)"
    return None


def _random_slope(arguments: dict[str, Any]) -> str | None:
    return "depends on chance (rrelu in training mode)" if arguments.get("training") else None


def _attention_dropout(arguments: dict[str, Any]) -> str | None:
    return "depends on chance (attention dropout)" if arguments.get("dropout_p") else None


def _rounded_quotient(arguments: dict[str, Any]) -> str | None:
    return "rounds: a step that is not counted" if arguments.get("rounding_mode") else None


def _bits(arguments: dict[str, Any]) -> str | None:
    return f"reads the bits of numbers as {arguments['dtype']}"


def _scatter_product(arguments: dict[str, Any]) -> str | None:
    return "multiplies into its result" if arguments.get("reduce") in ("multiply", "prod") else None


def _kinked_norm(arguments: dict[str, Any]) -> str | None:
    order = arguments.get("ord", arguments.get("p", 2))
    if order not in (None, 2, "fro"):
        return f"has kinks that are not counted (a norm of order {order})"
    return None


def _table() -> dict[str, Op]:
    """All operators by name: one function, since it is one table, to be read as such."""
    table: dict[str, Op] = {}

    def put(op: Op, names: str) -> None:
        for name in names.split():
            assert name not in table, name
            table[name] = op

    affine = Kind.AFFINE
    put(
        Op(affine, alias=True),
        "view reshape flatten unflatten transpose permute t numpy_T mT adjoint squeeze unsqueeze expand expand_as "
        "select slice narrow unbind split split_with_sizes chunk tensor_split movedim moveaxis swapaxes swapdims "
        "alias detach contiguous to _to_copy type_as view_as reshape_as _unsafe_view diagonal unfold positive "
        "unsafe_chunk unsafe_split lift_fresh squeeze_copy",
    )
    put(Op(affine, alias=True, refuse=_bits), "view.dtype")
    put(Op(affine, alias=True, chance=_chance), "dropout feature_dropout alpha_dropout feature_alpha_dropout")
    put(Op(affine, chance=_chance), "native_dropout")
    put(
        Op(affine),
        "clone neg sum mean cumsum flip roll rot90 pixel_shuffle pixel_unshuffle channel_shuffle repeat "
        "repeat_interleave tile tril triu diff im2col col2im index index_select gather take_along_dim "
        "avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d "
        "_adaptive_avg_pool2d _adaptive_avg_pool3d upsample_nearest1d upsample_nearest2d upsample_nearest3d "
        "_upsample_nearest_exact1d _upsample_nearest_exact2d upsample_linear1d upsample_bilinear2d "
        "upsample_trilinear3d upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa constant_pad_nd pad "
        "reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d "
        "lift_fresh_copy",
    )
    put(
        Op(affine),
        "fft_fft fft_ifft fft_rfft fft_irfft fft_hfft fft_ihfft fft_fft2 fft_ifft2 fft_rfft2 fft_irfft2 fft_fftn "
        "fft_ifftn fft_rfftn fft_irfftn fft_fftshift fft_ifftshift _fft_r2c _fft_c2r _fft_c2c view_as_real "
        "view_as_complex real imag conj _conj _conj_physical conj_physical resolve_conj resolve_neg _neg_view",
    )
    put(
        Op(affine, refuse=_batch_statistics),
        "batch_norm _native_batch_norm_legit_no_training native_batch_norm cudnn_batch_norm",
    )
    put(
        Op(affine, "sum"),
        "add sub rsub cat concat concatenate stack hstack vstack dstack where masked_fill select_scatter "
        "slice_scatter copy fill complex",
    )
    put(Op(affine, "place"), "index_put index_add index_copy index_fill scatter_add scatter_reduce:sum")
    put(Op(affine, "place"), "scatter_reduce:mean")
    put(Op(affine, "place", refuse=_scatter_product), "scatter scatter_reduce:prod")
    put(
        Op(affine, "product"),
        "mul multiply linear mm bmm matmul mv dot outer einsum conv1d conv2d conv3d conv_transpose1d "
        "conv_transpose2d conv_transpose3d convolution _convolution lerp",
    )
    put(Op(affine, "add product"), "addmm baddbmm addmv addbmm")
    put(Op(affine, "quotient", refuse=_rounded_quotient), "div divide true_divide")
    put(
        Op(affine, "logic"),
        "logical_and logical_or logical_not logical_xor bitwise_and bitwise_or bitwise_not bitwise_xor __and__ __or__",
    )

    kink = Kind.KINK
    put(Op(kink, kink="relu"), "relu")
    put(Op(kink, kink="leaky_relu"), "leaky_relu")
    put(Op(kink, kink="rrelu", chance=_random_slope), "rrelu rrelu_with_noise")
    put(Op(kink, kink="prelu"), "prelu _prelu_kernel")
    put(Op(kink, kink="relu6"), "relu6")
    put(Op(kink, kink="hardtanh"), "hardtanh")
    put(Op(kink, kink="clamp"), "clamp clip clamp_min clamp_max")
    put(Op(kink, kink="abs"), "abs absolute")
    put(Op(kink, kink="threshold"), "threshold")
    put(Op(kink, kink="hardsigmoid"), "hardsigmoid")
    put(Op(kink, kink="shrink"), "softshrink hardshrink")
    put(Op(kink, kink="pair"), "maximum minimum max.other min.other fmax fmin")
    put(Op(kink, kink="max_pool"), "max_pool1d max_pool2d max_pool3d")
    put(Op(kink, kink="pool_with_indices"), "max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices")
    put(Op(kink, kink="pool_with_indices"), "adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d")
    put(Op(kink, kink="reduce"), "amax amin")
    put(Op(kink, kink="reduce_with_indices"), "max.dim min.dim")
    put(Op(kink, kink="scatter"), "scatter_reduce:amax scatter_reduce:amin index_reduce:amax index_reduce:amin")
    put(Op(kink, kink="sign"), "sign sgn")
    put(Op(kink, kink="comparison"), "gt ge lt le greater greater_equal less less_equal")

    put(
        Op(Kind.SMOOTH),
        "gelu silu tanh sigmoid elu selu celu softplus mish hardswish log_sigmoid log_sigmoid_forward",
    )
    other = Kind.OTHER
    put(
        Op(other),
        "softmax _softmax log_softmax _log_softmax layer_norm native_layer_norm group_norm native_group_norm rms_norm "
        "_fused_rms_norm exp exp2 expm1 log log1p log2 log10 sqrt rsqrt pow square reciprocal sin cos tan sinh cosh "
        "asin acos atan atan2 asinh acosh atanh erf erfc erfinv glu var std var_mean std_mean logsumexp logaddexp "
        "prod cumprod cosine_similarity addcmul addcdiv sinc instance_norm xlogy",
    )
    put(Op(other, refuse=_kinked_norm), "norm linalg_vector_norm linalg_norm")
    put(
        Op(other, chance=_attention_dropout),
        "scaled_dot_product_attention _scaled_dot_product_flash_attention_for_cpu "
        "_scaled_dot_product_flash_attention _scaled_dot_product_efficient_attention "
        "_scaled_dot_product_cudnn_attention",
    )
    return table


TABLE: dict[str, Op] = _table()

# Operators that only move numbers, besides those whose result may share memory with an argument.
_MOVES = frozenset(
    "clone flip roll rot90 pixel_shuffle pixel_unshuffle channel_shuffle repeat repeat_interleave tile tril triu index "  # noqa: SIM905
    "index_select gather take_along_dim constant_pad_nd pad reflection_pad1d reflection_pad2d reflection_pad3d "
    "replication_pad1d replication_pad2d replication_pad3d cat concat concatenate stack hstack vstack dstack "
    "select_scatter slice_scatter lift_fresh_copy".split()
)


def moves(name: str) -> bool:
    """Whether an operator's numbers are those of its arguments, or 0."""
    return name in _MOVES or (name in TABLE and TABLE[name].alias)


# Operators that make a constant which takes only its shape from their argument.
SHAPE_ONLY = frozenset(
    ["zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones", "new_full", "new_empty"]
)

# Operators that take only the shape or dtype of their second argument.
SHAPE_OF_SECOND = frozenset(["expand_as", "view_as", "reshape_as", "type_as"])

# Affine operators that forward-mode differentiation refuses, or takes for constants.
NO_DERIVATIVE = frozenset(["copy", "detach"])

# Operators whose third argument is added to what is linear in the others.
BIASED = frozenset(
    [
        "linear",
        "conv1d",
        "conv2d",
        "conv3d",
        "conv_transpose1d",
        "conv_transpose2d",
        "conv_transpose3d",
        "convolution",
        "_convolution",
    ]
)

# Operators that always write new memory, so that a kink may overwrite their result.
ALWAYS_NEW = BIASED | frozenset(
    [
        "addmm",
        "mm",
        "bmm",
        "baddbmm",
        "matmul",
        "add",
        "sub",
        "rsub",
        "mul",
        "div",
        "batch_norm",
        "_native_batch_norm_legit_no_training",
        "layer_norm",
        "avg_pool2d",
        "cat",
        "stack",
        "neg",
    ]
)

# Why some well-known operators are not in the table.
WHY_NOT = {
    "lstm": "hides its kinks and gates in one operator",
    "gru": "hides its kinks and gates in one operator",
    "rnn_tanh": "hides its activations in one operator",
    "rnn_relu": "hides its kinks in one operator",
    "lstm_cell": "hides its gates in one operator",
    "gru_cell": "hides its gates in one operator",
    "rnn_tanh_cell": "hides its activation in one operator",
    "rnn_relu_cell": "hides its kinks in one operator",
    "cond": "is control flow that depends on the data",
    "round": "is a step that is not counted",
    "floor": "is a step that is not counted",
    "ceil": "is a step that is not counted",
    "sort": "has kinks that are not counted",
    "topk": "has kinks that are not counted",
    "median": "has kinks that are not counted",
    "argmax": "is a step that is not counted",
    "argmin": "is a step that is not counted",
    "trunc": "is a step that is not counted",
    "frac": "is a step that is not counted",
    "floor_divide": "is a step that is not counted",
    "remainder": "is a step that is not counted",
    "fmod": "is a step that is not counted",
    "eq": "is a step that is not counted",
    "ne": "is a step that is not counted",
    "heaviside": "is a step that is not counted",
    "bucketize": "is a step that is not counted",
}


def lookup(name: str, overload: str, reduce: Any = None) -> Op | None:
    """The table's row for ``aten.name.overload``, or None; ``reduce`` is the argument of this name, if it has one."""
    return TABLE.get(f"{name}:{reduce}") or TABLE.get(f"{name}.{overload}") or TABLE.get(name)


def combined_degree(op: Op, first: Degree, others: list[Degree]) -> Degree:
    """The degree of an affine operator's result, NONLINEAR where it is no affine function of what depends on the input.

    Args:
        op: A row of kind AFFINE.
        first: The degree of the first tensor argument.
        others: The degrees of the rest.
    """
    dependent = sorted(degree for degree in (first, *others) if degree is not Degree.CONSTANT)
    if not dependent:
        return Degree.CONSTANT
    largest = dependent[-1]
    if op.combine == "logic":
        return Degree.STEP
    if op.combine in ("sum", "place"):
        return largest
    if op.combine == "add product":
        return max(first, _product(others))
    if op.combine == "product":
        return _product([first, *others])
    if op.combine == "quotient":
        return first if all(degree is Degree.CONSTANT for degree in others) else Degree.NONLINEAR
    return first if all(degree is Degree.CONSTANT for degree in others) else Degree.NONLINEAR


def _product(degrees: list[Degree]) -> Degree:
    *others, largest = sorted(degrees)
    # A step times an affine value is affine on every region.
    return largest if max(others, default=Degree.CONSTANT) <= Degree.STEP else Degree.NONLINEAR
