import pytest

from cases.monitor import Clock
from pylinregion.monitor.schedule import Stopwatch, check_budget, is_log_step, schedule


def test_log_steps_are_those_of_the_published_code():
    every = [*range(30), *range(30, 150, 10), *range(200, 1000, 100), *range(1000, 100_000, 1000)]
    every += [*range(100_000, 1_000_000, 10_000), *range(1_000_000, 2_000_001, 100_000)]
    assert [step for step in range(2_000_001) if is_log_step(step)] == every


def test_schedules():
    assert [s for s in range(1, 13) if schedule("every", 4)(s)] == [4, 8, 12]
    assert [s for s in range(1, 13) if schedule("every", [1, 7, 7, 100])(s)] == [1, 7]
    assert schedule("every", "log") is is_log_step


@pytest.mark.parametrize(
    ("every", "error", "message"),
    [
        (0, ValueError, "every must be at least 1, got 0"),
        (2.0, TypeError, "every must be an integer, got float"),
        (True, TypeError, "every must be an integer, got bool"),
        ("linear", ValueError, "every must be an integer, 'log' or a collection of steps, got 'linear'"),
        ([], ValueError, "every must hold steps, integers of at least 0, got 'none'"),
        ([3, -1], ValueError, "every must hold steps, integers of at least 0, got -1"),
        ([1.5], ValueError, r"every must hold steps, integers of at least 0, got 1\.5"),
    ],
)
def test_bad_schedules(every, error, message):
    with pytest.raises(error, match=message):
        schedule("every", every)


@pytest.mark.parametrize(
    ("budget", "error", "message"),
    [
        (0, ValueError, "budget must be finite and above 0, got 0"),
        (float("nan"), ValueError, "budget must be finite and above 0, got nan"),
        ("5 %", TypeError, "budget must be a number or None, got str"),
        (True, TypeError, "budget must be a number or None, got bool"),
    ],
)
def test_bad_budgets(budget, error, message):
    with pytest.raises(error, match=message):
        check_budget(budget)


def test_what_the_budget_affords():
    clock = Clock()
    watch = Stopwatch(clock, budget=0.25)
    watch.start()
    assert watch.affords()  # nothing is known yet
    with watch.measured():
        clock.now += 2
    assert (watch.training, watch.measuring, watch.last_cost) == (0, 2, 2)
    clock.now += 15.5
    assert not watch.affords()  # 2 + 2 seconds are a quarter of 16
    clock.now += 0.5
    assert watch.affords()
    with watch.left_out():
        clock.now += 100
    assert (watch.training, watch.measuring) == (16, 2)
    with watch.measured():
        clock.now += 1
    clock.now += 0.125
    assert (watch.training, watch.measuring, watch.last_cost) == (16.125, 3, 1)
    assert watch.affords()  # the last one was cheaper


def test_a_measurement_that_fails_is_paid_for_and_training_goes_on():
    clock = Clock()
    watch = Stopwatch(clock, budget=None)
    watch.start()
    with pytest.raises(RuntimeError), watch.measured():
        clock.now += 3
        raise RuntimeError
    clock.now += 1
    assert (watch.training, watch.measuring) == (1, 3) and watch.affords()


def test_seconds_go_on_after_a_resume():
    clock = Clock()
    watch = Stopwatch(clock, budget=0.25)
    watch.start()
    clock.now += 8
    with watch.measured():
        clock.now += 1
    state = watch.state_dict()
    assert state == {"training": 8.0, "measuring": 1.0, "last_cost": 1.0}
    clock.now += 1000
    other = Stopwatch(clock, budget=0.25)
    other.load_state_dict(state)
    clock.now += 1000  # before training goes on
    other.start()
    clock.now += 1
    assert other.state_dict() == {"training": 9.0, "measuring": 1.0, "last_cost": 1.0}
