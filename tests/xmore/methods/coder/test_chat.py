"""Against a real HTTP server that does what servers do to clients."""

import json
import time

import pytest
from llm import answer, serving

from xmore.files.errors import ConfigError, ServiceError
from xmore.methods.coder.chat import MAX_BYTES, TRIES, Chat, Endpoint, endpoint_from

KEY = "sk-very-secret-123"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving() as started:
        yield started


@pytest.fixture
def slept():
    return []


@pytest.fixture
def chat(server, tmp_path, slept):
    endpoint = Endpoint(server.url, "a-model", KEY, seconds=1)
    return Chat(endpoint, tmp_path / "kept" / "t.jsonl.prompts.jsonl", slept.append)


def again(chat):
    return Chat(chat.endpoint, chat.kept, chat.sleep)


def test_a_question_and_its_answer(chat, server):
    assert chat.ask("what?") == "- fine"
    ((path, headers, body),) = server.requests
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert body == {"model": "a-model", "messages": [{"role": "user", "content": "what?"}]}
    kept = [json.loads(line) for line in chat.kept.read_text().splitlines()]
    assert kept == [{"model": "a-model", "prompt": "what?", "answer": "- fine"}]


def test_nothing_is_asked_twice_but_by_another_model(chat, server):
    assert chat.ask("what?") == chat.ask("what?") == again(chat).ask("what?")
    assert len(server.requests) == 1
    Chat(Endpoint(server.url, "another"), chat.kept).ask("what?")
    assert len(server.requests) == 2


def test_without_a_key_no_key_is_sent(server, tmp_path):
    Chat(Endpoint(server.url, "m"), tmp_path / "kept").ask("what?")
    assert "Authorization" not in server.requests[0][1]


PASSING = {
    "429": (429, {"Retry-After": "7"}, b"slow down"),
    "503": (503, {}, b""),
    "not JSON": (200, {}, b"<html>"),
    "not a completion": (200, {}, b'{"choices": []}'),
    "nested without end": (200, {}, b"[" * 100_000),
    "no text": (200, {}, b'{"choices": [{"message": {"content": null}}]}'),
    "not UTF-8": (200, {}, b"\xff\xfe\x00"),
    "cut short": (200, {"Content-Length": "5000"}, b"{"),
}


@pytest.mark.parametrize("why", PASSING)
def test_what_may_pass_is_tried_again(chat, server, slept, why):
    server.script = [PASSING[why], answer("- late")]
    assert chat.ask("what?") == "- late"
    assert slept == [7.0 if why == "429" else 2.0]
    assert chat.asked == 2


def test_an_answer_that_drips_is_given_up(chat, server, slept):
    """Each byte comes in time, the whole never does."""
    sent = []

    def drip():
        for _ in range(60):
            sent.append(1)
            yield b" "
            time.sleep(0.05)
        yield answer("- slow")[2]

    server.script = [(200, {}, drip), answer("- late")]
    assert chat.ask("what?") == "- late"
    assert slept == [2.0] and len(sent) < 60


def test_what_does_not_pass_ends_in_one_line(chat, server, slept):
    server.script = [answer("- one"), (429, {"Retry-After": "99999"}, b"")]
    chat.ask("first")
    with pytest.raises(ServiceError, match=r"127\.0\.0\.1: status 429, 4 times.*the same command"):
        chat.ask("second")
    assert slept == [60.0] * (TRIES - 1), "no server makes it wait for a day"
    assert again(chat).ask("first") == "- one"


def test_refusals_are_not_tried_again_and_never_show_the_key(chat, server, slept):
    server.script = [(401, {}, f"Incorrect API key: {KEY}\n".encode() * 50)]
    with pytest.raises(ServiceError, match="status 401: Incorrect API key: ") as refused:
        chat.ask("what?")
    assert KEY not in str(refused.value) and len(str(refused.value)) < 500
    assert not slept and not chat.kept.exists()
    assert KEY not in repr(chat.endpoint)


def test_an_answer_that_repeats_the_key_is_kept_without_it(chat, server):
    server.script = [answer(f"- {KEY}")]
    assert chat.ask("what?") == "- ***"
    assert KEY not in chat.kept.read_text()


def test_redirects_are_not_followed(chat, server):
    server.script = [(302, {"Location": f"{server.url}/elsewhere"}, b"")]
    with pytest.raises(ServiceError, match="status 302"):
        chat.ask("what?")
    assert len(server.requests) == 1


def test_a_huge_answer_is_refused(chat, server):
    sent = []

    def flood():
        for _ in range(100):
            sent.append(1)
            yield bytes(MAX_BYTES // 4)

    server.script = [(200, {}, flood)]
    with pytest.raises(ServiceError, match="more than 1,000,000 bytes"):
        chat.ask("what?")
    assert len(sent) < 100


def test_nobody_answers(server, chat, slept):
    nobody = Chat(Endpoint("http://127.0.0.1:1/v1", "m", seconds=1), chat.kept, slept.append)
    with pytest.raises(ServiceError, match="no response"):
        nobody.ask("what?")
    assert slept == [2.0, 4.0, 8.0]


def test_a_torn_line_is_asked_again_and_the_file_stays_whole(chat, server):
    chat.ask("one")
    with chat.kept.open("ab") as stream:
        stream.write(b'{"model": "a-model", "pro')  # killed while it wrote
    second = again(chat)
    assert second.ask("one") == "- fine" and second.ask("two") == "- fine"
    assert len(server.requests) == 2
    assert [json.loads(line)["prompt"] for line in chat.kept.open()] == ["one", "two"]


def test_odd_answers_are_kept_as_they_are(chat, server):
    server.script = [(200, {}, rb'{"choices": [{"message": {"content": "\ud800 \u2028 \u0000"}}]}')]
    assert chat.ask("\U0001f600") == again(chat).ask("\U0001f600") == "\ud800 \u2028 \x00"
    assert len(server.requests) == 1


def test_a_spoilt_file_is_refused(chat, server):
    chat.ask("one")
    chat.kept.write_bytes(chat.kept.read_bytes() + b"[]\n")
    with pytest.raises(ConfigError, match="line 2: is not a kept answer"):
        again(chat)


GOOD = {"XMORE_LLM_URL": "https://host/v1/", "XMORE_LLM_MODEL": "m", "XMORE_LLM_KEY": KEY}


def test_the_environment_names_it():
    assert endpoint_from(GOOD) == Endpoint("https://host/v1", "m", KEY)
    assert endpoint_from({**GOOD, "XMORE_LLM_KEY": ""}).key == ""


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"XMORE_LLM_URL": ""}, "XMORE_LLM_URL is not set"),
        ({"XMORE_LLM_MODEL": " "}, "XMORE_LLM_MODEL is not set"),
        ({"XMORE_LLM_URL": "file:///etc/passwd"}, "http or https"),
        ({"XMORE_LLM_URL": "http://"}, "http or https"),
        ({"XMORE_LLM_URL": "http://[/v1"}, "http or https"),
        ({"XMORE_LLM_URL": "host/v1"}, "http or https"),
        ({"XMORE_LLM_MODEL": "m" * 201}, "200 characters"),
        ({"XMORE_LLM_KEY": "k\u00e9y"}, "printable ASCII"),
    ],
)
def test_an_environment_that_names_none(changes, says):
    with pytest.raises(ConfigError, match=says) as refused:
        endpoint_from({**GOOD, **changes})
    assert "k\u00e9y" not in str(refused.value) and KEY not in str(refused.value)
