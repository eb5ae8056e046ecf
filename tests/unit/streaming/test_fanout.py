"""`FanOut`: the bytes of the stream, and clients that are slow."""

import os
import tracemalloc
from itertools import pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from softcam.streaming import fanout
from softcam.streaming.jpeg_encoder import JpegVariant
from tests.support.background import eventually
from tests.support.stream_clients import LARGE, SMALL_VARIANT, VARIANT, Stage


def test_bytes_of_the_stream(stage: Stage) -> None:
    reader = stage.connect()  # the first boundary arrived before any JPEG
    stage.fan.publish_jpeg(VARIANT, b"\xff\xd8one\xff\xd9", timestamp_s=1_700_000_000.25, made_s=1.0)
    stage.fan.publish_jpeg(VARIANT, b"\xff\xd8second\xff\xd9", timestamp_s=1_700_000_001.5, made_s=2.0)
    expected = (
        b"Content-Type: image/jpeg\r\nContent-Length: 7\r\nX-Timestamp: 1700000000.250000\r\n\r\n"
        b"\xff\xd8one\xff\xd9\r\n--frame\r\n"
        b"Content-Type: image/jpeg\r\nContent-Length: 10\r\nX-Timestamp: 1700000001.500000\r\n\r\n"
        b"\xff\xd8second\xff\xd9\r\n--frame\r\n"
    )
    assert reader.read(len(expected)) == expected
    assert reader.has_no_data()


def test_content_type() -> None:
    assert fanout.CONTENT_TYPE == "multipart/x-mixed-replace;boundary=frame"


def test_new_client_gets_current_jpeg(stage: Stage) -> None:
    first = stage.connect()
    stage.publish(b"now")
    assert first.read_jpeg() == b"now"
    assert stage.connect().read_jpeg() == b"now"


def test_clients_change_between_two_jpegs(stage: Stage) -> None:
    here = [stage.connect() for _ in range(3)]
    for number in range(6):
        stage.publish(b"%d" % number, made_s=number)
        assert [reader.read_jpeg() for reader in here] == [b"%d" % number] * len(here)
        if number % 2:
            here.pop(0).close()
            eventually(lambda: stage.fan.client_count == len(here))
        else:
            here.append(stage.connect())
            assert here[-1].read_jpeg() == b"%d" % number


def test_each_variant_has_its_channel(stage: Stage) -> None:
    default, small = stage.connect(), stage.connect(SMALL_VARIANT)
    assert {channel.variant for channel in stage.channels} == {VARIANT, SMALL_VARIANT}
    stage.publish(b"default")
    stage.publish(b"small", variant=SMALL_VARIANT)
    stage.publish(b"not requested", variant=JpegVariant(640, 10))
    assert (default.read_jpeg(), small.read_jpeg()) == (b"default", b"small")
    small.close()
    eventually(lambda: [channel.variant for channel in stage.channels] == [VARIANT])
    assert stage.fan.client_count == 1
    assert default.has_no_data()


def test_clients_of_one_variant_share_a_channel(stage: Stage) -> None:
    readers = [stage.connect() for _ in range(3)]
    (channel,) = stage.channels
    assert len(channel.clients) == 3
    stage.publish(b"for all")
    assert [reader.read_jpeg() for reader in readers] == [b"for all"] * 3


def test_jpeg_out_of_order_is_dropped(stage: Stage) -> None:
    reader = stage.connect()
    for jpeg, made_s in ((b"second", 2.0), (b"first", 1.0), (b"third", 3.0)):
        stage.publish(jpeg, made_s)
    assert reader.read_jpeg() == b"second"
    assert reader.read_jpeg() == b"third"


def test_received_data_is_ignored(stage: Stage) -> None:
    reader = stage.connect()
    reader.socket.sendall(b"GET / HTTP/1.1\r\n\r\n" * 10_000)
    stage.publish(b"still here")
    assert reader.read_jpeg() == b"still here"


