"""What an optimizer takes from a checkpoint, what it refuses, and what a config makes of another optimizer."""

import dataclasses

import numpy as np
import pytest

import autograd as ag
from tinyllm.errors import UserError
from tinyllm.training.config import OPTIMIZER_OPTIONS, TrainingConfig
from tinyllm.training.optimizers import SGD, Adafactor, AdamW, Lion, Muon
from tinyllm.training.parameter_store import HIDDEN_GROUPS, ParameterStore
from tinyllm.training.presets import PRESETS
from tinyllm.training.runs import changed


def make(kind, rows=3, groups=HIDDEN_GROUPS):
    shapes = {"embedding.weight": (9, 4), "blocks.0.weight": (rows, 5), "bias": (7,)}
    tensors = {name: ag.Tensor(np.ones(shape), requires_grad=True) for name, shape in shapes.items()}
    return kind(ParameterStore(tensors, groups))


def stepped(optimizer, seed=0):
    rng = np.random.default_rng(seed)
    for p in optimizer.store.parameters.values():
        p.grad = rng.normal(size=p.shape)
    optimizer.step()
    return optimizer


@pytest.mark.parametrize("kind", [AdamW, SGD, Lion, Muon, Adafactor])
def test_a_saved_optimizer_takes_the_same_next_step(kind):
    first, second = stepped(make(kind)), make(kind)
    second.store.values[...] = first.store.values
    arrays, numbers = first.state()
    second.load_state({name: array.copy() for name, array in arrays.items()}, numbers)
    assert stepped(second, seed=1).store.values.tobytes() == stepped(first, seed=1).store.values.tobytes()


@pytest.mark.parametrize("kind", [AdamW, SGD, Lion, Muon, Adafactor])
def test_padding_stays_zero(kind):
    store = stepped(stepped(make(kind))).store
    used = np.zeros(store.size, bool)
    for place in store.places.values():
        used[place.start : place.stop] = True
    assert not used.all()
    assert not store.values[~used].any()


def test_the_state_of_an_older_version_has_neither_name_nor_groups():
    first, second = stepped(make(AdamW)), make(AdamW)
    second.load_state(first.arrays, {"steps": 1})
    assert second.steps == 1
    np.testing.assert_array_equal(second.arrays["v"], first.arrays["v"])


OTHER_GROUPS = {"decay": lambda name, p: p.ndim == 2, "no_decay": lambda name, p: True}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            lambda: stepped(make(Lion)).state(),
            "it holds the state of lion, and this run's optimizer is adamw; choose lion",
        ),
        (
            lambda: ({"velocity": np.zeros(192)}, {"steps": 1}),
            "unknown optimizer fields velocity; the state of adamw is m, v, steps: another optimizer or a newer",
        ),
        (
            lambda: (make(AdamW).arrays, {"steps": 1, "phase": 2}),
            "unknown optimizer fields phase; the state of adamw is",
        ),
        (lambda: ({"m": np.zeros(192)}, {}), "the state of adamw lacks steps, v"),
        (lambda: make(AdamW, rows=30).state(), "m has 320 numbers, and this model's has 192"),
        (lambda: make(AdamW, groups=OTHER_GROUPS).state(), "its parameters lie in the groups {'decay': [0, 128], "),
    ],
)
def test_the_state_of_another_optimizer_is_refused_and_changes_nothing(state, message):
    optimizer = stepped(make(AdamW))
    before = {name: array.copy() for name, array in optimizer.arrays.items()}
    with pytest.raises(UserError) as caught:
        optimizer.load_state(*state())
    assert str(caught.value).startswith(message)
    assert optimizer.steps == 1
    for name, array in optimizer.arrays.items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("optimizer", OPTIMIZER_OPTIONS)
def test_a_config_survives_json(optimizer):
    config = TrainingConfig(optimizer=optimizer, no_decay=("a.*",), learning_rate_factors={"b": 2.0})
    assert TrainingConfig.from_dict(config.as_dict()) == config


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_config_of_an_older_version_has_values_that_its_optimizer_does_not_use(optimizer):
    older = {"optimizer": optimizer, "beta1": 0.9, "beta2": 0.95, "momentum": 0.8, "steps": 7}
    config = TrainingConfig.from_dict(older)
    assert config.steps == 7
    expected = (
        {"beta1": 0.9, "beta2": 0.95, "eps": 1e-8} if optimizer == "adamw" else {"momentum": 0.8, "nesterov": False}
    )
    assert config.optimizer_options() == expected
    with pytest.raises(UserError, match=r"is an option of"):
        TrainingConfig.from_dict(older | {"schedule": "cosine"})


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("optimizer", OPTIMIZER_OPTIONS)
def test_every_preset_takes_every_optimizer_with_its_own_options(preset, optimizer):
    training = PRESETS[preset].training
    config = changed(training, {"optimizer": optimizer})
    assert config.min_learning_rate / config.learning_rate == pytest.approx(
        training.min_learning_rate / training.learning_rate
    )
    if optimizer == "adamw":
        assert config == training
    else:
        assert config.optimizer_options() == OPTIMIZER_OPTIONS[optimizer]
        decay_of_a_step = training.learning_rate * training.weight_decay
        assert config.learning_rate * config.weight_decay == pytest.approx(decay_of_a_step)


def test_a_rate_that_is_given_is_that_of_the_new_optimizer():
    config = changed(TrainingConfig(), {"optimizer": "lion", "learning_rate": 3e-4, "weight_decay": 0.3})
    assert (config.learning_rate, config.weight_decay) == (3e-4, 0.3)
    assert config.min_learning_rate == pytest.approx(3e-5)


def test_patterns_are_a_list():
    with pytest.raises(UserError, match="no_decay is a list of patterns"):
        dataclasses.replace(TrainingConfig(), no_decay="embedding.*")
