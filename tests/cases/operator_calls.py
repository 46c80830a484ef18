"""Every operator of the table, as a function of eight values. Nothing is tested here."""

import torch

from pylinregion.graph.operators import TABLE, Kind

aten = torch.ops.aten
W = (torch.arange(24).double() % 7 - 3) / 2
I3, I8 = torch.tensor([0, 2, 1]), torch.tensor([0, 1, 2, 0, 1, 2, 0, 0])
SPLIT = [3, 5]


def rows(z, *shape):
    return z.view(z.shape[0], *shape)


def channels(z):
    """``[B, 2, 4]``."""
    return z.view(-1, 2, 4)


def image(z):
    """``[B, 2, 2, 2]``."""
    return z.view(-1, 2, 2, 2)


def volume(z):
    return z.view(-1, 1, 2, 2, 2)


def spread(index, z):
    return index.expand(z.shape[0], -1)


def complex_of(z):
    return aten.view_as_complex(z.view(-1, 4, 2))


def parts(z):
    return torch.view_as_real(z.resolve_conj())


def stats(z):
    return W[:8], W[8:16], W[:8], W[:8].abs() + 1


# What each row of the table is called with: a function of ``[B, 8]``. A tuple's items are all read.
CALLS = {
    # views and moves
    "view": lambda z: aten.view(z, [-1, 2, 4]),
    "reshape": lambda z: aten.reshape(z, [-1, 4, 2]),
    "flatten": lambda z: aten.flatten(image(z), 2),
    "unflatten": lambda z: aten.unflatten(z, 1, [2, 4]),
    "transpose": lambda z: aten.transpose(channels(z), 1, 2),
    "permute": lambda z: aten.permute(image(z), [0, 3, 1, 2]),
    "t": lambda z: aten.t(aten.t(z)),
    "numpy_T": lambda z: aten.numpy_T(aten.numpy_T(z)),
    "mT": lambda z: aten.mT(channels(z)),
    "adjoint": lambda z: aten.adjoint(channels(z)),
    "squeeze": lambda z: aten.squeeze(z[:, None], 1),
    "unsqueeze": lambda z: aten.unsqueeze(z, 2),
    "expand": lambda z: aten.expand(z[:, :, None], [-1, -1, 3]),
    "expand_as": lambda z: aten.expand_as(z[:, :1], z),
    "select": lambda z: aten.select(channels(z), 1, 1),
    "slice": lambda z: aten.slice(z, 1, 1, 7, 2),
    "narrow": lambda z: aten.narrow(z, 1, 2, 3),
    "unbind": lambda z: aten.unbind(channels(z), 1),
    "split": lambda z: aten.split(z, 3, 1),
    "split_with_sizes": lambda z: aten.split_with_sizes(z, SPLIT, 1),
    "chunk": lambda z: aten.chunk(z, 2, 1),
    "tensor_split": lambda z: aten.tensor_split(z, 3, 1),
    "movedim": lambda z: aten.movedim(image(z), 1, 3),
    "moveaxis": lambda z: aten.moveaxis(image(z), 1, 3),
    "swapaxes": lambda z: aten.swapaxes(channels(z), 1, 2),
    "swapdims": lambda z: aten.swapdims(channels(z), 1, 2),
    "alias": aten.alias,
    "detach": aten.detach,
    "contiguous": aten.contiguous,
    "to": lambda z: z.to(torch.float32).to(torch.float64),
    "_to_copy": lambda z: aten._to_copy(z, dtype=torch.float32),
    "type_as": lambda z: aten.type_as(z, W),
    "view_as": lambda z: aten.view_as(z, z),
    "reshape_as": lambda z: aten.reshape_as(z, z),
    "_unsafe_view": lambda z: aten._unsafe_view(z, [-1, 2, 4]),
    "diagonal": lambda z: aten.diagonal(image(z), 0, 1, 2),
    "unfold": lambda z: aten.unfold(z, 1, 4, 2),
    "positive": aten.positive,
    "unsafe_chunk": lambda z: aten.unsafe_chunk(z, 2, 1),
    "unsafe_split": lambda z: aten.unsafe_split(z, 4, 1),
    "lift_fresh": aten.lift_fresh,
    "squeeze_copy": lambda z: aten.squeeze_copy(z[:, None], 1),
    "view.dtype": lambda z: aten.view.dtype(z, torch.float32),
    "dropout": lambda z: aten.dropout(z, 0.5, False),
    "feature_dropout": lambda z: aten.feature_dropout(channels(z), 0.5, False),
    "alpha_dropout": lambda z: aten.alpha_dropout(z, 0.5, False),
    "feature_alpha_dropout": lambda z: aten.feature_alpha_dropout(channels(z), 0.5, False),
    "native_dropout": lambda z: aten.native_dropout(z, 0.5, False)[0],
    # linear functions
    "clone": aten.clone,
    "neg": aten.neg,
    "sum": lambda z: aten.sum(channels(z), [1]),
    "mean": lambda z: aten.mean(channels(z), [1]),
    "cumsum": lambda z: aten.cumsum(z, 1),
    "flip": lambda z: aten.flip(z, [1]),
    "roll": lambda z: aten.roll(z, [3], [1]),
    "rot90": lambda z: aten.rot90(image(z), 1, [2, 3]),
    "pixel_shuffle": lambda z: aten.pixel_shuffle(rows(z, 4, 2, 1), 2),
    "pixel_unshuffle": lambda z: aten.pixel_unshuffle(image(z), 2),
    "channel_shuffle": lambda z: aten.channel_shuffle(rows(z, 4, 2, 1), 2),
    "repeat": lambda z: aten.repeat(z, [1, 2]),
    "repeat_interleave": lambda z: aten.repeat_interleave(z, 2, 1),
    "tile": lambda z: aten.tile(z, [1, 2]),
    "tril": lambda z: aten.tril(channels(z)),
    "triu": lambda z: aten.triu(channels(z)),
    "diff": lambda z: aten.diff(z, 1, 1),
    "im2col": lambda z: aten.im2col(image(z), [2, 2], [1, 1], [0, 0], [1, 1]),
    "col2im": lambda z: aten.col2im(rows(z, 8, 1), [2, 2], [2, 2], [1, 1], [0, 0], [1, 1]),
    "index": lambda z: aten.index(z, [None, I3]),
    "index_select": lambda z: aten.index_select(z, 1, I3),
    "gather": lambda z: aten.gather(z, 1, spread(I3, z)),
    "take_along_dim": lambda z: aten.take_along_dim(z, I3[None], 1),
    "avg_pool1d": lambda z: aten.avg_pool1d(channels(z), [2]),
    "avg_pool2d": lambda z: aten.avg_pool2d(image(z), [2, 1], [1, 1]),
    "avg_pool3d": lambda z: aten.avg_pool3d(volume(z), [2, 1, 1], [1, 1, 1]),
    "adaptive_avg_pool1d": lambda z: aten.adaptive_avg_pool1d(channels(z), [3]),
    "adaptive_avg_pool2d": lambda z: aten.adaptive_avg_pool2d(image(z), [1, 2]),
    "adaptive_avg_pool3d": lambda z: aten.adaptive_avg_pool3d(volume(z), [1, 2, 2]),
    "_adaptive_avg_pool2d": lambda z: aten._adaptive_avg_pool2d(image(z), [1, 2]),
    "_adaptive_avg_pool3d": lambda z: aten._adaptive_avg_pool3d(volume(z), [1, 2, 2]),
    "upsample_nearest1d": lambda z: aten.upsample_nearest1d(channels(z), [6]),
    "upsample_nearest2d": lambda z: aten.upsample_nearest2d(image(z), [3, 3]),
    "upsample_nearest3d": lambda z: aten.upsample_nearest3d(volume(z), [3, 2, 2]),
    "_upsample_nearest_exact1d": lambda z: aten._upsample_nearest_exact1d(channels(z), [6]),
    "_upsample_nearest_exact2d": lambda z: aten._upsample_nearest_exact2d(image(z), [3, 3]),
    "upsample_linear1d": lambda z: aten.upsample_linear1d(channels(z), [6], False),
    "upsample_bilinear2d": lambda z: aten.upsample_bilinear2d(image(z), [3, 3], False),
    "upsample_trilinear3d": lambda z: aten.upsample_trilinear3d(volume(z), [3, 2, 2], False),
    "upsample_bicubic2d": lambda z: aten.upsample_bicubic2d(image(z), [3, 3], False),
    "_upsample_bilinear2d_aa": lambda z: aten._upsample_bilinear2d_aa(image(z), [3, 3], False),
    "_upsample_bicubic2d_aa": lambda z: aten._upsample_bicubic2d_aa(image(z), [3, 3], False),
    "constant_pad_nd": lambda z: aten.constant_pad_nd(z, [1, 2], 0.5),
    "pad": lambda z: aten.pad(channels(z), [1, 2], "reflect"),
    "reflection_pad1d": lambda z: aten.reflection_pad1d(channels(z), [1, 2]),
    "reflection_pad2d": lambda z: aten.reflection_pad2d(image(z), [1, 1, 0, 1]),
    "reflection_pad3d": lambda z: aten.reflection_pad3d(volume(z), [1, 0, 0, 1, 1, 1]),
    "replication_pad1d": lambda z: aten.replication_pad1d(channels(z), [1, 2]),
    "replication_pad2d": lambda z: aten.replication_pad2d(image(z), [1, 1, 0, 1]),
    "replication_pad3d": lambda z: aten.replication_pad3d(volume(z), [1, 0, 0, 1, 1, 1]),
    "lift_fresh_copy": aten.lift_fresh_copy,
    # Fourier transforms and complex numbers
    "fft_fft": lambda z: parts(aten.fft_fft(z)),
    "fft_ifft": lambda z: parts(aten.fft_ifft(z)),
    "fft_rfft": lambda z: parts(aten.fft_rfft(z)),
    "fft_irfft": lambda z: aten.fft_irfft(complex_of(z)),
    "fft_hfft": lambda z: aten.fft_hfft(complex_of(z)),
    "fft_ihfft": lambda z: parts(aten.fft_ihfft(z)),
    "fft_fft2": lambda z: parts(aten.fft_fft2(channels(z))),
    "fft_ifft2": lambda z: parts(aten.fft_ifft2(channels(z))),
    "fft_rfft2": lambda z: parts(aten.fft_rfft2(channels(z))),
    "fft_irfft2": lambda z: aten.fft_irfft2(complex_of(z).view(-1, 2, 2)),
    "fft_fftn": lambda z: parts(aten.fft_fftn(channels(z), None, [1])),
    "fft_ifftn": lambda z: parts(aten.fft_ifftn(channels(z), None, [1])),
    "fft_rfftn": lambda z: parts(aten.fft_rfftn(channels(z), None, [2])),
    "fft_irfftn": lambda z: aten.fft_irfftn(complex_of(z), None, [1]),
    "fft_fftshift": lambda z: aten.fft_fftshift(z, [1]),
    "fft_ifftshift": lambda z: aten.fft_ifftshift(z, [1]),
    "_fft_r2c": lambda z: parts(aten._fft_r2c(z, [1], 0, True)),
    "_fft_c2r": lambda z: aten._fft_c2r(complex_of(z), [1], 2, 6),
    "_fft_c2c": lambda z: parts(aten._fft_c2c(complex_of(z), [1], 0, True)),
    "view_as_real": lambda z: aten.view_as_real(complex_of(z)),
    "view_as_complex": lambda z: parts(aten.view_as_complex(z.view(-1, 4, 2))),
    "real": lambda z: aten.real(complex_of(z)),
    "imag": lambda z: aten.imag(complex_of(z)),
    "conj": lambda z: aten.imag(aten.conj(complex_of(z))),
    "_conj": lambda z: aten.imag(aten._conj(complex_of(z))),
    "_conj_physical": lambda z: parts(aten._conj_physical(complex_of(z))),
    "conj_physical": lambda z: parts(aten.conj_physical(complex_of(z))),
    "resolve_conj": lambda z: parts(aten.resolve_conj(complex_of(z))),
    "resolve_neg": aten.resolve_neg,
    "_neg_view": lambda z: aten.resolve_neg(aten._neg_view(z)),
    "complex": lambda z: parts(aten.complex(z[:, :4], z[:, 4:])),
    # batch norms
    "batch_norm": lambda z: aten.batch_norm(z, *stats(z), False, 0.1, 1e-5, False),
    "_native_batch_norm_legit_no_training": lambda z: aten._native_batch_norm_legit_no_training(
        z, *stats(z), 0.1, 1e-5
    )[0],
    "native_batch_norm": lambda z: aten.native_batch_norm(z, *stats(z), False, 0.1, 1e-5)[0],
    # of several operands
    "add": lambda z: aten.add(z[:, :4], z[:, 4:], alpha=0.5),
    "sub": lambda z: aten.sub(z[:, :4], z[:, 4:], alpha=2),
    "rsub": lambda z: aten.rsub(z, 1.0, 3),
    "cat": lambda z: aten.cat([z, z.relu(), W[:1].expand(z.shape[0], 1)], 1),
    "concat": lambda z: aten.concat([z, z.relu()], 1),
    "concatenate": lambda z: aten.concatenate([z, z.relu()], 1),
    "stack": lambda z: aten.stack([z, z.relu()], 1),
    "hstack": lambda z: aten.hstack([z, z.relu()]),
    "vstack": lambda z: aten.vstack([z]),
    "dstack": lambda z: aten.dstack([z, z.relu()]),
    "where": lambda z: aten.where(W[:8] > 0, z, z.flip(1)),
    "masked_fill": lambda z: aten.masked_fill(z, W[:8] > 0, 0.5),
    "select_scatter": lambda z: aten.select_scatter(channels(z), z[:, :4].relu(), 1, 0),
    "slice_scatter": lambda z: aten.slice_scatter(z, z[:, :3].relu(), 1, 0, 3),
    "copy": lambda z: aten.copy(z, z.flip(1)),
    "fill": lambda z: torch.cat([aten.fill(z, 2.0), z], 1),
    "index_put": lambda z: aten.index_put(z, [None, I3], z[:, :3].relu()),
    "index_add": lambda z: aten.index_add(z, 1, I3, z[:, :3].relu()),
    "index_copy": lambda z: aten.index_copy(z, 1, I3, z[:, :3].relu()),
    "index_fill": lambda z: aten.index_fill(z, 1, I3, 0.5),
    "scatter_add": lambda z: aten.scatter_add(z, 1, spread(I8, z), z),
    "scatter": lambda z: aten.scatter(z, 1, spread(I3, z), z[:, :3].relu()),
    "scatter_reduce:sum": lambda z: aten.scatter_reduce(z[:, :4], 1, spread(I8, z), z, "sum"),
    "scatter_reduce:mean": lambda z: aten.scatter_reduce(z[:, :4], 1, spread(I8, z), z, "mean", include_self=False),
    "scatter_reduce:prod": lambda z: aten.scatter_reduce(z[:, :4], 1, spread(I8, z), z, "prod"),
    # products
    "mul": lambda z: aten.mul(z, W[:8]),
    "multiply": lambda z: aten.multiply(z, 0.5),
    "linear": lambda z: aten.linear(z, W.view(3, 8), W[:3]),
    "mm": lambda z: aten.mm(z, W.view(8, 3)),
    "bmm": lambda z: aten.bmm(channels(z), W[:12].view(1, 4, 3).expand(z.shape[0], -1, -1)),
    "matmul": lambda z: aten.matmul(channels(z), W[:12].view(4, 3)),
    "mv": lambda z: aten.mv(z, W[:8]),
    "dot": None,  # of two vectors: mixes the points of a batch
    "outer": lambda z: aten.outer(z[:, 0], W[:3]),
    "einsum": lambda z: aten.einsum("bij,jk->bik", [channels(z), W[:12].view(4, 3)]),
    "conv1d": lambda z: aten.conv1d(channels(z), W[:12].view(3, 2, 2)),
    "conv2d": lambda z: aten.conv2d(image(z), W[:12].view(3, 2, 2, 1)),
    "conv3d": lambda z: aten.conv3d(volume(z), W[:4].view(2, 1, 2, 1, 1)),
    "conv_transpose1d": lambda z: aten.conv_transpose1d(channels(z), W[:12].view(2, 3, 2)),
    "conv_transpose2d": lambda z: aten.conv_transpose2d(image(z), W[:12].view(2, 3, 2, 1)),
    "conv_transpose3d": lambda z: aten.conv_transpose3d(volume(z), W[:4].view(1, 2, 2, 1, 1)),
    "convolution": lambda z: aten.convolution(channels(z), W[:12].view(3, 2, 2), None, [1], [0], [1], False, [0], 1),
    "_convolution": lambda z: aten._convolution(
        channels(z), W[:12].view(3, 2, 2), None, [1], [0], [1], False, [0], 1, False, False, True, True
    ),
    "lerp": lambda z: aten.lerp(z, W[:8].expand_as(z), 0.25),
    "addmm": lambda z: aten.addmm(z[:, :3], z, W.view(8, 3)),
    "baddbmm": lambda z: aten.baddbmm(
        channels(z)[:, :, :3], channels(z), W[:12].view(1, 4, 3).expand(z.shape[0], 4, 3)
    ),
    "addmv": lambda z: aten.addmv(z[:, 0], z, W[:8]),
    "addbmm": None,  # sums over its first dimension
    "div": lambda z: aten.div(z, 3.0),
    "divide": lambda z: aten.divide(z, W[:8].exp()),
    "true_divide": lambda z: aten.true_divide(z, 4),
    # logic, of comparisons; made continuous by the product
    "logical_and": lambda z: z * aten.logical_and(z > 0, z > -1),
    "logical_or": lambda z: z * aten.logical_or(z > 0, z > 0),
    "logical_not": lambda z: z * aten.logical_not(z > 0),
    "logical_xor": lambda z: z * aten.logical_xor(z > 0, W[:8] > 0),
    "bitwise_and": lambda z: z * aten.bitwise_and(z > 0, z > -1),
    "bitwise_or": lambda z: z * aten.bitwise_or(z > 0, z > 0),
    "bitwise_not": lambda z: z * aten.bitwise_not(z > 0),
    "bitwise_xor": lambda z: z * aten.bitwise_xor(z > 0, W[:8] > 0),
    "__and__": lambda z: z * ((z > 0) & (z > -1)),
    "__or__": lambda z: z * ((z > 0) | (z > 0)),
    # kinks
    "leaky_relu": lambda z: aten.leaky_relu(z, 0.1),
    "rrelu": lambda z: aten.rrelu(z, 0.1, 0.3, False),
    "rrelu_with_noise": lambda z: aten.rrelu_with_noise(z, torch.ones_like(z), 0.1, 0.3, False),
    "prelu": lambda z: aten.prelu(channels(z), W[:2]),
    "_prelu_kernel": lambda z: aten._prelu_kernel(channels(z), W[:2].view(1, 2, 1)),
    "hardtanh": lambda z: aten.hardtanh(z, -0.5, 1.5),
    "clamp": lambda z: aten.clamp(z, W[:8], W[8:16]),
    "clip": lambda z: aten.clip(z, -0.5, 0.5),
    "clamp_min": lambda z: aten.clamp_min(z[:, :4], z[:, 4:]),
    "clamp_max": lambda z: aten.clamp_max(z, W[:8]),
    "threshold": lambda z: aten.threshold(z, 0.5, 0.5),
    "softshrink": lambda z: aten.softshrink(z, 0.25),
    "hardshrink": lambda z: aten.hardshrink(z, 0.25),
    "maximum": lambda z: aten.maximum(z[:, :4], z[:, 4:]),
    "minimum": lambda z: aten.minimum(z, W[:8]),
    "max.other": lambda z: aten.max.other(z, W[:8]),
    "min.other": lambda z: aten.min.other(z, W[:8]),
    "fmax": lambda z: aten.fmax(z, W[:8]),
    "fmin": lambda z: aten.fmin(z, W[:8]),
    "max_pool1d": lambda z: aten.max_pool1d(channels(z), [2]),
    "max_pool2d": lambda z: aten.max_pool2d(image(z), [2, 1], [1, 1]),
    "max_pool3d": lambda z: aten.max_pool3d(volume(z), [2, 1, 1], [1, 1, 1]),
    "max_pool1d_with_indices": lambda z: aten.max_pool1d_with_indices(channels(z), [2])[0],
    "max_pool2d_with_indices": lambda z: aten.max_pool2d_with_indices(image(z), [2, 1], [1, 1])[0],
    "max_pool3d_with_indices": lambda z: aten.max_pool3d_with_indices(volume(z), [2, 1, 1], [1, 1, 1])[0],
    "adaptive_max_pool1d": lambda z: aten.adaptive_max_pool1d(channels(z), [3])[0],
    "adaptive_max_pool2d": lambda z: aten.adaptive_max_pool2d(image(z), [1, 2])[0],
    "adaptive_max_pool3d": lambda z: aten.adaptive_max_pool3d(volume(z), [1, 2, 2])[0],
    "amax": lambda z: aten.amax(channels(z), [2]),
    "amin": lambda z: aten.amin(channels(z), [2]),
    "max.dim": lambda z: aten.max.dim(channels(z), 2)[0],
    "min.dim": lambda z: aten.min.dim(channels(z), 2)[0],
    "scatter_reduce:amax": lambda z: aten.scatter_reduce(z[:, :4], 1, spread(I8, z), z, "amax", include_self=False),
    "scatter_reduce:amin": lambda z: aten.scatter_reduce(z[:, :4], 1, spread(I8, z), z, "amin"),
    "index_reduce:amax": lambda z: aten.index_reduce(z[:, :4], 1, I8, z, "amax"),
    "index_reduce:amin": lambda z: aten.index_reduce(z[:, :4], 1, I8, z, "amin", include_self=False),
    "sign": lambda z: z * aten.sign(z),
    "sgn": lambda z: z * aten.sgn(z),
    # what ends exact methods
    "_softmax": lambda z: aten._softmax(z, 1, False),
    "softmax": lambda z: aten.softmax(z, 1),
    "log_softmax": lambda z: aten.log_softmax(z, 1),
    "_log_softmax": lambda z: aten._log_softmax(z, 1, False),
    "layer_norm": lambda z: aten.layer_norm(z, [8]),
    "native_layer_norm": lambda z: aten.native_layer_norm(z, [8], None, None, 1e-5)[0],
    "group_norm": lambda z: aten.group_norm(channels(z), 2),
    "native_group_norm": lambda z: aten.native_group_norm(channels(z), None, None, z.shape[0], 2, 4, 2, 1e-5)[0],
    "rms_norm": lambda z: aten.rms_norm(z, [8]),
    "_fused_rms_norm": lambda z: aten._fused_rms_norm(z, [8], None, 1e-5)[0],
    "pow": lambda z: aten.pow(z, 2),
    "glu": lambda z: aten.glu(z, 1),
    "var": lambda z: aten.var(z, [1]),
    "std": lambda z: aten.std(z, [1]),
    "var_mean": lambda z: aten.var_mean(z, [1])[0],
    "std_mean": lambda z: aten.std_mean(z, [1])[0],
    "logsumexp": lambda z: aten.logsumexp(z, [1]),
    "prod": lambda z: aten.prod(z, 1),
    "cumprod": lambda z: aten.cumprod(z, 1),
    "addcmul": lambda z: aten.addcmul(z, z, z),
    "addcdiv": lambda z: aten.addcdiv(z, z, z.abs() + 1),
    "cosine_similarity": lambda z: aten.cosine_similarity(z, z.flip(1), 1),
    "instance_norm": lambda z: aten.instance_norm(channels(z), None, None, None, None, True, 0.1, 1e-5, False),
    "norm": lambda z: aten.norm(z, 2, [1]),
    "linalg_vector_norm": lambda z: aten.linalg_vector_norm(z, 2, [1]),
    "linalg_norm": lambda z: aten.linalg_norm(z, 2, [1]),
    "atan2": lambda z: aten.atan2(z, z.flip(1)),
    "logaddexp": lambda z: aten.logaddexp(z, z.flip(1)),
    "xlogy": lambda z: aten.xlogy(z, z.abs() + 1),
    "log_sigmoid_forward": lambda z: aten.log_sigmoid_forward(z)[0],
    "scaled_dot_product_attention": lambda z: aten.scaled_dot_product_attention(*[channels(z)] * 3),
}
ONE_ARGUMENT = (
    "relu relu6 abs absolute hardsigmoid gelu silu tanh sigmoid elu selu celu softplus mish hardswish log_sigmoid exp "
    "exp2 expm1 log log1p log2 log10 sqrt rsqrt square reciprocal sin cos tan sinh cosh asin acos atan asinh acosh "
    "atanh erf erfc erfinv sinc"
)
COMPARISONS = "gt ge lt le greater greater_equal less less_equal"
CALLS |= {name: getattr(aten, name) for name in ONE_ARGUMENT.split()}
CALLS |= {name: lambda z, name=name: z * getattr(aten, name)(z, 0.0) for name in COMPARISONS.split()}
ON_OTHER_DEVICES = {
    "cudnn_batch_norm",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
}
JUMP = {"hardshrink"}
# The last two by torch's tracers: one fixes the batch size for it, the other makes a random operator of it.
REFUSED_AT_CAPTURE = {"view.dtype", "scatter_reduce:prod", "take_along_dim", "rrelu_with_noise"}


COVERED = [
    name
    for name, call in CALLS.items()
    if call is not None and TABLE[name].kind in (Kind.AFFINE, Kind.KINK) and name not in JUMP | REFUSED_AT_CAPTURE
]
