"""Parameter groups: patterns on names decide who decays and whose learning rate is another."""

import numpy as np
import pytest

import autograd as ag
from tinyllm.errors import UserError
from tinyllm.models import Decoder, gpt2
from tinyllm.training.config import TrainingConfig
from tinyllm.training.optimizers import SGD, AdamW, make_optimizer, make_store
from tinyllm.training.parameter_groups import check_patterns, parameter_groups
from tinyllm.training.parameter_store import ParameterStore

SHAPE = gpt2.config(vocab_size=13, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=6)


def groups_of(**changes):
    return parameter_groups(Decoder(SHAPE).parameters(), TrainingConfig(**changes))


def test_without_patterns_the_store_is_the_usual_one():
    model = Decoder(SHAPE)
    usual, made = ParameterStore(Decoder(SHAPE)), make_store(model, TrainingConfig())
    assert made.places == usual.places
    assert made.groups == usual.groups


def test_the_first_pattern_that_matches_gives_the_factor():
    groups = groups_of(learning_rate_factors={"blocks.1.*.bias": 0.0, "blocks.1.*": 0.5}, no_decay=("embedding.*",))
    assert list(groups) == ["decay", "decay blocks.1.*", "no_decay", "no_decay blocks.1.*.bias", "no_decay blocks.1.*"]
    factors = {name: group.options["learning_rate_factor"] for group in groups.values() for name in group.names}
    decays = {name: group.options["weight_decay"] for group in groups.values() for name in group.names}
    assert factors.keys() == Decoder(SHAPE).parameters().keys()
    assert factors["blocks.1.attention.query.bias"] == 0.0
    assert factors["blocks.1.attention.query.weight"] == factors["blocks.1.attention_norm.weight"] == 0.5
    assert factors["blocks.0.attention.query.weight"] == factors["embedding.weight"] == 1.0
    assert decays["blocks.1.attention.query.weight"] == decays["position.weight"] == 0.1
    assert decays["embedding.weight"] == decays["blocks.0.attention_norm.weight"] == 0.0


def test_muon_has_groups_of_hidden_matrices():
    groups = groups_of(optimizer="muon", no_decay=("*.value.weight",), learning_rate_factors={"*.0.*.up.*": 2.0})
    hidden = {name: group.names for name, group in groups.items() if group.hidden}
    assert list(hidden) == ["hidden", "hidden *.0.*.up.*", "hidden_no_decay"]
    assert hidden["hidden *.0.*.up.*"] == ("blocks.0.feed_forward.up.weight",)
    assert hidden["hidden_no_decay"] == ("blocks.0.attention.value.weight", "blocks.1.attention.value.weight")
    assert groups["hidden_no_decay"].options["weight_decay"] == 0.0
    assert "embedding.weight" in groups["decay"].names


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lion", "muon", "adafactor"])
def test_a_factor_and_no_decay_do_to_a_parameter_what_rate_and_decay_of_its_own_would(optimizer):
    """Each optimizer, three steps: under a factor of 0.5 as by half the rate, without decay as with a decay of 0."""

    def trained(name, **changes):
        model = Decoder(SHAPE, seed=3, dtype="float64")
        config = TrainingConfig(optimizer=optimizer, **changes)
        store = make_store(model, config)
        made = make_optimizer(store, config)
        for step in range(3):
            rng = np.random.default_rng(step)
            for p in store.parameters.values():
                p.grad = rng.normal(size=p.shape)
            made.step()
        return model.parameters()[name].data

    for name in ("blocks.1.attention.query.weight", "embedding.weight"):
        by_factor = trained(name, learning_rate=0.02, learning_rate_factors={name: 0.5})
        np.testing.assert_allclose(by_factor, trained(name, learning_rate=0.01), rtol=1e-12)
        without = trained(name, learning_rate=0.02, weight_decay=0.5, no_decay=(name,))
        np.testing.assert_allclose(without, trained(name, learning_rate=0.02, weight_decay=0.0), rtol=1e-12)
        assert abs(without - trained(name, learning_rate=0.02, weight_decay=0.5)).max() > 1e-4


def test_a_library_user_gives_options_by_the_names_of_groups():
    def updated(make, **options):
        tensors = {name: ag.Tensor(np.ones((2, 2)), requires_grad=True) for name in ("one", "two")}
        store = ParameterStore(tensors, {name: lambda key, p, name=name: key == name for name in tensors})
        optimizer = make(store, lr=0.1, weight_decay=0.5, **options)
        (tensors["one"].sum() + tensors["two"].sum()).backward()
        optimizer.step()
        return [tensors[name].data[0, 0] for name in tensors]

    options = {"groups": {"two": {"learning_rate_factor": 0.1, "weight_decay": 2.0}}}
    np.testing.assert_allclose(updated(SGD, **options), [1 - 0.1, 1 - 0.01 * 3])
    np.testing.assert_allclose(updated(AdamW, **options), [1 - 0.1, 1 * (1 - 0.02) - 0.01])
    with pytest.raises(UserError, match="the store has no group 'tow'; did you mean 'two'"):
        updated(SGD, groups={"tow": {}})
    with pytest.raises(UserError, match="a group has no option 'weight-decay'; did you mean 'weight_decay'"):
        updated(SGD, groups={"two": {"weight-decay": 1.0}})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"no_decay": ("embeding.*",)},
            "no_decay: no parameter is called 'embeding.*'; did you mean 'embedding.weight'",
        ),
        (
            {"learning_rate_factors": {"blocks.7.*": 2.0}},
            "learning_rate_factors: no parameter is called 'blocks.7.*'; ",
        ),
        ({"no_decay": ("head.*",)}, "no_decay: no parameter is called 'head.*'; it is tied to embedding.weight"),
    ],
)
def test_a_pattern_that_matches_nothing_is_refused(changes, message):
    with pytest.raises(UserError) as caught:
        check_patterns(Decoder(SHAPE), TrainingConfig(**changes))
    assert str(caught.value).startswith(message)
