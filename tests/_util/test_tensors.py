"""Arrays of the host on a device, and back."""

import copy
import pickle

import numpy as np
import torch

from cases.elsewhere import THERE, Elsewhere, elsewhere
from pylinregion._util.tensors import CPU, Stored, as_array, as_tensor


def test_arrays_of_the_cpu_are_not_copied():
    array = np.arange(3.0)
    assert np.shares_memory(as_array(as_tensor(array, CPU)), array)
    assert Stored(array).beside(torch.zeros(1)).data_ptr() == array.ctypes.data


def test_what_is_kept_on_a_device_is_moved_there_once_and_not_pickled():
    stored = Stored(np.arange(3.0))
    with elsewhere():
        x = torch.zeros(1, device=THERE)
        found = stored.beside(x)
        assert isinstance(found, Elsewhere) and stored.beside(x) is found
        assert as_array(found).tolist() == [0, 1, 2]
        assert isinstance(as_tensor(np.ones(2), THERE), Elsewhere)
    for again in (pickle.loads(pickle.dumps(stored)), copy.deepcopy(stored)):
        assert list(again._on) == [CPU] and again.beside(torch.zeros(1)).tolist() == [0, 1, 2]
