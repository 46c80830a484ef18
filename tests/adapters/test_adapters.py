"""The monitor inside trainers, with the real libraries."""

import copy
import importlib
import json
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import pylinregion as plr
from cases.monitor import RADIUS, data, network, probes, values
from cases.small_models import Do
from pylinregion.monitor.sinks import JSONLines

SETTINGS = {"n_directions": 4, "every": 2, "budget": None, "measures": ["local_complexity", "loss"]}


def lightning_trainer(library, folder, callback, logger=False, steps=6, **settings):
    """A trainer, and a module to train: 60 points in batches of 10."""
    pl = importlib.import_module(library)

    class Classifier(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = network()
            self.states = {}

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, index):
            loss = functional.cross_entropy(self(batch[0]), batch[1])
            self.log("loss", loss)
            return loss

        def validation_step(self, batch, index):
            self.log("validation", functional.cross_entropy(self(batch[0]), batch[1]))

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=0.02)

    trainer = pl.Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="cpu",
        devices=1,
        logger=logger,
        callbacks=[callback] if callback else [],
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )
    return trainer, Classifier()


def batches():
    return DataLoader(TensorDataset(*data()), batch_size=10)


pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),  # Lightning's advice
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.. is deprecated"),  # Lightning, of torch
    pytest.mark.filterwarnings("ignore:.*number of training batches.*is smaller than the logging interval"),
]


def lightning_callback(library, monkeypatch):
    """The adapter's callback, made of this library."""
    if library == "pytorch_lightning":
        monkeypatch.delitem(sys.modules, "lightning.pytorch", raising=False)
    else:
        importlib.import_module(library)
    name = "pylinregion.adapters.lightning"
    monkeypatch.delitem(sys.modules, name, raising=False)
    callback = importlib.import_module(name).MonitorCallback
    assert callback.__mro__[1].__module__.startswith(library)
    return callback


@pytest.mark.turns(2)
@pytest.mark.part(2)
@pytest.mark.parametrize("library", ["lightning.pytorch", "pytorch_lightning"])
def test_lightning(tmp_path, monkeypatch, library):
    if library == "pytorch_lightning":
        importlib.import_module(library)
    kind, made, seen, weights = lightning_callback(library, monkeypatch), [], [], []
    capture = importlib.import_module("pylinregion.capturing.capture")
    monkeypatch.setattr(capture, "_from_module", lambda *a, f=capture._from_module: made.append(1) or f(*a))
    logger = importlib.import_module(library).loggers.CSVLogger(tmp_path, "run", flush_logs_every_n_steps=1)

    def sink(record):
        seen.append(record)
        weights.append(copy.deepcopy(model.net))

    callback = kind(probes(), RADIUS, sink=sink, **SETTINGS)
    trainer, model = lightning_trainer(library, tmp_path, callback, logger)
    trainer.fit(model, batches(), batches())
    assert len(made) <= 2  # a LightningModule looks different once, after the first step
    assert [record["step"] for record in seen] == [0, 2, 4, 6] and callback.monitor.steps == trainer.global_step == 6
    for record, now in zip(seen, weights, strict=True):
        counts = plr.count_regions(now, probes()["random"], RADIUS, n_directions=4)
        assert record["random/lc"] == counts.mean().mean
        assert record["random/lc/layer/net.2"] == counts.mean("2").mean
    assert len({record["random/lc"] for record in seen}) > 1

    rows = (tmp_path / "run" / "version_0" / "metrics.csv").read_text().splitlines()
    columns = rows[0].split(",")
    logged = {}
    for row in rows[1:]:
        row = dict(zip(columns, row.split(","), strict=True))
        if row["random/lc"]:
            logged[int(row["step"])] = float(row["random/lc"])
    assert logged == {record["step"]: record["random/lc"] for record in seen}


@pytest.mark.turns(2)
def test_lightning_trains_the_same_with_and_without(tmp_path, monkeypatch):
    trained = []
    for watch in (False, True):
        kind = lightning_callback("lightning.pytorch", monkeypatch)
        callback = kind(probes(), RADIUS, **SETTINGS) if watch else None
        trainer, model = lightning_trainer("lightning.pytorch", tmp_path, callback, enable_checkpointing=False)
        torch.manual_seed(3)
        trainer.fit(model, DataLoader(TensorDataset(*data()), batch_size=10, shuffle=True), batches())
        trained.append([*model.net.state_dict().values(), torch.get_rng_state()])
    assert all(torch.equal(a, b) for a, b in zip(*trained, strict=True))


