"""The kernels against their NumPy twins, with equality."""

import math

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from cases.devices import DEVICES
from pylinregion import reference
from pylinregion.native import extension
from pylinregion.native.addresses import is_row_dense, row_dense
from pylinregion.native.dense_chain import ChainCounts, ChainLayer, ChainPoints, DenseChain, count_chain
from pylinregion.native.distinct_patterns import distinct_patterns
from pylinregion.native.label_changes import label_changes, label_words
from pylinregion.native.neuron_arguments import Patterns
from pylinregion.native.packed_linear import PackedLinear
from pylinregion.native.scalar_kink import ScalarKink
from pylinregion.native.sign_changes import sign_changes, sign_changes_split, sign_words
from pylinregion.native.simd import simd, simd_sets, use_simd

SIMD = simd_sets()
# points, vertices, neurons: nothing, one, odd, one word, past a word, past a block of threads and vectors
SIZES = [(0, 4, 5), (3, 2, 0), (1, 1, 1), (2, 3, 7), (3, 4, 64), (2, 50, 65), (5, 6, 200), (2, 9, 1025), (7, 2, 515)]
KINKS = [
    ScalarKink((0.0,), "relu"),
    ScalarKink((0.0,), "leaky_relu", slope=0.25),
    ScalarKink((-0.5, 0.75), "clamp", low=-0.5, high=0.75),
    ScalarKink((0.75,), "clamp", high=0.75),
    ScalarKink((-0.25, 0.5), "none"),
    ScalarKink((0.5,), "none"),
]
FLOATS = [torch.float32, torch.float64]
HALVES = [torch.bfloat16, torch.float16]


def preactivations(shape, dtype, seed=0):
    """Numbers that hit breakpoints and zeros of both signs often, and change between vertices now and then."""
    generator = torch.Generator().manual_seed(seed)
    points, vertices, neurons = shape
    base = torch.randn(points, 1, neurons, generator=generator, dtype=torch.float64)
    z = base + 0.1 * torch.randn(points, vertices, neurons, generator=generator, dtype=torch.float64)
    special = torch.tensor([0.0, -0.0, 0.5, 0.75, -0.5, -0.25], dtype=torch.float64)
    which = torch.randint(0, 12, z.shape, generator=generator)
    z = torch.where(which < 6, special[which.clamp(max=5)], z)
    return z.to(dtype)


