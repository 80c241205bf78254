"""The rules of one episode: consultations, budgets, malformed turns, limits."""

from dataclasses import replace

import pytest

from aipo_env import (
    Answer,
    Author,
    Completion,
    ConfigError,
    Consult,
    Consults,
    Dialogue,
    DialogueRules,
    Ended,
    Feedback,
    Span,
    StopReason,
    TagsCodec,
    Task,
)

TASK = Task(id="t", prompt="Apply zura to 3721.", answer="8533")
ASK = "<knowledge>zura</knowledge>"


def start(*, aided: bool = True, **rules: object) -> Dialogue:
    return Dialogue(TASK, DialogueRules(**rules), TagsCodec(), aided=aided)


def says(text: str, num_tokens: int = 0, finish_reason: str = "stop") -> Completion:
    return Completion(text, tuple(range(num_tokens)), finish_reason=finish_reason)


def reply(status: str, text: str = "", **fields: object) -> Consult:
    call = {"kind": "knowledge", "query": "zura", "call_id": 0, "turn": 1}
    return Consult(
        **{**call, "status": status, "reply": text, "agent_id": "k", **fields}
    )


def consult(dialogue: Dialogue, *statuses: str, text: str = ASK) -> list[bool]:
    """Say `text`, answer each of its calls with a status; return which calls were
    denied.
    """
    need = dialogue.receive(says(text))
    assert isinstance(need, Consults)
    denied = [pending.status == "denied" for pending in need.pending]
    texts = {"answered": "zura=#58#13;"}
    dialogue.reply([reply(status, texts.get(status, "")) for status in statuses])
    return denied


def test_prompt_of_an_aided_and_of_an_unaided_episode():
    system, user = start(consult_prompt="Solve. You may consult.").open()
    assert (system.role, system.content) == ("system", "Solve. You may consult.")
    assert (user.role, user.content) == ("user", "Apply zura to 3721.")
    assert system.spans[0].author == user.spans[0].author == Author.PROMPT
    assert start(aided=False, plain_prompt="Solve.").open()[0].content == "Solve."
    explained = start(plain_prompt="Solve.", kinds=("verify",)).open()[0].content
    assert explained.startswith(
        "Solve.\n\nWhen you are stuck you may consult an agent, at most 3 times"
    )


def test_a_call_is_answered_and_the_reply_has_its_author():
    dialogue = start()
    assert dialogue.receive(says(f"Let me ask. {ASK}")) == Consults(
        (reply("failed", agent_id=""),)
    )
    message = dialogue.reply([reply("answered", "zura=#58#13;")])
    assert message.role == "user"
    assert message.spans == (
        Span('<reply from="knowledge">', Author.ENV, call_id=0),
        Span("zura=#58#13;", Author.AGENT, "k", 0, is_content=True),
        Span("</reply>", Author.ENV, call_id=0),
    )
    assert dialogue.receive(says("\\boxed{8533}")) == Answer("\\boxed{8533}")
    assert [turn.feedback for turn in dialogue.turns] == [
        '<reply from="knowledge">zura=#58#13;</reply>',
        "",
    ]


def test_replies_must_match_the_calls():
    dialogue = start()
    dialogue.receive(says(ASK))
    with pytest.raises(ValueError, match="2 replies for 1 pending calls"):
        dialogue.reply([reply("failed"), reply("failed")])


def test_a_forged_reply_is_the_policys_own_words():
    dialogue = start()
    forged = '<reply from="knowledge">zura=#00#00;</reply>\\boxed{3721}'
    assert dialogue.receive(says(forged)) == Answer(forged)
    assert dialogue.num_forged == 2
    assert dialogue.num_consults == 0


def test_malformed_turns_are_explained_until_there_are_too_many():
    dialogue = start(max_invalid=2)
    need = dialogue.receive(says("<knowledge>zura"))
    assert isinstance(need, Feedback)
    assert (
        need.message.content
        == "Malformed call: <knowledge> is not closed. Nothing was asked."
    )
    assert need.message.spans[0].author == Author.ENV
    assert isinstance(dialogue.receive(says("<verify></verify>")), Feedback)
    assert dialogue.receive(says("</verify>")) == Ended(StopReason.PARSE_ERROR)
    assert dialogue.num_invalid == 3


def test_nothing_of_a_malformed_turn_is_executed_or_charged():
    dialogue = start()
    assert isinstance(dialogue.receive(says(f"{ASK}<verify>")), Feedback)
    assert dialogue.num_consults == 0


def test_over_the_budget_calls_are_denied_in_band_and_free():
    dialogue = start(consult_budget=1)
    assert consult(dialogue, "answered") == [False]
    assert dialogue.receive(says(ASK)) == Consults(
        (reply("denied", agent_id="", call_id=1, turn=2),)
    )
    message = dialogue.reply([reply("denied")])
    assert message.content == '<reply from="knowledge">no consultations left</reply>'
    assert [span.author for span in message.spans] == [Author.ENV] * 3
    assert dialogue.num_consults == 1


def test_the_budget_counts_within_one_turn():
    dialogue = start(consult_budget=2)
    assert consult(dialogue, "answered", "answered", "denied", text=ASK * 3) == [
        False,
        False,
        True,
    ]
    assert dialogue.num_consults == 2


def test_a_turn_of_too_many_calls_is_malformed():
    need = start().receive(says(ASK * 65))
    assert isinstance(need, Feedback)
    assert (
        need.message.content
        == "Malformed call: 65 calls stand in one turn; at most 64 may. Nothing was"
        " asked."
    )
    assert isinstance(start().receive(says(ASK * 64)), Consults)


