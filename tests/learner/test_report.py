import json
import os
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from aipo_env import (
    Author,
    DataError,
    Episode,
    Message,
    Span,
    Task,
    write_episodes,
)
from aipo_env.testing import example_episode, example_tokens
from aipo_learner.policy.tiny import build_tokenizer
from aipo_learner.reporting import report as report_module
from aipo_learner.reporting import token_text
from aipo_learner.reporting.arms import Arm, read_arms
from aipo_learner.reporting.report import _differences, write_report
from aipo_learner.reporting.token_text import token_decoder

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\x1b[2J\u202e"
HUGE = 10**400


class Page(HTMLParser):
    """Collects tags, attributes, and the text of every element by tag."""

    VOID = ("meta", "link", "br", "img", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and data.strip():
            self.texts.append((self._open[-1], " ".join(data.split())))

    def of(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]


def measured(first: float, last: float) -> dict[str, Any]:
    block: dict[str, Any] = {
        "pass@1": first,
        "pass@2": (first + last) / 2,
        "pass@4": last,
    }
    block["intervals"] = {
        f"pass@{k}": [block[f"pass@{k}"] - 0.01, block[f"pass@{k}"] + 0.01]
        for k in (1, 2, 4)
    }
    block["by_bottleneck"] = {
        "knowledge": {"pass@1": first},
        "verify": {"pass@1": last},
    }
    return block | {"num_tasks": 96, "num_samples": 64}


def summary() -> dict[str, Any]:
    before = measured(0.021, 0.11)
    arms = {
        "base": {
            "unaided": {"before": before, "after": measured(0.043, 0.12)},
            "rollouts": 384,
            "seconds": 90.0,
        },
        "aipo": {
            "unaided": {"before": before, "after": measured(0.874, 0.96)},
            "aided": {"before": {"pass@1": 0.938}, "after": {"pass@1": 0.951}},
            "rollouts": 384,
            "seconds": 126.0,
        },
    }
    return {"arms": arms, "seed": 7, "versions": {"torch": "2.13.0"}}


def episode(text: str = "hello", *, aided: bool = True) -> Episode:
    shown = example_episode(
        text,
        task=Task(id="t", prompt="p", answer="1", meta={"bottleneck": "knowledge"}),
        aided=aided,
        messages=(Message("assistant", (Span(text, Author.POLICY),)),),
        turns=(),
        tokens=example_tokens(token_ids=[1, 2, 3]),
    )
    consults = tuple(replace(consult, kind="knowledge") for consult in shown.consults)
    return replace(shown, consults=consults if aided else ())


def run_folder(folder: Path, what: dict[str, Any] | None = None) -> Path:
    """Write a run of two arms with four steps each, one of which lacks a metric."""
    (folder / "summary.json").write_text(
        json.dumps(summary() if what is None else what)
    )
    for name in ("aipo", "base"):
        (folder / name / "episodes").mkdir(parents=True)
        rows: list[dict[str, float]] = [
            {"step": step, "success/unaided": 0.1 * (step - 1)} for step in range(1, 5)
        ]
        if name == "aipo":
            for row in rows[1:]:
                row |= {
                    "success/aided": 0.9,
                    "consult_rate/knowledge": 1.5,
                    "consult_rate/verify": 0.0,
                }
                row |= {"agent_p_mean": 0.2, "agent_below_floor_share": 0.6}
        (folder / name / "metrics.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in rows)
        )
        write_episodes(
            folder / name / "episodes" / "step-000001.jsonl",
            [episode(), episode(aided=False)],
        )
        write_episodes(
            folder / name / "episodes" / "step-000030.jsonl", [episode(aided=False)]
        )
        write_episodes(
            folder / name / "episodes" / "evaluation-aided.jsonl", [episode()] * 6
        )
    (folder / "before" / "episodes").mkdir(parents=True)
    write_episodes(
        folder / "before" / "episodes" / "evaluation-unaided.jsonl",
        [episode(aided=False)] * 2,
    )
    return folder


def report(folder: Path) -> str:
    path = write_report(folder)
    assert path == folder / "report.html"
    return path.read_text(encoding="utf-8")


def test_headline_gives_the_measured_numbers(tmp_path: Path) -> None:
    page = Page(report(run_folder(tmp_path)))
    assert page.of("h1") == [
        "Alone, the policy solves 87.4% of unseen tasks; before training, 2.1%"
    ]
    assert page.of("title")[:1] == page.of("h1")
    lead = " ".join(page.of("p"))
    assert "For comparison, the policy alone came to 4.3% with “no agents”" in lead
    assert "our reconstruction" in lead
    assert "96 held-out tasks, 64 answers to each" in lead
    assert "seed 7 · torch 2.13.0" in lead


def test_every_measurement_has_its_chart_and_caption(tmp_path: Path) -> None:
    text = report(run_folder(tmp_path))
    titles = re.findall(r"<figure>\s*<h3>(.*?)</h3>", text)
    assert titles == [
        "pass@k alone, on held-out tasks",
        "Success alone, in training",
        "Success with agents, in training",
        "Dependence gap, in training",
        "Probability of agents&#39; tokens",
        "Agents&#39; tokens below the floor",
        "Consultations in training: AIPO",
    ]
    page = Page(text)
    assert len(page.of("figcaption")) == 7
    assert all(caption.endswith(".") for caption in page.of("figcaption"))


def chart(text: str, title: str) -> str:
    return text.split(f"<h3>{title}</h3>")[1].split("</figure>")[0]


def test_curves_stand_where_the_numbers_are(tmp_path: Path) -> None:
    success = chart(report(run_folder(tmp_path)), "Success alone, in training")
    # 384 rollouts in 4 steps: quarters of 380 units from 46. Shares of 0 to 30%: of 198
    # units up from 208.
    assert (
        '<polyline class="line s0" points="141.0,208.0 236.0,188.2 331.0,168.4'
        ' 426.0,148.6"/>' in success
    )
    assert '<polyline class="line s2"' in success
    assert ">rollouts</text>" in success
    assert re.findall(r"</svg> ([\w ]+)</li>", success) == ["AIPO", "no agents"]


def test_pass_at_k_is_logarithmic_with_bands(tmp_path: Path) -> None:
    ability = chart(report(run_folder(tmp_path)), "pass@k alone, on held-out tasks")
    assert "<title>AIPO, after: 87.4% at 1</title>" in ability
    assert re.findall(r'class="dot s0" cx="([\d.]+)"', ability) == [
        "46.0",
        "236.0",
        "426.0",
    ]
    assert ability.count('<polygon class="band') == 3
    assert re.findall(r"</svg> ([\w ,]+)</li>", ability) == [
        "before training",
        "AIPO, after",
        "no agents, after",
    ]


def test_gap_and_rates_have_axes_of_their_own(tmp_path: Path) -> None:
    text = report(run_folder(tmp_path))
    gap = chart(text, "Dependence gap, in training")
    assert re.findall(r"</svg> ([\w ]+)</li>", gap) == ["AIPO"]
    rates = chart(text, "Consultations in training: AIPO")
    assert re.findall(r"</svg> ([\w ]+)</li>", rates) == ["knowledge", "verify"]
    assert re.findall(r'class="value"[^>]*>([^<]+)<', rates) == ["0", "0.5", "1", "1.5"]


def test_table_lists_the_arms(tmp_path: Path) -> None:
    text = report(run_folder(tmp_path))
    rows = re.findall(
        r"<tr>(.*?)</tr>", text[text.index("<h2>The arms</h2>") :], re.DOTALL
    )[1:]
    cells = [
        [
            " ".join(re.sub("<[^>]+>", " ", cell).split())
            for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL)
        ]
        for row in rows
    ]
    assert cells == [
        [
            "AIPO",
            "384",
            "2.1",
            "2.1% 1.1% to 3.1%",
            "87.4% 86.4% to 88.4%",
            "96.0% k = 4",
            "95.1% before: 93.8%",
            "7.7%",
        ],
        [
            "no agents",
            "384",
            "1.5",
            "2.1% 1.1% to 3.1%",
            "4.3% 3.3% to 5.3%",
            "12.0% k = 4",
            "–",
            "–",
        ],
    ]


def test_pass_at_1_by_the_help_a_task_needs(tmp_path: Path) -> None:
    text = report(run_folder(tmp_path))
    table = text[text.index("By the help a task needs") :]
    table = table[: table.index("</table>")]
    assert re.findall(r'<th scope="col">(.*?)</th>', table) == [
        "Arm",
        "knowledge",
        "verify",
    ]
    cells = [
        re.sub("<[^>]+>", "", cell) for cell in re.findall("<td>(.*?)</td>", table)
    ]
    assert cells == [
        "87.4% before: 2.1%",
        "96.0% before: 11.0%",
        "4.3% before: 2.1%",
        "12.0% before: 11.0%",
    ]


def test_what_became_of_consultations_is_counted(tmp_path: Path) -> None:
    run_folder(tmp_path)
    assert "What became of its questions" not in report(tmp_path)
    rows = [
        {
            "step": 0,
            "consults/answered": 1200,
            "consults/429": 3,
            "consults/retries": 4,
        },
        {
            "step": 1,
            "consults/answered": 34,
            "consults/timeout": 2,
            "consults/leaked": None,
            "consults/x": 5,
        },
    ]
    (tmp_path / "base" / "metrics.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows)
    )
    text = report(tmp_path)
    table = text[text.index("What became of its questions") :]
    table = table[: table.index("</table>")]
    heads = re.findall(r'<th scope="col">(.*?)</th>', table)
    assert heads == ["Arm", "answered", "429", "timeout", "retries"]
    assert re.findall("<td>(.*?)</td>", table) == ["1,234", "3", "2", "4"]


def test_evaluations_on_schedule_are_one_figure_of_the_arm_that_has_them(
    tmp_path: Path,
) -> None:
    folder = run_folder(tmp_path)
    assert "Evaluation on schedule" not in report(folder)
    with (folder / "base" / "metrics.jsonl").open("a") as file:
        for step, score in ((3, 0.25), (7, 0.5)):
            row = {
                "step": step,
                "eval/pass_at_1": score,
                "eval/pass_at_4": 2 * score,
                "eval/truncated": 0.0,
            }
            file.write(json.dumps({**row, f"eval/{HOSTILE}": 0.1}) + "\n")
    text = report(folder)
    page = Page(text)
    assert [title for title in page.of("h3") if "schedule" in title] == [
        "Evaluation on schedule: no agents"
    ]
    figure = text[text.index("Evaluation on schedule: no agents") :]
    legend = re.findall(r"</svg> ([^<]*)</li>", figure[: figure.index("</ul>")])
    assert legend[1:] == ["pass@1", "pass@4", "truncated"]
    assert (page.tags.count("script"), page.tags.count("img")) == (1, 0)


def test_viewer_shows_before_training_and_after(tmp_path: Path) -> None:
    sources = re.findall(r'<li data-source="([^"]+)"', report(run_folder(tmp_path)))
    assert sources == (
        ["before training"] * 2
        + ["AIPO, step 1"] * 2
        + ["AIPO, step 30"]
        + ["AIPO, after training"] * 3
        + ["no agents, step 1"] * 2
        + ["no agents, step 30"]
        + ["no agents, after training"] * 3
    )


def test_page_loads_nothing(tmp_path: Path) -> None:
    text = report(run_folder(tmp_path))
    page = Page(text)
    loading = [
        (tag, value)
        for tag, name, value in page.attributes
        if name in ("src", "href", "srcset", "action")
    ]
    assert {value for tag, value in loading if tag != "a"} == {"data:,"}
    assert all(value.startswith("#episode-") for tag, value in loading if tag == "a")
    assert not re.search(r"https?://|url\(|@import", text)
    assert page.tags.count("script") == 1


def test_hostile_names_and_episodes_are_escaped(tmp_path: Path) -> None:
    what = summary()
    what["arms"]["evil<img src=x>\u202e"] = what["arms"]["base"]
    what["arms"]["base"]["unaided"]["after"]["by_bottleneck"][HOSTILE] = {"pass@1": 0.5}
    what |= {"seed": HOSTILE, "versions": {HOSTILE: HOSTILE}}
    folder = run_folder(tmp_path, what)
    write_episodes(
        folder / "aipo" / "episodes" / "step-000001.jsonl", [episode(HOSTILE)] * 2
    )
    write_episodes(
        folder / "aipo" / "episodes" / "step-000060.jsonl", [episode(HOSTILE)]
    )
    text = report(folder)
    page = Page(text)
    assert "img" not in page.tags
    assert page.tags.count("script") == 1
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)
    assert r"onerror=alert(2)&gt;\u001b[2J\u202e" in text


