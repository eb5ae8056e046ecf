"""The stream of all viewers: where each begins, and what happens to slow ones and at changes of the format."""

import ctypes
import errno
import itertools
import select
import struct
import threading
import time
from dataclasses import replace

import pytest

from softcam.errors import CameraError
from softcam.net import sockets
from softcam.net.udp import PortPair, sockaddr
from softcam.rtsp.rtp import CLOCK_HZ
from softcam.rtsp.server.stream import StreamLimits
from softcam.rtsp.server.viewers import UdpViewer
from tests.support.background import eventually
from tests.support.rtsp_viewers import FORMAT, FPS, TCP, Peer, Stage, is_goodbye
from tests.support.timeouts import PATIENCE_S

LIMITS = StreamLimits()
NTP_EPOCH_S = 2_208_988_800  # 1970 as seconds since 1900
LARGE = 100_000  # more than small socket buffers accept


def describe(stage: Stage, peer: Peer) -> None:
    """DESCRIBE while there are no frames, but for one that answers it."""
    peer.send_request("DESCRIBE")
    stage.wait_subscribed()
    stage.video.deliver()
    assert peer.response().status == 200


def play(stage: Stage, peer: Peer) -> None:
    """PLAY, and a keyframe if the stream requests one."""
    viewers, requests = stage.server.viewer_count, stage.video.keyframe_requests
    peer.send_request("PLAY")
    eventually(lambda: stage.server.viewer_count == viewers + 1)
    stage.settle()
    if stage.video.keyframe_requests > requests:
        stage.video.deliver()
    assert peer.response().status == 200


def first_viewer(stage: Stage) -> Peer:
    """A viewer that has received one keyframe."""
    peer = stage.connect()
    describe(stage, peer)
    peer.set_up()
    play(stage, peer)
    assert peer.unit().is_keyframe
    return peer


def test_begin_with_a_fresh_keyframe(timed_stage: Stage) -> None:
    """A second viewer gets the latest keyframe and what followed it at once; no frame arrives meanwhile."""
    first_viewer(timed_stage)
    keyframe = timed_stage.video.deliver(is_keyframe=True)
    last = timed_stage.video.deliver(2)
    timed_stage.settle()
    peer = timed_stage.connect()
    assert peer.request("DESCRIBE").status == 200
    peer.set_up()
    assert peer.request("PLAY").status == 200
    units = [peer.unit() for _ in range(3)]
    assert [unit.number for unit in units] == list(range(keyframe, last + 1))
    assert units[0].is_keyframe


def test_wait_for_a_keyframe(timed_stage: Stage) -> None:
    """A viewer does not begin with an old one, whose age it would see."""
    first_viewer(timed_stage)
    keyframe = timed_stage.video.deliver(is_keyframe=True)
    timed_stage.advance(LIMITS.ring.fresh_keyframe_s)
    requests = timed_stage.video.keyframe_requests
    peer = timed_stage.connect()
    assert peer.request("DESCRIBE").status == 200
    peer.set_up()
    peer.send_request("PLAY")
    eventually(lambda: timed_stage.video.keyframe_requests > requests)
    last = timed_stage.video.deliver()
    response = peer.response()
    unit = peer.unit()
    assert unit.number == last > keyframe
    assert f";seq={unit.sequence};rtptime={unit.timestamp}" in response["RTP-Info"]


@pytest.mark.parametrize("timed_stage", [{"stream_limits": StreamLimits(late_keyframes_s=(0.25, 0.75))}], indirect=True)
def test_keyframes_after_the_beginning(timed_stage: Stage) -> None:
    """Two more, for what waits behind a media server; coalesced by the encoder, and only while there are viewers."""
    peer = first_viewer(timed_stage)
    for duration_s, requests in ((0.0, 0), (0.125, 0), (0.125, 1), (0.25, 1), (0.25, 2), (10.0, 2)):
        timed_stage.advance(duration_s)
        assert timed_stage.video.keyframe_requests == requests
    assert peer.request("PAUSE").status == 200
    play(timed_stage, peer)
    assert peer.request("TEARDOWN").status == 200
    requests = timed_stage.video.keyframe_requests
    timed_stage.advance(1.0)
    assert timed_stage.video.keyframe_requests == requests


