"""The packed linear layer."""

import pytest
import torch

from pylinregion.native.packed_linear import PackedLinear
from pylinregion.native.simd import simd_sets, use_simd

SIZES = [(1, 1, 1), (5, 3, 7), (13, 64, 65), (50, 200, 200), (7, 1024, 33), (6, 2050, 129), (100, 31, 10)]
VECTORS = simd_sets()[:-1]  # all but portable
DTYPES = [torch.float32, torch.float64]


@pytest.fixture(params=VECTORS)
def simd(request):
    with use_simd(request.param):
        yield request.param


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rows, inputs, outputs", SIZES)
@pytest.mark.parametrize("with_bias", [True, False])
def test_integers_are_multiplied_exactly(simd, rows, inputs, outputs, with_bias, dtype):
    generator = torch.Generator().manual_seed(rows)
    x = torch.randint(-9, 10, (rows, inputs), generator=generator)
    weight = torch.randint(-9, 10, (outputs, inputs), generator=generator)
    bias = torch.randint(-9, 10, (outputs,), generator=generator) if with_bias else None
    want = x @ weight.T + (0 if bias is None else bias)
    layer = PackedLinear(weight.to(dtype), None if bias is None else bias.to(dtype))
    for threads in (1, 3):
        assert torch.equal(layer(x.to(dtype), threads=threads).long(), want)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rows, inputs, outputs", SIZES)
def test_rounding_stays_within_the_bound_of_a_sum_in_order(rows, inputs, outputs, dtype):
    if not PackedLinear.takes(dtype, torch.device("cpu")):
        pytest.skip("this machine has no packed kernel")
    generator = torch.Generator().manual_seed(1)
    x, weight, bias = (
        torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)
        for shape in ((rows, inputs), (outputs, inputs), (outputs,))
    )
    got = PackedLinear(weight, bias)(x)
    eps = torch.finfo(dtype).eps / 2
    if dtype == torch.float32:  # exact enough in float64
        want, size = x.double() @ weight.double().T + bias.double(), x.abs().double() @ weight.abs().double().T
        bound = (inputs + 1) * eps / (1 - (inputs + 1) * eps) * (size + bias.abs().double())
        assert bool(((got.double() - want).abs() <= bound * (1 + 1e-6)).all())
    want = torch.nn.functional.linear(x, weight, bias)  # two sums of that kind
    bound = 2 * (inputs + 2) * eps * (x.abs() @ weight.abs().T + bias.abs())
    assert bool(((got - want).abs() <= bound).all())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_instruction_sets_and_threads_give_the_same_bits(simd, dtype):
    x, weight, bias = (torch.randn(*shape, dtype=dtype) for shape in ((77, 300), (130, 300), (130,)))
    layer = PackedLinear(weight, bias)
    one = layer(x)
    assert torch.equal(one, layer(x, threads=4))
    assert torch.equal(one[10:20], layer(x[10:20]))
    with use_simd(VECTORS[-1]):
        assert torch.equal(one, layer(x))


def test_any_strides_and_leading_dimensions():
    if not PackedLinear.takes(torch.float64, torch.device("cpu")):
        pytest.skip("this machine has no packed kernel")
    weight = torch.randint(-5, 6, (4, 6)).double()
    layer = PackedLinear(weight, None)
    x = torch.randint(-5, 6, (3, 6, 5)).double().transpose(1, 2)
    assert torch.equal(layer(x), x @ weight.T)
    out = torch.empty(15, 4, dtype=torch.float64)
    layer(x.reshape(15, 6), out)
    assert torch.equal(out, x.reshape(15, 6) @ weight.T)
    assert layer(torch.empty(0, 6, dtype=torch.float64)).shape == (0, 4)


def test_what_does_not_fit_is_named():
    layer = PackedLinear(torch.zeros(4, 6), None)
    with pytest.raises(ValueError, match=r"x must be \[..., 6\] torch.float32 on the CPU, got \[2, 5\] torch.float32"):
        layer(torch.zeros(2, 5))
    with pytest.raises(ValueError, match=r"out must be contiguous \[2, 4\] torch.float32, got \[2, 3\]"):
        layer(torch.zeros(2, 6), torch.empty(2, 3))


def test_portable_machines_leave_linear_layers_to_torch():
    with use_simd("portable"):
        assert not PackedLinear.takes(torch.float32, torch.device("cpu"))
    assert not PackedLinear.takes(torch.bfloat16, torch.device("cpu"))
    assert not PackedLinear.takes(torch.float32, torch.device("cuda"))