@pytest.mark.parametrize(
    "what",
    [
        {"arms": {"aipo": {}}},
        {"arms": {"aipo": None}},
        {"arms": {"a": [1]}, "against": 3},
    ],
)
def test_missing_pieces_are_left_out(tmp_path: Path, what: dict[str, Any]) -> None:
    (tmp_path / "summary.json").write_text(json.dumps(what))
    text = report(tmp_path)
    assert Page(text).of("h1") == ["What the policy can do alone"]
    assert "<figure>" not in text
    assert 'class="viewer"' not in text
    assert 'class="tile' not in text


def test_values_of_another_type_count_as_missing(tmp_path: Path) -> None:
    what = summary()
    what["arms"]["aipo"]["unaided"]["after"] |= {
        "pass@1": "high",
        "intervals": 3,
        "by_bottleneck": 5,
    }
    what["arms"]["aipo"]["rollouts"] = None
    what["versions"] = ["2.13.0"]
    text = report(run_folder(tmp_path, what))
    assert Page(text).of("h1") == ["What the policy can do alone"]
    assert ">steps</text>" in chart(text, "Success alone, in training")


def test_one_arm_of_another_name_is_enough(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(json.dumps({"arms": {}}))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "metrics.jsonl").write_text(
        '{"step": 0, "success/unaided": 0.5}\n{"step": 1, "succ'
    )
    text = report(tmp_path)
    assert re.findall(
        r"</svg> ([\w ]+)</li>", chart(text, "Success alone, in training")
    ) == ["mine"]


