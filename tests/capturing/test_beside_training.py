"""A model is captured while another thread trains it, which sees nothing of that, and trains as if it were alone."""

import builtins
import contextlib
import copy
import faulthandler
import importlib
import math
import os
import queue
import signal
import subprocess
import sys
import threading
import warnings

import pytest
import torch
import torch.fx._symbolic_trace as symbolic_trace
from torch import nn

import pylinregion as plr
from pylinregion.capturing import patches

LIVE = {}  # the model by a name that its twin does not follow


def train(model, optimiser, x):
    loss = model(x).square().mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


def in_another_thread(run):
    """What a function returns there, or its error."""
    said = queue.SimpleQueue()

    def call():
        try:
            said.put((run(), None))
        except BaseException as error:
            said.put((None, error))

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    value, error = said.get()
    if error is not None:
        raise AssertionError("another thread sees the capture") from error
    return value


def everything(model):
    """What can be seen of a model: modes, attributes, tensors, their values and gradients, hooks."""
    found = []
    for name, part in model.named_modules():
        found += [name, id(part), part.training, tuple(vars(part)), tuple(map(id, vars(part).values()))]
        for own in (part._parameters, part._buffers, part._modules, part._forward_hooks, part._forward_pre_hooks):
            found += [tuple(own), tuple(map(id, own.values()))]
        for tensor in (*part._parameters.values(), *part._buffers.values()):
            if tensor is not None:
                found += [type(tensor), tensor.tolist(), tensor.requires_grad, id(tensor.grad), tensor._version]
    return found


def process():
    """What the process says of itself to a thread that knows of no capture."""
    one, two = torch.ones(1), torch.ones(1)
    return {
        "max": builtins.max(one, two) is one and builtins.min([one, two]) is one,
        "pow": type(math.pow(2, 3)) is float,
        "modules": "fx" not in nn.Module.__call__.__code__.co_filename and type(nn.ReLU()(one)) is torch.Tensor,
        "flags": not torch.compiler.is_compiling() and not symbolic_trace._is_fx_tracing_flag,
        "attention": bool(torch.backends.mha.get_fastpath_enabled()),
        "distributions": bool(torch.distributions.Distribution._validate_args),
        "hooks": [len(hooks) for hooks in (nn.modules.module._global_forward_hooks,)],
        "modes": torch.is_grad_enabled() and torch._C._len_torch_dispatch_stack() == 0,
        "warnings": _heard(),
        "chance": torch.get_rng_state().sum().item(),
    }


def _heard():
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        warnings.warn("beside", stacklevel=1)
    return len(heard)


