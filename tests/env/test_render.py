import math
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from aipo_env import (
    Author,
    ConfigError,
    Consult,
    Episode,
    Message,
    Span,
    StopReason,
    Task,
    Turn,
    Verdict,
    episode_text,
    episodes_html,
    episodes_section,
    escape_terminal,
    html_templates,
)
from aipo_env.testing import example_episode, example_tokens

SCRIPT = "</script><script>alert(1)</script>"
IMAGE = '"><img src=x onerror=alert(2)>'
STEERING = "\x1b[2Jred\u202eevil\x00\ud800\u200b\u2028\x7f\x9b"
SEEN_STEERING = r"\u001b[2Jred\u202eevil\u0000\ud800\u200b\u2028\u007f\u009b"
WORDS = {
    10: "Solve.",
    11: SCRIPT,
    12: IMAGE,
    13: STEERING,
    14: "tool",
    15: "<|end|>",
    16: "\n",
}


def texts(token_ids: Sequence[int]) -> list[str]:
    return [WORDS[token_id] for token_id in token_ids]


def consult(status: str, call_id: int, **fields: object) -> Consult:
    account = {
        "kind": "verify",
        "agent_id": IMAGE,
        "query": SCRIPT,
        "reply": "",
        "tokens": 1,
        "turn": 1,
    }
    return Consult(status=status, call_id=call_id, **{**account, **fields})  # type: ignore[arg-type]


def hostile() -> Episode:
    """Return an episode in which every author, and every field that a model can reach,
    is hostile.
    """
    spans = (
        Span('<reply from="verify">', Author.ENV),
        Span(STEERING, Author.AGENT, IMAGE, 0, True),
    )
    prompt, policy, agent, tool, env, template = Author
    nan = math.nan
    tokens = example_tokens(
        token_ids=[10, 11, 15, 12, 13, 14, 16],
        author=[prompt, policy, template, env, agent, tool, policy],
        call_id=[-1, -1, -1, -1, 0, -1, -1],
        turn=[0, 0, 1, 1, 1, 1, 1],
        behaviour_logprobs=[nan, -0.25, nan, nan, nan, nan, -math.inf],
        is_content=[False, False, False, False, True, False, False],
    )
    return example_episode(
        task=Task(
            id=IMAGE, prompt=SCRIPT, answer="\u202e42", meta={"bottleneck": IMAGE}
        ),
        messages=(
            Message("system", (Span("Solve.", Author.PROMPT),)),
            Message("assistant", (Span(f"{SCRIPT}\n policy │ forged", Author.POLICY),)),
            Message(
                "user",
                (*spans, Span("42", Author.TOOL), Span("<|end|>", Author.TEMPLATE)),
            ),
            Message("assistant", (Span(IMAGE, Author.POLICY),)),
        ),
        turns=(Turn(SCRIPT, "stop"), Turn(IMAGE, "stop")),
        consults=(
            consult("answered", 0, reply=STEERING, seconds=1.25, tokens=7),
            consult("failed", 1, error=SCRIPT, seconds=0.0301),
            consult("leaked", 2),
            consult("denied", 3),
        ),
        tokens=tokens,
        verdict=Verdict(
            correct=False, reward=0.0, status="wrong", extracted=SCRIPT, reason=IMAGE
        ),
        reward=0.0,
    )