def test_no_two_arms_share_a_line_style(tmp_path: Path) -> None:
    arms = read_arms(tmp_path, {"arms": {"y": {}, "base": {}, "x": {}}})
    assert [(arm.folder.name, arm.style) for arm in arms] == [
        ("base", 2),
        ("x", 3),
        ("y", 4),
    ]


def test_a_single_run_is_reported_with_the_scores_of_its_evaluation(
    tmp_path: Path,
) -> None:
    run = run_folder(tmp_path) / "base"
    text = report(run)
    assert re.findall(
        r"</svg> ([\w ]+)</li>", chart(text, "Success alone, in training")
    ) == ["no agents"]
    assert 'class="tile' not in text
    (run / "scores.json").write_text(
        json.dumps({"unaided": summary()["arms"]["base"]["unaided"]["after"]})
    )
    assert 'class="tile' in report(run)


SETTINGS: dict[str, Any] = {
    "policy": "./qwen",
    "num_steps": 50,
    "groups_per_step": 12,
    "group_size": 8,
    "lr": 0.0007,
    "warmup_steps": 10,
    "temperature": 1.0,
    "seed": 3,
    "independence": "internalised",
    "objective": {"base": "grpo", "agent_rule": "floored"},
    "environment": {
        "source": "file:mine.jsonl",
        "agents": {"verify": "openai:m@http://me:secret@host/v1"},
    },
    "source": {"episodes": "", "sft_episodes": ""},
}