@pytest.mark.turns(2)
def test_lightning_resumes_from_its_checkpoint(tmp_path, monkeypatch):
    kind = lightning_callback("lightning.pytorch", monkeypatch)

    def run(name, steps, checkpoint=None):
        sink = JSONLines(tmp_path / f"{name}.jsonl")
        callback = kind(probes(), RADIUS, sink=sink, module=lambda model: model.net, **SETTINGS)
        trainer, model = lightning_trainer(
            "lightning.pytorch", tmp_path, callback, steps=steps, enable_checkpointing=False
        )
        model.net[3].p = 0.0  # no chance in it: Lightning does not go on with torch's random state
        trainer.fit(model, batches(), batches(), ckpt_path=checkpoint)
        return trainer, [values(record) for record in JSONLines.read(sink.path)]

    _, whole = run("whole", 12)
    trainer, _ = run("parts", 6)
    trainer.save_checkpoint(tmp_path / "six.ckpt", weights_only=False)
    with (tmp_path / "parts.jsonl").open("a") as file:
        file.write('{"step": 8, "seconds": 0.0}\n')  # after the checkpoint, before the kill
    _, parts = run("parts", 12, tmp_path / "six.ckpt")
    assert [record["step"] for record in parts] == [0, 2, 4, 6, 8, 10, 12]
    assert parts == whole


@pytest.mark.turns(2)
def test_lightning_counts_steps_of_the_optimiser(tmp_path, monkeypatch):
    seen = []
    kind = lightning_callback("lightning.pytorch", monkeypatch)
    callback = kind(probes(), RADIUS, sink=seen.append, **SETTINGS)
    trainer, model = lightning_trainer(
        "lightning.pytorch", tmp_path, callback, steps=4, accumulate_grad_batches=3, enable_checkpointing=False
    )
    trainer.fit(model, batches(), batches())
    assert [record["step"] for record in seen] == [0, 2, 4]


class Classifier(nn.Module):
    """What Hugging Face's trainer takes: losses and logits by name."""

    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, x, labels=None):
        logits = self.net(x)
        return {"loss": functional.cross_entropy(logits, labels), "logits": logits}


class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 60

    def __getitem__(self, row):
        x, y = data()
        return {"x": x[row], "labels": y[row]}


def transformers_trainer(folder, callback, **settings):
    from transformers import Trainer, TrainingArguments

    settings = {"max_steps": 6, "save_strategy": "no", **settings}
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=10,
        learning_rate=0.02,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
        dataloader_pin_memory=False,
        seed=4,
        **settings,
    )
    return Trainer(Classifier(), arguments, train_dataset=Rows(), callbacks=[callback] if callback else [])


def transformers_callback(**settings):
    from pylinregion.adapters.transformers import MonitorCallback

    return MonitorCallback(probes(), RADIUS, module=lambda model: model.net, **{**SETTINGS, **settings})


@pytest.mark.turns(2)
@pytest.mark.parametrize("mixed", [False, True])
def test_transformers(tmp_path, mixed):
    seen = []
    callback = transformers_callback(sink=seen.append)
    trainer = transformers_trainer(tmp_path, callback, bf16=mixed, gradient_accumulation_steps=2)
    trainer.train()
    assert [record["step"] for record in seen] == [0, 2, 4, 6]
    counts = plr.count_regions(trainer.model.net, probes()["test"][0], RADIUS, n_directions=4)
    assert seen[-1]["test/lc"] == counts.mean().mean != seen[0]["test/lc"]


@pytest.mark.turns(2)
def test_transformers_trains_the_same_with_and_without(tmp_path):
    trained = []
    for callback in (None, transformers_callback()):
        trainer = transformers_trainer(tmp_path, callback)
        trainer.train()
        trained.append([*trainer.model.state_dict().values(), torch.get_rng_state()])
    assert all(torch.equal(a, b) for a, b in zip(*trained, strict=True))