def planes_of(words, neurons, n_breakpoints):
    """Bits back to pieces: ``[B, V, N]`` and the padding, which must be 0."""
    bits = np.unpackbits(words.numpy().view(np.uint8), axis=-1, bitorder="little")
    planes = bits.reshape(*words.shape[:2], n_breakpoints, words.shape[2] * 64 // n_breakpoints).astype(np.int64)
    return planes[..., :neurons].sum(axis=2), planes[..., neurons:]


def run(z, kink, device="cpu", *, in_place=False, want_out=True, threads=1, offset=0, spare=0):
    points, vertices, neurons = z.shape
    flat = z.reshape(points * vertices, neurons).to(device)
    changes = torch.full((points, 3), 10, dtype=torch.int64, device=device)
    nonfinite = torch.zeros(points, dtype=torch.uint8, device=device)
    needed = sign_words(neurons, len(kink.breakpoints))
    words = torch.full((points, vertices, offset + needed + spare), -1, dtype=torch.int64, device=device)
    out = flat if in_place else (torch.empty_like(flat) if want_out else None)
    sign_changes(flat, vertices, kink, changes[:, 1], nonfinite, Patterns(words, offset), out, threads)
    assert (changes[:, [0, 2]] == 10).all()  # neighbours in memory are left alone
    assert (words[..., :offset] == -1).all() and (words[..., offset + needed :] == -1).all()
    activations = None if out is None else out.cpu().reshape(z.shape)
    return changes[:, 1].cpu() - 10, words[..., offset : offset + needed].cpu(), activations, nonfinite.cpu()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kink", KINKS, ids=lambda kink: f"{kink.activation}{len(kink.breakpoints)}")
@pytest.mark.parametrize("dtype", FLOATS + HALVES, ids=str)
@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_sign_changes_equal_the_reference(shape, dtype, kink, device):
    z = preactivations(shape, dtype, seed=sum(shape))
    fused = dtype in FLOATS or kink.activation in ("none", "relu")
    want_out, want_pieces, want = reference.sign_changes(
        z.double().numpy() if dtype in HALVES else z.numpy(),
        kink.breakpoints,
        kink.activation,
        kink.slope,
        kink.low,
        kink.high,
    )
    changes, words, out, nonfinite = run(z, kink, device, want_out=fused, offset=2, spare=1)
    assert changes.dtype == torch.int64
    assert np.array_equal(changes.numpy(), want)
    pieces, padding = planes_of(words, z.shape[2], len(kink.breakpoints))
    assert np.array_equal(pieces, want_pieces) and not padding.any()
    if fused:
        assert np.array_equal(out.double().numpy(), want_out.astype(np.float64))
    assert not nonfinite.any()
    if min(shape) > 1 and shape[2] > 100:  # the test must not pass by counting nothing, or everything
        assert 0 < want.sum() < shape[0] * shape[2]


@pytest.mark.parametrize("name", SIMD)
@pytest.mark.parametrize("dtype", FLOATS + HALVES, ids=str)
def test_every_instruction_set_gives_the_same_bits(name, dtype):
    with use_simd(name):
        assert simd() == name
    for kink in KINKS:
        fused = dtype in FLOATS or kink.activation in ("none", "relu")
        z = preactivations((3, 6, 333), dtype, seed=4)
        best = run(z, kink, want_out=fused)
        with use_simd(name):
            this = run(z, kink, want_out=fused)
        for a, b in zip(best, this, strict=True):
            assert (a is None and b is None) or torch.equal(a, b)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", FLOATS + HALVES, ids=str)
def test_activation_in_place(dtype, device):
    z = preactivations((3, 4, 130), dtype)
    separate = run(z, KINKS[0], device)
    in_place = run(z, KINKS[0], device, in_place=True)
    for a, b in zip(separate, in_place, strict=True):
        assert torch.equal(a, b)
    assert torch.equal(separate[2], torch.relu(z))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("kink", KINKS[:3], ids=lambda kink: kink.activation)
def test_activations_are_those_of_torch(kink, dtype, device):
    z = preactivations((2, 5, 300), dtype, seed=3)
    want = {
        "relu": torch.relu,
        "leaky_relu": lambda t: torch.nn.functional.leaky_relu(t, kink.slope),
        "clamp": lambda t: t.clamp(kink.low, kink.high),
    }[kink.activation](z)
    assert torch.equal(run(z, kink, device)[2], want)


@pytest.mark.parametrize("device", DEVICES)
def test_relu_at_exactly_zero_is_off(device):
    z = torch.tensor([[[0.0, 0.0, -0.0, 1.0, -1.0], [-1.0, 1.0, 0.0, 2.0, 0.0]]])
    changes, words, _, _ = run(z, KINKS[0], device)
    assert changes.tolist() == [1]  # only the second neuron, from 0 (off) to 1 (on)
    assert words[0, :, 0].tolist() == [0b01000, 0b01010]


@pytest.mark.parametrize("device", DEVICES)
def test_smallest_numbers_count_as_positive(device):
    for dtype in FLOATS + HALVES:
        smallest = torch.zeros(1, dtype=dtype)
        smallest = torch.nextafter(smallest, smallest + 1) if dtype in FLOATS else smallest.view(torch.int16)
        if dtype in HALVES:
            smallest = (smallest + 1).view(dtype)
        z = torch.stack([smallest, -smallest]).reshape(1, 2, 1)
        assert run(z, KINKS[0], device)[0].tolist() == [1], dtype


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", FLOATS + HALVES, ids=str)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nonfinite_preactivations_are_flagged_and_nan_survives(bad, dtype, device):
    z = preactivations((3, 4, 70), dtype)
    for neuron in (0, 63, 69):
        broken = z.clone()
        broken[1, 2, neuron] = bad
        _, _, out, nonfinite = run(broken, KINKS[0], device)
        assert nonfinite.tolist() == [0, 1, 0]
        if math.isnan(bad):
            assert out[1, 2, neuron].isnan()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kink", KINKS, ids=lambda kink: f"{kink.activation}{len(kink.breakpoints)}")
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("shape", [(0, 2, 5), (1, 1, 1), (4, 3, 70), (3, 25, 200), (2, 2, 1025)], ids=str)
def test_split_equals_ready_made_vertices(shape, dtype, kink, device):
    points, n_directions, neurons = shape
    centre = preactivations((points, 1, neurons), dtype)[:, 0]
    directions = preactivations((n_directions, 1, neurons), dtype, seed=1)[:, 0]
    radius = torch.linspace(0.1, 2.0, points, dtype=torch.float64)
    z = torch.from_numpy(reference.split_preactivations(centre.numpy(), directions.numpy(), radius.numpy()))
    want = run(z, kink)
    changes = torch.zeros(points, dtype=torch.int64, device=device)
    nonfinite = torch.zeros(points, dtype=torch.uint8, device=device)
    words = torch.zeros_like(want[1], device=device)
    out = torch.empty(points * 2 * n_directions, neurons, dtype=dtype, device=device)
    arguments = centre.to(device), directions.to(device), radius.to(device), kink, changes, nonfinite
    sign_changes_split(*arguments, Patterns(words), out)
    assert torch.equal(changes.cpu(), want[0]) and torch.equal(words.cpu(), want[1])
    assert torch.equal(out.cpu().reshape(z.shape), want[2])


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_threads_do_not_change_anything(dtype):
    z = preactivations((17, 4, 99), dtype)
    for a, b in zip(run(z, KINKS[2], threads=1), run(z, KINKS[2], threads=5), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("device", DEVICES)
def test_channels_last_counts_like_contiguous(device):
    z = preactivations((2, 6, 3 * 5 * 7), torch.float32).reshape(12, 3, 5, 7).to(device)
    counts = []
    for layout in (torch.contiguous_format, torch.channels_last):
        source = z.contiguous(memory_format=layout)
        assert is_row_dense(source)
        changes = torch.zeros(2, dtype=torch.int64, device=device)
        nonfinite = torch.zeros(2, dtype=torch.uint8, device=device)
        words = torch.zeros(2, 6, 2, dtype=torch.int64, device=device)
        out = torch.empty_like(source)
        sign_changes(source, 6, KINKS[0], changes, nonfinite, Patterns(words), out)
        assert torch.equal(out, torch.relu(z))
        counts.append((changes, distinct_patterns(words)))
    assert torch.equal(counts[0][0], counts[1][0]) and torch.equal(counts[0][1], counts[1][1])


def test_noncontiguous_input_is_refused_and_row_dense_mends_it():
    z = preactivations((2, 4, 60), torch.float32).reshape(8, 60)
    strided = torch.cat([z, z], dim=1)[:, ::2]
    changes, nonfinite = torch.zeros(2, dtype=torch.int64), torch.zeros(2, dtype=torch.uint8)
    with pytest.raises(ValueError, match="z must be contiguous or channels_last, got strides"):
        sign_changes(strided, 4, KINKS[0], changes, nonfinite)
    sign_changes(row_dense(strided), 4, KINKS[0], changes, nonfinite)
    want = reference.sign_changes(strided.reshape(2, 4, 60).numpy())[2]
    assert np.array_equal(changes.numpy(), want)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool], ids=str)