class Looks(nn.Module):
    """Wherever a capture runs it, another thread looks at the live model."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3), nn.Dropout()
        self.head = torch.nn.utils.parametrizations.weight_norm(nn.Linear(12, 2))
        self.calls, self.kept, self.by_name = 0, None, {"calls": [0]}
        self.conv.register_forward_hook(lambda part, args, output: self.by_name["calls"].append(output))
        self.layers = [self.conv, self.norm]

    def forward(self, x):
        if "look" in LIVE and threading.current_thread() is threading.main_thread():
            same = LIVE["seen"] == in_another_thread(lambda: (everything(LIVE["model"]), process()))
            LIVE["look"].put(
                (bool(torch.compiler.is_compiling()), same)
            )  # an error here would be an attempt that failed
        self.calls += 1
        self.kept = self.drop(self.layers[1](self.layers[0](x))).relu()
        return self.head(self.kept.flatten(1))


@pytest.fixture
def live():
    """A model in training, with gradients, and what another thread sees of it."""
    torch.manual_seed(0)
    model, x = Looks(), torch.randn(4, 1, 3, 3)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    train(model, optimiser, x)
    LIVE.update(model=model, look=queue.SimpleQueue(), seen=in_another_thread(lambda: (everything(model), process())))
    yield model, x
    LIVE.clear()


def looked():
    """Whether it was looked at in a trace, and in runs with values; and that nothing was to be seen."""
    compiling, same = zip(*[LIVE["look"].get() for _ in range(LIVE["look"].qsize())], strict=True)
    assert all(same) and LIVE["seen"] == in_another_thread(lambda: (everything(LIVE["model"]), process()))
    return set(compiling)


def test_another_thread_sees_nothing_of_a_capture(live):
    model, x = live
    network = plr.capture(model, x)
    assert looked() == {False, True}
    assert plr.capture(model, x) is network and looked() == {False}
    assert network.state["conv.weight"] is model.conv.weight and model.calls == 1


def test_another_thread_sees_nothing_of_a_refusal(live):
    model, x = live
    model.layers[1] = BatchMean()
    LIVE["seen"] = in_another_thread(lambda: (everything(model), process()))
    with pytest.raises(plr.UnsupportedModelError, match="mixes the points"):
        plr.capture(model, x)
    assert looked() == {False, True}


class BatchMean(nn.Module):
    def forward(self, x):
        return x - x.mean(0)


def test_hooks_of_all_modules_are_called_for_other_threads_meanwhile():
    """And those that a capture can do without are not called there."""
    calls = bytearray()

    class Calls(nn.Linear):
        def forward(self, x):
            if threading.current_thread() is threading.main_thread():
                before = len(calls)
                in_another_thread(lambda: other(torch.ones(1, 2)))
                assert len(calls) == before + 1
            return super().forward(x).relu()

    model, other = Calls(2, 2), nn.Identity()

    def note(part, args, output):
        if part is other:
            calls.append(1)
        return output - 1 if part is model else None

    handle = nn.modules.module.register_module_forward_hook(note)
    try:
        network = plr.capture(model, torch.randn(3, 2))
    finally:
        handle.remove()
    assert calls and any(node.op_name == "sub" for node in network.nodes)  # the hook's, for the model that it knows


def test_a_model_that_another_thread_runs_is_captured():
    with running(nn.Linear(4, 4)) as (model, x):
        network = plr.capture(model, x)
        assert plr.capture(model, x) is network and network.layer_names == ("0",)


@contextlib.contextmanager
def running(layer):
    """A model, and points of it; another thread is in the middle of its forward pass."""
    reached, leave = threading.Event(), threading.Event()

    class Waits(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            if threading.current_thread() is thread:
                reached.set()
                leave.wait(60)
            return self.layer(x).relu()

    model, x = nn.Sequential(Waits()), torch.randn(3, 4)
    thread = threading.Thread(target=lambda: model(x))
    thread.start()
    try:
        assert reached.wait(60)
        yield model, x
    finally:
        leave.set()
        thread.join()


class Named(nn.Linear):
    """Reads its weight by a global name, not as its own."""

    def forward(self, x):
        return torch.nn.functional.linear(x, LIVE["named"].weight, self.bias)


@pytest.fixture
def named():
    LIVE["named"] = Named(4, 4)
    yield LIVE["named"]
    LIVE.clear()


def test_what_its_code_reaches_by_a_global_name_has_no_twin(named):
    model, x = nn.Sequential(named, nn.ReLU()), torch.randn(3, 4)
    network = plr.capture(model, x)
    assert network.state["0.weight"] is named.weight and plr.capture(model, x) is network and model.training
    with running(Named(4, 4)) as (model, x):
        LIVE["named"] = model[0].layer
        with pytest.raises(plr.PylinregionError, match="another thread runs the model, which cannot be captured"):
            plr.capture(model, x)
    plr.capture(model, x)


def test_lazy_models_are_captured_before_they_train():
    with running(nn.Linear(4, 4)) as (model, x):
        model[0].extra = nn.LazyLinear(2)
        with pytest.raises(plr.PylinregionError, match="it has lazy parts"):
            plr.capture(model, x)


class Stepped(nn.Module):
    """While it runs in the main thread, another one trains the live model's tensors."""

    def __init__(self, writes):
        super().__init__()
        self.first, self.norm, self.writes = nn.Linear(4, 4), nn.BatchNorm1d(4), writes
        self.count = torch.zeros(())

    def forward(self, x):
        x = self.norm(self.first(x))
        if self.writes:
            self.count.add_(1)
        if threading.current_thread() is threading.main_thread():
            in_another_thread(step_of_live)
        return x.relu()


def trained_tensors(model):
    return *model.parameters(), model.norm.running_mean, model.norm.running_var, model.count


def step_of_live():
    LIVE["steps"].append(1)
    model = LIVE["model"]
    with torch.no_grad():
        for tensor in trained_tensors(model):
            tensor.fill_(len(LIVE["steps"]))


