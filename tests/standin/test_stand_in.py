"""The stand-in driver under the real bindings: data, order, errors, leaks."""

from __future__ import annotations

import signal

import pytest

from tests.standin.launch import run
from tests.standin.mistakes import WRONG_BYTES

SEEDS = tuple(f"seed:{seed}" for seed in range(20))
ORDERS = ("eager", "lazy", *SEEDS[:4])


def passes(program: str, binding: str = "cuda-bindings", order: str = "eager") -> str:
    done = run(program, binding, order)
    assert done.returncode == 0, done.stderr
    return done.stdout


def is_caught(mistake: str, binding: str, order: str) -> bool:
    done = run(mistake, binding, order)
    assert done.returncode in (0, WRONG_BYTES), done.stderr
    return done.returncode == WRONG_BYTES


@pytest.fixture(params=["cuda-bindings", "pycuda"])
def binding(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    "program",
    ["round_trip", "pageable_memory_is_done_with", "synchronous_copies", "polling_gets_on"],
)
def test_bytes_come_back_in_every_order(program: str, binding: str, order: str) -> None:
    passes(f"programs:{program}", binding, order)


@pytest.mark.parametrize("order", ["eager", "lazy", "seed:1"])
def test_a_stall_holds_the_queues(binding: str, order: str) -> None:
    passes("programs:stalled_queues_hold", binding, order)


@pytest.mark.parametrize(
    "program",
    [
        "a_planted_failure_arrives", "a_new_thread_has_no_context", "too_much", "past_the_end",
        "after_its_release",
    ],
)  # fmt: skip
def test_errors_arrive_as_the_bindings_own(program: str, binding: str) -> None:
    passes(f"programs:{program}", binding)


def test_a_fault_fails_all_that_follows(binding: str) -> None:
    done = run("programs:a_fault_fails_all_that_follows", binding)
    # What could not be released counts as left behind.
    assert "left behind: {'device': 1, 'stream': 1}" in done.stderr


def test_a_leak_is_told() -> None:
    done = run("programs:a_leak")
    assert "left behind: {'device': 1, 'stream': 1}" in done.stderr


def test_a_host_read_of_a_device_address_dies(binding: str) -> None:
    done = run("programs:the_host_reads_a_device_address", binding)
    assert done.returncode == -signal.SIGSEGV, done.stderr


@pytest.mark.parametrize("order", ["eager", "lazy", *SEEDS])
def test_a_correct_program_is_never_blamed(order: str) -> None:
    passes("mistakes:none", order=order)


@pytest.mark.parametrize(
    ("mistake", "eager", "lazy"),
    [
        ("consumer_never_waits", False, True),
        ("overwritten_before_read", False, True),
        ("source_rewritten_in_flight", False, True),
        ("read_before_waiting", False, True),
        ("recorded_before_the_copy", False, True),
        ("unrelated_stream_writes_early", False, False),
        ("filled_after_submitting", True, False),
    ],
)
def test_mistakes_are_caught(mistake: str, eager: bool, lazy: bool, binding: str) -> None:
    assert is_caught(f"mistakes:{mistake}", binding, "eager") == eager
    assert is_caught(f"mistakes:{mistake}", binding, "lazy") == lazy
    assert any(is_caught(f"mistakes:{mistake}", binding, seed) for seed in SEEDS)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    "program",
    [
        "capture:replay", "capture:events_of_a_replay", "streams:host_functions",
        "streams:the_default_stream", "streams:threads_share_the_queues",
    ],
)  # fmt: skip
def test_graphs_and_streams_in_every_order(program: str, order: str) -> None:
    passes(program, order=order)


@pytest.mark.parametrize("order", ["eager", "lazy", "seed:1"])
def test_both_bindings_in_one_process(order: str) -> None:
    pytest.importorskip("cuda.bindings")
    passes("capture:pycuda_streams_are_captured", "pycuda", order)


def test_a_missing_wait_in_a_graph_is_caught() -> None:
    program = "capture:a_captured_stream_that_never_waits"
    assert is_caught(program, "cuda-bindings", "lazy")
    assert any(is_caught(program, "cuda-bindings", seed) for seed in SEEDS)


@pytest.mark.parametrize("order", ["eager", "lazy", "seed:1"])
@pytest.mark.parametrize(
    "program",
    [
        "capture:forbidden_calls", "capture:captures_that_do_not_end",
        "capture:captures_and_other_threads", "streams:waiting_ends_with_the_stall",
        "streams:contexts",
    ],
)  # fmt: skip
def test_what_the_driver_refuses(program: str, order: str) -> None:
    passes(program, order=order)


def test_a_replay_after_the_release_is_a_fault() -> None:
    done = run("capture:a_replay_after_the_release", order="lazy")
    assert "ILLEGAL_ADDRESS" in done.stderr
    assert "cuda.free_device(buffer)" in done.stderr


@pytest.mark.parametrize(("integrated", "bytes_used"), [(False, 1000), (True, 1100)])
def test_an_integrated_device_shares_its_memory(integrated: bool, bytes_used: int) -> None:
    said = run("streams:what_the_device_says", integrated=integrated)
    assert said.stdout.splitlines() == [str([8, 7, 1, int(integrated)])], said.stderr
    used = run("streams:memory", integrated=integrated)
    assert used.stdout.splitlines() == [str(bytes_used)], used.stderr
    assert used.returncode == said.returncode == 0