def test_all_viewers_get_the_same_packets(stage: Stage) -> None:
    """Whatever channels they use; numbers and times are those of the stream."""
    peers = []
    with stage.flow():
        for number in range(7):
            peer = stage.connect()
            peer.play(f"RTP/AVP/TCP;unicast;interleaved={2 * number}-{2 * number + 1}")
            peers.append(peer)
        for number, peer in enumerate(peers):
            packet = peer.packet()
            assert packet[0] == 2 * number
            peer.packets.insert(0, packet)
    stage.settle()
    last = stage.video.deliver()
    seen = set()
    for peer in peers:
        while (unit := peer.unit()).number != last:
            pass
        seen.add((unit.sequence, unit.timestamp))
    assert len(seen) == 1


@pytest.mark.parametrize("transport", ["TCP", "UDP"])
def test_report_behind_the_first_unit(stage: Stage, transport: str) -> None:
    """A report before it is ignored, and one that is late delays the first picture (gortsplib)."""
    peer, ports = stage.connect(), stage.ports()
    with stage.flow():
        if transport == "TCP":
            peer.play()
            unit = peer.unit()
            assert unit.has_report
            channel, report = peer.packets.pop(0)
            assert channel == 1
        else:
            peer.play(ports.transport)
            unit = ports.unit()
            report = ports.rtcp.recv(2048)
        assert report[1] == 200
        ssrc, _, _, _, packets, octets = struct.unpack(">6I", report[4:28])
        assert f";ssrc={ssrc:08X}" in peer.transport
        assert packets > 0
        assert octets > 0


@pytest.mark.parametrize("error_s", [-1e9, 0.0, 3600.0])
def test_report_after_the_wall_clock_was_set(error_s: float) -> None:
    """Each report is right by the clock of its moment; RTP timestamps are those of the exposures."""
    offset_s = 0.0
    stage = Stage(wall_clock=lambda: time.time() + offset_s)
    for offset_s in (0.0, error_s):
        peer = stage.connect()
        with stage.flow():
            peer.play()
            began_s = stage.video.now_s
            unit = peer.unit()
            assert unit.has_report
            _, report = peer.packets.pop(0)
            seconds, fraction, timestamp = struct.unpack(">III", report[8:20])
            reported_s = (seconds + fraction / 2**32) - NTP_EPOCH_S % 2**32
            age_s = ((timestamp - unit.timestamp + 2**31) % 2**32 - 2**31) / CLOCK_HZ
            exposed_s = reported_s - age_s
            expected_s = (time.time() + offset_s) - (time.monotonic() - began_s)
            assert abs((exposed_s - expected_s + 2**31) % 2**32 - 2**31) < 1.0
            assert peer.request("TEARDOWN").status == 200
    stage.stop()


@pytest.mark.parametrize("transport", ["TCP", "UDP"])
@pytest.mark.parametrize("step_s", [-1e9, 3600.0])
def test_report_at_once_when_the_wall_clock_is_set(timed_stage: Stage, transport: str, step_s: float) -> None:
    """With the next unit, for a viewer that plays; RTP time continues."""
    peer, ports = timed_stage.connect(), timed_stage.ports()
    describe(timed_stage, peer)
    peer.set_up(TCP if transport == "TCP" else ports.transport)
    play(timed_stage, peer)

    def next_report() -> bytes:
        """The report behind one more unit; empty if there is none."""
        timed_stage.advance(0.1)
        number = timed_stage.video.deliver()
        timed_stage.settle()
        if transport == "UDP":
            while ports.unit().number != number:
                pass
            return ports.rtcp.recv(2048) if select.select([ports.rtcp], [], [], 0)[0] else b""
        while (unit := peer.unit()).number != number:
            peer.packets.clear()
        return peer.packets.pop(0)[1] if unit.has_report else b""

    if transport == "UDP":
        assert ports.rtcp.recv(2048)
    assert next_report() == b""
    assert timed_stage.clock is not None
    timed_stage.clock.wall_offset_s += 0.000_05  # slewed
    assert next_report() == b""
    timed_stage.clock.wall_offset_s += step_s
    report = next_report()
    ntp_s, fraction = struct.unpack(">II", report[8:16])
    unix_s = timed_stage.clock.wall()
    assert (ntp_s + fraction / 2**32 - unix_s - NTP_EPOCH_S + 2**31) % 2**32 - 2**31 == pytest.approx(0.0, abs=1e-3)
    assert next_report() == b""