def one_run(folder: Path, settings: object = SETTINGS, number: int = 40) -> Path:
    """Write the folder of a run whose success alone rises from 0 to nearly 1."""
    folder.mkdir(parents=True)
    lines = [
        {
            "step": step,
            "rows": 8,
            "success/unaided": (step - 1) / number,
            "success/aided": 0.9,
            "reward": 0.5,
            "loss": -0.25 - step / 1_000,
            "entropy": 0.5,
            "policy_tokens_per_episode": 100.0,
            "reply_tokens": 5.0,
            "consults/answered": 20,
            "truncated": 0.0,
            "lr": 1e-6 * step,
            "seconds/rollouts": 60.0,
            "seconds/update": 30.0,
        }
        for step in range(1, number + 1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    os.utime(folder / "metrics.jsonl", (1_700_000_000, 1_700_000_000))
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


def words(text: str) -> str:
    """Return what of a page is read, without its style and its script."""
    text = re.sub(r"<(style|script)>.*?</\1>", " ", text, flags=re.DOTALL)
    return " ".join(re.sub("<[^>]+>", " ", text).split())


def test_a_single_run_says_what_it_was_what_it_cost_and_whether_it_learned(
    tmp_path: Path,
) -> None:
    text = report(one_run(tmp_path / "mine"))
    assert Page(text).of("h1") == ["mine"]
    said = words(text)
    assert "report of a run · last step 2023-11-14 22:13 UTC" in said
    assert (
        "Did it learn? Yes In training, success alone rose from 8.8% to 88.8% (means of"
        " the first and the last 8 steps). In training, success with agents stayed at"
        " 90.0%" in said
    )
    assert (
        "From what Policy ./qwen Data file:mine.jsonl Agents verify:"
        " openai:m@http://host/v1 Learning grpo, agents&#39; tokens floored,"
        " internalised A step 12 tasks × 8 rollouts Learning rate 7e−4 after 10 steps"
        " of warm-up Temperature 1 Steps 40 of 50 Seed 3 At what cost Rollouts 3,840"
        " Tokens the policy wrote 384,000 Tokens of agents&#39; answers 4,000 Sampling"
        " and updates 1.0 h" in said
    )
    # Nothing of a comparison, and no table of dashes.
    assert "For comparison" not in said
    assert "The arms" not in said
    assert ">–<" not in text
    assert "secret" not in text
    assert "environment.source file:mine.jsonl" in said


def test_a_run_is_called_by_its_own_name_wherever_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(one_run(tmp_path / "mine"))
    write_report(Path())
    assert Page(Path("report.html").read_text()).of("h1") == ["mine"]


def test_a_run_shows_the_standard_curves_that_it_has(tmp_path: Path) -> None:
    text = report(one_run(tmp_path / "mine"))
    assert re.findall(r"<figure>\s*<h3>(.*?)</h3>", text)[3:] == [
        "Reward",
        "Loss",
        "Entropy",
        "Length",
        "Truncated",
        "Learning rate",
        "Seconds for rollouts",
        "Seconds for the update",
        "Tokens per second",
    ]
    # Axes of what is no share fit the values; shares go up to 100%.
    loss = chart(text, "Loss")
    ticks = re.findall(r'class="value"[^>]*>([^<]+)<', loss)
    assert ticks == ["−0.29", "−0.28", "−0.27", "−0.26", "−0.25"]
    rate = re.findall(r'class="value"[^>]*>([^<]+)<', chart(text, "Learning rate"))
    assert rate == ["0", "1e−5", "2e−5", "3e−5", "4e−5"]
    truncated = re.findall(r'class="value"[^>]*>([^<]+)<', chart(text, "Truncated"))
    assert truncated[-1] == "100%"
    # 12 x 8 rollouts of 100 tokens in 90 seconds.
    assert "<title>steps: 7\nmine: 106.7</title>" in chart(text, "Tokens per second")
    assert "<title>steps: 7\nmine: −0.257</title>" in loss
    assert "<title>steps: 21\nmine: 50.0%</title>" in chart(
        text, "Success alone, in training"
    )


def test_a_long_run_has_a_bounded_number_of_readings(tmp_path: Path) -> None:
    text = report(one_run(tmp_path / "mine", number=5_000))
    assert chart(text, "Reward").count('class="reading"') <= 120
    assert len(text) < 2**20


SCORES = {"unaided": measured(0.4, 0.6), "settings": {"tasks": "math500"}}


def test_evaluations_are_found_wherever_they_were_put(tmp_path: Path) -> None:
    run = one_run(tmp_path / "mine")
    assert "Measured by aipo eval" not in report(run)
    places = {".": "math500", "eval": "aime2025", "sets/a": "gpqa", "sets/b": "gpqa"}
    for place, name in places.items():
        (run / place).mkdir(parents=True, exist_ok=True)
        scores = {**SCORES, "settings": {"tasks": name}}
        (run / place / "scores.json").write_text(json.dumps(scores))
    write_episodes(run / "eval" / "episodes.jsonl", [episode("of the set")] * 9)
    text = report(run)
    table = text[text.index("Measured by aipo eval") :]
    table = table[: table.index("</table>")]
    names = re.findall(r"</svg> ([^<]*)</th>", table)
    assert names == ["math500", "aime2025", "gpqa", "gpqa (sets/b)"]
    assert "40.0%" in table
    assert text.count('class="tile s') == 4
    assert "pass@k alone, on held-out tasks" in text
    assert re.findall(r'data-source="([^"]*)"', text) == ["mine, aime2025"] * 3
    assert "of the set" in text


def test_evaluations_that_cannot_be_used_are_said_and_fail_nothing(
    tmp_path: Path,
) -> None:
    run = one_run(tmp_path / "mine")
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "scores.json").write_text(json.dumps(SCORES))
    (run / "linked").symlink_to(secret)
    for name in ("broken", "empty", "pipe", "link", "list", "odd"):
        (run / name).mkdir()
    (run / "broken" / "scores.json").write_text('{"unaided": ')
    (run / "empty" / "scores.json").write_text("{}")
    os.mkfifo(run / "pipe" / "scores.json")
    (run / "link" / "scores.json").symlink_to(secret / "scores.json")
    (run / "list" / "scores.json").write_text('{"unaided": [1]}')
    odd = {"unaided": {"pass@1": HUGE, "num_samples": 0}, "settings": [HOSTILE]}
    (run / "odd" / "scores.json").write_text(json.dumps(odd))
    text = report(run)
    assert "math500" not in text
    footer = words(text[text.index("<footer>") :])
    assert "empty/scores.json holds no scores." in footer
    assert "list/scores.json holds no scores." in footer
    assert re.findall(r"Left out: (\S+) cannot be read", footer) == [
        "broken/scores.json",
        "pipe/scores.json",
    ]
    assert str(tmp_path) not in text
    assert "a pipe, where a file is needed" in footer


@pytest.mark.parametrize(
    "settings",
    [
        [],
        None,
        5,
        {},
        {"policy": [HOSTILE], "lr": HUGE, "objective": 3, "environment": HOSTILE},
        {
            "policy": HOSTILE * 1_000,
            "seed": {"a": {"b": {"c": {"d": {"e": {"f": 1}}}}}},
        },
        {"group_size": True, "groups_per_step": -1, "num_steps": HOSTILE},
        {"group_size": 10**9, "groups_per_step": 10**9, "lr": float("nan")},
        {"group_size": 5e-324, "groups_per_step": 0.5, "lr": float("inf")},
        {"source": {"episodes": 3, "sft_episodes": [HOSTILE]}, "lr": True},
        {"source": 7, "environment": {"source": {"type": "file"}, "agents": [1]}},
        {
            HOSTILE * 100: {HOSTILE: [HOSTILE]},
            "a": {str(x): None for x in range(9_999)},
        },
        {str(x): "y" * 500 for x in range(1_000)},
    ],
    ids=range(13),
)
def test_settings_of_a_stranger_fail_no_page(tmp_path: Path, settings: object) -> None:
    text = report(one_run(tmp_path / "mine", settings))
    page = Page(text)
    assert page.of("h1") == ["mine"]
    assert (page.tags.count("script"), page.tags.count("img")) == (1, 0)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)
    assert len(text) < 2**20


