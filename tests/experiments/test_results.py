"""Rows of arms: what is kept, what is left out and named, what they say together."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aipo_env import ConfigError
from experiments.arms import (
    Arm,
    Measure,
    Table,
    World,
    changed_settings,
    find_table,
    read_method,
    table_names,
)
from experiments.places import facts
from experiments.report import table_section
from experiments.results import append_row, read_results
from experiments.statistics import difference, pass_at, retention, spread

TABLE = Table(
    name="trial",
    question="Which?",
    worlds={"facts": facts()},
    methods=("aipo", "masked"),
    against="aipo",
    seeds=(1, 2),
    measure=Measure(tasks=2, samples=4),
)


def row(method: str = "aipo", seed: int = 1, **changes: Any) -> dict[str, Any]:
    arm = TABLE.arm("facts", method, seed)
    values = {
        "table": "trial",
        "world": "facts",
        "method": method,
        "seed": seed,
        "config_hash": arm.config_hash(),
        "versions": {},
        "machine": "x",
        "seconds": 1.0,
        "rollouts": 8,
        "agent_tokens": 3,
        "alone": {"num_samples": 4, "num_correct": [1, 3]},
        "aided": {"num_samples": 4, "num_correct": [4, 4]},
        "drift": {"kl_start": 0.5, "entropy": 0.25},
    }
    return values | changes


def test_rows_come_back_by_the_key_of_their_arm(tmp_path: Path):
    append_row(row(), tmp_path)
    append_row(row("masked", 2), tmp_path)
    found = read_results(TABLE, tmp_path)
    assert list(found.rows) == [("facts", "aipo", 1), ("facts", "masked", 2)]
    assert found.faults == []
    assert found.rows["facts", "masked", 2].place == "trial.jsonl:2"


def test_a_row_of_other_settings_is_named_and_left_out(tmp_path: Path):
    append_row(row(config_hash="0123456789abcdef"), tmp_path)
    found = read_results(TABLE, tmp_path)
    assert found.rows == {}
    [fault] = found.faults
    assert fault.startswith("trial.jsonl:1: aipo in facts, seed 1, was made with other")
    assert "0123456789abcdef" in fault


def test_two_rows_of_one_arm_are_both_left_out(tmp_path: Path):
    append_row(row(), tmp_path)
    append_row(row(seconds=2.0), tmp_path)
    append_row(row("masked"), tmp_path)
    found = read_results(TABLE, tmp_path)
    assert list(found.rows) == [("facts", "masked", 1)]
    assert found.faults == [
        "trial.jsonl:2: the arm of trial.jsonl:1 again; delete one of the lines."
    ]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"table": "other"}, "it is of the table 'other'"),
        ({"seed": 9}, "the table has no arm 'aipo' in 'facts' with seed 9"),
        ({"rollouts": "8"}, "'rollouts' is missing or of another type"),
        ({"alone": {"num_samples": 4}}, "'alone' lacks 'num_correct'"),
        (
            {"aided": {"num_samples": 4, "num_correct": [5]}},
            "'aided' has numbers that are no counts of 4 samples",
        ),
    ],
)
def test_a_line_that_is_no_row_is_named(tmp_path: Path, change: dict, fault: str):
    path = tmp_path / "trial.jsonl"
    path.write_text(json.dumps(row() | change) + "\n", encoding="utf-8")
    found = read_results(TABLE, tmp_path)
    assert found.rows == {}
    assert found.faults == [f"trial.jsonl:1: {fault}."]


def test_a_line_that_was_cut_off_is_named(tmp_path: Path):
    append_row(row("masked"), tmp_path)
    with (tmp_path / "trial.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"table": "tri')
    found = read_results(TABLE, tmp_path)
    assert list(found.rows) == [("facts", "masked", 1)]
    assert found.faults[0].startswith("trial.jsonl:2: no JSON")


def test_what_is_measured_and_the_settings_are_in_the_hash():
    arm = TABLE.arm("facts", "aipo", 1)
    hashes = {arm.config_hash(), TABLE.arm("facts", "masked", 1).config_hash()}
    more = replace(TABLE, measure=Measure(tasks=3, samples=4))
    hashes.add(Arm(table=more, world="facts", method="aipo", seed=1).config_hash())
    hashes.add(TABLE.arm("facts", "aipo", 2).config_hash())
    longer = replace(facts().config, num_steps=9)
    other = replace(TABLE, worlds={"facts": World(config=longer)})
    hashes.add(Arm(table=other, world="facts", method="aipo", seed=1).config_hash())
    assert len(hashes) == 5
    assert arm.config_hash() == TABLE.arm("facts", "aipo", 1).config_hash()


def test_a_setting_that_is_as_by_default_is_in_no_hash():
    settings = {"a": 1, "b": {"c": 2, "d": 3}, "e": {"f": 4}}
    defaults = {"a": 1, "b": {"c": 2, "d": 0}, "e": {"f": 4}}
    assert changed_settings(settings, defaults) == {"b": {"d": 3}}


def test_a_method_or_table_that_there_is_not_is_named():
    with pytest.raises(
        ConfigError, match=r"no method 'floord' .* Valid: accept_anneal"
    ):
        read_method("floord")
    with pytest.raises(ConfigError, match=r"no table 'mian'. Valid: main, rules"):
        find_table("mian")
    with pytest.raises(ConfigError, match=r"has no 'moon'. Valid: facts"):
        TABLE.arm("moon", "aipo", 1)


@pytest.mark.parametrize("name", table_names())
def test_every_arm_of_every_table_can_be_configured(name: str):
    table = find_table(name)
    hashes = {arm.config_hash() for arm in table.arms(table.seeds[:1])}
    assert len(hashes) == len(table.arms(table.seeds[:1]))


def test_pass_at_k_of_counts():
    column = {"num_samples": 4, "num_correct": [1, 3]}
    assert pass_at(column, 1).tolist() == [0.25, 0.75]
    assert pass_at(column, 2).tolist() == [0.5, 1.0]


def test_a_difference_is_paired_and_its_interval_holds_it():
    one = [np.array([0.5, 0.7]), np.array([0.9, 0.9])]
    other = [np.array([0.4, 0.6]), np.array([0.7, 0.7])]
    gap = difference(one, other)
    # The same gap on every task of a seed: nothing is uncertain.
    assert gap.mean == pytest.approx(0.15)
    assert (gap.low, gap.high) == (pytest.approx(0.15), pytest.approx(0.15))
    assert gap.is_clear
    mixed = difference([np.array([0.0, 1.0])], [np.array([1.0, 0.0])])
    assert (mixed.low, mixed.mean, mixed.high) == (-1.0, 0.0, 1.0)
    assert not mixed.is_clear
    with pytest.raises(ValueError, match="2 tasks against 1"):
        difference([np.array([0.0, 1.0])], [np.array([1.0])])


def test_what_was_solved_before_counts_by_how_often():
    before = {"num_samples": 4, "num_correct": [3, 0, 1]}
    after = {"num_samples": 4, "num_correct": [4, 4, 0]}
    assert retention(before, after) == 0.75
    assert retention({"num_samples": 4, "num_correct": [0, 0, 0]}, after) is None


def test_a_spread_is_the_mean_and_the_ends():
    assert spread([0.2, 0.4]) == (spread([0.4, 0.2]))
    assert (spread([0.2, 0.4]).mean, spread([0.2, 0.4]).high) == (
        pytest.approx(0.3),
        0.4,
    )


def test_the_page_names_what_is_missing_and_averages_only_what_fits(tmp_path: Path):
    append_row(row(), tmp_path)
    append_row(row("masked", alone={"num_samples": 4, "num_correct": [0, 0]}), tmp_path)
    append_row(row("masked", 2, config_hash="foreign"), tmp_path)
    text = "\n".join(table_section(TABLE, read_results(TABLE, tmp_path)))
    assert "| `aipo` | 0.500 (0.500 – 0.500) |  | 1.000 | 1.000 |" in text
    assert "| `masked` | 0.000 (0.000 – 0.000) | -0.500 [-0.750, -0.250] |" in text
    assert "4 of 6 arms have no row yet." in text
    assert "was made with other settings (foreign" in text
