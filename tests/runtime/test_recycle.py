"""Answers are the caller's own while anything refers to them; then their memory returns."""

from __future__ import annotations

import threading

import numpy as np

from edgevision.runtime.slots.recycle import Recycler


def test_an_answer_keeps_its_bytes_while_anything_refers_to_it() -> None:
    source = np.zeros((4, 6), np.uint8)
    copies = Recycler(source)
    kept = []
    for number in range(40):
        source[...] = number
        answer = copies.copy()
        assert answer.shape == (4, 6)
        assert answer.dtype == np.uint8
        assert answer.flags.writeable
        # A view of a view is enough to keep it.
        kept.append(answer[1:].T[2:])
        del answer
    for number, view in enumerate(kept):
        assert (view == number).all()


def test_dropped_answers_are_used_again() -> None:
    copies = Recycler(np.ones((8, 8), np.float16))
    addresses = {copies.copy().ctypes.data for _ in range(20)}
    assert len(addresses) == 1
    both = [copies.copy(), copies.copy()]
    assert both[0].ctypes.data != both[1].ctypes.data


def test_a_caller_that_keeps_many_answers_does_not_make_the_pool_grow() -> None:
    copies = Recycler(np.ones(16, np.uint8))
    many = [copies.copy() for _ in range(100)]
    many.clear()
    assert len(copies._blocks) == 8


def test_threads_never_share_an_answer() -> None:
    copies = Recycler(np.zeros(64, np.uint8))
    torn: list[int] = []

    def work(number: int) -> None:
        for _ in range(2000):
            answer = copies.copy()
            answer[...] = number
            if not (answer == number).all():
                torn.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not torn