def test_unreadable_settings_are_said(tmp_path: Path) -> None:
    run = one_run(tmp_path / "mine")
    (run / "config.json").write_text("{")
    assert "Left out: config.json cannot be read" in words(report(run))
    (run / "config.json").unlink()
    (tmp_path / "elsewhere.json").write_text('{"policy": "private"}')
    (run / "config.json").symlink_to(tmp_path / "elsewhere.json")
    text = report(run)
    assert "private" not in text
    assert "a link, which is not followed" in text


def test_what_stored_episodes_came_to_is_not_told_of_the_policy(tmp_path: Path) -> None:
    stored = {**SETTINGS, "source": {"sft_episodes": "made.jsonl"}}
    said = words(report(one_run(tmp_path / "mine", stored)))
    assert "It imitates them better" in said
    assert "Data made.jsonl (imitated) Learning imitation" in said
    assert "success alone" not in said
    assert "Success alone" not in said
    assert "Tokens the policy wrote" not in said
    assert "Rollouts 3,840" not in said


def test_a_comparison_without_a_summary_has_no_columns_of_dashes(
    tmp_path: Path,
) -> None:
    for name in ("one", "two"):
        one_run(tmp_path / "cmp" / name)
    text = report(tmp_path / "cmp")
    table = text[text.index("<h2>The arms</h2>") :]
    table = table[: table.index("</table>")]
    assert re.findall(r'<th scope="col">(.*?)</th>', table) == [
        "Arm",
        "Rollouts",
        "Minutes",
    ]
    assert re.findall("<td>(.*?)</td>", table) == ["3,840", "60.0"] * 2
    runs = text[text.index("<h2>What each run was</h2>") :]
    assert re.findall("<td>(.*?)</td>", runs[: runs.index("</table>")])[:6] == [
        "Yes",
        "./qwen",
        "file:mine.jsonl",
        "grpo, agents&#39; tokens floored, internalised",
        "7e−4 after 10 steps of warm-up",
        "40 of 50",
    ]
    (tmp_path / "cmp" / "two" / "scores.json").write_text(json.dumps(SCORES))
    text = report(tmp_path / "cmp")
    assert "two: math500</th>" in text


