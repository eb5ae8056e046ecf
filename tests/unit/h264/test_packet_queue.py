"""The queue between the encoder's thread and a consumer: keyframes first, limits, pre-roll."""

from softcam.h264.packet import Packet, VideoFormat
from softcam.h264.packet_queue import PacketQueue

FORMAT = VideoFormat(640, 360, 20.0, b"\x67\x42\xc0\x1e", b"\x68")
LARGE = VideoFormat(1280, 720, 20.0, b"\x67\x42\xc0\x1f", b"\x68")


def packet(began_s: float, *, is_keyframe: bool = False, size: int = 20) -> Packet:
    return Packet(bytes(size), is_keyframe, began_s, 0.0)


def send(queue: PacketQueue, count: int, from_s: float = 0.0) -> None:
    """Twenty packets a second, a keyframe each second."""
    for number in range(count):
        queue.on_packet(packet(from_s + number * 0.05, is_keyframe=number % 20 == 0))


def moments(queue: PacketQueue) -> list[float]:
    return [each.began_s for _, each in queue.take_packets()]


def test_starts_with_a_keyframe() -> None:
    calls: list[None] = []
    queue = PacketQueue(lambda: calls.append(None))
    assert queue.fmt is None
    queue.on_packet(packet(0.9))
    queue.on_format(FORMAT)
    queue.on_packet(packet(1.0))
    assert queue.size == 0
    assert queue.is_awaiting_keyframe
    first, second = packet(1.05, is_keyframe=True), packet(1.1)
    queue.on_packet(first)
    queue.on_packet(second)
    assert queue.size > 0
    assert not queue.is_awaiting_keyframe
    assert queue.take_packets() == [(FORMAT, first), (FORMAT, second)]
    assert queue.take_packets() == []
    assert (queue.discarded, len(calls), queue.fmt) == (2, 3, FORMAT)


def test_packets_keep_their_format() -> None:
    queue = PacketQueue()
    queue.on_format(FORMAT)
    queue.on_packet(packet(0.0, is_keyframe=True))
    queue.on_format(LARGE)
    queue.on_packet(packet(0.1))
    queue.on_packet(packet(0.2, is_keyframe=True))
    assert [(fmt.width, each.began_s) for fmt, each in queue.take_packets()] == [(640, 0.0), (1280, 0.2)]


def test_continues_after_take() -> None:
    queue = PacketQueue()
    queue.on_format(FORMAT)
    queue.on_packet(packet(0.0, is_keyframe=True))
    queue.take_packets()
    queue.on_packet(packet(0.1))
    assert moments(queue) == [0.1]


def test_duration_limit_discards_all() -> None:
    queue = PacketQueue(max_s=1.0)
    queue.on_format(FORMAT)
    queue.on_packet(packet(0.0, is_keyframe=True))
    for number in range(1, 40):
        queue.on_packet(packet(number * 0.05))
    assert queue.take_packets() == []
    assert queue.is_awaiting_keyframe
    queue.on_packet(packet(2.0, is_keyframe=True))
    assert moments(queue) == [2.0]
    assert queue.discarded == 40


def test_size_limit_discards_new_packets_up_to_a_keyframe() -> None:
    overflows: list[None] = []
    queue = PacketQueue(on_overflow=lambda: overflows.append(None), max_bytes=100)
    queue.on_format(FORMAT)
    send(queue, 10)
    assert len(overflows) == 1
    assert queue.is_awaiting_keyframe
    assert moments(queue) == [number * 0.05 for number in range(6)]
    queue.on_packet(packet(0.5))
    assert queue.size == 0
    queue.on_packet(packet(1.0, is_keyframe=True))
    assert moments(queue) == [1.0]
    assert (len(overflows), queue.discarded) == (1, 5)


def test_preroll_starts_at_the_keyframe_before_it() -> None:
    queue = PacketQueue(preroll_s=2.0, is_consumed=False)
    queue.on_format(FORMAT)
    send(queue, 110)  # up to 5.45 s
    queue.start_consuming(5.45 - 2.0)
    assert moments(queue)[0] == 3.0
    send(queue, 200, from_s=6.0)
    assert len(moments(queue)) == 200


def test_shorter_preroll_on_request() -> None:
    queue = PacketQueue(preroll_s=3.0, is_consumed=False)
    queue.on_format(FORMAT)
    send(queue, 110)
    queue.start_consuming(5.0)
    assert moments(queue)[0] == 5.0


def test_no_preroll_on_request() -> None:
    queue = PacketQueue(preroll_s=3.0, is_consumed=False)
    queue.on_format(FORMAT)
    send(queue, 110)
    queue.start_consuming(None)
    queue.on_packet(packet(5.5))
    queue.on_packet(packet(6.0, is_keyframe=True))
    assert moments(queue) == [6.0]


def test_without_preroll_nothing_is_kept() -> None:
    queue = PacketQueue(is_consumed=False)
    queue.on_format(FORMAT)
    send(queue, 50)
    assert queue.size == 0


def test_preroll_keeps_to_the_size_limit() -> None:
    queue = PacketQueue(preroll_s=60.0, max_bytes=1000, is_consumed=False)
    queue.on_format(FORMAT)
    send(queue, 110)
    assert queue.size <= 1000
    queue.start_consuming(-1.0)
    assert moments(queue)[0] == 3.0


def test_stop_consuming_returns_the_rest() -> None:
    queue = PacketQueue(preroll_s=1.0, is_consumed=False)
    queue.on_format(FORMAT)
    queue.start_consuming(None)
    send(queue, 10)
    assert len(queue.stop_consuming()) == 10
    assert queue.stop_consuming() == [], "what is queued now is pre-roll"


def test_preroll_includes_packets_that_were_taken() -> None:
    """A consumer that starts again finds no gap."""
    queue = PacketQueue(preroll_s=2.0, is_consumed=False)
    queue.on_format(FORMAT)
    queue.start_consuming(None)
    send(queue, 30)  # up to 1.45 s
    queue.take_packets()
    queue.stop_consuming()
    queue.on_packet(packet(1.5))
    assert queue.size == 31 * 20
    queue.start_consuming(0.0, 1.46)
    assert moments(queue)[0] == 1.0, "the keyframe on which the packet at 1.5 s depends"


def test_preroll_starts_where_the_last_consumer_ended() -> None:
    queue = PacketQueue(preroll_s=2.0, is_consumed=False)
    queue.on_format(FORMAT)
    queue.start_consuming(None)
    send(queue, 30)
    queue.stop_consuming()
    queue.on_packet(packet(1.5, is_keyframe=True))
    queue.on_packet(packet(1.55))
    queue.start_consuming(0.0, 1.46)
    assert moments(queue) == [1.5, 1.55]
