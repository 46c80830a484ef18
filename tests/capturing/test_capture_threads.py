"""Captures and counts in threads, interrupts and copies: the process and the model are left as they were."""

import concurrent.futures
import copy
import logging
import pickle
import signal
import sys
import threading
import warnings

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

import pylinregion as plr
from pylinregion.caller.torch_settings import Switch, full_precision, one_thread, quiet, silent


def mlp(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 2))


class Own(nn.Module):
    """A module that is asked what it runs."""

    def __init__(self, seed=0):
        super().__init__()
        self.net = mlp(seed)

    def forward(self, x):
        return self.net(x)


def process():
    return (
        sys.stderr,
        logging.root.manager.disable,
        [list(handler.filters) for handler in logging.root.handlers],
        list(warnings.filters),
        torch.backends.mha.get_fastpath_enabled(),
        torch.get_float32_matmul_precision(),
        torch.get_num_threads(),
        torch._dynamo.eval_frame._stance.stance,
        "training" in vars(nn.Module),
    )


def test_first_captures_in_threads_leave_the_process_as_it_was():
    x = torch.randn(5, 6)
    wanted = [plr.count_regions(Own(seed), x, 1.0, n_directions=4, displacement=False).changes for seed in range(4)]
    before, models = process(), [Own(seed) for seed in range(4)]
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        networks = list(pool.map(lambda model: plr.capture(model, x), [*models, *models]))
    assert process() == before
    assert all(part.training for model in models for part in model.modules())
    for model, network, changes in zip(models, networks, wanted, strict=False):
        assert plr.capture(model, x) is network
        assert torch.equal(plr.count_regions(model, x, 1.0, n_directions=4, displacement=False).changes, changes)


@pytest.mark.parametrize("scope", [quiet, silent, full_precision, one_thread])
def test_the_last_thread_puts_a_switch_back(scope):
    """The first in is the first out."""
    process()  # what torch imports when it is first asked sets filters of its own
    before, inside, leave = process(), threading.Event(), threading.Event()

    def first():
        with scope():
            inside.set()
            leave.wait(60)

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(60)
    with scope():
        leave.set()
        thread.join()
    assert process() == before


def test_one_thread_inside_one_thread_is_one(threads):
    threads(2)
    with one_thread() as before:
        with one_thread() as inside:
            assert torch.get_num_threads() == 1
        assert (before, inside, torch.get_num_threads()) == (2, 1, 1)
    assert torch.get_num_threads() == 2


def test_what_other_threads_say_is_heard(capsys, caplog):
    said, done = threading.Event(), threading.Event()

    def other():
        said.wait(60)
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            warnings.warn("beside", stacklevel=1)
        print("beside", len(heard), file=sys.stderr)
        logging.getLogger("beside").error("log beside")
        done.set()

    thread = threading.Thread(target=other)
    thread.start()
    with quiet(), silent():
        warnings.warn("here", stacklevel=1)
        print("here", file=sys.stderr)
        logging.getLogger("here").error("log here")
        said.set()
        assert done.wait(60)
    thread.join()
    assert capsys.readouterr().err == "beside 1\n" and [record.name for record in caplog.records] == ["beside"]


def test_an_interrupt_reaches_the_caller_and_leaves_all_as_it_was():
    class Stopped(nn.Linear):
        def forward(self, x):
            y = super().forward(x)
            if isinstance(y, FakeTensor):
                raise KeyboardInterrupt
            return y.relu()

    model, before = Stopped(4, 4), process()
    with pytest.raises(KeyboardInterrupt):
        plr.capture(model, torch.randn(3, 4))
    assert process() == before and model.training and type(model.weight) is nn.Parameter


@pytest.mark.parametrize("becomes", ["nothing", "another error", "an end of the loop"])
def test_an_interrupt_that_is_swallowed_reaches_the_caller(becomes):
    """As one does in ``__del__``, or in code that catches whatever comes."""

    class Swallows(nn.Linear):
        def forward(self, x):
            y = super().forward(x)
            if isinstance(y, FakeTensor):
                try:
                    signal.raise_signal(signal.SIGINT)
                except KeyboardInterrupt:
                    if becomes != "nothing":
                        raise (ValueError if becomes == "another error" else StopIteration) from None
            return y.relu()

    model, before = Swallows(4, 4), process()
    with pytest.raises(KeyboardInterrupt):
        plr.capture(model, torch.randn(3, 4))
    assert process() == before and model.training and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    heard = []
    signal.signal(signal.SIGINT, lambda *arguments: heard.append(1))
    try:
        plr.capture(model, torch.randn(3, 4))  # a handler of the caller's decides for itself
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert heard


def test_copies_and_pickles():
    model, x = mlp(), torch.randn(3, 6)
    network, monitor = plr.capture(model, x), plr.Monitor(model, {"a": x}, 0.5, n_directions=2, every=1, budget=None)
    assert copy.deepcopy(network) is network and copy.copy(network) is network
    twin = copy.deepcopy(monitor)
    assert twin.step()["a/lc"] == monitor.step()["a/lc"]
    for each, way in ((network, "capture it again"), (monitor, "state_dict")):
        with pytest.raises(TypeError, match=way):
            pickle.dumps(each)


def test_modules_of_exported_programs_are_counted():
    """They refuse ``eval()``, for their mode is that of their graph."""
    model, x = mlp().eval(), torch.randn(3, 6)
    wanted = plr.count_regions(model, x, 1.0, n_directions=4, displacement=False).changes
    program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("b")},))
    for exported in (program.module(), nn.Sequential(nn.Identity(), program.module())):
        assert torch.equal(plr.count_regions(exported, x, 1.0, n_directions=4, displacement=False).changes, wanted)
    assert plr.partition(program.module(), plr.Slice.around(x[0], 1.0)).n_regions > 0


def test_switches_nest():
    log = []

    @Switch
    def switch():
        log.append("set")
        return _Back(log)

    with switch(), switch():
        assert switch.here and log == ["set"]
    assert not switch.here and log == ["set", "back"]


class _Back:
    def __init__(self, log):
        self.log = log

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.log.append("back")