def test_tables_that_scroll_can_say_so(tmp_path: Path) -> None:
    text = report(run_folder(tmp_path))
    assert text.count('<div class="scroll"') == text.count(
        '<p class="hint quiet" hidden'
    )
    assert text.count('<div class="scroll"') >= 2


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (None, r"holds no run\. Give the --out folder of `aipo train`"),
        (
            '{"arms": {',
            r"summary\.json: no JSON object .*Run the command that wrote it again",
        ),
        ('{"arms": [1]}', r"holds no run"),
        ("[]", r"summary\.json: no JSON object .*of type list"),
        (b"\xff\xfe", r"summary\.json: no JSON object"),
    ],
)
def test_unusable_summary_is_named_with_the_mend(
    tmp_path: Path, content: str | bytes | None, fault: str
) -> None:
    if content is not None:
        (tmp_path / "summary.json").write_bytes(
            content.encode() if isinstance(content, str) else content
        )
    with pytest.raises(DataError, match=fault):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_paired_differences_are_said_and_broken_ones_left_out():
    arms = [Arm(folder=Path("aipo"), style=0), Arm(folder=Path("masked"), style=1)]
    change = {
        "difference": {"pass@1": 0.5},
        "intervals": {"pass@1": [0.4, 0.625]},
        "boundary_gain": 0.25,
    }
    assert _differences(arms, {"masked": change, "gone": change, "odd": [1]}) == [
        "AIPO against masked, alone: +50.0 points of pass@1 (95 % paired bootstrap"
        " +40.0 to +62.5); 25% of the tasks were solved by the first only."
    ]
    assert _differences(arms, None) == []


