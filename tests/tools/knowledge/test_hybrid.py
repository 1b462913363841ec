"""Hybrid retrieval and tenants: one contract, in this process and, where QDRANT_URL names one, on a server."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tools.knowledge.embedders import Synonyms
from tools.errors import ToolError, ToolUnavailableError
from tools.knowledge import Item, Kind, Knowledge

QUOTAS: dict[Kind, int] = {"schemas": 2, "examples": 2, "heuristics": 2}
ITEMS = [
    Item("schemas", text="claims(claim_id, amount)"),
    Item("schemas", text="vehicles(vehicle_id, make)"),
    Item("examples", question="How many vehicles?", answer='{"sql":"SELECT 1"}'),
]
OWN = {
    "acme": [Item("heuristics", text="A loss counts when the vehicle is ours.")],
    "zorg": [
        Item("heuristics", text="A loss is a loss of a loss."),
        Item("schemas", text="losses(vehicle_id)"),
    ],
}


@pytest.fixture(params=["in this process", "on a server"])
def url(request: pytest.FixtureRequest) -> str | None:
    if request.param == "in this process":
        return None
    if "QDRANT_URL" not in os.environ:
        pytest.skip("QDRANT_URL names no Qdrant server")
    return os.environ["QDRANT_URL"]


def test_by_meaning_is_found_what_no_word_finds(url: str | None):
    assert Knowledge(ITEMS, url=url).search("automobile", QUOTAS).schemas == ()
    assert Knowledge(ITEMS, embedder=Synonyms(), url=url).search("automobile", QUOTAS).schemas[0] == ITEMS[1]


def test_what_both_find_comes_before_what_one_finds(url: str | None):
    context = Knowledge(ITEMS, embedder=Synonyms(), url=url).search("claims of an automobile, claims", QUOTAS)
    assert context.schemas == (ITEMS[0], ITEMS[1])
    assert context.examples == (ITEMS[2],)


def test_a_tenant_finds_the_common_items_and_its_own(url: str | None):
    for embedder in (None, Synonyms()):
        knowledge = Knowledge(ITEMS, own=OWN, embedder=embedder, url=url)
        assert knowledge.of("acme").search("loss of vehicles", QUOTAS).heuristics == tuple(OWN["acme"])
        assert ITEMS[1] in knowledge.of("acme").search("vehicles", QUOTAS).schemas
        for stranger in ("", "nobody", "Acme", "acme "):
            assert knowledge.of(stranger).search("loss of vehicles", QUOTAS).heuristics == ()


@given(
    st.sampled_from(["", "acme", "zorg", "nobody"]),
    st.text(max_size=60) | st.just("loss of a vehicle: claims"),
)
@settings(deadline=None, max_examples=60)
def test_no_question_brings_up_what_is_another_tenants(tenant: str, query: str):
    knowledge = Knowledge(ITEMS, own=OWN, embedder=Synonyms()).of(tenant)
    context = knowledge.search(query, {"schemas": 9, "examples": 9, "heuristics": 9})
    found = {*context.schemas, *context.examples, *context.heuristics}
    assert found <= {*ITEMS, *OWN.get(tenant, ())}


def test_what_other_tenants_own_changes_nothing_of_what_is_found(url: str | None):
    alone = Knowledge(ITEMS, own={"acme": OWN["acme"]}, url=url)
    beside = Knowledge(ITEMS, own={**OWN, "many": [OWN["acme"][0]] * 30}, url=url)
    common = Knowledge(ITEMS, url=url)
    for query in ("loss of vehicles", "claims", "make of a vehicle, amount of a claim"):
        assert alone.of("acme").search(query, QUOTAS) == beside.of("acme").search(query, QUOTAS)
        assert common.search(query, QUOTAS) == beside.of("nobody").search(query, QUOTAS)


def test_the_digest_names_the_embedder_and_whose_items_they_are():
    digests = {
        Knowledge(ITEMS).digest,
        Knowledge(ITEMS, embedder=Synonyms()).digest,
        Knowledge(ITEMS, embedder=Synonyms("other")).digest,
        Knowledge(ITEMS, own=OWN).digest,
        Knowledge(ITEMS, own={"acme": OWN["zorg"], "zorg": OWN["acme"]}).digest,
    }
    assert len(digests) == 5


def test_an_embedder_that_is_away_is_a_tool_error(monkeypatch: pytest.MonkeyPatch):
    embedder = Synonyms()
    knowledge = Knowledge(ITEMS, embedder=embedder)

    def away(_):
        raise ToolUnavailableError("the embedding endpoint does not answer")

    monkeypatch.setattr(embedder, "embed", away)
    with pytest.raises(ToolError, match="endpoint does not answer"):
        knowledge.search("cars", QUOTAS)
