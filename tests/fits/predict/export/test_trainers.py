"""Exports in the trainers' own hands, where they are installed: each parsed by its own parser, one
trained for 20 steps. `make test-trainers` installs them in an environment of their own, where a
trainer that cannot be imported is a failure.
"""

import importlib
import importlib.util
import math
import os
import sys
from dataclasses import replace

import numpy as np
import pytest
import yaml

from fits.predict.export import export
from tests.fits.predict.export.test_exports import made

SMALL = {"params": 3e5, "tokens": 20 * 8 * 32.0, "vocab": 64, "width": 64, "depth": 2,
         "sequence": 32, "batch_tokens": 8 * 32.0, "head_dim": 16}  # fmt: skip


def needs(name):
    """The trainer's module; without it the test is skipped, or fails where all must be there."""
    if "SCALELAB_TRAINERS" in os.environ:
        return importlib.import_module(name)
    return pytest.importorskip(name, exc_type=ImportError)


def module(text, name, folder):
    """The export, saved and imported."""
    path = folder / f"{name}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(name, path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def small():
    return made({**SMALL, "params": 1.0e5}, extrapolate=True)


def test_torchtitan_builds_the_model_from_its_own_configuration(tmp_path, monkeypatch):
    needs("torchtitan")
    import torch
    from torchtitan.config.manager import ConfigManager

    monkeypatch.syspath_prepend(str(tmp_path))
    found = made()
    (tmp_path / "titan_recipe.py").write_text(export(found, "torchtitan"))
    config = ConfigManager().parse_args(["--module", "titan_recipe", "--config", "recipe"])
    (group,) = config.optimizer.param_groups
    assert group.optimizer_kwargs["lr"] == pytest.approx(found.numbers["lr"].value, rel=1e-4)
    assert config.training.global_batch_size == found.plan.sequences
    assert config.lr_scheduler.warmup_steps == found.plan.warmup_steps
    with torch.device("meta"):
        model = config.model_spec.model.build()
    gains = (2 * found.plan.depth + 1) * found.plan.width
    assert sum(p.numel() for p in model.parameters()) == found.plan.params + gains
    sys.modules.pop("titan_recipe", None)


def test_levanter_parses_its_configuration(tmp_path):
    needs("levanter")
    import draccus
    import levanter.models.llama  # noqa: F401
    from levanter.main.train_lm import TrainLmConfig

    found = made()
    (tmp_path / "recipe.yaml").write_text(export(found, "levanter"))
    config = draccus.parse(TrainLmConfig, config_path=str(tmp_path / "recipe.yaml"), args=[])
    lr = config.optimizer.lr_scheduler(config.trainer.num_train_steps)
    peak, end = float(lr(found.plan.warmup_steps)), float(lr(found.plan.steps))
    assert peak == pytest.approx(found.numbers["lr"].value, rel=1e-3)
    assert end == pytest.approx(1e-5, rel=0.01) and config.model.hidden_dim == found.plan.width
    settings = {**found.settings, "schedule": {"value": "wsd", "source": "own"}}
    (tmp_path / "wsd.yaml").write_text(export(replace(found, settings=settings), "levanter"))
    config = draccus.parse(TrainLmConfig, config_path=str(tmp_path / "wsd.yaml"), args=[])
    lr, steps = config.optimizer.lr_scheduler(found.plan.steps), found.plan.steps
    assert float(lr(int(0.79 * steps))) == pytest.approx(peak, rel=1e-3)
    assert float(lr(int(0.9 * steps))) == pytest.approx(peak / 2, rel=0.02)


def test_maxtext_parses_its_configuration():
    """Its model of a configuration forbids what it does not know, and takes nothing of another
    type.
    """
    types = needs("maxtext.configs.types")
    found = made(devices=8)
    said = yaml.safe_load(export(found, "maxtext"))
    config = types.MaxTextConfig(**said)
    assert (config.emb_dim, config.steps) == (found.plan.width, found.plan.steps)
    assert config.learning_rate == pytest.approx(found.numbers["lr"].value, rel=1e-4)
    with pytest.raises(ValueError, match="base_emb_dimension"):
        types.MaxTextConfig(**said, base_emb_dimension=1)


def test_hugging_face_trains_it_for_twenty_steps(tmp_path):
    """On a text that is a rule with noise: the loss falls below that of guessing, and the LR ends
    where the recipe's schedule does.
    """
    needs("transformers")
    needs("accelerate")
    torch = needs("torch")
    from transformers import LlamaForCausalLM, Trainer

    found = small()
    said = module(export(found, "huggingface"), "hf_recipe", tmp_path)
    assert said.args.max_steps == found.plan.steps == 20
    said.args.use_cpu, said.args.report_to = True, []
    said.args.output_dir, said.args.save_strategy = str(tmp_path / "out"), "no"
    said.args.disable_tqdm, said.args.logging_steps = True, 1
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    rows = (rng.integers(0, 64, (160, 1)) + 3 * np.arange(32)) % 64
    data = [{"input_ids": torch.tensor(row), "labels": torch.tensor(row)} for row in rows]
    trainer = Trainer(LlamaForCausalLM(said.config), said.args, train_dataset=data)
    trainer.train()
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    rates = [log["learning_rate"] for log in trainer.state.log_history if "loss" in log]
    assert len(losses) == 20 and all(map(math.isfinite, losses))
    assert losses[0] == pytest.approx(math.log(64), abs=0.3) and losses[-1] < 1.0
    assert max(rates) == pytest.approx(found.numbers["lr"].value, rel=0.1)
    assert rates[-1] < 0.1 * max(rates)
