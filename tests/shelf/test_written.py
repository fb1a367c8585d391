"""Winners that write, asked as OpenAI's clients ask."""

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from autopeft import Shelf, load
from autopeft.common.containment import beats
from autopeft.models.generation import StoppedError
from autopeft.shelf.asked import MOST_TOKENS, Completion
from autopeft.shelf.batcher import Batcher, BusyError
from tests.cli.test_writing_commands import conversation, study_of
from tests.conftest import trained_winner
from tests.shelf.served import serving
from tests.tiny_language_models import chat_model

SAID = [f"say {first} {second}" for first in "abcd" for second in "abc"]
ROWS = {
    "replies": [{"messages": conversation(said, said[-1])} for said in SAID],
    "prompts": [{"prompt": said, "completion": said[-1]} for said in SAID],
}
"""Rows of a winner of conversations, and of one of plain prompts."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("written")
    chat_model(root / "chat")
    found = {}
    for name, rows in ROWS.items():
        (root / name).mkdir()
        trained_winner(study_of(root / name, root / "chat", rows), "lora")
        found[name] = root / name / "lora"
    return found


@pytest.fixture(scope="module")
def client(folders):
    with serving(Shelf.load(folders)) as found:
        yield found


def test_both_run_in_turns_and_are_models(client):
    assert [model["id"] for model in client.get("/v1/models")[1]["data"]] == ["replies", "prompts"]
    for winner in client.get("/winners")[1]["winners"]:
        assert (winner["runs"], winner["reason"]) == ("alone", "it writes texts")


def test_predict_gives_what_predict_gives(client, folders):
    rows = [{"prompt": said} for said in SAID[:3]]
    status, told = client.post("/predict", {"winner": "prompts", "rows": rows})
    assert status == 200
    assert [answer["text"] for answer in told["answers"]] == load(folders["prompts"]).predict(SAID[:3])


def test_a_chat_gives_what_the_winner_writes(client, folders):
    said = conversation("say a", "a", "say b")
    status, told = client.post("/v1/chat/completions", {"model": "replies", "messages": said, "max_tokens": 5})
    assert status == 200
    (choice,) = told["choices"]
    (expected,) = load(folders["replies"]).write([said], max_new_tokens=5)
    assert choice["message"] == {"role": "assistant", "content": expected}
    assert (choice["finish_reason"], told["usage"]["completion_tokens"]) == ("length", 5)
    in_parts = [{**said[0], "content": [{"type": "text", "text": "say "}, {"type": "text", "text": "a"}]}, *said[1:]]
    again = client.post("/v1/chat/completions", {"model": "replies", "messages": in_parts, "max_completion_tokens": 5})
    assert again[1]["choices"] == told["choices"]


def test_completions_of_many_clients_are_their_own(client, folders):
    winner = load(folders["prompts"])
    with ThreadPoolExecutor(len(SAID)) as threads:
        asked = [{"model": "prompts", "prompt": said, "max_tokens": 3 + len(said) % 2} for said in SAID]
        found = [*threads.map(lambda content: client.post("/v1/completions", content), asked)]
    for content, (status, told) in zip(asked, found, strict=True):
        assert status == 200
        expected = winner.write([content["prompt"]], max_new_tokens=content["max_tokens"])
        assert [choice["text"] for choice in told["choices"]] == expected


def test_a_seed_gives_the_same_text_again_and_another_one_another(client, folders):
    content = {"model": "prompts", "prompt": SAID[:2], "temperature": 1.5, "top_p": 0.9}
    once, again, other = (client.post("/v1/completions", {**content, "seed": seed})[1]["choices"] for seed in (1, 1, 2))
    assert once == again != other
    expected = load(folders["prompts"]).write(SAID[:2], temperature=1.5, top_p=0.9, seed=1)
    assert [choice["text"] for choice in once] == expected


@pytest.mark.parametrize(
    ("path", "content", "status", "words"),
    [
        ("chat/completions", {"model": "replies", "messages": [], "max_tokens": 5}, 400, "at least 1"),
        ("chat/completions", {"model": "prompts", "messages": conversation("a")}, 422, "ask it by /v1/completions"),
        ("chat/completions", {"model": "replies", "messages": conversation("a"), "stream": True}, 400, '"stream"'),
        ("chat/completions", {"model": "replies", "messages": conversation("a"), "tools": []}, 400, '"tools"'),
        ("chat/completions", {"model": "replies", "messages": conversation("a" * 500)}, 422, "leave room for"),
        ("completions", {"model": "prompts", "prompt": []}, 422, "1 to 64 prompts"),
        ("completions", {"model": "prompts", "prompt": "a", "temperature": 1000}, 422, "`temperature` must be"),
        ("completions", {"model": "prompts", "prompt": "a", "n": 2}, 400, '"n"'),
        ("completions", {"model": "prompts", "prompt": "a", "max_tokens": 2**16 + 1}, 400, "this one asks for 65537"),
        (
            "chat/completions",
            {"model": "replies", "messages": conversation("a"), "max_completion_tokens": 10**30},
            400,
            "at most 65,536 tokens of a text",
        ),
        ("completions", {"model": "other", "prompt": "a"}, 404, "no winner has the name"),
    ],
)
def test_what_cannot_be_written_is_told(client, path, content, status, words):
    assert words in client.fails(f"/v1/{path}", content, status)


def test_a_text_that_is_being_written_is_given_up_when_the_server_ends(tmp_path):
    """It would take much longer than the test waits."""
    chat_model(tmp_path / "chat", positions=2**14)
    study = study_of(tmp_path, tmp_path / "chat", ROWS["prompts"])
    study.write_text(study.read_text().replace("max_new_tokens = 12", f"max_new_tokens = {MOST_TOKENS}"))
    trained_winner(study, "lora")
    shelf = Shelf.load({"prompts": tmp_path / "lora"})

    async def seconds_to_end(question):
        batcher, before = Batcher(shelf, 0, 64), beats()
        running, asking = asyncio.create_task(batcher.run()), asyncio.create_task(question(batcher))
        while beats() == before:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        start = time.monotonic()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        ended = time.monotonic()
        asking.cancel()
        with pytest.raises(BusyError, match="the server ends"):
            await asking
        return ended - start

    texts = Completion(model="prompts", prompt=["a", "b"], max_tokens=MOST_TOKENS).prompts(shelf)
    assert asyncio.run(seconds_to_end(lambda batcher: batcher.write(texts))) < 5
    rows = shelf.question("prompts", ["a", "b"])
    assert asyncio.run(seconds_to_end(lambda batcher: batcher.ask(rows))) < 5
    assert isinstance(rows.error, StoppedError)


def test_a_request_as_a_client_of_openai_sends_it(client):
    """With the settings that clients send of themselves, all of them neutral."""
    neutral = {"n": 1, "stream": False, "stop": None, "presence_penalty": 0, "frequency_penalty": 0, "user": "me"}
    content = {"model": "replies", "messages": [{"role": "user", "content": "say a"}], **neutral}
    status, told = client.post("/v1/chat/completions", content, authorization="Bearer none")
    assert status == 200, json.dumps(told)
    assert told["object"] == "chat.completion"