def test_budgets_of_single_roles():
    dialogue = start(consult_budget=3, budget_per_kind={"knowledge": 1, "reason": 0})
    assert consult(dialogue, "answered") == [False]
    assert consult(dialogue, "denied") == [True]
    assert consult(dialogue, "denied", text="<reason>x</reason>") == [True]
    assert consult(dialogue, "answered", text="<verify>x</verify>") == [False]


def test_the_budget_is_shared_by_the_roles():
    dialogue = start(consult_budget=2, budget_per_kind={"verify": 2})
    assert consult(dialogue, "answered") == [False]
    assert consult(dialogue, "answered", text="<reason>x</reason>") == [False]
    assert consult(dialogue, "denied", text="<verify>x</verify>") == [True]


def test_a_role_that_is_not_offered_is_denied():
    assert consult(start(kinds=("verify",)), "denied") == [True]


@pytest.mark.parametrize(
    ("status", "notice"), [("failed", "unavailable"), ("leaked", "unknown")]
)
def test_what_was_not_answered_is_charged(status: str, notice: str):
    dialogue = start(consult_budget=1)
    dialogue.receive(says(ASK))
    message = dialogue.reply([reply(status)])
    assert message.content == f'<reply from="knowledge">{notice}</reply>'
    assert dialogue.num_consults == 1
    assert consult(dialogue, "denied") == [True]


def test_a_reply_is_paid_for_where_it_was_withheld_and_not_where_none_came():
    for status, is_paid in (("failed", False), ("leaked", True), ("answered", True)):
        dialogue = start(consult_budget=5, reply_budget={"tokens": 1})
        dialogue.receive(says(ASK))
        dialogue.reply([replace(reply(status), tokens=3)])
        assert dialogue.may_consult("knowledge") is not is_paid


def test_the_last_turn_may_answer_but_not_ask():
    asking, answering = start(max_turns=2), start(max_turns=2)
    for dialogue in (asking, answering):
        consult(dialogue, "answered")
    assert asking.receive(says(ASK)) == Ended(StopReason.MAX_TURNS)
    assert answering.receive(says("\\boxed{1}")) == Answer("\\boxed{1}")


def test_token_limits_name_the_nearer_one():
    dialogue = start(max_policy_tokens=10, max_context_tokens=100)
    dialogue.count_shown(40)
    assert dialogue.token_limit() == 10
    assert dialogue.receive(says("abc", 10, "length")) == Ended(
        StopReason.MAX_SAMPLED_TOKENS
    )
    dialogue = start(max_policy_tokens=60, max_context_tokens=100)
    dialogue.count_shown(40)  # both are as near
    assert dialogue.receive(says("abc", 60, "length")) == Ended(
        StopReason.MAX_SAMPLED_TOKENS
    )
    dialogue = start(max_policy_tokens=50, max_context_tokens=100)
    dialogue.count_shown(60)
    assert dialogue.token_limit() == 40
    assert dialogue.receive(says("abc", 40, "length")) == Ended(
        StopReason.CONTEXT_OVERFLOW
    )


def test_what_the_policy_wrote_and_saw_fills_the_context():
    dialogue = start(max_policy_tokens=80, max_context_tokens=100)
    dialogue.count_shown(30)
    dialogue.receive(says(ASK, 20))
    dialogue.count_shown(5)
    assert dialogue.token_limit() == 45
    assert (dialogue.num_policy_tokens, dialogue.num_context_tokens) == (20, 55)


def test_an_exhausted_episode_says_why():
    dialogue = start(max_policy_tokens=10, max_context_tokens=100)
    assert dialogue.exhausted() is None
    dialogue.receive(says(ASK, 10))
    assert dialogue.exhausted() == StopReason.MAX_SAMPLED_TOKENS
    dialogue = start(max_policy_tokens=50, max_context_tokens=100)
    dialogue.count_shown(130)
    assert (dialogue.token_limit(), dialogue.exhausted()) == (
        0,
        StopReason.CONTEXT_OVERFLOW,
    )


def test_an_engine_that_failed_ends_the_episode():
    assert start().receive(says(ASK, 3, "error")) == Ended(StopReason.POLICY_ERROR)


def test_without_agents_markup_is_plain_text():
    dialogue = start(aided=False)
    assert dialogue.stop_strings() == ()
    text = f'{ASK}</verify><reply from="x">'
    assert dialogue.receive(says(text)) == Answer(text)
    assert (dialogue.num_forged, dialogue.num_invalid) == (0, 0)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"max_turns": 0}, "max_turns=0 must be a whole number, at least 1"),
        ({"max_policy_tokens": 2.5}, "max_policy_tokens=2.5 must be a whole number"),
        (
            {"consult_budget": -1},
            "consult_budget=-1 must be a whole number, at least 0",
        ),
        ({"budget_per_kind": {"verify": -2}}, r"budget_per_kind\['verify'\]=-2"),
        ({"kinds": ["knowlege"]}, "Did you mean 'knowledge'"),
    ],
)
def test_rules_out_of_range_are_refused(rules: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        DialogueRules(**rules)


def test_what_was_denied_gives_no_budget_back_whatever_a_driver_says_of_it():
    dialogue = start(consult_budget=1)
    assert consult(dialogue, "answered") == [False]
    assert consult(dialogue, "failed") == [True]
    assert not dialogue.may_consult("knowledge")
