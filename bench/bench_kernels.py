"""The kernels with pytest-benchmark: ``pytest bench/``, or ``pytest bench/ --benchmark-disable`` to run each once."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from harness import clock_for
from kernel_cases import BASELINES, OURS, Case, case, case_arguments, copy_bandwidth

# A case without its contender. The last one is kept, so that all its contenders run on the same data.
checked_case = functools.lru_cache(maxsize=1)(case)
measured_copy_bandwidth = functools.lru_cache(maxsize=2)(copy_bandwidth)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def cases_of(kernel: str) -> list[Any]:
    """The parameters of one benchmark: arguments of a case, and a contender."""
    return [
        pytest.param(
            arguments,
            contender,
            marks=[pytest.mark.cuda] if device == "cuda" else [],
            id="-".join((contender, arguments[1], device, str(arguments[3]).removeprefix("torch."), arguments[4])),
        )
        for device in ("cpu", "cuda")
        for arguments in case_arguments(device, ("batch", "memory"))
        if arguments[0] == kernel
        for contender in (OURS, *BASELINES[kernel])
    ]


def measure(benchmark: Any, arguments: tuple[Any, ...], contender: str) -> None:
    """Time one contender of a case; for ours, say how many bytes a second it moves."""
    checked = checked_case(*arguments)  # compares all contenders: no wrong answer is timed
    run = checked.runs[contender]

    def run_to_the_end() -> None:
        run()
        if checked.device == "cuda":
            torch.cuda.synchronize()  # a launch returns before the work is done

    benchmark.group = checked.title
    benchmark(run_to_the_end)
    if contender == OURS and checked.bytes_moved is not None:
        benchmark.extra_info["bytes_moved"] = checked.bytes_moved
        if benchmark.stats is not None:  # None if benchmarks are disabled
            benchmark.extra_info.update(_rates(checked, benchmark.stats.stats.median))


def _rates(checked: Case, seconds: float) -> dict[str, float]:
    assert checked.bytes_moved is not None
    rate = checked.bytes_moved / seconds
    rates = {"gigabytes_per_second": rate / 1e9}
    if checked.device == "cuda" and checked.size == "memory":
        copied = measured_copy_bandwidth("cuda", clock_for("cuda", 1))
        rates["copy_gigabytes_per_second"], rates["share_of_copy"] = copied / 1e9, rate / copied
    return rates


@pytest.mark.parametrize(("arguments", "contender"), cases_of("sign_changes"))
def bench_sign_changes(benchmark: Any, arguments: tuple[Any, ...], contender: str) -> None:
    measure(benchmark, arguments, contender)


@pytest.mark.parametrize(("arguments", "contender"), cases_of("sign_changes_split"))
def bench_sign_changes_split(benchmark: Any, arguments: tuple[Any, ...], contender: str) -> None:
    measure(benchmark, arguments, contender)


@pytest.mark.parametrize(("arguments", "contender"), cases_of("label_changes"))
def bench_label_changes(benchmark: Any, arguments: tuple[Any, ...], contender: str) -> None:
    measure(benchmark, arguments, contender)


@pytest.mark.parametrize(("arguments", "contender"), cases_of("distinct_patterns"))
def bench_distinct_patterns(benchmark: Any, arguments: tuple[Any, ...], contender: str) -> None:
    measure(benchmark, arguments, contender)


@pytest.mark.parametrize(("arguments", "contender"), cases_of("PackedLinear"))
def bench_packed_linear(benchmark: Any, arguments: tuple[Any, ...], contender: str) -> None:
    measure(benchmark, arguments, contender)
