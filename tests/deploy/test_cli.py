"""The command line: help that answers at once, errors in one line, and the gateway's API behind the commands."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import typer.main

from deploy import cli
from deploy.settings import Settings
from feedback.events import Message, Rating, RequestFinished
from feedback.quota import Quota
from feedback.store import Keys, Store
from gateway.scopes import MEANING

COMMANDS = sorted(typer.main.get_command(cli.app).commands)  # type: ignore[attr-defined]  # the root is a group


@dataclass
class Gateway:
    """What was asked of the gateway, and what it answers, by path."""

    answers: dict[str, tuple[int, Any]] = field(default_factory=dict)
    asked: list[tuple[str, str, Any]] = field(default_factory=list)


@pytest.fixture
def gateway(settings: Settings) -> Iterator[Gateway]:
    """A gateway at the settings' port that answers what the test says; the operator has a key."""
    state = Gateway()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            assert self.headers["authorization"] == "Bearer fw-secret"
            state.asked.append((self.command, self.path, json.loads(body) if body else None))
            status, answer = state.answers.get(
                self.path, (404, {"error": {"message": "There is no such path."}})
            )
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("x-policy", "sql-analyst@abc")
            self.send_header(
                "content-type", "text/event-stream" if isinstance(answer, bytes) else "application/json"
            )
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_POST(self) -> None:
            self.do_GET()

        def do_DELETE(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name for it
            pass

    server = ThreadingHTTPServer(("127.0.0.1", settings.gateway.port), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    with_key(settings)
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def with_key(settings: Settings) -> None:
    settings.var.mkdir(exist_ok=True)
    settings.key_file.write_text("fw-secret\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(run: Any, command: str):
    result = run(command, "--help")
    assert result.code == 0
    assert f"Usage: flywheel {command}" in result.out


def test_help_imports_nothing_heavy(root: Path):
    script = """
import sys
from deploy import cli
heavy = {"torch", "vllm", "transformers", "openai", "sqlalchemy", "qdrant_client", "matplotlib"} & set(sys.modules)
sys.stdout.write(" ".join(sorted(heavy)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize(
    "words",
    [
        ("status",),
        ("policies",),
        ("promote", "sql-analyst@abc"),
        ("rollback",),
        ("rate", "chatcmpl-1", "--up"),
    ],
)
def test_without_a_gateway_it_says_how_to_start_one(run: Any, settings: Settings, words: tuple[str, ...]):
    with_key(settings)
    result = run(*words)
    assert result.code == 1
    assert result.err == f"flywheel: no gateway at {settings.base_url}: start it with `flywheel up`\n"


def test_before_the_first_start_there_is_no_key(run: Any):
    result = run("status")
    assert result.code == 1
    assert "flywheel up" in result.err


def test_a_mistake_in_the_settings_is_one_line(run: Any, settings: Settings):
    (settings.root / "flywheel.toml").write_text("[gateway]\nport = 0")
    result = run("status")
    assert result.code == 1
    assert result.err.count("\n") == 1
    assert "[gateway] port" in result.err


def test_the_gateways_own_words_are_shown(run: Any, gateway: Gateway):
    gateway.answers["/v1/status"] = (403, {"error": {"message": "This key lacks the scope operate."}})
    result = run("status")
    assert (result.code, result.err) == (1, "flywheel: This key lacks the scope operate.\n")


def test_something_else_at_the_gateways_port_is_recognised(run: Any, gateway: Gateway):
    gateway.answers["/v1/status"] = (200, b"<html>")
    result = run("status")
    assert result.code == 1
    assert "does not answer as a gateway does" in result.err


def test_status_shows_every_figure_by_its_name(run: Any, gateway: Gateway):
    status = {"outbox": {"depth": 3}, "agents": {"a": {"active": "a@1"}}, "external": {}}
    gateway.answers["/v1/status"] = (200, status)
    out = run("status").out
    assert any("external" in line and "none" in line for line in out.splitlines())
    assert "outbox.depth" in out
    assert "agents.a.active" in out


def test_policies_shows_who_did_what_and_why(run: Any, gateway: Gateway):
    history = [{"by": "ada", "reason": "passed the gate"}]
    row = {"policy": "sql-analyst@abc", "state": "active", "loaded": True, "since": "2026-01-02T03:04:05Z"}
    gateway.answers["/v1/policies?agent=sql-analyst"] = (200, {"data": [{**row, "history": history}]})
    out = run("policies").out
    assert "sql-analyst@abc" in out
    assert "passed the gate" in out


@pytest.mark.parametrize(
    ("words", "path"),
    [
        (("promote", "sql-analyst@new"), "/v1/policies/sql-analyst@new/promote"),
        (("rollback", "sql-analyst"), "/v1/agents/sql-analyst/rollback"),
    ],
)
def test_a_swap_gives_its_reason_and_says_what_answers_now(
    run: Any, gateway: Gateway, words: tuple[str, ...], path: str
):
    swap = {"policy": "sql-analyst@new", "previous": "sql-analyst@old"}
    seconds = {"load_seconds": 0.1, "probe_seconds": 0.2, "flip_seconds": 0.0}
    gateway.answers[path] = (200, swap | seconds)
    result = run(*words, "--reason", "it is better")
    assert gateway.asked == [("POST", path, {"reason": "it is better"})]
    assert result.out == "sql-analyst@new answers now, in place of sql-analyst@old; ready after 0.30 s\n"


@pytest.mark.parametrize(
    ("words", "sent"),
    [
        (("--up",), {"value": True}),
        (("--down", "--comment", "no"), {"value": False, "comment": "no"}),
        (("--down", "--correct-sql", "SELECT 1"), {"value": False, "correction": {"sql": "SELECT 1"}}),
        (("--down", "--refuse", "no salaries"), {"value": False, "correction": {"refusal": "no salaries"}}),
        (("--down", "--rows", '[[1, "a"]]'), {"value": False, "correction": {"rows": [[1, "a"]]}}),
    ],
)
def test_a_rating_goes_out_as_it_was_given(
    run: Any, gateway: Gateway, words: tuple[str, ...], sent: dict[str, Any]
):
    gateway.answers["/v1/feedback"] = (200, {"feedback_id": "1"})
    assert run("rate", "chatcmpl-1", *words).code == 0
    common = {"request_id": "chatcmpl-1", "name": "correct", "source": "cli"}
    assert gateway.asked == [("POST", "/v1/feedback", common | sent)]


@pytest.mark.parametrize(
    ("words", "sent", "said"),
    [
        (("--up", "--episode"), {"episode_id": "x1", "name": "resolved", "value": True}, "x1 is resolved"),
        (
            ("--down", "--call", "0"),
            {"request_id": "x1", "call": 0, "name": "useful", "value": False},
            "x1 is not useful",
        ),
        (
            ("--down", "--metric", "polite"),
            {"request_id": "x1", "name": "polite", "value": False},
            "x1 is not polite",
        ),
    ],
)
def test_an_episode_or_a_call_is_rated_by_its_own_metric(
    run: Any, gateway: Gateway, words: tuple[str, ...], sent: dict[str, Any], said: str
):
    gateway.answers["/v1/feedback"] = (200, {"feedback_id": "f1", "matched": True})
    result = run("rate", "x1", *words)
    assert result.out == f"recorded: {said}\nrating f1\n"
    assert gateway.asked == [("POST", "/v1/feedback", {"source": "cli"} | sent)]


def test_a_rating_is_taken_back_by_its_id(run: Any, gateway: Gateway):
    gateway.answers["/v1/feedback/f1"] = (200, {"withdrawn": True})
    assert run("rate", "f1", "--withdraw").out == "taken back: f1\n"
    assert gateway.asked == [("DELETE", "/v1/feedback/f1", None)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--up", "--correct-sql", "SELECT 1"), "leave the correction out"),
        (("--down", "--rows", "1,2"), "--rows is not JSON"),
        (("--down", "--rows", "[[1]]", "--refuse", "no"), "give one of"),
        ((), "say --up or --down"),
        (("--withdraw", "--up"), "leave the other options out"),
        (("--withdraw", "--episode"), "leave the other options out"),
    ],
)
def test_a_rating_that_contradicts_itself_is_not_sent(
    run: Any, gateway: Gateway, words: tuple[str, ...], said: str
):
    result = run("rate", "chatcmpl-1", *words)
    assert result.code == 1
    assert said in result.err
    assert gateway.asked == []


def test_chat_prints_the_answer_its_request_and_its_policy(run: Any, gateway: Gateway):
    chunks = [{"content": '{"sql":'}, {"content": '"SELECT 1"}'}, {}]
    lines = [
        json.dumps(
            {
                "id": "chatcmpl-7",
                "object": "chat.completion.chunk",
                "created": 1,
                "model": "sql-analyst",
                "choices": [{"index": 0, "delta": delta, "finish_reason": None if delta else "stop"}],
            }
        )
        for delta in chunks
    ]
    stream = "".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"])
    gateway.answers["/v1/chat/completions"] = (200, stream.encode())
    result = run("chat", "How many?")
    assert result.out == '{"sql":"SELECT 1"}\nrequest chatcmpl-7  policy sql-analyst@abc\n'
    assert gateway.asked[0][2]["messages"] == [{"role": "user", "content": "How many?"}]


def test_chat_shows_a_refusal_in_one_line(run: Any, gateway: Gateway):
    error = {
        "message": "The model 'x' does not exist.",
        "type": "invalid_request_error",
        "code": "model_not_found",
    }
    gateway.answers["/v1/chat/completions"] = (404, {"error": error})
    result = run("chat", "How many?", "--agent", "x")
    assert result.code == 1
    assert "The model 'x' does not exist." in result.err
    assert result.err.count("\n") == 1


SEE = "see `flywheel keys list`\n"


def test_a_key_can_be_made_listed_and_revoked_without_a_gateway(run: Any):
    secret = run("keys", "create", "ada", "--scope", "rate").out.strip()
    assert secret.startswith("fw-")
    listed = run("keys", "list").out
    assert "ada" in listed
    assert secret not in listed
    key_id = next(word for word in listed.split() if len(word) == 16 and set(word) <= set("0123456789abcdef"))
    assert run("keys", "revoke", key_id).code == 0
    again = run("keys", "revoke", key_id)
    assert (again.code, again.err) == (
        1,
        f"flywheel: no live key has the id {key_id}: see `flywheel keys list`\n",
    )


def test_an_unknown_scope_is_refused(run: Any):
    result = run("keys", "create", "ada", "--scope", "root")
    assert result.code == 1
    assert "there are invoke, ingest, rate, review, operate, admin, erase" in result.err


def test_only_operators_can_be_given_what_all_tenants_share(run: Any):
    result = run("keys", "create", "eve", "--tenant", "acme", "--scope", "operate")
    assert result.code == 1
    assert "the tenant default" in result.err


def test_a_key_expires_and_has_limits_which_can_be_changed(run: Any, settings: Settings):
    limits = ("--requests-per-minute", "60", "--money-per-month", "2.5")
    secret = run(
        "keys", "create", "ada", "--tenant", "acme", "--scope", "admin", "--expires", "1d", *limits
    ).out
    store = Store.open(settings.feedback.store_url)
    keys = Keys(store)
    key = keys.lookup(secret.strip())
    assert key is not None and key.expires is not None
    assert timedelta(hours=23) < key.expires - datetime.now(UTC) <= timedelta(days=1)
    assert (key.tenant, key.scopes) == ("acme", frozenset({"admin"}))
    assert key.quota == Quota(requests_per_minute=60, money_per_month=2.5)
    assert run("keys", "limit", key.id, "--tokens-per-day", "unlimited").code == 0
    assert keys.list()[0].quota == Quota(tokens_per_day="unlimited")
    store.close()
    assert key.id in run("keys", "list", "--tenant", "acme").out
    assert key.id not in run("keys", "list", "--tenant", "default").out
    assert run("keys", "limit", "0" * 16).err == f"flywheel: no live key has the id {'0' * 16}: {SEE}"


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--expires", "tomorrow", "write 90d, 12h or 30m"),
        ("--expires", "2020-01-01", "that time is over"),
        ("--expires", "9999-12-31T23:00:00-05:00", "write 90d"),
        ("--requests-per-minute", "0", "expected a whole number"),
        ("--money-per-day", "nan", "expected an amount above 0"),
    ],
)
def test_what_cannot_be_an_expiry_or_a_limit_is_refused(run: Any, option: str, value: str, words: str):
    result = run("keys", "create", "ada", option, value)
    assert result.code == 1
    assert f"{option} {value}: " in result.err and words in result.err


def test_the_help_says_what_every_scope_permits(run: Any):
    text = run("keys", "create", "--help").out
    assert all(scope in text and meaning.split(",")[0] in text for scope, meaning in MEANING.items())


def test_curate_writes_a_data_set_and_counts_what_is_not_in_it(run: Any, settings: Settings):
    from domains.insurance import database

    settings.var.mkdir()
    database.build(settings.sql.databases[0], 7)
    store = Store.open(settings.feedback.store_url)
    answer = json.dumps({"sql": "SELECT COUNT(*) FROM claims"})
    for number, (output, corrected) in enumerate([(answer, None), (answer, None), ("no json", None)]):
        request = RequestFinished(
            request_id=f"chatcmpl-{number}",
            episode_id=f"episode-{number}",
            agent="sql-analyst",
            policy="sql-analyst@abc",
            caller="app",
            input=(Message(role="user", content=f"How many claims {'' if number < 2 else 'today'}?"),),
            output=output,
            status="completed",
            latency=1.0,
        )
        rating = Rating(
            rater=f"person-{number}", request_id=request.request_id, value=True, correction=corrected
        )
        store.write([request, rating])
    store.close()
    result = run("curate")
    assert result.code == 0
    assert "1 samples" in result.out
    assert "ratings: duplicate" in result.out
    assert "ratings: malformed" in result.out
    assert len(list((settings.var / "datasets").glob("*.jsonl"))) == 1
