import json
from dataclasses import replace

import pytest

from pylinregion.experiments import PRESETS, Config, preset
from pylinregion.experiments.config import changed, completed, flat, parse_setting, to_dict
from pylinregion.experiments.log_steps import log_spaced_steps


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_json(name: str) -> None:
    config = preset(name)
    assert config.name == name
    values = json.loads(json.dumps(to_dict(config)))
    assert changed(Config(), values) == config
    assert changed(Config(), flat(values)) == config


@pytest.mark.parametrize(
    ("name", "values"),
    [  # the papers' settings, as their texts and code have them
        ("mnist-mlp", {"data.train_points": 1000, "model.width": 200, "model.depth": 4, "model.init_scale": 1.0}),
        ("mnist-mlp", {"training.steps": 100_000, "training.batch": 200, "training.weight_decay": 0.01}),
        ("mnist-mlp", {"training.loss": "mse", "training.dtype": "float64", "measuring.attack_steps": 100}),
        ("mnist-mlp", {"measuring.directions": 25, "measuring.attack_step_size": 0.0156}),
        ("mnist-mlp", {"measuring.eps": [0.03, 0.06, 0.1, 0.13, 0.16, 0.2]}),
        ("mnist-mlp", {"measuring.radius": 0.05, "measuring.include_output": True, "training.loss_dtype": "float64"}),
        ("mnist-mlp-scaled", {"measuring.include_output": True, "measuring.radius": 0.05}),
        ("mnist-mlp-scaled", {"model.init_scale": 8.0, "model.depth": 4, "training.learning_rate": 1e-3}),
        ("cifar10-resnet18", {"model.width": 16, "model.batch_norm": False, "training.batch": 256}),
        ("cifar10-resnet18", {"training.weight_decay": 0.0, "training.steps": 500_000, "measuring.radius": 0.005}),
        ("cifar10-resnet18", {"training.loss_dtype": "float32", "measuring.include_output": False}),
        ("cifar10-cnn", {"training.loss_dtype": "float32", "measuring.include_output": False}),
        ("cifar10-cnn", {"model.name": "cnn", "training.loss": "cross_entropy", "measuring.points": 1024}),
        ("modular-addition", {"data.modulus": 113, "data.train_share": 0.3, "model.width": 128, "model.heads": 4}),
        ("modular-addition", {"training.weight_decay": 1.0, "training.betas": [0.9, 0.98], "training.batch": None}),
        ("modular-addition", {"training.loss_dtype": "float64", "measuring.include_output": False}),
        ("modular-addition", {"training.noise": [], "training.commutative": 0.0, "measuring.sigma": 0.4}),
        ("gpt-char", {"model.depth": 12, "model.heads": 12, "model.activation": "gelu", "measuring.eps": [0.03]}),
        ("deep-mlp", {"model.depth": 12, "model.width": 400, "model.init_scale": 8.0, "data.order": "first"}),
        ("deep-mlp", {"data.train_points": 2000, "training.weight_decay": 0.01, "training.steps": 100_000}),
        ("deep-mlp", {"measuring.radius": 0.05, "measuring.include_output": True}),
        ("perturbed", {"training.noise": [0.5, 0.4], "data.modulus": 113}),
        ("perturbed-mnist", {"training.noise": [0.06, 0.03], "model.depth": 3, "measuring.sigma": 0.1}),
        ("commutative", {"training.commutative": 100.0, "training.noise": []}),
    ],
)
def test_presets_have_the_papers_settings(name: str, values: dict[str, object]) -> None:
    found = json.loads(json.dumps(flat(to_dict(preset(name)))))
    assert {key: found[key] for key in values} == values


