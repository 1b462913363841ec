"""Rows as a model reads them."""

from tools.sql.engines import Answer
from tools.sql.results import table


def shown(answer: Answer, **more: int) -> list[str]:
    return table(answer, source="s", **{"shown": 50, "max_rows": 1_000, "max_cell": 20, **more}).splitlines()


def test_null_an_empty_text_and_the_word_null_are_told_apart():
    lines = shown(Answer(("x",), ("text",), [(None,), ("",), ("NULL",), ("a",)]))
    assert lines == ["4 rows", '<content source="s">', "x (text)", "NULL", '""', '"NULL"', "a", "</content>"]


def test_cells_that_could_be_taken_for_several_or_that_are_long_are_quoted_and_cut():
    lines = shown(Answer(("x", "y"), ("text", "text"), [("a | b", "c\nd"), ("z" * 30, " e")]))
    assert lines[3:5] == ['"a | b" | "c\\nd"', "z" * 20 + '… (30 characters) | " e"']


def test_numbers_and_texts_of_digits_are_told_apart_where_a_column_holds_both():
    assert shown(Answer(("x",), ("mixed",), [(1,), ("1",), (0.1 + 0.2,)]))[3:6] == ["1", '"1"', "0.3"]


def test_what_was_left_out_is_counted():
    rows = [(n,) for n in range(60)]
    assert shown(Answer(("x",), ("integer",), rows))[0] == "first 50 of 60 rows"
    assert "more than 60 rows" in shown(Answer(("x",), ("integer",), rows, "rows"), max_rows=60)[0]
    assert "too large" in shown(Answer(("x",), ("integer",), rows, "bytes"))[0]
    assert shown(Answer(("x",), ("integer",), []))[0] == "0 rows"
