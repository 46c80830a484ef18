"""The monitor in processes that train together: they share its points, with the records of one process to the bit."""

import json
import math
import signal

import pytest
import torch

import pylinregion as plr
from cases.monitor import RADIUS, network, probes, values
from cases.processes import Started
from pylinregion.caller.processes import ALONE, Ranks, checksum
from pylinregion.monitor.sinks import JSONLines

START = """
import copy, datetime, json, os, signal, sys
from pathlib import Path
import torch
from cases.monitor import RADIUS, Clock, Run, data, probes
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
import pylinregion as plr
from pylinregion.counting import batches, displacements
from pylinregion.counting.every_vertex import EveryVertex
from pylinregion.caller.wrappers import replicated
from pylinregion.caller.processes import ALONE
from pylinregion.monitor.sinks import JSONLines

folder, rank, world = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
distributed.distributed_c10d.default_pg_timeout = datetime.timedelta(seconds=60)  # a rank that waits in vain says so
distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
# Small batches, so that there is something to share. Each rank would choose others, but rank 0's are taken.
batches.CACHE_BYTES["cpu"], displacements._TOGETHER = 1000 * (1 + rank), 7 + rank
ALL = ["local_complexity", "accuracy", "loss", "weight_norm"]
"""

TOGETHER = """
counted = [0]
plain = EveryVertex.count

def noted(self, rows, *rest):
    counted[0] += len(range(rows.start, rows.stop))
    return plain(self, rows, *rest)

EveryVertex.count = noted
points = probes() | {"one": probes()["random"][:1], "many": (data()[0].repeat(10, 1) + 0.1, torch.arange(600) % 3)}
own = plr.Measure("own", lambda model: float(torch.rand(())), "model")
result = {}

def said(action):
    try:
        action()
    except (plr.PylinregionError, ValueError) as error:
        return str(error)

def train(watch):
    run = Run(DistributedDataParallel)
    monitors = {}
    if watch:
        common = {"n_directions": 4, "every": 2, "budget": None}
        everything = {**common, "measures": [*ALL, own]}
        file = JSONLines(folder / "records.jsonl")
        clocks = [Clock(), Clock()]
        slow = plr.Measure("slow", lambda model: clocks[0].__setattr__("now", clocks[0].now + 1.0) or 0.0, "model")
        monitors = {
            "shared": plr.Monitor(run.called, points, RADIUS, **everything, sink=file),
            "alone": plr.Monitor(run.called, points, RADIUS, **everything, shared=False),
            "exact": plr.Monitor(torch.compile(run.called), points, RADIUS, **common, method="axes"),
            "exact alone": plr.Monitor(run.called, points, RADIUS, **common, method="axes", shared=False),
            # Others than rank 0 have a clock that stands still, and would always measure.
            "budget": plr.Monitor(
                run.called, points, RADIUS, n_directions=4, every=2, measures=[*ALL, slow], clock=clocks[rank > 0]
            ),
        }
    torch.manual_seed(10 + rank)  # each rank has batches of its own
    for step in range(7):
        if step:
            run.step()
        for name, monitor in monitors.items():
            before = counted[0]
            clocks[0].now += 1.0
            record = monitor.step() if step else monitor.measure()
            result.setdefault(name, []).append(record)
            result.setdefault(f"{name} counted", []).append(counted[0] - before)
        if watch and step == 3:
            checkpoint = copy.deepcopy((run.model.state_dict(), run.optimiser.state_dict(), torch.get_rng_state()))
            state = monitors["shared"].state_dict()
    if watch:
        file.close()
        (folder / "records.jsonl").rename(folder / "whole.jsonl") if rank == 0 else None
    end = copy.deepcopy(run.state())
    if watch:  # go on from the checkpoint, with a file that has a record too many
        (folder / "records.jsonl").write_text((folder / "whole.jsonl").read_text()) if rank == 0 else None
        distributed.barrier()
        again = Run(DistributedDataParallel)
        again.model.load_state_dict(checkpoint[0]), again.optimiser.load_state_dict(checkpoint[1])
        torch.set_rng_state(checkpoint[2])
        monitor = plr.Monitor(again.called, points, RADIUS, **everything, sink=JSONLines(folder / "records.jsonl"))
        monitor.load_state_dict(state)
        for _ in range(3):
            again.step()
            monitor.step()
        # What must not be: other parameters, other steps, other arguments, an overflow in one part of the points.
        with torch.no_grad():
            run.model[4].weight[0, 0] += 0.5 * (rank == world - 1)
        result["weights"] = said(monitors["shared"].measure)
        result["weights exact"] = said(monitors["exact"].measure)
        with torch.no_grad():
            run.model[4].weight.copy_(end[0]["4.weight"])
        monitors["shared"]._steps += rank == world - 1
        result["steps"] = said(monitors["shared"].measure)
        monitors["shared"]._steps -= rank == world - 1
        # An error of rank 0's own measures, first in order, leaves the others ready for the next measurement.
        outcomes = [0.0, None]

        def fails(model):
            if outcomes[-1] is None:
                outcomes.pop()
                raise ValueError("wrong once")
            return outcomes[-1]

        once = plr.Measure("once", fails, "model")
        calls = []
        everyone = plr.Measure("everyone", lambda model: calls.append(model) or 7.0, "model", shared=True)
        monitor = plr.Monitor(run.called, points, RADIUS, n_directions=4, measures=[once, everyone, "local_complexity"])
        result["wrong"] = said(monitor.measure)
        result["failed"], result["called"] = len(outcomes) == 1, len(calls)
        result["right"] = [monitor.measure(), plr.Monitor(run.called, points, RADIUS, n_directions=4).measure()]
        x = points["train"][0]
        for name, probe, radius in (("radius", x, 0.1 + 0.1 * rank), ("probes", x.roll(rank, 0), 0.1)):
            result[name] = said(lambda: plr.Monitor(run.called, {"a": probe}, radius, n_directions=4))
        far = torch.zeros(40, 6, dtype=torch.float64)
        far[38] = 1e308
        net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2)).double()
        for parameter in net.parameters():
            nn.init.ones_(parameter)
        monitor = plr.Monitor(net, {"far": far}, 0.1, n_directions=4, shared=True)
        result["overflow"] = said(monitor.measure)
        near, ranks = points["many"][0].double(), monitor._ranks
        for options in ({"displacement": True}, {"dtype": torch.bfloat16}, {"method": "slice"}):
            options = options if "method" in options else {**options, "n_directions": 4, "estimate_ambiguous": True}
            found = [plr.count_regions(net, near, 0.3, **options, _ranks=given) for given in (ranks, ALONE)]
            for name in ("changes", "regions", "ambiguous"):
                assert torch.equal(getattr(found[0], name), getattr(found[1], name)), (options, name)
            assert int(found[0].total.sum()) > 0 and (int(found[0].ambiguous.sum()) > 0) == ("dtype" in options)
    return run, end

one, other = train(True)[1], train(False)[1]
for a, b in zip(one[0].values(), other[0].values(), strict=True):
    assert torch.equal(a, b)
assert all(torch.equal(a, b) for a, b in zip(one[1], other[1], strict=True)) and torch.equal(one[2], other[2])
model = Run(DistributedDataParallel).called
alone = distributed.new_group([rank], use_local_synchronization=True)
assert replicated(model) and replicated(torch.compile(model))
assert not replicated(model.module) and not replicated(DistributedDataParallel(nn.Linear(2, 2), process_group=alone))
torch.save(one[0], folder / f"{rank}.pt")
(folder / f"{rank}.json").write_text(json.dumps(result))
distributed.destroy_process_group()
"""