class Page(HTMLParser):
    """Collects what matters of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.classes: set[str] = set()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self.classes |= set((dict(attrs).get("class") or "").split())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, naïve – 数学\nnext", "plain text, naïve – 数学\nnext"),
        ("a\u3000b\u00a0c", "a\u3000b\u00a0c"),
        ("\x1b]0;title\x07", r"\u001b]0;title\u0007"),
        ("a\rb\tc\x00\x7f\x85\x9b", r"a\u000db\u0009c\u0000\u007f\u0085\u009b"),
        ("\u202a\u202b\u202c\u202d\u202e", r"\u202a\u202b\u202c\u202d\u202e"),
        (
            "\u2066\u2067\u2068\u2069\u200e\u200f\u061c",
            r"\u2066\u2067\u2068\u2069\u200e\u200f\u061c",
        ),
        (
            "\u200b\u200c\u200d\u2060\ufeff\u00ad",
            r"\u200b\u200c\u200d\u2060\ufeff\u00ad",
        ),
        ("a\u2028b\u2029", r"a\u2028b\u2029"),
        ("\ud800 \udfff", r"\ud800 \udfff"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_escape_terminal_shows_what_could_steer(text: str, shown: str) -> None:
    assert escape_terminal(text) == shown
    assert escape_terminal(shown) == shown


def test_text_marks_every_author_and_escapes_them() -> None:
    lines = episode_text(hostile()).split("\n")
    assert lines == [
        f"    task │ {IMAGE}  (may consult)",
        "  prompt │ Solve.",
        f"  policy │ {SCRIPT}",
        "         │  policy │ forged",
        '     env │ <reply from="verify">',
        f"   agent │ {SEEN_STEERING}",
        "    tool │ 42",
        "template │ <|end|>",
        f"  policy │ {IMAGE}",
        f" consult │ turn 1: verify {IMAGE}, answered, 7 tokens",
        f" consult │ turn 1: verify {IMAGE}, failed, 1 tokens",
        f" consult │ turn 1: verify {IMAGE}, leaked, 1 tokens",
        f" consult │ turn 1: verify {IMAGE}, denied, 1 tokens",
        f" verdict │ wrong, answer {SCRIPT}",
        "     end │ completed, reward 0",
    ]


def test_text_of_an_undecided_episode_has_no_reward() -> None:
    episode = replace(
        hostile(), verdict=None, reward=None, stop_reason=StopReason.POLICY_ERROR
    )
    assert episode_text(episode).endswith("     end │ policy_error, reward none")


@pytest.mark.parametrize("by_token", [True, False], ids=["tokens", "spans"])
def test_page_neutralises_a_hostile_episode(by_token: bool) -> None:
    text = episodes_html(
        [hostile()],
        title=f"{SCRIPT}{STEERING}",
        tokens=[texts] if by_token else None,
        sources=[f"{IMAGE}{STEERING}"],
    )
    page = Page(text)
    assert page.tags.count("script") == 1
    assert "img" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert not re.search(
        r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069]", text
    )
    assert text.encode("utf-8")
    assert "&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert 'data-bottleneck="&#34;&gt;&lt;img src=x onerror=alert(2)&gt;"' in text
    assert SEEN_STEERING in text
    assert {author.name.lower() for author in Author} <= page.classes


def test_page_loads_nothing_and_allows_its_own_script_only() -> None:
    text = episodes_html([hostile()], title="Episodes")
    page = Page(text)
    urls = [
        value
        for name, value in page.attributes
        if name in ("src", "href", "action", "srcset", "data")
    ]
    assert urls == ["data:,", "#episode-1"]
    assert "http" not in text.replace("http-equiv", "")
    assert "url(" not in text
    assert "@import" not in text
    policy = dict(page.attributes)["content"] or ""
    found = re.search(r"default-src 'none'.*script-src '(sha256-[\w+/=]+)'", text)
    assert found, policy


def test_allowed_script_is_the_one_in_the_page() -> None:
    import base64
    import hashlib

    text = episodes_html([], title="Episodes")
    script = text.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text


def test_tokens_carry_id_logprob_and_coefficient() -> None:
    coefficients = [
        np.array([np.nan, np.nan, np.nan, np.nan, 0.1, np.nan, np.nan], np.float32)
    ]
    words = {**WORDS, 11: "hello", 13: "a fact"}
    text = episodes_html(
        [hostile()],
        title="t",
        tokens=[lambda token_ids: [words[token_id] for token_id in token_ids]],
        coefficients=coefficients,
    )
    assert '<span class="token prompt" data-id="10">Solve.</span>' in text
    assert (
        '<span class="token policy" data-id="11" data-logprob="-0.250">hello</span>'
        in text
    )
    assert (
        '<span class="token agent" data-id="13" data-coefficient="0.1">a fact</span>'
        in text
    )
    assert '<span class="token policy" data-id="16">⏎\n</span>' in text


def test_a_token_with_a_part_of_a_character_is_shown_and_marked() -> None:
    prompt, policy, *_ = Author
    tokens = example_tokens(
        token_ids=[7, 8, 9],
        author=[prompt, policy, policy],
        call_id=[-1, -1, -1],
        turn=[0, 0, 0],
        behaviour_logprobs=[None, -1.5, -0.25],
        is_content=[False, False, False],
    )

    def of_run(token_ids: Sequence[int]) -> list[str | None]:
        return {(7,): ["Say: "], (8, 9): [None, "中"]}[tuple(token_ids)]

    page = episodes_html(
        [replace(hostile(), tokens=tokens)], title="t", tokens=[of_run]
    )
    assert (
        '<span class="token policy part" data-id="8" data-logprob="-1.500"></span>'
        '<span class="token policy" data-id="9" data-logprob="-0.250">中</span>' in page
    )


def test_no_author_completes_what_another_began() -> None:
    asked: list[list[int]] = []

    def of_run(token_ids: Sequence[int]) -> list[str]:
        asked.append(list(token_ids))
        return ["x"] * len(token_ids)

    episodes_html([hostile()], title="t", tokens=[of_run])
    assert asked == [[10], [11], [15], [12], [13], [14], [16]]


def test_the_system_and_the_user_are_told_apart() -> None:
    prompt, policy, _, _, _, template = Author
    nan = math.nan
    episode = replace(
        hostile(),
        messages=(
            Message("system", (Span("Solve.", Author.PROMPT),)),
            Message("user", (Span("tool", Author.PROMPT),)),
            Message("assistant", (Span("<|end|>", Author.POLICY),)),
        ),
        tokens=example_tokens(
            token_ids=[16, 10, 10, 15, 14, 16, 15],
            author=[template, prompt, prompt, template, prompt, template, policy],
            call_id=[-1] * 7,
            turn=[0] * 7,
            behaviour_logprobs=[nan] * 7,
            is_content=[False] * 7,
        ),
    )
    for tokens in ([texts], None):
        page = episodes_html([episode], title="t", tokens=tokens)
        labels = re.findall(r'<span class="label">([^<]*)</span>', page)
        assert labels == ["System", "User", "Policy, turn 1"]
    one = replace(episode, messages=(episode.messages[0], episode.messages[2]))
    page = episodes_html([one], title="t", tokens=[texts])
    assert '<span class="label">Prompt</span>' in page
    assert '<span class="label">User</span>' not in page


def test_the_list_says_what_each_episode_was() -> None:
    page = episodes_html([hostile()], title="t", sources=["step 12"])
    items = page[page.index('<nav class="list"') : page.index("</nav>")]
    words = " ".join(re.sub("<[^>]+>", " ", items).split())
    assert words == (
        "✗ &#34;&gt;&lt;img src=x onerror=alert(2)&gt; 0 step 12 · may consult ·"
        " &#34;&gt;&lt;img src=x onerror=alert(2)&gt; 7 tokens · 2 turns · 4 consults ·"
        " completed"
    )
    assert 'data-reward="0.0" data-tokens="7" data-turns="2" data-consults="4"' in items
    assert re.findall('<option value="(reward|tokens|turns|consults|task)">', page) == [
        "reward",
        "tokens",
        "turns",
        "consults",
        "task",
    ]


def test_consultations_say_what_became_of_them() -> None:
    text = episodes_html([hostile()], title="t", tokens=[texts])
    for status in ("answered", "failed", "leaked", "denied"):
        assert (
            text.count(
                f'<section class="consult {status}" aria-label="Consultation of the'
                ' Verify Agent">'
            )
            == 1
        )
    assert "1.2 s · 7 tokens" in text
    assert "30 ms · 1 token<" in text
    assert "withheld: it gave the answer away" in text
    assert "over budget: the agent was not asked" in text
    assert "none: &lt;/script&gt;" in text


def test_blocks_follow_the_turns() -> None:
    for tokens in ([texts], [None], None):
        text = episodes_html([hostile()], title="t", tokens=tokens)
        labels = re.findall(r'<span class="label">([^<]*)</span>', text)
        assert labels == ["System", "Policy, turn 1", "Returned", "Policy, turn 2"]
        assert (
            text.index("Policy, turn 1")
            < text.index('class="consult answered"')
            < text.index("Returned")
        )


def test_list_offers_filters() -> None:
    right = replace(
        hostile(),
        task=Task(id="b", prompt="p", answer="1", meta={"bottleneck": "reason"}),
        verdict=Verdict(correct=True, reward=1.0, status="correct"),
        reward=1.0,
    )
    undecided = replace(right, verdict=None, reward=None)
    text = episodes_html([right, undecided], title="t", sources=["step 0", "step 10"])
    assert (
        '<li data-source="step 0" data-bottleneck="reason" data-outcome="correct">'
        in text
    )
    assert (
        '<li data-source="step 10" data-bottleneck="reason" data-outcome="undecided">'
        in text
    )
    assert re.findall(r'<select name="(\w+)">', text) == [
        "source",
        "bottleneck",
        "outcome",
    ]
    assert text.count('<option value="reason">') == 1
    assert "no verdict" in text


def test_section_goes_into_a_page_as_it_is() -> None:
    section = episodes_section([hostile()])
    assert (
        html_templates().from_string("{{ section }}").render(section=section) == section
    )


def test_values_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="0 coefficients for 1 episodes"):
        episodes_html([hostile()], title="t", coefficients=[])
    with pytest.raises(ValueError, match="2 sources for 1 episodes"):
        episodes_html([hostile()], title="t", sources=["a", "b"])
    with pytest.raises(ValueError, match="2 tokens for 1 episodes"):
        episodes_html([hostile()], title="t", tokens=[None, None])
    with pytest.raises(ValueError, match="episode 0: 3 coefficients for 7 tokens"):
        episodes_html([hostile()], title="t", coefficients=[np.zeros(3)])


def test_text_needs_no_jinja2_and_pages_name_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What is missing with jinja2 is missing too.
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    monkeypatch.setitem(__import__("sys").modules, "markupsafe", None)
    assert episode_text(hostile())
    with pytest.raises(ConfigError, match=r'pip install "aipo-rl\[report\]"'):
        episodes_html([hostile()], title="t")