@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_label_changes_equal_the_reference(shape, dtype, device):
    generator = torch.Generator().manual_seed(1)
    points, vertices, neurons = shape
    labels = torch.randint(0, 2 if dtype == torch.bool else 9, (points, 1, neurons), generator=generator)
    flip = torch.rand(shape, generator=generator) < 0.02
    labels = torch.where(flip, 1 - labels if dtype == torch.bool else labels + 1, labels).to(dtype)
    changes = torch.full((points,), 5, dtype=torch.int64, device=device)
    words = torch.full((points, vertices, label_words(neurons) + 1), -1, dtype=torch.int64, device=device)
    label_changes(labels.reshape(points * vertices, neurons).to(device), vertices, changes, Patterns(words, 1))
    assert np.array_equal(changes.cpu().numpy() - 5, reference.label_changes(labels.numpy()))
    assert (words[..., 0] == -1).all()
    written = words[..., 1:].cpu().contiguous().numpy().view(np.int32)
    assert np.array_equal(written[..., :neurons], labels.numpy().astype(np.int32))
    assert not written[..., neurons:].any()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("weak_hash", [False, True])
@pytest.mark.parametrize("shape", [(0, 3, 2), (1, 1, 1), (4, 7, 0), (5, 50, 10), (3, 300, 33), (2, 2, 70)], ids=str)
def test_distinct_patterns_equal_the_reference(shape, weak_hash, device):
    generator = torch.Generator().manual_seed(2)
    points, vertices, n_words = shape
    pool = torch.randint(-(2**62), 2**62, (points, 1 + vertices // 3, n_words), generator=generator)
    which = torch.randint(0, pool.shape[1], (points, vertices), generator=generator)
    words = torch.gather(pool, 1, which[..., None].expand(-1, -1, n_words)).contiguous()
    if vertices > 1 and n_words > 0:
        words[:, -1] = words[:, 0]
        words[:, -1, -1] ^= 1  # one bit apart
    got = distinct_patterns(words.to(device), weak_hash=weak_hash).cpu()
    assert np.array_equal(got.numpy(), reference.distinct_patterns(words.numpy()))


def test_bad_arguments_are_named():
    z, changes, nonfinite = torch.zeros(6, 5), torch.zeros(3, dtype=torch.int64), torch.zeros(3, dtype=torch.uint8)
    kink = ScalarKink()
    with pytest.raises(ValueError, match=r"z must be \[B \* 4, ...\], got \[6, 5\]"):
        sign_changes(z, 4, kink, changes, nonfinite)
    with pytest.raises(ValueError, match=r"changes must be \[3\] int64, got \[2\]"):
        sign_changes(z, 2, kink, changes[:2], nonfinite)
    with pytest.raises(ValueError, match="must be float32, float64, bfloat16 or float16"):
        sign_changes(z.long(), 2, kink, changes, nonfinite)
    with pytest.raises(ValueError, match=r"'leaky_relu' is not offered for torch\.float16"):
        half = z.half()
        sign_changes(half, 2, ScalarKink(activation="leaky_relu"), changes, nonfinite, out=half)
    with pytest.raises(ValueError, match="with 1 words at offset 4"):
        words = torch.zeros(3, 2, 4, dtype=torch.int64)
        sign_changes(z, 2, kink, changes, nonfinite, Patterns(words, 4))
    with pytest.raises(ValueError, match="one or two ascending numbers"):
        ScalarKink((1.0, 0.0))
    with pytest.raises(ValueError, match="no instruction set named 'mmx'"), use_simd("mmx"):
        pass


# --- what reaches C++ ---


def chain_of(**changed):
    """A chain of two layers and its points, with some of the tensors changed; counts them."""
    doubles = {name: torch.ones(*shape, dtype=torch.float64) for name, shape in {
        "exact": (2, 3), "bias_size": (2,), "row_norm": (2,), "slope": (2,), "column_square": (3,),
        "directions": (3, 16), "direction_size": (3,), "centre": (4, 2), "norm": (4,), "radius": (4,),
    }.items()}  # fmt: skip
    tensors = doubles | {
        "weight": torch.ones(2, 3),
        "changes": torch.zeros(4, 2, dtype=torch.int64),
        "ambiguous": torch.zeros(4, dtype=torch.int64),
        "classes": torch.zeros(4, 10, dtype=torch.int64),
        "work": torch.zeros(4, dtype=torch.int64),
        "nonfinite": torch.zeros(2, 4, dtype=torch.uint8),
    }
    t = tensors | changed
    three, five = torch.ones(3, dtype=torch.float64), torch.ones(5, dtype=torch.float64)
    layers = [
        ChainLayer(5, 3, None, None, three, three, None, five, 9.0, 9.0, 9.0, 1.0),
        ChainLayer(
            3, 2, t["weight"], t["exact"], t["bias_size"], t["row_norm"], t["slope"], t["column_square"], 9.0, 9.0, 9.0,
            1.0,
        ),
    ]  # fmt: skip
    chain = DenseChain(torch.float32, layers, 5, t["directions"], t["direction_size"], 9.0)
    first = torch.ones(4, 3, dtype=torch.float64)
    count_chain(
        chain,
        ChainPoints([first, t["centre"]], [t["norm"], t["norm"]], t["radius"]),
        ChainCounts(t["changes"], t["ambiguous"], t["classes"], t["work"], t["nonfinite"]),
    )
    return tensors


def signs(**changed):
    tensors = {
        "z": torch.zeros(6, 5),
        "changes": torch.zeros(3, dtype=torch.int64),
        "nonfinite": torch.zeros(3, dtype=torch.uint8),
        "patterns.words": torch.zeros(3, 2, 1, dtype=torch.int64),
        "out": torch.zeros(6, 5),
    }
    t = tensors | changed
    words = Patterns(t["patterns.words"])
    sign_changes(t["z"], 2, ScalarKink((0.0,), "relu"), t["changes"], t["nonfinite"], words, t["out"])
    return tensors


def split_signs(**changed):
    tensors = {
        "centre": torch.zeros(3, 5),
        "directions": torch.zeros(2, 5),
        "radius": torch.zeros(3, dtype=torch.float64),
        "changes": torch.zeros(3, dtype=torch.int64),
        "nonfinite": torch.zeros(3, dtype=torch.uint8),
        "patterns.words": torch.zeros(3, 4, 1, dtype=torch.int64),
        "out": torch.zeros(12, 5),
    }
    t = tensors | changed
    words = Patterns(t["patterns.words"])
    sign_changes_split(
        t["centre"],
        t["directions"],
        t["radius"],
        ScalarKink((0.0,), "relu"),
        t["changes"],
        t["nonfinite"],
        words,
        t["out"],
    )
    return tensors


def labels(**changed):
    tensors = {
        "labels": torch.zeros(6, 5, dtype=torch.int64),
        "changes": torch.zeros(3, dtype=torch.int64),
        "patterns.words": torch.zeros(3, 2, 3, dtype=torch.int64),
    }
    t = tensors | changed
    label_changes(t["labels"], 2, t["changes"], Patterns(t["patterns.words"]))
    return tensors


def distinct(**changed):
    tensors = {"words": torch.zeros(3, 2, 3, dtype=torch.int64)}
    distinct_patterns((tensors | changed)["words"])
    return tensors


def packed(**changed):
    tensors = {"weight": torch.zeros(4, 3), "bias": torch.zeros(4), "x": torch.zeros(2, 3), "out": torch.zeros(2, 4)}
    t = tensors | changed
    PackedLinear(t["weight"], t["bias"])(t["x"], t["out"])
    return tensors


def stands_for(tensor):
    """A tensor that says it is on the CPU, and has no memory."""
    return FakeTensorMode().from_tensor(tensor)


SPOILT = {
    "meta": lambda tensor: tensor.to("meta"),
    "fake": stands_for,
    "dtype": lambda tensor: tensor.to(torch.int16),
    "too few": lambda tensor: tensor[:-1],
    "strides": lambda tensor: torch.stack([tensor, tensor], dim=-1)[..., 0],
}
ANY_STRIDES = {("labels", "changes"), ("signs", "changes"), ("split_signs", "changes"), ("packed", "weight")} | {
    ("packed", "bias"), ("packed", "x"), ("chain_of", "classes")
}  # fmt: skip
CALLS = {call.__name__: call for call in (signs, split_signs, labels, distinct, packed, chain_of)}
ARGUMENTS = [(name, argument) for name, call in CALLS.items() for argument in call()]


@pytest.mark.parametrize("how", SPOILT)
@pytest.mark.parametrize(("name", "argument"), ARGUMENTS)
def test_nothing_reaches_the_kernels_that_is_not_what_they_take(name, argument, how):
    """A null address, or one of another device, would end the process."""
    call = CALLS[name]
    spoilt = SPOILT[how](call()[argument])
    if (how == "strides" and (name, argument) in ANY_STRIDES) or (how == "too few" and argument == "words"):
        call(**{argument: spoilt})
    else:
        with pytest.raises(ValueError, match="must"):
            call(**{argument: spoilt})


def test_a_build_without_cuda_says_what_to_do(monkeypatch):
    monkeypatch.setattr(extension, "cuda_built", False)
    with pytest.raises(RuntimeError, match=r"built without CUDA.*`PYLINREGION_CUDA=1 pip install \.`, or move model"):
        extension.for_cuda("sign_changes_cuda")
