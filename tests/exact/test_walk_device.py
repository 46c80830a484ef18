"""Where walks along slices are: what is asked for, and what happens where a device has no memory, or is wrong."""

import contextlib
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import pylinregion as plr
from pylinregion.exact import device_check, walk_device
from pylinregion.exact.device_check import problem_of, walks_on
from pylinregion.exact.walk_device import WalkDevice, checked_device, cuda_walks
from pylinregion.native import devices

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


class Core:
    """Stands for an engine on a device that fails at first, in one of some ways."""

    def __init__(self, *fails, halvings=0):
        self.fails, self.halvings, self.calls = list(fails), halvings, []

    def any(self, *_, on_device=False):
        return self.walk(0, on_device=on_device)

    def walk(self, number, *, on_device=False):
        self.calls.append(on_device)
        if on_device and self.fails:
            raise RuntimeError(self.fails.pop(0))
        return {"found": number} | ({"on_the_cpu": 0, "halvings": self.halvings} if on_device else {})


def device():
    return WalkDevice("cuda:7", contextlib.nullcontext)


def test_a_device_is_called_while_it_is_current():
    entered = []

    @contextlib.contextmanager
    def current():
        entered.append(True)
        yield
        entered.append(False)

    core = Core()
    assert WalkDevice("cuda:7", current).call(core.walk, 3) == {"found": 3}
    assert (entered, core.calls) == ([True, False], [True])


def test_without_memory_it_is_tried_again_and_then_left_to_the_cpu():
    core = Core("walk_slices.cu:1: cudaMalloc: out of memory")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert device().call(core.walk, 3) == {"found": 3}
    assert core.calls == [True, True]
    core = Core(*2 * ["walk_slices.cu:1: cudaMalloc: out of memory"])
    with pytest.warns(RuntimeWarning, match="cuda:7 has too little free memory .* the CPU walks"):
        assert device().call(core.walk, 3) == {"found": 3}
    assert core.calls == [True, True, False]


def test_less_memory_than_is_asked_for_is_told():
    with pytest.warns(RuntimeWarning, match="cuda:7 has little free memory: .* took 1/8 of what they ask for"):
        assert device().call(Core(halvings=3).walk, 3) == {"found": 3}


def test_other_errors_of_a_device_are_raised():
    core = Core("walk_slices.cu:1: kernel walk_slices_kernel: an illegal memory access was encountered")
    with pytest.raises(RuntimeError, match="kernel walk_slices_kernel: an illegal memory access"):
        device().call(core.walk, 3)
    assert core.calls == [True]


def test_devices_that_are_none():
    assert checked_device(None, CPU) == checked_device("cpu", CUDA) == checked_device(torch.device("cpu"), CUDA) == CPU
    with pytest.raises(TypeError, match=r"device must be a string, a torch\.device or None, got int"):
        checked_device(0, CPU)
    for wrong in ("mps", "gpu", "cuda:x"):
        with pytest.raises(ValueError, match=f"device must be cpu, cuda or cuda:N, got '{wrong}'"):
            checked_device(wrong, CPU)


@pytest.mark.parametrize("built", [False, True])
def test_cuda_that_is_not_there(monkeypatch, built):
    for place in (walk_device, devices):
        monkeypatch.setattr(place, "cuda_built", built)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="device cuda:2: torch sees 2 CUDA devices"):
        checked_device("cuda:2", CPU)
    if built:
        assert checked_device("cuda:1", CPU) == torch.device("cuda", 1)
    else:
        with pytest.raises(ValueError, match="device cuda:1: this pylinregion was built without CUDA"):
            checked_device("cuda:1", CPU)
    assert checked_device(None, CUDA) == (CUDA if built else CPU)


def test_a_device_that_finds_something_else_is_not_trusted(monkeypatch):
    class Wrong(WalkDevice):
        def walk(self, of_core, *arguments, **asked):
            found = of_core(*arguments, **asked)
            return found | {"regions": [*found["regions"][:-1], found["regions"][-1] + 1]}

    class Broken(WalkDevice):
        def walk(self, *_, **__):
            raise RuntimeError("no kernel image is\n available")

    class Right(WalkDevice):
        def walk(self, of_core, *arguments, **asked):
            return of_core(*arguments, **asked)

    assert problem_of(Right("cuda:7", contextlib.nullcontext)) is None
    wrong = problem_of(Wrong("cuda:7", contextlib.nullcontext))
    assert wrong == "does not walk as the CPU does: regions of network 0 differ; please report this"
    broken = problem_of(Broken("cuda:7", contextlib.nullcontext))
    assert broken == "cannot walk along slices: RuntimeError: no kernel image is available"
    # Where it has no memory the CPU would walk, which says nothing of the device.
    full = Core("cudaMalloc: out of memory")
    monkeypatch.setattr(
        device_check, "Engine", lambda *_: type("", (), {"core": type("", (), {"enumerate": full.any})})()
    )
    assert "out of memory" in problem_of(device())

    monkeypatch.setattr(device_check, "_TRUSTED", set())
    monkeypatch.setattr(device_check, "problem_of", lambda device: wrong if device.name == "cuda:0" else None)
    monkeypatch.setattr(device_check, "checked_device", lambda device, of_model: torch.device(device or of_model))
    with pytest.warns(RuntimeWarning, match=r"cuda:0 does not walk as the CPU does.*: the CPU walks along slices"):
        assert walks_on(None, CUDA) is None
    with pytest.raises(RuntimeError, match=r"cuda:0 does not walk as the CPU does.* Pass device='cpu'"):
        walks_on("cuda:0", CPU)
    assert walks_on("cuda:1", CPU).name == "cuda:1"
    assert walks_on("cpu", CUDA) is None


def test_the_check_draws_no_random_numbers():
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    device_check._models()
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])


def test_every_function_that_walks_takes_a_device():
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    box = plr.Slice.box(-1, 1)
    for ask in (
        lambda device: plr.partition(model, box, device=device),
        lambda device: list(plr.partitions(model, [box], device=device)),
        lambda device: plr.trace(model, torch.zeros(1, 2), torch.ones(1, 2), device=device),
    ):
        ask("cpu")
        with pytest.raises(ValueError, match="device must be cpu, cuda or cuda:N, got 'tpu'"):
            ask("tpu")


@pytest.mark.cuda
def test_a_gpu_walks_as_the_cpu_does():
    for index in range(torch.cuda.device_count()):
        assert problem_of(cuda_walks(index)) is None
