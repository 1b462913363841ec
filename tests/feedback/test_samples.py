from collections import Counter
from pathlib import Path

import pytest

from feedback.curation import Curated, DatasetError, load, read_header, save
from feedback.events import Message
from feedback.samples import Sample


def sample(task_id="t1", reference=None, **fields):
    return Sample(
        task_id=task_id,
        question="How many? \u2028 Wie viele?",
        messages=(Message(role="user", content="How many?"),),
        reference=reference or {"sql": "SELECT 1"},
        support=1,
        raters=("ann",),
        request_ids=("r1",),
        policy="sql-analyst@1",
        **fields,
    )


CURATED = Curated((sample("t1"), sample("t2", {"rows": [[1, None, "ä"]]})), Counter(duplicate=3))


def test_a_data_set_is_loaded_as_it_was_saved(tmp_path):
    save(CURATED, tmp_path / "deep" / "d.jsonl")
    assert load(tmp_path / "deep" / "d.jsonl") == CURATED


def test_the_header_says_what_the_file_holds(tmp_path):
    header = save(CURATED, tmp_path / "d.jsonl")
    assert read_header(tmp_path / "d.jsonl") == header
    assert header.dataset_id == CURATED.dataset_id
    assert (header.samples, header.rejected, header.policies) == (2, {"duplicate": 3}, {"sql-analyst@1": 2})


def test_the_same_samples_have_the_same_id_and_others_another():
    one, same = {"a": 1, "b": 2}, {"b": 2, "a": 1}
    assert (
        Curated((sample("t", one),), Counter()).dataset_id
        == Curated((sample("t", same),), Counter(x=1)).dataset_id
    )
    assert (
        Curated((sample("t", one),), Counter()).dataset_id
        != Curated((sample("u", one),), Counter()).dataset_id
    )


@pytest.mark.parametrize(
    "change", [lambda text: text[:-20], lambda text: text.replace("SELECT 1", "SELECT 2"), lambda _: ""]
)
def test_a_file_that_was_changed_or_cut_short_is_refused(tmp_path, change):
    path = tmp_path / "d.jsonl"
    save(CURATED, path)
    path.write_text(change(path.read_text()))
    with pytest.raises(DatasetError, match=r"d\.jsonl"):
        load(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="No such file"):
        load(tmp_path / "d.jsonl")


def test_a_save_that_fails_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch):
    path = tmp_path / "d.jsonl"
    save(CURATED, path)

    def fail(self, target):
        raise OSError("no room")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no room"):
        save(Curated((), Counter()), path)
    assert load(path) == CURATED
    assert list(tmp_path.iterdir()) == [path]