def test_slow_viewer_continues_with_a_keyframe(timed_stage: Stage) -> None:
    """It loses what has left the ring, up to the latest keyframe in it; the other viewer gets everything at once."""
    quick, slow = first_viewer(timed_stage), timed_stage.connect(small_buffers=True)
    assert slow.request("DESCRIBE").status == 200
    slow.set_up()
    play(timed_stage, slow)
    timed_stage.video.size = LARGE
    began_s, first = timed_stage.video.now_s, timed_stage.video.count
    for number in range(40):
        last = timed_stage.video.deliver(is_keyframe=number == 35, began_s=began_s + number * 0.05)
        while quick.unit().number != last:
            pass
    units = [slow.unit()]
    while units[-1].number != last:
        units.append(slow.unit())
    (gap,) = [
        (before.number, after) for before, after in itertools.pairwise(units) if after.number != before.number + 1
    ]
    assert gap[0] < first + 30
    assert gap[1].number == last - 4
    assert gap[1].is_keyframe


def test_slow_viewer_requests_a_keyframe(timed_stage: Stage) -> None:
    """Where the ring has none, and at most once a second: each costs all viewers bandwidth."""
    quick, slow = first_viewer(timed_stage), timed_stage.connect(small_buffers=True)
    assert slow.request("DESCRIBE").status == 200
    slow.set_up()
    play(timed_stage, slow)
    timed_stage.video.size = LARGE
    began_s = timed_stage.video.now_s
    for number in range(40):
        last = timed_stage.video.deliver(began_s=began_s + number * 0.05)
        while quick.unit().number != last:  # otherwise it is slow, too
            pass
    timed_stage.settle()
    requests = timed_stage.video.keyframe_requests
    while timed_stage.video.keyframe_requests == requests:
        if slow.has_data():
            before = slow.unit()
    assert not slow.has_data()
    last = timed_stage.video.deliver()
    unit = slow.unit()
    assert (unit.number, unit.is_keyframe) == (last, True)
    assert before.number < last - 30
    while quick.unit().number != last:
        pass
    assert timed_stage.video.keyframe_requests == requests + 1


def test_late_viewer_loses_nothing(timed_stage: Stage) -> None:
    """What is still in the ring is sent after a short stall."""
    peer = timed_stage.connect(small_buffers=True)
    describe(timed_stage, peer)
    peer.set_up()
    play(timed_stage, peer)
    timed_stage.video.size = LARGE
    began_s = timed_stage.video.now_s
    for number in range(10):
        last = timed_stage.video.deliver(began_s=began_s + number * LIMITS.ring.length_s / 12)
    numbers = [peer.unit().number]
    while numbers[-1] != last:
        numbers.append(peer.unit().number)
    assert numbers == list(range(numbers[0], last + 1))


@pytest.mark.parametrize("event", ["room", "next unit"])
def test_no_room_in_the_udp_socket(stage: Stage, event: str) -> None:
    """What could not be sent follows when the socket has room, or with the next unit, in order."""
    is_full = False

    def send(*arguments: object) -> int:
        if is_full:
            ctypes.set_errno(errno.EAGAIN)
            return -1
        return int(sockets.libc.sendmmsg(*arguments))

    ports, pair = stage.ports(), PortPair((stage.host, 0), send=send)
    viewer = UdpViewer(
        reader=stage.stream.new_reader(),
        on_start=lambda _: None,
        on_end=stage.crashes.append,
        ports=pair,
        rtp_name=sockaddr(stage.host, ports.rtp.getsockname()[1]),
        rtcp_address=ports.rtcp.getsockname(),
    )
    stage.loop.call(stage.stream.attach_encoder)
    stage.loop.call(lambda: stage.stream.add_viewer(viewer))
    stage.wait_subscribed()
    stage.video.deliver()
    assert ports.unit().is_keyframe
    stage.settle()
    is_full = True
    first = stage.video.deliver()
    stage.video.deliver(2)
    stage.settle()
    assert not viewer.is_idle
    is_full = False
    last = first + 2
    if event == "room":
        stage.loop.call(lambda: stage.stream.send_rest(pair))
    else:
        last = stage.video.deliver()
    assert [ports.unit().number for _ in range(first, last + 1)] == list(range(first, last + 1))
    stage.loop.call(lambda: stage.stream.remove_viewer(viewer))
    stage.loop.call(stage.stream.detach_encoder)
    stage.settle()
    pair.close()


