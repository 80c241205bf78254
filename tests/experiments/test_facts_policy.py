"""How the policy of the facts world is taught to follow help that is dressed."""

import numpy as np

from aipo_env import add_codes
from envs_data.prepare.transcripts import Transcript
from experiments.worlds.facts_policy import draw_dressed
from experiments.worlds.knobs import PHRASES


def transcripts(number: int = 300) -> list[Transcript]:
    rng = np.random.default_rng(0)
    return [draw_dressed(rng) for _ in range(number)]


def text_of(transcript: Transcript, part: tuple[int, int, int]) -> str:
    number, start, end = part
    return transcript.messages[number][1][start:end]


def test_no_word_of_chatter_is_taught():
    seen = 0
    for transcript in transcripts():
        dark = [text_of(transcript, part) for part in transcript.untaught]
        for number, (_, content) in enumerate(transcript.messages):
            parts = [part for part in transcript.untaught if part[0] == number]
            taught = content
            for part in sorted(parts, reverse=True):
                taught = taught[: part[1]] + taught[part[2] :]
            assert not any(phrase in taught for phrase in PHRASES)
        seen += any(phrase in text for text in dark for phrase in PHRASES)
    assert seen > 50


def test_sums_are_right_whatever_is_said_between_them():
    for transcript in transcripts():
        text = "".join(
            content for role, content in transcript.messages if role == "assistant"
        )
        for piece in text.replace("\\boxed", ";").split(";"):
            total = piece[10:14]
            if len(piece) == 14 and piece[4] == "+":
                assert add_codes(piece[:4], piece[5:9]) == total
