"""Store, optimizers and loop with Numba's kernels: the same numbers up to rounding, the same bits every time."""

import dataclasses
import functools

import numpy as np
import pytest

import autograd as ag
from autograd.kernels import load
from tinyllm.data import RandomBatches
from tinyllm.models import Decoder, gpt2
from tinyllm.training.checkpoints import load_checkpoint, save_checkpoint
from tinyllm.training.config import TrainingConfig
from tinyllm.training.divergence import Diverged
from tinyllm.training.loop import Pretraining, pretrain
from tinyllm.training.optimizers import SGD, Adafactor, AdamW, Lion, Muon
from tinyllm.training.parameter_store import HIDDEN_GROUPS, ParameterStore

pytest.importorskip("numba")
load(["numba"])
from autograd.backends.numba.launch import at_most  # noqa: E402

SHAPE = gpt2.config(
    vocab_size=17, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=6, dropout=0.2
)
CONFIG = TrainingConfig(steps=6, batch_size=4, learning_rate=1e-2, min_learning_rate=1e-3, warmup_steps=2, seed=5)
TOKENS = np.arange(300) ** 2 % 17


def make(config=CONFIG, dtype="float32"):
    model = Decoder(SHAPE, seed=config.seed, dtype=dtype)
    batches = RandomBatches(TOKENS, batch_size=config.batch_size, context=6, seed=config.seed)
    return Pretraining(model, batches, config)


def large_store(dtype="float32"):
    """Parameters in both groups, more than one thread takes at a time, whose sizes are multiples of nothing."""
    rng = np.random.default_rng(0)
    shapes = {"matrix": (301, 301), "bias": (20_011,), "table": (7, 9)}
    arrays = {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}
    return ParameterStore({name: ag.Tensor(array, requires_grad=True) for name, array in arrays.items()})


def fill_gradients(store, step):
    rng = np.random.default_rng(step)
    for p in store.parameters.values():
        p.grad = rng.normal(size=p.shape).astype(p.dtype)


def train(make_optimizer, steps=20, dtype="float32"):
    """(store, optimizer, norms) after these steps."""
    store, norms = large_store(dtype), []
    optimizer = make_optimizer(store, weight_decay=0.1)
    for step in range(steps):
        fill_gradients(store, step)
        norms.append(store.clip(1.0))
        optimizer.step()
    return store, optimizer, norms


NESTEROV = functools.partial(SGD, nesterov=True)


@pytest.mark.parametrize("make_optimizer", [AdamW, SGD, NESTEROV])
def test_20_clipped_steps_are_those_of_the_rules(make_optimizer):
    exact, exact_optimizer, exact_norms = train(make_optimizer, dtype="float64")
    with ag.use_kernels("numba"):
        store, optimizer, norms = train(make_optimizer)
    # float64 begins from other weights, rounded, and draws the same gradients, rounded
    np.testing.assert_allclose(norms, exact_norms, rtol=2e-7)
    np.testing.assert_allclose(store.values, exact.values, rtol=0, atol=1e-5 * abs(exact.values).max())
    for name, array in optimizer.arrays.items():
        expected = exact_optimizer.arrays[name]
        np.testing.assert_allclose(array, expected, rtol=0, atol=2e-6 * abs(expected).max())


def test_a_step_calls_each_kernel_and_no_rule():
    ag.kernels_used(reset=True)
    with ag.use_kernels("numba"):
        train(AdamW, steps=3)
        train(SGD, steps=3)
        train(Lion, steps=3)
    groups = 2
    assert ag.kernels_used() == {
        "sum_of_squares": {"numba": 9},
        "scale": {"numba": 9},
        "adamw": {"numba": 3 * groups},
        "sgd": {"numba": 3 * groups},
        "lion": {"numba": 3 * groups},
    }


def test_a_float64_store_is_left_to_the_rules():
    expected, _, _ = train(AdamW, steps=2, dtype="float64")
    ag.kernels_used(reset=True)
    with ag.use_kernels("numba"):
        got, _, _ = train(AdamW, steps=2, dtype="float64")
    assert got.values.tobytes() == expected.values.tobytes()
    assert ag.kernels_used()["adamw"] == {"numba declined": 4, "reference": 4}