KILLED = """
run = Run(DistributedDataParallel)
monitor = plr.Monitor(run.called, probes(), RADIUS, n_directions=4, every=1, budget=None, measures=ALL)
if rank == 1:
    plain = EveryVertex.count

    def killed(self, *arguments):
        found = plain(self, *arguments)
        if monitor.steps == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    EveryVertex.count = killed
for _ in range(3):
    run.step()
    monitor.step()
"""


def together(code, folder, world):
    """The exit status and the last words of each rank."""
    running = [Started(START + code, folder, rank, world, cwd=folder) for rank in range(world)]
    ended = [process.ended() for process in running]
    return [each.returncode for each in ended], [each.stderr for each in ended]


@pytest.mark.turns(2)
@pytest.mark.part(2)
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_the_points_and_records_are_those_of_one_process(tmp_path, world):
    codes, said = together(TOGETHER, tmp_path, world)
    assert codes == [0] * world, said
    texts = [(tmp_path / f"{rank}.json").read_text() for rank in range(world)]
    found = [json.loads(text, parse_constant=lambda word: math.nan) for text in texts]  # one NaN is that NaN
    first = found[0]
    for name in ("shared", "exact"):
        steps = [None if record is None else record["step"] for record in first[name]]
        assert steps == [0, None, 2, None, 4, None, 6]
        for record, alone in zip(first[name], first[f"{name} alone" if name == "exact" else "alone"], strict=True):
            assert record is None or values(record) == values(alone)
    assert len({record["many/lc"] for record in first["shared"] if record}) == 4  # or nothing was compared
    assert len({record["many/accuracy"] for record in first["shared"] if record}) > 1
    for others in found[1:]:
        for name in ("shared", "alone", "exact", "exact alone", "budget"):
            assert others[name] == [None] * 7

    # Each rank counts its part, and a few points of each probe by which it decides how to count.
    points = 20 + 30 + 10 + 1 + 600
    trial = 4 * (7 + world - 1) + 1
    for step in (0, 2, 4, 6):
        counted = [each["shared counted"][step] for each in found]
        assert points <= sum(counted) <= points + world * trial
        assert max(counted) - min(counted) <= trial + 5 * 7
        assert first["alone counted"][step] >= points and found[-1]["alone counted"][step] == 0
        assert all(each["shared counted"][step - 1] == 0 for each in found if step)

    # The budget is kept by rank 0's clock: a second of measuring a step, one of training.
    assert [record is not None for record in first["budget"]] == [True, *[False] * 6]

    # Resuming, and the file.
    whole = JSONLines.read(tmp_path / "whole.jsonl")
    assert whole == [record for record in first["shared"] if record is not None]
    resumed = JSONLines.read(tmp_path / "records.jsonl")
    assert [record["step"] for record in resumed] == [0, 2, 4, 6]
    if world == 2:  # a sum of three gradients depends on their order, which is another after a start
        assert [values(record) for record in resumed] == [values(record) for record in whole]

    # The last weights, measured here.
    weights = [torch.load(tmp_path / f"{rank}.pt") for rank in range(world)]
    assert torch.equal(weights[0]["4.weight"], weights[1]["4.weight"])
    assert not torch.equal(weights[0]["1.running_mean"], weights[1]["1.running_mean"])  # those of rank 0 are taken
    model = network()
    model.load_state_dict(weights[0])
    by_hand = plr.Monitor(model, probes(), RADIUS, n_directions=4).measure()
    del by_hand["step"], by_hand["seconds"]
    assert {key: whole[-1][key] for key in by_hand} == by_hand

    assert [each["wrong"] for each in found] == ["wrong once", *[None] * (world - 1)]
    assert [each["failed"] for each in found] == [True, *[False] * (world - 1)]
    assert all(each["called"] == 1 for each in found)
    record, plain = first["right"]
    assert list(record)[2:4] == ["once", "everyone"] and record["everyone"] == 7.0
    assert record["many/lc"] == plain["many/lc"] == whole[-1]["many/lc"]
    last = world - 1
    for each in found:
        assert each["weights"] == each["weights exact"]
        assert each["weights"] == (
            f"the ranks must have the same parameters to share points, but those of rank {last} differ from those of "
            "rank 0 at step 6: shared=False measures on rank 0 alone"
        )
        assert each["steps"] == f"the ranks must be at one step to share points, got 6 on rank 0 and 7 on {last}"
        for name, word in (("radius", "counting"), ("probes", "probes")):
            assert each[name].startswith("all ranks must make the monitor with the same arguments to share points")
            assert each[name].endswith(f"but {word} of rank 1 differ from those of rank 0")
        assert "layer '1' are NaN or infinite around point 38 of x" in each["overflow"]