def test_every_preset_has_a_small_twin_that_differs() -> None:
    full = [name for name in PRESETS if not name.endswith("-small")]
    assert len(full) == 10 and len(PRESETS) == 20
    for name in full:
        small = preset(f"{name}-small")
        assert replace(small, name=name) != preset(name)
        assert small.training.steps <= 25_000 and small.data.name in ("digits", "modular", "characters")


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"steps": 3}, ValueError, "steps is unknown: expected one of name, seed, data, model, training, measuring"),
        ({"training.step": 3}, ValueError, "training.step is unknown: expected one of training.steps, training.batch"),
        ({"training": {"stepz": 3}}, ValueError, "training.stepz is unknown"),
        ({"training": 3}, TypeError, "training must be a section with keys, got 3"),
        ({"seed": {"steps": 3}}, TypeError, "seed must be an integer, got {'steps': 3}"),
        ({"training.steps": "many"}, TypeError, "training.steps must be an integer, got 'many'"),
        ({"training.steps": 1.5}, TypeError, "training.steps must be an integer, got 1.5"),
        ({"training.steps": True}, TypeError, "training.steps must be an integer, got True"),
        ({"training.steps": None}, TypeError, "training.steps must be an integer, got None"),
        ({"training.weight_decay": "x"}, TypeError, "training.weight_decay must be a number, got 'x'"),
        ({"model.batch_norm": 1}, TypeError, "model.batch_norm must be true or false, got 1"),
        ({"measuring.include_output": 1}, TypeError, "measuring.include_output must be true or false, got 1"),
        ({"training.loss_dtype": "float16"}, ValueError, "training.loss_dtype must be one of 'float32', 'float64'"),
        ({"data.path": 7}, TypeError, "data.path must be a string, got 7"),
        ({"measuring.eps": ["a"]}, TypeError, "measuring.eps must be a number, got 'a'"),
        ({"model.activation": "tanh"}, ValueError, "model.activation must be one of 'relu', 'gelu', got 'tanh'"),
        ({"training.steps": 0}, ValueError, "training.steps must be at least 1, got 0"),
        ({"training.batch": 0}, ValueError, "training.batch must be at least 1, got 0"),
        ({"seed": -1}, ValueError, "seed must be finite and at least 0, got -1"),
        ({"measuring.radius": 0}, ValueError, "measuring.radius must be finite and above 0, got 0.0"),
        ({"training.learning_rate": float("inf")}, ValueError, "training.learning_rate must be finite and above 0"),
        ({"data.label_noise": 1.5}, ValueError, "data.label_noise must be at most 1, got 1.5"),
        ({"data.modulus": 1}, ValueError, "data.modulus must be at least 2, got 1"),
        ({"training.betas": [0.9]}, ValueError, r"training.betas must be 2 numbers, got \[0.9\]"),
        ({"training.noise": [1]}, ValueError, r"training.noise must be 0 or 2 numbers, got \[1.0\]"),
        ({"training.noise": [1, -1]}, ValueError, "training.noise must be finite numbers of at least 0"),
        ({"measuring.eps": [-0.1]}, ValueError, "measuring.eps must be finite numbers of at least 0"),
        ({"model.name": "gpt"}, ValueError, r"data.name must be one of \('characters',\) for model 'gpt', got 'mnist'"),
        ({"model.depth": 1}, ValueError, "model.depth must be at least 2 for model 'mlp', got 1"),
        ({"training.commutative": 1}, ValueError, "training.commutative must be 0 for data 'mnist', got 1.0"),
        ({"measuring.quantities": []}, ValueError, "measuring.quantities must be at least one, got none"),
        ({"measuring.quantities": ["lc"]}, ValueError, "measuring.quantities must be among 'accuracy', .* got 'lc'"),
        ({"measuring.quantities": ["commutativity"]}, ValueError, "must not have 'commutativity' for data 'mnist'"),
    ],
)
def test_wrong_settings_are_named(changes: dict[str, object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        changed(Config(), changes)


def test_transformers_need_equal_heads_and_texts_cross_entropy() -> None:
    with pytest.raises(ValueError, match=r"model.width must be a multiple of model.heads, 4, got 50"):
        changed(preset("modular-addition"), {"model.width": 50})
    with pytest.raises(ValueError, match=r"training.loss must be 'cross_entropy' for data 'characters', got 'mse'"):
        changed(preset("gpt-char"), {"training.loss": "mse"})


def test_an_unknown_preset_is_named_with_its_neighbour() -> None:
    with pytest.raises(ValueError, match=r"one of mnist-mlp, .* got 'mnist-mpl' \(did you mean 'mnist-mlp'\?\)"):
        preset("mnist-mpl")


def test_sections_and_dotted_keys_go_together() -> None:
    config = changed(Config(), {"training": {"steps": 5}, "training.batch": None, "seed": 3})
    assert (config.training.steps, config.training.batch, config.seed) == (5, None, 3)
    assert changed(Config(), {"training.batch": 7, "training": {"steps": 5}}).training.batch == 7


def test_settings_of_older_versions_mean_what_they_meant() -> None:
    """What a preset has today would be another run: the file of an old one says all that there was to say."""
    today = flat(to_dict(preset("mnist-mlp")))
    old = {key: value for key, value in today.items() if key not in ("training.loss_dtype", "measuring.include_output")}
    assert len(old) == len(today) - 2
    nested: dict[str, dict[str, object]] = {"data": {}, "model": {}, "training": {}, "measuring": {}}
    for key, value in old.items():
        section, _, name = key.rpartition(".")
        (nested[section] if section else nested)[name] = value
    for values in (old, nested):
        config = changed(preset("mnist-mlp"), completed(values))
        assert config.measuring.include_output is False and config.training.loss_dtype == "float64"
        assert changed(config, {"measuring.include_output": True}) == preset("mnist-mlp")
    assert changed(Config(), completed({**old, "training.loss_dtype": "float32"})).training.loss_dtype == "float32"
    assert completed(today) == today
    del old["seed"]  # some settings: the others are the preset's
    assert completed(old) == old


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("training.steps=1e3", ("training.steps", 1e3)),
        ("training.batch=null", ("training.batch", None)),
        ("training.noise=0.5,0.4", ("training.noise", [0.5, 0.4])),
        ("training.noise=", ("training.noise", "")),
        ("measuring.quantities=accuracy,weight_norm", ("measuring.quantities", ["accuracy", "weight_norm"])),
        ('measuring.quantities=["accuracy"]', ("measuring.quantities", ["accuracy"])),
        ("data.path=/a=b", ("data.path", "/a=b")),
        ("model.batch_norm=true", ("model.batch_norm", True)),
    ],
)
def test_settings_of_the_command_line(text: str, want: tuple[str, object]) -> None:
    assert parse_setting(text) == want


def test_one_value_and_none_make_lists() -> None:
    assert changed(Config(), {"measuring.eps": 0.1}).measuring.eps == (0.1,)
    assert changed(preset("perturbed"), {"training.noise": ""}).training.noise == ()


@pytest.mark.parametrize("text", ["training.steps", "=3", ""])
def test_a_setting_has_a_key_and_a_value(text: str) -> None:
    with pytest.raises(ValueError, match=r"a setting must be key=value"):
        parse_setting(text)


@pytest.mark.parametrize(
    ("steps", "count", "want"),
    [
        (1, 5, [0, 1]),
        (8, 4, [0, 1, 2, 4, 8]),
        (1000, 4, [0, 1, 10, 100, 1000]),
        (7, 1, [0, 1, 7]),
        (3, 99, [0, 1, 2, 3]),
    ],
)
def test_steps_are_spaced_on_a_log_axis(steps: int, count: int, want: list[int]) -> None:
    assert log_spaced_steps(steps, count) == want
