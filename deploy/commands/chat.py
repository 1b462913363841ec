"""chat, rate: a person with a question, and with an opinion of the answer."""

import contextlib
import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from deploy.commands import settings_of
from deploy.errors import FlywheelError

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types.chat import ChatCompletionMessageParam


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command()(chat)
    app.command()(rate)


def chat(
    context: typer.Context,
    question: Annotated[
        str | None, typer.Argument(help="Left out: a conversation, ended by an empty line.")
    ] = None,
    agent: Annotated[str, typer.Option(help="Which agent, or a policy (agent@digest).")] = "sql-analyst",
) -> None:
    """Ask an agent. Prints the answer as it comes, then its request id and the policy that gave it.

    flywheel chat "How many claims are open?"
    flywheel chat --agent sql-analyst
    """
    from openai import OpenAI

    from deploy.client import Client

    settings = settings_of(context)
    client = OpenAI(base_url=f"{settings.base_url}/v1", api_key=Client(settings).key, max_retries=0)
    messages: list[ChatCompletionMessageParam] = []
    if question is not None:
        messages.append({"role": "user", "content": question})
        _answer(client, agent, messages)
        return
    with contextlib.suppress(EOFError):
        while asked := Console().input("[bold]> [/]").strip():
            messages.append({"role": "user", "content": asked})
            messages.append({"role": "assistant", "content": _answer(client, agent, messages)})


def _answer(client: "OpenAI", agent: str, messages: "list[ChatCompletionMessageParam]") -> str:
    from openai import APIConnectionError, APIError

    request_id, text = "", ""
    try:
        with client.chat.completions.with_streaming_response.create(
            model=agent, messages=messages, stream=True
        ) as response:
            policy = response.headers.get("x-policy", "unknown")
            for chunk in response.parse():
                request_id = chunk.id
                piece = (chunk.choices[0].delta.content or "") if chunk.choices else ""
                text += piece
                sys.stdout.write(piece)
                sys.stdout.flush()
    except APIConnectionError as error:
        raise FlywheelError(f"no gateway at {client.base_url}: start it with `flywheel up`") from error
    except APIError as error:
        raise FlywheelError(error.message) from error
    Console().print(f"\n[dim]request {request_id}  policy {policy}[/]", highlight=False, soft_wrap=True)
    return text


def rate(
    context: typer.Context,
    rated: Annotated[
        str, typer.Argument(help="A request, as `flywheel chat` prints it; or see the options.")
    ],
    good: Annotated[bool | None, typer.Option("--up/--down", help="Right or wrong.")] = None,
    correct_sql: Annotated[str | None, typer.Option(help="The query that answers the question.")] = None,
    rows: Annotated[
        str | None, typer.Option(help="The rows that a right answer returns: [[…], …] as JSON.")
    ] = None,
    refuse: Annotated[str | None, typer.Option(help="Why the question cannot be answered.")] = None,
    comment: Annotated[str | None, typer.Option(help="Anything else.")] = None,
    *,
    call: Annotated[int | None, typer.Option(min=0, help="Rate this call of the request, from 0.")] = None,
    metric: Annotated[
        str | None, typer.Option(help="Default: correct; of an episode resolved, of a call useful.")
    ] = None,
    episode: Annotated[bool, typer.Option("--episode", help="Rate a whole episode, by its id.")] = False,
    withdraw: Annotated[
        bool, typer.Option("--withdraw", help="Take back a rating, by the id that it was given.")
    ] = False,
) -> None:
    """Say whether an answer was right and, best of all, what is.

    flywheel rate chatcmpl-0190… --up
    flywheel rate chatcmpl-0190… --down --correct-sql "SELECT COUNT(*) FROM claims"
    flywheel rate chatcmpl-0190… --down --rows "[[42]]" --comment "as in the monthly report"
    flywheel rate chatcmpl-0190… --down --refuse "we do not store salaries"
    flywheel rate chatcmpl-0190… --call 0 --down
    flywheel rate ep-0190… --episode --up
    flywheel rate 0190… --withdraw
    """
    from deploy.client import Client, segment

    correction = _correction(correct_sql, rows, refuse)
    if withdraw:
        said = (good, correction, comment, call, metric)
        if episode or any(one is not None for one in said):
            raise FlywheelError("--withdraw takes back a rating by its id: leave the other options out")
        Client(settings_of(context)).delete(f"/v1/feedback/{segment(rated)}")
        Console().print(f"taken back: {rated}", highlight=False, soft_wrap=True)
        return
    if good is None:
        raise FlywheelError("say --up or --down, or --withdraw to take a rating back")
    if good and correction is not None:
        raise FlywheelError("--up says that the answer was right: leave the correction out, or say --down")
    body: dict[str, Any] = {"episode_id" if episode else "request_id": rated, "value": good, "source": "cli"}
    body["name"] = metric or ("resolved" if episode else "correct" if call is None else "useful")
    given = {"call": call, "correction": correction, "comment": comment}
    body |= {name: value for name, value in given.items() if value is not None}
    answer = Client(settings_of(context)).post("/v1/feedback", body)
    verdict = "right" if good else "wrong"
    if body["name"] != "correct":
        verdict = f"{'' if good else 'not '}{body['name']}"
    Console().print(f"recorded: {rated} is {verdict}", highlight=False, soft_wrap=True)
    Console().print(f"[dim]rating {answer['feedback_id']}[/]", highlight=False, soft_wrap=True)


def _correction(sql: str | None, rows: str | None, refusal: str | None) -> dict[str, Any] | None:
    given: list[dict[str, Any]] = []
    if sql is not None:
        given.append({"sql": sql})
    if refusal is not None:
        given.append({"refusal": refusal})
    if rows is not None:
        try:
            given.append({"rows": json.loads(rows)})
        except ValueError as error:
            raise FlywheelError(f"--rows is not JSON: {error}; write it like [[42]]") from error
    if len(given) > 1:
        raise FlywheelError("give one of --correct-sql, --rows and --refuse")
    return given[0] if given else None