def test_clip_has_scaled_the_gradients_when_it_returns():
    store = large_store()
    fill_gradients(store, 0)
    with ag.use_kernels("numba"):
        norm = store.clip(1e9)
        before = store.gradients.copy()
        assert store.clip(1.5) == norm
        np.testing.assert_array_equal(store.gradients, before * np.float32(1.5 / (norm + 1e-6)))
        assert store.norm() == pytest.approx(1.5, rel=1e-6)


@pytest.mark.parametrize("make_optimizer", [AdamW, SGD, Lion])
def test_the_same_bits_from_run_to_run_and_on_one_thread(make_optimizer):
    with ag.use_kernels("numba"):
        first, again = train(make_optimizer), train(make_optimizer)
        with at_most(1):
            alone = train(make_optimizer)
    for store, optimizer, norms in (again, alone):
        assert store.values.tobytes() == first[0].values.tobytes()
        assert norms == first[2]
        for name, array in optimizer.arrays.items():
            assert array.tobytes() == first[1].arrays[name].tobytes()


@pytest.mark.parametrize("make_optimizer", [AdamW, SGD, Lion, Adafactor])
def test_padding_stays_zero(make_optimizer):
    with ag.use_kernels("numba"):
        store, _, _ = train(make_optimizer)
    used = np.zeros(store.size, bool)
    for place in store.places.values():
        used[place.start : place.stop] = True
    assert not used.all()
    assert not store.values[~used].any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["matrix", "bias"])
def test_one_gradient_that_is_not_finite_makes_the_norm_so(value, name):
    store = large_store()
    fill_gradients(store, 0)
    store.parameters[name].grad.reshape(-1)[-1] = value
    with ag.use_kernels("numba"), np.errstate(invalid="ignore"):
        assert not np.isfinite(store.norm())
        assert not np.isfinite(store.clip(1.0))


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_a_step_that_comes_to_no_number_stops_before_the_weights_are_touched(clip):
    training = make(dataclasses.replace(CONFIG, clip=clip))
    training.model.parameters()["final_norm.weight"].data[...] = 1e25
    before = training.store.values.copy()
    with ag.use_kernels("numba"), np.errstate(all="ignore"), pytest.raises(Diverged):
        pretrain(training)
    np.testing.assert_array_equal(training.store.values, before)


def test_muon_multiplies_with_the_kernels_and_is_muon_without_them():
    results = {}
    for kernels in ("reference", "numba"):
        store = ParameterStore(Decoder(SHAPE, seed=0), HIDDEN_GROUPS)
        optimizer = Muon(store, lr=0.01)
        ag.kernels_used(reset=True)
        with ag.use_kernels(kernels):
            for step in range(5):
                fill_gradients(store, step)
                optimizer.step()
        results[kernels] = store.values
        matrices = sum(place.group == "hidden" for place in store.places.values())
        assert ag.kernels_used()["matmul"] == {kernels: 5 * matrices * 15}  # five steps of three products
    np.testing.assert_allclose(results["numba"], results["reference"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lion", "muon", "adafactor"])
def test_a_run_stopped_and_resumed_ends_bit_identically(tmp_path, optimizer):
    config = dataclasses.replace(CONFIG, optimizer=optimizer)
    ag.kernels_used(reset=True)
    with ag.use_kernels("numba"):
        through = make(config)
        pretrain(through)
        if optimizer in ("adamw", "sgd", "lion"):
            assert ag.kernels_used()[optimizer] == {"numba": 2 * config.steps}

        stopped = make(config)
        pretrain(stopped, stop=lambda: stopped.step == 3)
        save_checkpoint(tmp_path, stopped, keep=1)
        resumed = make(config)
        resumed.model.parameters()["embedding.weight"].data[...] = 0
        assert load_checkpoint(tmp_path, resumed) == 3
        pretrain(resumed)
    assert resumed.store.values.tobytes() == through.store.values.tobytes()
    for name, array in resumed.optimizer.arrays.items():
        assert array.tobytes() == through.optimizer.arrays[name].tobytes()


def test_a_run_learns_what_it_learns_without_kernels():
    losses = {"reference": [], "numba": []}
    for name, values in losses.items():
        with ag.use_kernels(name):
            pretrain(make(), after_step=lambda metrics, values=values: values.append(metrics["loss_nats"]))
    np.testing.assert_allclose(losses["numba"], losses["reference"], rtol=1e-4)