@pytest.mark.turns(2)
def test_transformers_resumes_from_its_checkpoint(tmp_path):
    whole, parts = tmp_path / "whole.jsonl", tmp_path / "parts.jsonl"
    transformers_trainer(tmp_path / "a", transformers_callback(sink=JSONLines(whole)), max_steps=12).train()

    saved = {"save_strategy": "steps", "save_steps": 6, "max_steps": 12}
    transformers_trainer(tmp_path / "b", transformers_callback(sink=JSONLines(parts)), **saved).train()
    state = json.loads((tmp_path / "b" / "checkpoint-6" / "trainer_state.json").read_text())
    assert state["stateful_callbacks"]["pylinregion.Monitor"]["step"] == 6
    trainer = transformers_trainer(tmp_path / "b", transformers_callback(sink=JSONLines(parts)), **saved)
    trainer.train(resume_from_checkpoint=str(tmp_path / "b" / "checkpoint-6"))
    records = JSONLines.read(parts)
    assert [record["step"] for record in records] == [0, 2, 4, 6, 8, 10, 12]
    assert list(map(values, records)) == list(map(values, JSONLines.read(whole)))

    transformers_trainer(tmp_path / "c", None, **saved).train()
    trainer = transformers_trainer(tmp_path / "c", transformers_callback(), **saved)
    with pytest.raises(ValueError, match="the checkpoint of step 6 was saved without a MonitorCallback"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "c" / "checkpoint-6"))


@pytest.mark.turns(2)
def test_a_language_model_is_measured_in_its_embeddings(tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

    from pylinregion.adapters.transformers import MonitorCallback

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=11, n_positions=6, n_embd=8, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    model = GPT2LMHeadModel(config)
    tokens = torch.arange(24).view(4, 6) % 11
    rows = [{"input_ids": row, "labels": row} for row in tokens]
    seen = []
    callback = MonitorCallback(
        {"train": model.transformer.wte(tokens).detach()},
        0.5,
        module=lambda model: Do(lambda self, x: self.gpt(inputs_embeds=x, use_cache=False).logits, gpt=model),
        sink=seen.append,
        every=1,
        budget=None,
    )
    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=2, use_cpu=True, report_to=[], disable_tqdm=True, save_strategy="no",
        logging_strategy="no", dataloader_pin_memory=False, learning_rate=0.1,
    )  # fmt: skip
    Trainer(model, arguments, train_dataset=rows, callbacks=[callback]).train()
    assert [record["step"] for record in seen] == [0, 1, 2]
    layers = [key for key in seen[0] if key.startswith("train/lc/layer/")]
    assert len(layers) == 2 and all("mlp.act" in key for key in layers)
    assert seen[0]["train/lc"] > 0 and seen[0]["train/lc"] != seen[2]["train/lc"]


def test_torchmetrics():
    from torchmetrics import MetricCollection

    from pylinregion.adapters.torchmetrics import LocalComplexity

    model, (x, _) = network(), data()
    metric = LocalComplexity(model, RADIUS, settings={"n_directions": 4})
    assert not list(metric.parameters()) and not metric.state_dict()  # the model is not the metric's
    for begin in (0, 20, 50):
        metric.update(x[begin : begin + 30])
    counts = plr.count_regions(model, torch.cat([x[:30], x[20:50], x[50:]]), RADIUS, n_directions=4)
    assert metric.compute() == counts.mean().mean and metric.compute().dtype == torch.float64
    assert model.training and metric.total.shape == metric.points.shape == ()

    copies = MetricCollection({"lc": metric.clone(), "wide": LocalComplexity(model, 3.0, settings={"n_directions": 4})})
    with torch.no_grad():
        model[0].weight.mul_(-2)
    copies.reset()
    copies.update(x)
    found = copies.compute()
    for name, radius in (("lc", RADIUS), ("wide", 3.0)):  # a copy of the metric has the live model
        assert found[name] == plr.count_regions(model, x, radius, n_directions=4).mean().mean
    assert found["lc"] < found["wide"]
    metric.reset()
    with pytest.warns(UserWarning, match="before"):
        assert torch.isnan(metric.compute())
