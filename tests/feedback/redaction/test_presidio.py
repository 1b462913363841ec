"""Presidio finds what a pipeline names and what has a pattern, for the tenants that want it, and fetches nothing."""

import importlib
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from feedback.events import parse
from feedback.redaction import RedactionOptions, Redactor
from tests.contracts.samples import model_call, request

COIN = "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2"


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spaCy pipeline in a folder, as an operator has one; this one knows a single name."""
    pytest.importorskip("presidio_analyzer", reason="needs the extra `presidio`")
    nlp = importlib.import_module("spacy").blank("en")
    nlp.add_pipe("entity_ruler").add_patterns([{"label": "PERSON", "pattern": "Ann Lee"}])
    folder = tmp_path_factory.mktemp("pipeline") / "en"
    nlp.to_disk(folder)
    return folder


def options(pipeline: Path | str, *entities: str, **more) -> RedactionOptions:
    presidio = {"model": str(pipeline), "entities": entities}
    return RedactionOptions.model_validate({"presidio": presidio, **more})


def redacted(event, redactor):
    return parse(redactor.event(event.model_dump_json().encode()))


def test_names_and_numbers_are_replaced_beside_what_the_rules_find(pipeline):
    redactor = Redactor(options(pipeline, "PERSON", "CRYPTO", rules=["email"]))
    said = f"Ann Lee pays from {COIN}, ann@example.com"
    event = redacted(request(output=said, calls=(model_call(text=said),)), redactor)
    assert event.output == event.calls[0].text == "[PERSON] pays from [CRYPTO], [EMAIL]"
    assert event.redacted == ("crypto", "email", "person")
    assert event.calls[0].completion_token_ids == ()


def test_each_tenant_has_what_it_has_chosen(pipeline):
    chosen = {"acme": {"presidio": {"model": str(pipeline), "entities": ["PERSON"]}}}
    redactor = Redactor(RedactionOptions.model_validate({"tenants": chosen}))
    said = f"Ann Lee, {COIN}"
    assert redacted(request(output=said, tenant="acme"), redactor).output == f"[PERSON], {COIN}"
    assert redacted(request(output=said), redactor).output == said


@pytest.mark.parametrize("before", [0, 19_790, 19_990, 39_600, 1_200_000])
def test_long_texts_are_searched_to_their_end_across_the_pieces_that_they_are_cut_into(pipeline, before):
    redactor = Redactor(options(pipeline, "PERSON"))
    text = f"{'x ' * (before // 2)}Ann Lee"
    assert redacted(request(output=text), redactor).output == f"{'x ' * (before // 2)}[PERSON]"


def test_what_presidio_does_not_know_is_refused_with_what_it_knows(pipeline):
    with pytest.raises(ValueError, match=r"knows no SHOE_SIZE, only .*PERSON"):
        Redactor(options(pipeline, "SHOE_SIZE"))


def test_a_pipeline_that_is_not_there_is_not_downloaded_but_refused(pipeline):
    with pytest.raises(ValidationError, match="never downloaded"):
        options("en_core_web_nowhere", "PERSON")


def test_a_pipeline_that_does_not_load_is_refused_in_a_line(pipeline, tmp_path):
    (tmp_path / "config.cfg").write_text("[nlp]\n")
    with pytest.raises(ValueError, match="cannot be loaded"):
        Redactor(options(tmp_path, "PERSON"))


def test_addresses_are_left_to_the_rule_that_asks_no_host():
    with pytest.raises(ValidationError, match="the rule `email`"):
        options("x", "EMAIL_ADDRESS")


def test_without_the_extra_it_is_refused_with_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "presidio_analyzer", None)
    with pytest.raises(ValidationError, match=r"flywheel\[presidio\]"):
        options("x", "PERSON")
