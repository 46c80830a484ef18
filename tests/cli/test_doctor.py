import dataclasses
import platform
from typing import Any

import numpy as np
import pytest
import torch

import pylinregion as plr
from cases.devices import DEVICES
from pylinregion.cli import doctor
from pylinregion.cli.commands import main
from pylinregion.native.extension import cuda_built
from pylinregion.native.simd import simd, simd_sets, use_simd


@pytest.mark.parametrize("device", DEVICES)
def test_tiny_count_is_right_on_every_device(device: str) -> None:
    assert doctor.examine(torch.device(device)) is None


@pytest.mark.parametrize("name", simd_sets())
def test_tiny_count_is_right_with_every_instruction_set(name: str) -> None:
    with use_simd(name):
        assert doctor.examine(torch.device("cpu")) is None


def test_report_names_versions_kernels_and_devices(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["doctor"])
    out, err = capsys.readouterr()
    rows = dict(line.split(None, 1) for line in out.splitlines() if line and not line.startswith("CUDA"))
    assert rows["pylinregion"] == plr.__version__
    assert rows["python"].startswith(platform.python_version())
    assert rows["torch"].startswith(torch.__version__)
    assert rows["numpy"] == np.__version__
    assert rows["SIMD"] == simd()
    assert rows["cpu"].endswith(": OK")
    kinds = [line for line in out.splitlines() if line.startswith("CUDA")]
    assert (torch.version.cuda or "none") in kinds[0]
    assert kinds[1].endswith("not built") != cuda_built
    assert len([line for line in out.splitlines() if line.startswith("cuda:")]) == torch.cuda.device_count()
    assert (code, err) == (0, "") or torch.cuda.is_available()  # a GPU that the build does not serve is a failure


def test_a_wrong_number_is_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    right = doctor.count_regions

    def wrong(*args: Any, **kwargs: Any) -> plr.RegionCounts:
        counts = right(*args, **kwargs)
        return dataclasses.replace(counts, changes=counts.changes + 1)

    monkeypatch.setattr(doctor, "count_regions", wrong)
    assert main(["doctor"]) == 1
    assert "cpu" in (out := capsys.readouterr().out) and "wrong numbers: changes [[5, 5], [1, 1]]" in out


def test_a_gpu_that_does_not_walk_as_the_cpu_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "counted", lambda device: None)
    monkeypatch.setattr(doctor, "problem_of", lambda device: f"{device.name} does not walk")
    assert doctor.examine(torch.device("cuda", 1)) == "cuda:1 does not walk"
    assert doctor.examine(torch.device("cpu")) is None


def test_wrong_patterns_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    right = doctor.count_regions

    def wrong(*args: Any, **kwargs: Any) -> plr.RegionCounts:
        counts = right(*args, **kwargs)
        return dataclasses.replace(counts, regions=counts.regions.flip(0))

    monkeypatch.setattr(doctor, "count_regions", wrong)
    problem = doctor.examine(torch.device("cpu"))
    assert problem is not None and "regions [1, 5]" in problem


def test_a_count_that_fails_is_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(*args: Any, **kwargs: Any) -> plr.RegionCounts:
        raise RuntimeError("no kernel image\nis available")

    monkeypatch.setattr(doctor, "count_regions", fail)
    assert main(["doctor"]) == 1
    assert "RuntimeError: no kernel image is available\n" in capsys.readouterr().out
