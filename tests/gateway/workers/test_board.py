"""What is unloaded is used by nobody: not even by a worker that has not said so."""

from collections.abc import Sequence
from typing import Any

import pytest

from gateway.pool import Pool
from gateway.serving import Alias, Serving
from gateway.workers.board import Board, Picture
from gateway.workers.peers import PeerError, Peers
from gateway.workers.place import Place

_BASES = {"a": "a@base-1"}


class _Answers(Peers):
    """Another worker, which answers as it is told to, once each time."""

    def __init__(self, answers: Sequence[PeerError | None]) -> None:
        super().__init__(Place(0, 2))
        self.left = list(answers)

    async def ask(self, *_: object, **__: object) -> Any:
        if (answer := self.left.pop(0)) is not None:
            raise answer


def _picture(version: int, active: str) -> Picture:
    return Picture(version, {"a": Alias(active, None)}, {"a@1": ("a", 5), "a@2": ("a", 6)}, {})


@pytest.mark.parametrize("gone", [True, False])
async def test_a_worker_that_hangs_or_dies_is_asked_until_it_answers_or_is_surely_gone(
    monkeypatch: pytest.MonkeyPatch, gone: bool
) -> None:
    monkeypatch.setattr("gateway.workers.board._AGAIN_SECONDS", 0.0)
    hangs = [PeerError(1, "no answer", gone=False) for _ in range(3)]
    peers = _Answers([*hangs, PeerError(1, "refused", gone=True) if gone else None])
    await Board(peers, Serving(_BASES, "base"), Pool([], limit=1)).drained("a@1")
    assert peers.left == []


async def test_what_comes_late_and_is_older_changes_nothing() -> None:
    serving = Serving(_BASES, "base")
    board = Board(Peers(Place(1, 2)), serving, Pool([], limit=1))
    await board.taken(_picture(2, "a@2"), None)
    await board.taken(_picture(1, "a@1"), None)
    assert serving.resolve("a").policy == "a@2"
    assert serving.known_since("a@2") == 6