@pytest.mark.parametrize("name", ["../secret", "a/b", "..", "a\\b", "/etc"])
def test_a_summary_names_no_folder_elsewhere(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    run_folder(folder, {**summary(), "arms": {name: {}}})
    with pytest.raises(DataError, match="which is no folder in it"):
        write_report(folder)


def test_links_in_a_shared_folder_are_not_followed(tmp_path: Path) -> None:
    folder, victim = tmp_path / "shared", tmp_path / "victim.jsonl"
    folder.mkdir()
    run_folder(folder)
    write_episodes(victim, [episode("private words")])
    (folder / "aipo" / "episodes" / "step-000002.jsonl").symlink_to(victim)
    (folder / "aipo" / "episodes" / "evaluation-x.jsonl").symlink_to(victim)
    page = tmp_path / "authorized_keys"
    page.write_text("mine")
    (folder / "report.html").symlink_to(page)
    assert "private words" not in report(folder)
    assert page.read_text() == "mine"
    (folder / "linked").symlink_to(folder / "aipo")
    with pytest.raises(DataError, match="'linked', which is no folder in it"):
        write_report(folder)


ROW = '{"step": 0, "success/unaided": 0.5}\n'


def rows(*values: object, name: str = "success/unaided") -> str:
    return "".join(
        json.dumps({"step": step, name: value}) + "\n"
        for step, value in enumerate(values)
    )


def after(**measured: object) -> dict[str, Any]:
    return {"arms": {"aipo": {"unaided": {"after": measured}}}}


@pytest.mark.parametrize(
    ("summary", "metrics"),
    [
        (after(**{"pass@1": HUGE}), ROW),
        (after(**{"pass@1": 1e308, "pass@2": -1e308}), ROW),
        (after(**{"pass@1": 0.5, "pass@1" + "0" * 400: 0.6}), ROW),
        (after(**{"pass@1": 0.5, "pass@1" + "0" * 5_000: 0.6}), ROW),
        ({"arms": {"aipo": {"rollouts": HUGE}}}, ROW),
        ({"arms": {"aipo": {"rollouts": 1e308}}}, ROW),
        ({"arms": {"aipo": {"rollouts": -5}}}, ROW),
        ({}, rows(HUGE)),
        ({}, rows(*[1e308] * 70)),
        ({}, rows(*[-1e308, 1e308] * 35, name="consult_rate/verify")),
        ({}, rows(*[1.7e308] * 3, name="consults/answered")),
        ({}, '{"step": 0, "success/unaided": 0.1}\n'),
        ({}, '{"step": 2147483646, "success/unaided": 0.1}\n'),
        ({}, rows(5e-324, 0.0, name="consult_rate/verify")),
        ({}, rows("[" * 900 + "]" * 900)),
        ({"arms": {"aipo": {}, "\0": {}}}, ROW),
        ({"arms": {"aipo": {}}, "seed": HUGE, "versions": {"a": HUGE}}, ROW),
        (
            {
                "arms": {"aipo": {}, "base": {}},
                "against": {
                    "base": {
                        "intervals": {"pass@1": [0, 1]},
                        "difference": {"pass@1": HUGE},
                        "boundary_gain": 0,
                    }
                },
            },
            ROW,
        ),
    ],
    ids=range(18),
)
def test_odd_numbers_are_left_out(
    tmp_path: Path, summary: dict[str, Any], metrics: str
) -> None:
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    (tmp_path / "aipo").mkdir()
    (tmp_path / "aipo" / "metrics.jsonl").write_text(metrics)
    assert "<html" in report(tmp_path)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (
            '{"arms": ' + "[" * 100_000,
            "summary.json: no JSON object .nested too deeply",
        ),
        ('{"arms": {}, "x": ' + "9" * 5_000 + "}", "summary.json: no JSON object"),
        ('{"x": "' + "y" * 2_000 + '"}', "more than 0 MiB, which is not read"),
        ('{"arms": {"' + "a" * 256 + '": {}}}', "names the run 'aaa"),
    ],
    ids=range(4),
)
def test_a_summary_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, fault: str
) -> None:
    most = 1_000 if "yyy" in content else 2**20
    monkeypatch.setattr(report_module, "MAX_SUMMARY_BYTES", most)
    (tmp_path / "summary.json").write_text(content)
    (tmp_path / "aipo").mkdir()
    (tmp_path / "aipo" / "metrics.jsonl").write_text(ROW)
    with pytest.raises(DataError, match=fault) as caught:
        write_report(tmp_path)
    assert len(str(caught.value)) < 1_000