@pytest.mark.parametrize("writes", [False, True])
def test_what_is_trained_meanwhile_is_not_put_back(writes):
    model, x = Stepped(writes), torch.randn(3, 4)
    LIVE.update(model=model, steps=bytearray())
    try:
        network = plr.capture(model, x)
        for _ in range(2):
            assert plr.capture(model, x) is network
            steps = float(len(LIVE["steps"]))
            assert steps > 3 and all(bool((tensor == steps).all()) for tensor in trained_tensors(model))
    finally:
        LIVE.clear()


class Trained(nn.Module):
    """Batch norm, dropout, counters, and a cache: all that a forward pass in training writes to and draws."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.drop = nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Dropout(0.3)
        self.last = torch.nn.utils.parametrizations.spectral_norm(nn.Linear(16, 2))
        self.calls, self.cache, self.seen = 0, {}, None

    def forward(self, x):
        self.calls += 1
        self.cache["h"] = self.seen = self.drop(self.norm(self.first(x))).relu()
        return self.last(self.seen)


def trained(model, steps):
    """Train until there is nothing more to wait for; gives how many steps that were."""
    torch.manual_seed(1)
    optimiser, generator = torch.optim.Adam(model.parameters(), 1e-2), torch.Generator().manual_seed(2)
    number = 0
    for number, _ in enumerate(steps, 1):
        train(model, optimiser, torch.randn(16, 6, generator=generator))
        assert type(model.seen) is torch.Tensor and list(model.cache) == ["h"] and model.calls == number
    return number


def test_training_goes_on_as_if_it_were_alone():
    """The weights are those of the same steps alone, to the bit: dropout has drawn the same, and nothing was lost."""
    x, begun, enough = torch.randn(5, 6), threading.Event(), threading.Event()

    def steps():
        for number in range(100_000):
            if number == 2:
                begun.set()
            if number > 2 and enough.is_set():
                return
            yield number

    for _ in range(4):
        begun.clear(), enough.clear()
        torch.manual_seed(0)
        model, said = Trained(), queue.SimpleQueue()
        alone = copy.deepcopy(model)

        def run(model=model, said=said):
            try:
                said.put(trained(model, steps()))
            except BaseException as error:
                begun.set()
                said.put(error)

        thread = threading.Thread(target=run)
        thread.start()
        assert begun.wait(60)
        try:
            plr.count_regions(model, x, 0.1, n_directions=3)
            plr.partition(plr.at(model, "norm"), plr.Slice.around(torch.zeros(16), 0.1))
            plr.partition(model, plr.Slice.around(x[0], 0.1))
        finally:
            enough.set()
            thread.join()
        number = said.get()
        assert isinstance(number, int), number
        assert trained(alone, range(number)) == number
        pairs = zip(model.state_dict().values(), alone.state_dict().values(), strict=True)
        assert all(torch.equal(one, two) for one, two in pairs) and model.training


def test_threads_count_the_same_model_and_others_at_once():
    torch.manual_seed(0)
    models, x = [Trained().eval() for _ in range(2)], torch.randn(5, 6)
    wanted = [plr.count_regions(copy.deepcopy(model), x, 0.5, n_directions=3).changes for model in models]
    found = queue.SimpleQueue()

    def count(number):
        for _ in range(2):
            found.put((number, plr.count_regions(models[number], x, 0.5, n_directions=3).changes))

    threads = [threading.Thread(target=count, args=(number % 2,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for _ in range(8):
        number, changes = found.get(timeout=1)
        assert torch.equal(changes, wanted[number])


def exit_of_a_child_that_captures(thread, leave):
    """Fork while a thread is busy, let it go and wait for it, and for the child: 0 if that has captured a network."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks where there are threads
        child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(60)
        faulthandler.dump_traceback_later(50)  # where it hangs
        with contextlib.suppress(BaseException):
            network = plr.capture(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), torch.randn(3, 4))
            os._exit(0 if len(network.layers) == 1 else 1)
        os._exit(2)
    leave.set()
    thread.join()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_a_process_that_is_forked_while_a_thread_captures_can_capture():
    """A child waits for no lock of a thread that it does not have: the fork waits for the capture."""
    inside, leave = threading.Event(), threading.Event()

    class Waits(nn.Linear):
        def forward(self, x):
            if threading.current_thread() is thread:
                inside.set()
                leave.wait(60)
            return super().forward(x).relu()

    model, x = Waits(4, 4), torch.randn(3, 4)
    thread = threading.Thread(target=lambda: plr.capture(model, x))
    thread.start()
    assert inside.wait(60)
    os.register_at_fork(before=leave.set)  # this comes first: the last that is registered does
    assert exit_of_a_child_that_captures(thread, leave) == 0