def test_size_change_ends_sessions(stage: Stage) -> None:
    """Players and recorders cannot continue; the next description has the new size."""
    tcp, udp_peer, ports = stage.connect(), stage.connect(), stage.ports()
    with stage.flow():
        tcp.play()
        udp_peer.play(ports.transport)
        stage.video.fmt = replace(FORMAT, width=320, height=180)
        assert udp_peer.has_ended()
        assert tcp.has_ended()
        assert is_goodbye(tcp.rest)
        report = b""
        while not is_goodbye(report):
            report = ports.rtcp.recv(2048)
        again = stage.connect()
        assert b"a=framesize:96 320-180" in again.request("DESCRIBE").body
    again.close()
    stage.wait_idle()


def test_other_formats_keep_sessions(stage: Stage) -> None:
    """Another rate, or other parameter sets: they are in the stream, before each keyframe. Numbers and times go on."""
    peer = stage.connect()
    with stage.flow():
        peer.play()
        before = peer.unit()
        stage.video.fmt = replace(FORMAT, fps=10.0)
        while not (unit := peer.unit()).is_keyframe or unit.number == before.number:
            pass
        assert (unit.sequence - before.sequence) & 0xFFFF < 1000
        assert (unit.timestamp - before.timestamp) & 0xFFFF_FFFF < PATIENCE_S * CLOCK_HZ
        assert stage.server.viewer_count == 1
        assert b"a=framerate:10\r\n" in peer.request("DESCRIBE").body


def test_close_and_open(stage: Stage) -> None:
    """Again and again, the first frame is a keyframe, and nothing remains subscribed."""
    with stage.flow(5 * FPS):
        for number in range(15):
            peer = stage.connect()
            peer.play()
            assert peer.unit().is_keyframe
            if number % 3 == 0:
                assert peer.request("TEARDOWN").status == 200
            peer.close()
            if number % 3 != 2:
                stage.wait_idle()
        stage.wait_idle()


def test_leave_while_the_encoder_starts(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoder stops again; and for one that arrives meanwhile it starts once."""
    may_go_on, is_in = threading.Event(), threading.Event()
    subscribe = stage.video.subscribe

    def slow_subscribe(sink: object) -> None:
        is_in.set()
        may_go_on.wait(PATIENCE_S)
        subscribe(sink)  # type: ignore[arg-type]

    monkeypatch.setattr(stage.video, "subscribe", slow_subscribe)
    peer = stage.connect()
    peer.send_request("DESCRIBE")
    assert is_in.wait(PATIENCE_S)
    peer.close()
    eventually(lambda: stage.camera.leases == 0)
    second = stage.connect()
    second.send_request("DESCRIBE")
    eventually(lambda: stage.camera.leases == 1)
    may_go_on.set()
    stage.wait_subscribed()
    stage.video.deliver()
    assert second.response().status == 200
    assert stage.video.subscriptions == 1
    is_in.clear()
    may_go_on.clear()
    second.close()
    stage.wait_idle()
    third = stage.connect()
    third.send_request("DESCRIBE")
    assert is_in.wait(PATIENCE_S)
    third.close()
    eventually(lambda: stage.camera.leases == 0)
    may_go_on.set()
    eventually(lambda: stage.video.subscriptions == 2)
    stage.wait_idle()


def test_format_while_the_encoder_starts(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """It arrives between two clients, before the subscription has returned: the second one needs it."""
    may_go_on, is_in = threading.Event(), threading.Event()
    subscribe = stage.video.subscribe

    def slow_subscribe(sink: object) -> None:
        subscribe(sink)  # type: ignore[arg-type]
        is_in.set()
        may_go_on.wait(PATIENCE_S)

    monkeypatch.setattr(stage.video, "subscribe", slow_subscribe)
    first, second = stage.connect(), stage.connect()
    first.send_request("DESCRIBE")
    assert is_in.wait(PATIENCE_S)
    first.close()
    eventually(lambda: (stage.camera.opened, stage.camera.leases) == (1, 0))
    stage.video.deliver()
    stage.settle()
    second.send_request("DESCRIBE")
    eventually(lambda: stage.camera.leases == 1)
    may_go_on.set()
    stage.video.deliver()
    assert second.response().status == 200


def test_no_thread_for_the_encoder(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def spawn(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("softcam.rtsp.server.stream.spawn", spawn)
    changes: list[CameraError | None] = []
    stage.stream.on_change(changes.append)
    stage.loop.call(stage.stream.attach_encoder)
    eventually(lambda: changes)
    assert str(changes[0]) == "the H.264 encoder cannot be started: can't start new thread"
    stage.loop.call(stage.stream.detach_encoder)
