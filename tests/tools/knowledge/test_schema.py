"""Schema cards: what tables hold, from a live database and from its DDL."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, create_engine, inspect, text

from tools.knowledge import schema_cards
from tools.knowledge.schema import ddl_cards

DDL = """
CREATE TABLE customers (customer_id INTEGER PRIMARY KEY, fullName VARCHAR(40), ssn TEXT);
CREATE TABLE "order lines" (id INTEGER, customer_id INTEGER REFERENCES customers (customer_id), total NUMERIC(10, 2));
"""


@pytest.fixture
def shop() -> Iterator[Engine]:
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        for statement in filter(str.strip, DDL.split(";")):
            connection.execute(text(statement))
        connection.execute(text("CREATE VIEW everyone AS SELECT fullName, ssn AS secret FROM customers"))
    yield engine
    engine.dispose()


def test_a_live_databases_tables_have_a_card_each(shop: Engine):
    assert [card.text for card in schema_cards(inspect(shop))] == [
        'customers(customer_id integer, "fullName" varchar(40), ssn text)',
        'everyone("fullName" varchar(40), secret text)',
        '"order lines"(id integer, customer_id integer, total numeric(10, 2)); customer_id -> customers.customer_id',
    ]


def test_ddl_gives_the_cards_that_the_database_made_of_it_gives(shop: Engine):
    live = schema_cards(inspect(shop), tables=["customers", "order lines"])
    declared = [card.text.replace("fullName", '"fullName"') for card in ddl_cards(DDL)]
    assert [card.text.replace("int,", "integer,").replace("decimal", "numeric") for card in live] == [
        card.replace("int,", "integer,").replace("decimal", "numeric") for card in declared
    ]


def test_a_card_is_found_under_the_words_within_its_names(shop: Engine):
    assert "full name" in schema_cards(inspect(shop))[0].keywords


def test_hidden_columns_and_what_refers_to_them_are_on_no_card(shop: Engine):
    cards = schema_cards(inspect(shop), hidden_columns=["SSN", "customers.customer_id"])
    assert [card.text for card in cards] == [
        'customers("fullName" varchar(40))',
        '"order lines"(id integer, customer_id integer, total numeric(10, 2))',
    ]


def test_tables_that_are_not_allowed_are_on_no_card(shop: Engine):
    (card,) = schema_cards(inspect(shop), tables=["ORDER LINES"])
    assert card.text == '"order lines"(id integer, customer_id integer, total numeric(10, 2))'


def test_a_declaration_that_only_sqlite_understands_is_no_warning():
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE t (a INTEGER(11), b)"))
    assert [card.text for card in schema_cards(inspect(engine))] == ["t(a integer, b)"]
    engine.dispose()


def test_keys_that_ddl_adds_later_are_on_the_card():
    cards = ddl_cards(
        "CREATE TABLE a (x INT); CREATE TABLE b (y INT); CREATE INDEX i ON b (y);"
        "ALTER TABLE ONLY b ADD CONSTRAINT k FOREIGN KEY (y) REFERENCES a (x);",
        dialect="postgres",
    )
    assert [card.text for card in cards] == ["a(x int)", "b(y int); y -> a.x"]
