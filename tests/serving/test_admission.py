"""Rates under a turned clock, bodies counted while they come, requests counted while inside."""

import asyncio

import hypothesis.strategies as st
import pytest
from hypothesis import given

from dimerec.errors import Overloaded
from dimerec.serving.access import Principal
from dimerec.serving.admission import (
    Gone,
    InFlight,
    RateLimited,
    Rates,
    TooLarge,
    TooSlow,
    read_body,
    retry_after,
)
from dimerec.serving.settings import Limits


def principal(name: str, rate: float) -> Principal:
    return Principal(name, "default", frozenset({"read"}), rate)


def test_a_rate_is_kept_and_forgiven():
    now = [0.0]
    rates = Rates(1.0, lambda: now[0])
    ann = principal("ann", 4.0)
    for _ in range(4):
        rates.take(ann)
    with pytest.raises(RateLimited) as refused:
        rates.take(ann)
    assert refused.value.seconds == 0.25 and retry_after(refused.value) == 1
    rates.take(principal("bob", 4.0))
    now[0] += 0.25
    rates.take(ann)
    with pytest.raises(RateLimited):
        rates.take(ann)
    now[0] += 1000  # no more is saved up than the burst
    for _ in range(4):
        rates.take(ann)
    with pytest.raises(RateLimited):
        rates.take(ann)


def test_a_batch_is_paid_for_afterwards():
    now = [0.0]
    rates = Rates(1.0, lambda: now[0])
    ann = principal("ann", 2.0)
    rates.take(ann)
    rates.charge(ann, 63)
    with pytest.raises(RateLimited) as refused:
        rates.take(ann)
    assert refused.value.seconds == pytest.approx(31.5) and retry_after(refused.value) == 32
    now[0] += 31.5
    rates.take(ann)


def test_a_rate_below_one_a_burst_still_lets_one_through():
    rates = Rates(1.0, lambda: 0.0)
    rates.take(principal("rare", 0.1))
    with pytest.raises(RateLimited):
        rates.take(principal("rare", 0.1))


def test_no_rate_is_no_limit():
    rates = Rates(1.0, lambda: 0.0)
    for _ in range(1000):
        rates.take(principal("free", 0.0))


@given(st.lists(st.floats(0, 2), max_size=200), st.floats(0.5, 50), st.floats(0.1, 5))
def test_never_more_than_burst_and_rate(waits, rate, burst):
    now = [0.0]
    rates = Rates(burst, lambda: now[0])
    taken = 0
    for wait in waits:
        now[0] += wait
        try:
            rates.take(principal("ann", rate))
            taken += 1
        except RateLimited as e:
            assert e.seconds > 0
    assert taken <= max(1.0, rate * burst) + rate * now[0] + 1e-6


def test_requests_inside_are_counted():
    inside = InFlight(2)
    with inside, inside:
        with pytest.raises(Overloaded), inside:
            pass
        assert inside.now == 2
    with pytest.raises(ValueError), inside:
        raise ValueError
    assert inside.now == 0


def read(parts, length=None, limits=None, wait: float = 0.0):
    """`read_body` of the parts; an exception among them is a client that goes away."""
    left = list(parts)

    async def receive():
        await asyncio.sleep(wait)
        part = left.pop(0)
        if part is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": part, "more_body": bool(left)}

    return asyncio.run(read_body(receive, length, limits or Limits(body_bytes=1024)))


def test_a_body_is_put_together():
    assert read([b"abc", b"", b"def"]) == b"abcdef"
    assert read([b""]) == b""
    assert read([b"x" * 1024], "1024") == b"x" * 1024


@pytest.mark.parametrize("length", ["1025", "9" * 400, "00000000000000000001025"])
def test_a_body_that_says_it_is_too_large_is_not_read(length):
    with pytest.raises(TooLarge):
        read([None], length)


@pytest.mark.parametrize("length", [None, "3", "-1", "+5", "abc", "", "1_0", "²"])
def test_a_body_that_is_too_large_is_cut_off_whatever_it_says(length):
    with pytest.raises(TooLarge):
        read([b"x" * 1000] * 3, length)


def test_a_slow_body_and_a_gone_client():
    with pytest.raises(TooSlow):
        read([b"x"] * 50, limits=Limits(body_seconds=0.05), wait=0.01)
    with pytest.raises(Gone):
        read([b"x", None])
