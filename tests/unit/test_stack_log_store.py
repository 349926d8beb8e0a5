import httpx
import pytest

from prove.clients.logs import LogStore
from prove.errors import UserError

URL = "http://127.0.0.1:9428"


def store(answer: httpx.Response) -> LogStore:
    return LogStore(URL, httpx.MockTransport(lambda _: answer))


def test_records_come_oldest_first() -> None:
    text = (
        '{"_time":"2026-01-01T00:00:02Z","_msg":"b"}\n{"_time":"2026-01-01T00:00:01Z","_msg":"a"}\n'
    )
    records = store(httpx.Response(200, text=text)).by_trace("0" * 32)
    assert [record["_msg"] for record in records] == ["a", "b"]


def test_a_trace_is_asked_for_by_its_exact_id_or_by_the_beginning_of_it() -> None:
    asked: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.content)
        return httpx.Response(200, text="")

    assert LogStore(URL, httpx.MockTransport(answer)).by_trace("ab" * 16, 5) == []
    assert LogStore(URL, httpx.MockTransport(answer)).by_trace("ab" * 4, 5) == []
    assert asked == [
        b"query=trace_id%3A%3D%22" + b"ab" * 16 + b"%22&limit=5",
        b"query=trace_id%3A%3D%22" + b"ab" * 4 + b"%22%2A&limit=5",
    ]


def test_a_refused_query_is_told_with_its_reason() -> None:
    with pytest.raises(UserError, match="the log store refuses '\\|': missing query"):
        store(httpx.Response(400, text="missing query\n")).query("|")


@pytest.mark.parametrize("text", ["<html>", "[]", "{}", '{"_msg": "no time"}'])
def test_another_server_on_the_port_is_recognised(text: str) -> None:
    with pytest.raises(UserError, match="is not the log store"):
        store(httpx.Response(200, text=text)).query("*")
