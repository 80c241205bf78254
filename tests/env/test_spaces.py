"""A space of texts in any script."""

import pickle

import gymnasium as gym
import pytest
from gymnasium.error import CustomSpaceError
from gymnasium.vector.utils import batch_space, create_shared_memory

from aipo_env import UnicodeText


def test_membership_is_by_type_and_length():
    space = UnicodeText(5)
    assert "a" in space
    assert "\U0001f600\x00\ud800\u202eé" in space
    assert "" in space
    assert "abcdef" not in space
    assert b"abc" not in space
    assert 3 not in space
    assert "x" * 10**6 in UnicodeText(10**6)


def test_samples_are_short_printable_and_follow_the_seed():
    space = UnicodeText(10**6, seed=3)
    samples = [space.sample() for _ in range(50)]
    assert max(map(len, samples)) <= 256
    assert all(
        sample in space and sample.replace("\n", "").isprintable() for sample in samples
    )
    assert len(set(samples)) > 40
    again = UnicodeText(10**6, seed=3)
    assert [again.sample() for _ in range(50)] == samples


def test_samples_keep_to_the_bounds():
    assert {len(UnicodeText(3, seed=seed).sample()) for seed in range(30)} == {
        0,
        1,
        2,
        3,
    }
    assert len(UnicodeText(500).sample(mask=(7, None))) == 7


def test_it_is_small_and_compares_by_bounds():
    space = UnicodeText(10**6)
    assert repr(space) == "UnicodeText(1000000)"
    assert len(pickle.dumps(space)) < 10_000
    assert pickle.loads(pickle.dumps(space)) == space
    assert space == UnicodeText(10**6, seed=1)
    assert space != UnicodeText(10)
    assert space != gym.spaces.Text(10**6, min_length=0)
    assert not space.is_np_flattenable


def test_vector_environments_batch_it_but_not_in_shared_memory():
    space = UnicodeText(10)
    assert batch_space(space, 2) == gym.spaces.Tuple((space, space))
    with pytest.raises(
        CustomSpaceError,
        match=r"text cannot be put in shared memory.*shared_memory=False",
    ):
        create_shared_memory(space, n=2)


def test_an_asynchronous_vector_of_texts_refuses_shared_memory():
    with pytest.raises(ValueError, match="shared_memory=False"):
        gym.make_vec("AIPO-Toy-Turn-v0", num_envs=2, vectorization_mode="async")


def test_text_has_no_flat_form():
    text = UnicodeText(3)
    refused = (
        r"text has no flat form. Step an environment of tokens, made with mode='token'"
    )
    with pytest.raises(CustomSpaceError, match=refused):
        gym.spaces.flatdim(text)
    with pytest.raises(CustomSpaceError, match=refused):
        gym.spaces.flatten_space(text)
    with pytest.raises(CustomSpaceError, match=refused):
        gym.spaces.flatten(gym.spaces.Dict(role=text), {"role": "é"})