def test_client_that_sends_much_data(stage: Stage) -> None:
    sender, quiet = stage.connect(), stage.connect()
    sender.socket.sendall(b"x" * (32 << 20))  # returns only when nearly all of it was accepted
    stage.publish(b"for both")
    assert (sender.read_jpeg(), quiet.read_jpeg()) == (b"for both", b"for both")
    sender.close()
    eventually(lambda: stage.disconnected == [0], "that its disconnection is noticed")


# Slow clients


def test_large_part_is_sent_in_pieces(stage: Stage) -> None:
    reader = stage.connect(small_buffers=True)
    jpeg = os.urandom(LARGE)
    stage.publish(jpeg)
    assert reader.read_jpeg() == jpeg


def test_slow_client_continues_with_latest_jpeg(stage: Stage) -> None:
    slow, fast = stage.connect(small_buffers=True), stage.connect()
    jpegs = [bytes([number]) * LARGE for number in range(5)]
    for number, jpeg in enumerate(jpegs):
        stage.publish(jpeg, made_s=number)
        assert fast.read_jpeg() == jpeg  # not delayed by the slow one
    assert slow.read_jpeg() == jpegs[0]
    assert slow.read_jpeg() == jpegs[-1]
    assert slow.has_no_data()
    (channel,) = stage.channels
    clients = list(channel.clients)
    slow.close()
    fast.close()
    stage.wait_empty()
    assert sorted(client.dropped for client in clients) == [0, 4]
    assert sorted(client.frames for client in clients) == [2, 5]


def test_memory_of_stalled_client_is_constant(stage: Stage) -> None:
    stage.connect(small_buffers=True)
    fast = stage.connect()
    size = 400_000
    tracemalloc.start()
    try:
        for number in range(100):
            stage.publish(number.to_bytes(2) * (size // 2), made_s=number)
            fast.read_jpeg()
        traced, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert traced < 6 * size  # the part of the stalled client, that of the channel, and what the test holds


def test_stalled_client_continues_without_new_jpeg(stage: Stage) -> None:
    """epoll alone reports that there is room: no new JPEG wakes the loop."""
    stalled = stage.connect(small_buffers=True)
    for number in range(3):
        stage.publish(bytes([number]) * LARGE, made_s=number)
    eventually(lambda: max(client.dropped for channel in stage.channels for client in channel.clients) == 2)
    assert [stalled.read_jpeg()[0], stalled.read_jpeg()[0]] == [0, 2]
    assert stalled.has_no_data()


def test_stalled_client_is_disconnected(impatient_stage: Stage) -> None:
    idle = impatient_stage.connect(SMALL_VARIANT)  # has nothing to accept, so it does not count as stalled
    stalled = impatient_stage.connect(small_buffers=True)
    impatient_stage.publish(b"x" * LARGE)
    eventually(lambda: impatient_stage.disconnected == [1], "that the stalled client is disconnected")
    assert len(stalled.read_rest()) < LARGE
    impatient_stage.publish(b"hello", variant=SMALL_VARIANT)
    assert idle.read_jpeg() == b"hello"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("publish"), st.integers(0, 300_000)),
            st.tuples(st.just("read"), st.integers(1, 200_000)),
        ),
        max_size=30,
    )
)
def test_parts_are_complete_and_in_order_at_any_pace(stage: Stage, steps: list[tuple[str, int]]) -> None:
    reader = stage.connect(small_buffers=True)
    received = b""
    number = 0
    for step, size in steps:
        if step == "publish":
            number += 1
            stage.publish(number.to_bytes(4) + b"-" * size, made_s=number)
        elif not reader.has_no_data():
            received += reader.socket.recv(size)
    number += 1
    stage.publish(number.to_bytes(4), made_s=number)
    reader.unread(received)
    seen = [0]
    while seen[-1] != number:
        seen.append(int.from_bytes(reader.read_jpeg()[:4]))
    assert all(earlier < later for earlier, later in pairwise(seen))
    reader.close()
    stage.wait_empty()