@pytest.mark.turns(2)
def test_a_rank_that_is_killed_ends_the_run(tmp_path):
    codes, said = together(KILLED, tmp_path, 2)
    assert codes == [1, -signal.SIGKILL]
    assert "PylinregionError: all ranks share the points, and one of them ended, or did not come" in said[0]


def test_parts_are_the_whole_in_order():
    for world in (1, 2, 3, 7):
        for count in (0, 1, 2, 3, 100):
            parts = [Ranks(rank, world).own(range(count)) for rank in range(world)]
            assert [piece for part in parts for piece in part] == list(range(count))
            assert max(map(len, parts)) - min(map(len, parts)) <= 1 and len(parts[0]) == min(map(len, parts))
    tensors = (torch.tensor([1, 2]), torch.tensor([[3]]))
    assert ALONE.summed(*tensors) == tensors and ALONE.agreed(5) == 5 and ALONE.gathered(1, 2) == [[1, 2]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.complex64, torch.uint8])
def test_checksums_tell_weights_apart(dtype):
    weights = [torch.arange(6).to(dtype).view(2, 3), torch.ones((), dtype=dtype), torch.zeros(0, dtype=dtype)]
    same = checksum([weight.clone() for weight in weights])
    assert 0 <= same < 2**63 and checksum([weights[0].T.contiguous().T, *weights[1:]]) == same
    for place in ((0, 0), (0, 2), (1, 1)):
        other = weights[0].clone()
        other[place] += 1
        assert checksum([other, *weights[1:]]) != same
    assert checksum([weights[1], weights[0], weights[2]]) != same


def test_shared_is_checked_and_one_process_needs_nobody():
    with pytest.raises(TypeError, match="shared must be True, False or None, got int"):
        plr.Monitor(network(), probes(), RADIUS, n_directions=4, shared=1)
    records = [plr.Monitor(network(), probes(), RADIUS, n_directions=4, shared=it).measure() for it in (True, False)]
    assert values(records[0]) == values(records[1])