@pytest.mark.parametrize("name", ["summary.json", "report.html", "aipo/metrics.jsonl"])
def test_a_report_hangs_at_no_pipe(tmp_path: Path, name: str) -> None:
    run_folder(tmp_path)
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match=f"{name}: a pipe, where a file is needed"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    "place",
    [
        "checkpoints",
        "checkpoints/step-000001",
        "checkpoints/step-000001/policy",
        "checkpoints/step-000001/policy/tokenizer.json",
    ],
)
def test_no_tokenizer_is_read_through_a_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    read: list[Path] = []

    def decoder(policy: Path) -> Any:
        read.append(policy)
        return str

    monkeypatch.setattr(report_module, "token_decoder", decoder)
    real = tmp_path / "real"
    policy = real / "checkpoints" / "step-000001" / "policy"
    policy.mkdir(parents=True)
    (policy / "tokenizer.json").write_text("{}")
    run = tmp_path / "run"
    (run / place).parent.mkdir(parents=True)
    (run / place).symlink_to(real / place)
    assert report_module._token_texts(run) is None
    assert read == []
    assert report_module._token_texts(real) is str
    assert read == [policy]


def test_each_run_of_a_comparison_is_read_with_its_own_tokenizer(
    tmp_path: Path,
) -> None:
    for name, text in (("one", "中文"), ("other", "∑ of 7")):
        folder = tmp_path / "runs" / name
        tokenizer = build_tokenizer()
        if name == "other":
            # Its ids are not those of the first.
            tokenizer.add_tokens([" of"])
        checkpoint = folder / "checkpoints" / "step-000001"
        tokenizer.save_pretrained(checkpoint / "policy")
        (checkpoint / "state.pt").touch()
        (folder / "metrics.jsonl").write_text(ROW)
        ids = tokenizer.encode(text, add_special_tokens=False)
        played = replace(
            episode(text),
            tokens=example_tokens(
                token_ids=ids,
                author=[Author.POLICY] * len(ids),
                call_id=[-1] * len(ids),
                turn=[0] * len(ids),
                behaviour_logprobs=[-0.5] * len(ids),
                is_content=[False] * len(ids),
            ),
        )
        (folder / "episodes").mkdir()
        write_episodes(folder / "episodes" / "step-000001.jsonl", [played])
    page = report(tmp_path / "runs")
    texts = re.findall(r'<div class="text">(.*?)</div>', page, re.DOTALL)
    assert [re.sub("<[^>]+>", "", text) for text in texts] == ["中文", "∑ of 7"]
    assert "\ufffd" not in page
    assert page.count('data-logprob="-0.500"') == len(re.findall("data-id=", page))
    # Tokens that do not spell what was written are those of another tokenizer.
    one = tmp_path / "runs" / "one" / "checkpoints" / "step-000001" / "policy"
    other = tmp_path / "runs" / "other" / "checkpoints" / "step-000001" / "policy"
    shutil.rmtree(other)
    shutil.copytree(one, other)
    assert "∑ of 7" in report(tmp_path / "runs")


def test_no_tokenizer_is_looked_for_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="no such folder"):
        token_decoder(tmp_path / "cmp" / "aipo")
    asked: list[dict[str, Any]] = []

    def load(name: str, **options: Any) -> None:
        asked.append(options)
        raise LookupError

    monkeypatch.setattr(token_text.AutoTokenizer, "from_pretrained", load)
    with pytest.raises(LookupError):
        token_decoder(tmp_path)
    assert asked == [{"local_files_only": True, "trust_remote_code": False}]