@pytest.fixture
def beside():
    """Another thread, which does nothing."""
    leave = threading.Event()
    thread = threading.Thread(target=leave.wait, args=(60,))
    thread.start()
    yield
    leave.set()
    thread.join()


def double(model):
    """A step of an optimiser."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(-2)


ASKED = {  # what comes after the weights are read
    "count": (lambda m, x: plr.count_regions(m, x, 0.5, n_directions=3).changes, "counting.count.count_at_vertices"),
    "slice": (lambda m, x: plr.count_regions(m, x, 0.5, method="slice").changes, "counting.count.count_exactly"),
    "partition": (lambda m, x: plr.partition(m, plr.Slice.around(x[0], 1.0)).areas(), "regions.enumeration.up_to"),
    "trace": (lambda m, x: plr.trace(m, x[0], x[1]).slopes, "regions.trace.up_to"),
    "patterns": (lambda m, x: plr.patterns(m, x).to_bits(), "counting.patterns._Search"),
}


@pytest.mark.usefixtures("doubles", "beside")
@pytest.mark.parametrize("name", ASKED)
def test_results_are_those_of_the_weights_at_one_time(name, monkeypatch):
    """The optimiser steps after a function has begun to compute."""
    ask, place = ASKED[name]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 9), nn.ReLU(), nn.Linear(9, 1))
    x = torch.randn(40, 6)
    wanted = ask(model, x).tolist()
    home, _, inner = f"pylinregion.{place}".rpartition(".")
    before = getattr(importlib.import_module(home), inner)

    def stepped(*args, **kwargs):
        double(model)
        return before(*args, **kwargs)

    monkeypatch.setattr(importlib.import_module(home), inner, stepped)
    weight = model[0].weight.detach().clone()
    assert ask(model, x).tolist() == wanted and not torch.equal(weight, model[0].weight)
    monkeypatch.undo()
    assert ask(model, x).tolist() != wanted


@pytest.mark.usefixtures("beside")
def test_weights_are_those_between_two_steps(monkeypatch):
    from pylinregion.graph import network as graph

    model, copied, steps = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)), graph.copied, [1]

    def between(tensor):
        copy = copied(tensor)
        if steps:
            steps.pop()
            double(model)
        return copy

    network = plr.capture(model, torch.randn(3, 2))
    monkeypatch.setattr(graph, "copied", between)
    found = network.at_one_time()
    assert not steps and all(torch.equal(found.state[name], tensor) for name, tensor in network.state.items())
    assert all(found.state[name] is not tensor for name, tensor in network.state.items())


FIRST_CAPTURE = """
import filelock, os, sys, threading, warnings
import torch
import pylinregion as plr

inside, leave = threading.Event(), threading.Event()

class Waits(torch.nn.Linear):
    def forward(self, x):
        if threading.current_thread() is thread:
            inside.set()
            leave.wait(60)
        return super().forward(x).relu()

model, x = Waits(4, 4), torch.randn(3, 4)
thread = threading.Thread(target=lambda: plr.capture(model, x))
thread.start()
assert inside.wait(60)
os.register_at_fork(before=leave.set)
warnings.simplefilter("ignore", DeprecationWarning)
child = os.fork()
if child == 0:
    os._exit(len(plr.capture(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU()), x).layers) != 1)
thread.join()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_a_fork_in_the_first_capture_of_a_process_ends(tmp_path):
    """Torch's tracers were imported in it, where filelock lets an import wait for a fork that has begun."""
    command = [sys.executable, "-c", FIRST_CAPTURE]
    done = subprocess.run(command, cwd=tmp_path, timeout=120, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_a_process_that_is_forked_while_a_thread_may_compile_can_capture():
    """A capture lets forks go on before it lets others compile: a child had a lock that nobody returns."""
    plr.capture(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), torch.randn(3, 4))
    held, leave = threading.Event(), threading.Event()

    def hold():
        with patches.no_compilation():
            held.set()
            leave.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(60)
    assert exit_of_a_child_that_captures(thread, leave) == 0
