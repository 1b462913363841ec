"""The small model's chat template: its own where there are no tools, and what vLLM's parser reads where there are."""

import json
from pathlib import Path
from typing import Any

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "How many? {{ 7 }}"}
ANSWER = {"role": "assistant", "content": '{"sql":"SELECT 1"}'}
TOOL = {"type": "function", "function": {"name": "run_sql", "parameters": {}}}


@pytest.fixture
def render(root: Path) -> Any:
    """As transformers renders it, and vLLM with it."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    source = (root / "deploy" / "templates" / "smollm2.jinja").read_text()
    template = environment.from_string(source)
    return lambda *messages, tools=None: template.render(
        messages=messages, tools=tools, add_generation_prompt=messages[-1]["role"] != "assistant"
    )


def said(*calls: tuple[str, dict[str, Any]], content: str = "") -> dict[str, Any]:
    made = [{"function": {"name": name, "arguments": arguments}} for name, arguments in calls]
    return {"role": "assistant", "content": content, "tool_calls": made}


def test_without_tools_it_is_chatml_and_the_model_keeps_its_name(render: Any):
    assert render(SYSTEM, USER, ANSWER, USER) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nHow many? {{ 7 }}<|im_end|>\n"
        '<|im_start|>assistant\n{"sql":"SELECT 1"}<|im_end|>\n'
        "<|im_start|>user\nHow many? {{ 7 }}<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert render(USER).startswith(
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    )


def test_tools_stand_in_the_system_message(render: Any):
    system, _, rest = render(SYSTEM, USER, tools=[TOOL]).partition("<|im_end|>\n")
    assert system.startswith("<|im_start|>system\nBe brief.\n\n# Tools")
    assert f"<tools>\n{json.dumps(TOOL)}\n</tools>" in system
    assert rest == render(USER).partition("<|im_end|>\n")[2]


@pytest.mark.parametrize("content", ["", "Let me see.\n"])
def test_what_the_model_wrote_in_this_form_is_rendered_as_it_wrote_it(render: Any, content: str):
    """So that the prompt of the next turn goes on from the tokens of this one."""
    wrote = (
        f'{content}<tool_call>\n{{"name": "run_sql", "arguments": {{"sql": "SELECT \'é\'"}}}}\n</tool_call>\n'
        '<tool_call>\n{"name": "list_tables", "arguments": {}}\n</tool_call>'
    )
    asked = render(SYSTEM, USER, tools=[TOOL])
    calls = said(("run_sql", {"sql": "SELECT 'é'"}), ("list_tables", {}), content=content)
    results = [{"role": "tool", "content": "1"}, {"role": "tool", "content": "claims"}]
    after = render(SYSTEM, USER, calls, *results, tools=[TOOL])
    assert after == (
        f"{asked}{wrote}<|im_end|>\n"
        "<|im_start|>user\n<tool_response>\n1\n</tool_response>\n<tool_response>\nclaims\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n"
    )
