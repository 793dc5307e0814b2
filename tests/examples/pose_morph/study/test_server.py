"""The web server, spoken to as a browser would, and as one should not."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from examples.pose_morph.errors import UserError
from examples.pose_morph.study.answer_file import read_ledger
from examples.pose_morph.study.server import BODY_LIMIT, StudyServer

ANNA, BEN = "a" * 32, "b" * 32


def test_a_participant_answers_everything_and_is_thanked(serve, tmp_path):
    client = serve()
    state, questions = client.ask("join", participant=ANNA), []
    while state["state"] == "question":
        assert state["of"] == 8
        assert state["number"] == len(questions) + 1
        questions.append(state["question"])
        state = client.judge(ANNA, state)
    assert state["state"] == "finished"
    assert len(set(questions)) == len(questions) >= 6
    ledger, _, _ = read_ledger(tmp_path / "results.jsonl")
    assert ledger.participants[ANNA].finished
    assert {question.answer for question in ledger.participants[ANNA].questions.values()} == {"real"}


def test_the_page_never_gets_the_truth(serve):
    client = serve()
    state = client.ask("join", participant=ANNA)
    assert set(state) == {"state", "question", "shown", "number", "of"}
    lengths, kinds = set(), set()
    while state["state"] == "question":
        picture = client.get(f"/picture/{state['question']}")
        lengths.add(picture.headers["Content-Length"])
        kinds.add((picture.headers["Content-Type"], picture.headers["Cache-Control"], tuple(picture.headers)))
        state = client.judge(ANNA, state)
    assert len(lengths) == len(kinds) == 1
    for path in ("/", "/study.js", "/api/study"):
        body = client.get(path).body.decode()
        assert "real_0" not in body
        assert ".png" not in body


def test_real_timing_is_the_default_of_the_papers_study(serve):
    served = json.loads(serve().get("/api/study").body)
    assert (served["warning"], served["visible"]) == (2.0, 4.0)


def test_repeated_requests_change_nothing(serve, tmp_path):
    client = serve()
    state = client.ask("join", participant=ANNA)
    assert client.ask("join", participant=ANNA) == state == client.ask("current", participant=ANNA)
    assert client.get(f"/picture/{state['question']}").body == client.get(f"/picture/{state['question']}").body
    for _ in range(2):
        client.ask("shown", participant=ANNA, question=state["question"])
    first = client.judge(ANNA, {**state, "shown": True}, "generated")
    assert client.judge(ANNA, {**state, "shown": True}, "real") == first
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["study", "joined", "asked", "shown", "answered", "asked"]
    assert lines[4]["answer"] == "generated"


def test_nothing_is_answered_unseen_and_no_picture_is_shown_twice(serve):
    client = serve()
    state = client.ask("join", participant=ANNA)
    values = {"participant": ANNA, "question": state["question"], "answer": "real", "seconds": None}
    assert client.post("/api/answer", values).status == 409
    client.ask("shown", participant=ANNA, question=state["question"])
    assert client.get(f"/picture/{state['question']}").status == 410
    assert client.ask("current", participant=ANNA) == {**state, "shown": True}
    assert client.post("/api/answer", values).status == 200


def test_a_restart_goes_on_where_everybody_was(serve, tmp_path):
    client = serve()
    anna = client.judge(ANNA, client.ask("join", participant=ANNA))
    ben = client.ask("join", participant=BEN)
    client.ask("shown", participant=BEN, question=ben["question"])
    before = (tmp_path / "results.jsonl").read_bytes()
    client = serve()
    assert client.ask("current", participant=ANNA) == anna
    assert client.ask("current", participant=BEN) == {**ben, "shown": True}
    assert (tmp_path / "results.jsonl").read_bytes() == before
    assert client.judge(ANNA, anna)["number"] == 3


def test_many_at_once_get_their_own_questions_and_every_picture_its_answers(serve, tmp_path):
    client = serve(golden=0)

    def take_part(number: int) -> None:
        name = f"{number:032x}"
        state = client.ask("join", participant=name)
        while state["state"] == "question":
            state = client.judge(name, state, ("real", "generated")[number % 2])

    with ThreadPoolExecutor(6) as crowd:
        list(crowd.map(take_part, range(6)))
    ledger, _, _ = read_ledger(tmp_path / "results.jsonl")
    answered = [question.exhibit for person in ledger.participants.values() for question in person.questions.values()]
    assert sorted(answered) == sorted([*range(6)] * 3)
    for person in ledger.participants.values():
        assert len(person.seen()) == len(person.questions)
    assert client.ask("join", participant="f" * 32) == {"state": "full"}
    assert "18 of 18 answers" in client.get("/results").body.decode()


@pytest.mark.parametrize(
    "path",
    [
        "/../server.py", "/%2e%2e/server.py", "/page/index.html", "/picture/..%2f..%2fserver.py", "/picture/0",
        "/example/-1", "/example/9", "/example/0/../../server.py", "//etc/passwd", "/results.jsonl", "/api/join",
        "/study.css/",
    ],
)  # fmt: skip
def test_only_its_own_pages_and_pictures_are_served(serve, path):
    reply = serve().get(path)
    assert reply.status == 404
    assert "error" in json.loads(reply.body)


def test_requests_that_are_not_the_pages_are_refused(serve, tmp_path):
    client = serve()
    before = (tmp_path / "results.jsonl").read_bytes()
    joined = json.dumps({"participant": ANNA}).encode()
    kind = {"Content_Type": "application/json"}
    assert client.send("POST", "/api/join", joined, Content_Type="text/plain").status == 415
    assert client.send("POST", "/api/join", joined).status == 415
    assert client.send("POST", "/api/join", b"{" * BODY_LIMIT, **kind).status == 400
    assert client.send("POST", "/api/join", joined + b" " * BODY_LIMIT, **kind).status == 413
    assert client.send("POST", "/api/join", b"", **kind, Content_Length="9" * 30).status == 413
    assert client.send("POST", "/api/join", b"", **kind, Content_Length="-1").status == 411
    assert client.send("POST", "/api/nothing", joined, **kind).status == 404
    for values in ([], {}, {"participant": 3}, {"participant": "../../etc"}, {"participant": "x" * 99}):
        assert client.post("/api/join", values).status == 400
    assert client.get("x://[").status == 400
    assert client.send("PUT", "/api/join", joined, **kind).status == 501
    assert client.post("/api/current", {"participant": BEN}).status == 404
    assert (tmp_path / "results.jsonl").read_bytes() == before


def test_answers_that_are_none_are_refused(serve):
    client = serve()
    state = client.ask("join", participant=ANNA)
    client.ask("join", participant=BEN)
    client.ask("shown", participant=ANNA, question=state["question"])
    good = {"participant": ANNA, "question": state["question"], "answer": "real", "seconds": 1}
    for change, status in [
        ({"answer": "maybe"}, 400), ({"answer": None}, 400), ({"seconds": "2"}, 400), ({"seconds": -1}, 400),
        ({"seconds": True}, 400), ({"seconds": float("nan")}, 400), ({"seconds": float("inf")}, 400),
        ({"question": "q"}, 404), ({"participant": BEN}, 404), ({}, 200),
    ]:  # fmt: skip
        assert client.post("/api/answer", {**good, **change}).status == status, change


def test_an_answer_that_cannot_be_written_is_not_taken(serve, monkeypatch):
    client = serve()
    state = client.ask("join", participant=ANNA)
    client.ask("shown", participant=ANNA, question=state["question"])
    values = {"participant": ANNA, "question": state["question"], "answer": "real", "seconds": 1.0}

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        reply = client.post("/api/answer", values)
        assert reply.status == 503
        assert "No space" in json.loads(reply.body)["error"]
    assert client.ask("current", participant=ANNA)["question"] == state["question"]
    assert client.post("/api/answer", values).status == 200


def test_pages_may_load_nothing_from_elsewhere(serve):
    reply = serve().get("/")
    assert "default-src 'self'" in reply.headers["Content-Security-Policy"]
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert b"http://" not in reply.body
    assert b"https://" not in reply.body


def test_a_taken_port_and_a_strange_host_are_named(serve, make_sitting):
    client = serve()
    for host, port in (("127.0.0.1", client.port), ("192.0.2.77", 0), ("127.0.0.1", 70_000)):
        with pytest.raises(UserError, match="cannot listen on"):
            StudyServer(host, port, lambda: None)
