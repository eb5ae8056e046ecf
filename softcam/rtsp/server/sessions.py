"""Sessions of RTSP clients: what each has set up, whether it plays, and when it ends. Runs on the event loop."""

import logging
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from softcam.errors import CameraError
from softcam.net.event_loop import EventLoop
from softcam.net.udp import PortPair, sockaddr
from softcam.rtsp.rtp import goodbye, interleave, is_goodbye, is_report_on
from softcam.rtsp.server.connection import ClientConnection
from softcam.rtsp.server.ports import PeerAddress, Ports
from softcam.rtsp.server.stream import AnyViewer, RtpStream
from softcam.rtsp.server.transport import Datagrams, Interleaved
from softcam.rtsp.server.viewers import AccessUnit, TcpViewer, UdpViewer, send_datagram
from softcam.runtime.address import client_network
from softcam.runtime.plural import counted
from softcam.runtime.threads import spawn

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SessionLimits:
    timeout_s: float = 60.0  # of a session, as it is announced
    slack_s: float = 15.0  # receiver reports are sent about every five seconds, and may be lost
    # Without a frame: by then the camera was recovered, or it does not come back soon. Twice the frame interval is
    # added: an exposure may last for minutes.
    silence_s: float = 30.0


@dataclass(frozen=True, eq=False, slots=True)
class StreamLease:
    """Keeps the camera and a stream open until `release`, which is harmless if repeated."""

    stream: RtpStream
    on_failure: Callable[[CameraError], None]  # the camera cannot be opened; not called for that of a session
    _on_release: Callable[["StreamLease"], None] = field(repr=False)

    def release(self) -> None:
        self._on_release(self)


@dataclass(eq=False, slots=True)
class Session:
    """One client's session; `base` is the URL of its stream and ends with a slash."""

    id: str
    lease: StreamLease
    client: str  # the address for the log
    base: str
    transport: Interleaved | Datagrams
    ports: PortPair | None  # by UDP
    peer: tuple[str | int, ...]  # the address of the client
    connection: ClientConnection | None  # None where a client by UDP closed it
    heard_s: float  # when the last request, or receiver report, was received
    viewer: AnyViewer | None = field(default=None, init=False)  # while it plays
    began_s: float = field(default=0.0, init=False)  # when it began to play
    network: str = field(init=False)  # of the client: what counts as one
    reporter: bytes = field(default=b"", init=False)  # the SSRC of the client's last report on the stream, by UDP

    def __post_init__(self) -> None:
        self.network = client_network(self.client)

    @property
    def stream(self) -> RtpStream:
        return self.lease.stream

    @property
    def transport_header(self) -> str:
        ssrc, transport = self.stream.ssrc, self.transport
        if isinstance(transport, Interleaved):
            return transport.header(ssrc)
        if self.ports is None:
            raise RuntimeError("a session by UDP without ports")
        return transport.header(ssrc, self.ports.ports)

    def on_heard(self, now_s: float) -> None:
        self.heard_s = now_s

    def is_sender_known(self, report: bytes) -> bool:
        """Whether the sender of a report is the client: it has named this stream's SSRC, which others do not know."""
        sender = report[4:8]
        if is_report_on(self.stream.ssrc, report, accepts_empty=False):
            self.reporter = sender
        return self.reporter == sender

    def set_connection(self, connection: ClientConnection | None) -> None:
        self.connection = connection

    def start_viewer(self, viewer: AnyViewer, now_s: float) -> None:
        self.viewer, self.began_s = viewer, now_s

    def take_viewer(self) -> AnyViewer | None:
        """The viewer, which does not play any more."""
        viewer, self.viewer = self.viewer, None
        return viewer


class Sessions:
    """All sessions, and what keeps the streams open."""

    def __init__(
        self,
        loop: EventLoop,
        streams: Iterable[RtpStream],
        open_camera: Callable[[], Callable[[], None]],
        on_crash: Callable[[str], None],
        limits: SessionLimits,
    ) -> None:
        """`open_camera` returns the function that releases the camera; it raises CameraError, and may block."""
        self.timeout_s = limits.timeout_s
        self._loop = loop
        self._streams = tuple(streams)
        self._open_camera = open_camera
        self._on_crash = on_crash
        self._limits = limits
        self._sessions: dict[str, Session] = {}
        self._by_connection: dict[ClientConnection, Session] = {}
        self._left: dict[ClientConnection, str] = {}  # the name of its session, which the client ended by UDP
        self._playing: set[Session] = set()  # any thread reads its len()
        # With the function that releases the camera, None while that is being opened.
        self._leases: dict[StreamLease, Callable[[], None] | None] = {}
        self._by_address: dict[tuple[PortPair, PeerAddress], Session] = {}  # by UDP
        self._ports = Ports(loop, self._on_report, self._on_room)

    def __len__(self) -> int:
        return len(self._sessions)

    @property
    def playing_count(self) -> int:
        """Any thread may call it."""
        return len(self._playing)

    def acquire_lease(self, stream: RtpStream, on_failure: Callable[[CameraError], None]) -> StreamLease:
        """Open the camera and the stream; `on_failure` is called later. Raises CameraError."""
        lease = StreamLease(stream, on_failure, self._release_lease)
        self._leases[lease] = None
        try:
            # Opening focuses the camera, and a camera that hangs must not stop the event loop.
            spawn("rtsp-camera", lambda: self._acquire_camera(lease), self._on_crash)
        except RuntimeError as error:  # no memory, or too many threads
            del self._leases[lease]
            raise CameraError(f"the camera cannot be opened: {error}") from error
        stream.attach_encoder()
        return lease

    def _acquire_camera(self, lease: StreamLease) -> None:
        """On a thread that exists only for this."""
        try:
            release = self._open_camera()
        except CameraError as error:
            self._loop.call(partial(self._on_camera_failed, lease, error))
            return
        if not self._loop.call(partial(self._on_camera_open, lease, release)):
            release()

    def _on_camera_open(self, lease: StreamLease, release: Callable[[], None]) -> None:
        if lease in self._leases:
            self._leases[lease] = release
        else:
            release()

    def _on_camera_failed(self, lease: StreamLease, error: CameraError) -> None:
        session = next((session for session in self._sessions.values() if session.lease is lease), None)
        if session is not None:
            self.disconnect(session, str(error))
        elif lease in self._leases:
            lease.on_failure(error)

    def create(
        self,
        lease: StreamLease,
        client: str,
        base: str,
        transport: Interleaved | Datagrams,
        connection: ClientConnection,
    ) -> Session:
        """Create a session that owns `lease`, in place of one that the connection has.

        Without UDP ports, releases the lease and raises OSError.
        """
        if (before := self._by_connection.get(connection)) is not None:
            self.end(before, "set up again")
        ports = None
        if isinstance(transport, Datagrams):
            try:
                ports = self._ports.acquire_pair(connection.local)
            except OSError:
                lease.release()
                raise
        now_s = self._loop.clock()
        session = Session(
            secrets.token_hex(8), lease, client, base, transport, ports, connection.peer, connection, now_s
        )
        self._sessions[session.id] = session
        for address in _udp_addresses(session):
            self._by_address[address] = session
        self._by_connection[connection] = session
        return session

    def find(self, name: str, connection: ClientConnection) -> Session | None:
        """The session that a request names, or without a name that of its connection.

        An interleaved session belongs to one connection only. One by UDP belongs from now on to the connection of the
        request, unless that has another session.
        """
        session = self._sessions.get(name) if name else self._by_connection.get(connection)
        if session is None or (session.connection is not connection and session.ports is None):
            return None
        if connection not in self._by_connection:
            if session.connection is not None:
                self._by_connection.pop(session.connection, None)
            session.set_connection(connection)
            self._by_connection[connection] = session
        session.on_heard(self._loop.clock())
        return session

    def on_heard(self, connection: ClientConnection) -> None:
        """The client of the connection is alive."""
        session = self._by_connection.get(connection)
        if session is not None:
            session.on_heard(self._loop.clock())

    def count_of(self, address: str) -> int:
        """The number of sessions of clients at this address."""
        network = client_network(address)
        return sum(session.network == network for session in self._sessions.values())

    def has_left(self, name: str, connection: ClientConnection) -> bool:
        """Whether the client has ended this session by UDP; without a name, that of its connection."""
        left = self._left.get(connection)
        return left is not None and name in ("", left)

    def has_session(self, connection: ClientConnection) -> bool:
        return connection in self._by_connection

    # --- playing ----------------------------------------------------------------------------------------------

    def play(self, session: Session, on_start: Callable[[AccessUnit], None]) -> None:
        """Send media; `on_start` is called with the first unit, before that is sent."""
        viewer = self._make_viewer(session, on_start)
        session.start_viewer(viewer, self._loop.clock())
        self._playing.add(session)
        kind = "TCP" if session.ports is None else "UDP"
        log.info("RTSP viewer %s connected (%s); %d connected", session.client, kind, len(self._playing))
        session.stream.add_viewer(viewer)

    def pause(self, session: Session, reason: str) -> None:
        """Send no more media; harmless if it does not play."""
        viewer = session.take_viewer()
        if viewer is None:
            return
        session.stream.remove_viewer(viewer)
        if session.connection is not None:
            session.connection.stop_media()
        self._playing.discard(session)
        log.info(
            "RTSP viewer %s disconnected (%s): %.0f s, %s sent, %d dropped; %d connected",
            session.client,
            reason,
            self._loop.clock() - session.began_s,
            counted(viewer.reader.received, "frame"),
            viewer.reader.dropped,
            len(self._playing),
        )

    def end(self, session: Session, reason: str) -> None:
        """The client ended it, or is gone. Harmless if it has ended."""
        if self._sessions.pop(session.id, None) is None:
            return
        self.pause(session, reason)
        if session.connection is not None:
            self._by_connection.pop(session.connection, None)
        for address in _udp_addresses(session):
            if self._by_address.get(address) is session:
                del self._by_address[address]
        if session.ports is not None:
            self._ports.release_pair(session.ports)
        session.lease.release()

    def disconnect(self, session: Session, reason: str) -> None:
        """The portal ends it: say so, and close the connection, so that the client connects again."""
        packet = goodbye(session.stream.ssrc)
        connection, transport = session.connection, session.transport
        if session.ports is not None:
            send_datagram(session.ports.rtcp, packet, _rtcp_address(session))
        self.end(session, reason)
        if connection is not None:
            last = interleave([packet], transport.rtcp) if isinstance(transport, Interleaved) else b""
            connection.end(reason, last)

    def disconnect_all(self, reason: str) -> None:
        for session in tuple(self._sessions.values()):
            self.disconnect(session, reason)

    def on_disconnect(self, connection: ClientConnection, reason: str) -> None:
        """A connection was closed. The session of a client by UDP may go on: its reports show whether it is there."""
        self._left.pop(connection, None)
        session = self._by_connection.pop(connection, None)
        if session is None:
            return
        session.set_connection(None)
        if session.ports is None:
            self.end(session, reason)
        session.on_heard(self._loop.clock())

    def end_silent(self) -> None:
        """End the sessions whose client is gone, and those that get no frames; about once a second."""
        now_s, limits = self._loop.clock(), self._limits
        for session in tuple(self._sessions.values()):
            timeout_s = limits.slack_s + (limits.timeout_s if session.connection is not None else 0)
            silence_s = now_s - max(session.stream.received_s, session.began_s)
            if session.viewer is not None and silence_s > limits.silence_s + 2 * session.stream.interval_s:
                self.disconnect(session, f"no frame from the camera for {silence_s:.0f} s")
            elif session.viewer is not None and session.ports is None:
                pass  # that it accepts the media shows that it is there
            elif now_s - session.heard_s > timeout_s:
                self.disconnect(session, f"no request and no receiver report for {timeout_s:g} s")

    def _make_viewer(self, session: Session, on_start: Callable[[AccessUnit], None]) -> AnyViewer:
        def on_end(reason: str) -> None:
            self.disconnect(session, reason)

        transport, connection = session.transport, session.connection
        if session.ports is not None:
            host, _, *rest = session.peer
            name = sockaddr(str(host), transport.rtp, int(rest[1]) if rest else 0)
            return UdpViewer(
                reader=session.stream.new_reader(),
                on_start=on_start,
                on_end=on_end,
                ports=session.ports,
                rtp_name=name,
                rtcp_address=_rtcp_address(session),
            )
        if connection is None or not isinstance(transport, Interleaved):
            raise RuntimeError("an interleaved session without its connection")
        return TcpViewer(
            reader=session.stream.new_reader(),
            on_start=on_start,
            on_end=on_end,
            connection=connection,
            channels=transport,
        )

    def _release_lease(self, lease: StreamLease) -> None:
        if lease not in self._leases:
            return
        release = self._leases.pop(lease)
        if not any(each.stream is lease.stream for each in self._leases):
            lease.stream.detach_encoder()
        if release is not None:
            release()

    def _on_report(self, ports: PortPair, address: PeerAddress, data: bytes) -> None:
        session = self._by_address.get((ports, address))
        if session is None or not is_report_on(session.stream.ssrc, data):
            return
        session.on_heard(self._loop.clock())
        if session.is_sender_known(data) and is_goodbye(data):
            if session.connection is not None:
                self._left[session.connection] = session.id
            self.end(session, "goodbye by RTCP")

    def _on_room(self, ports: PortPair) -> None:
        for stream in self._streams:
            stream.send_rest(ports)


def _rtcp_address(session: Session) -> tuple[str | int, ...]:
    """As a socket expects it; of IPv6 with flow information and scope."""
    host, _, *rest = session.peer
    return host, session.transport.rtcp, *rest


def _udp_addresses(session: Session) -> list[tuple[PortPair, PeerAddress]]:
    """Where reports of the client come from: its RTCP port, for some clients that of RTP."""
    if session.ports is None:
        return []
    host = str(session.peer[0])
    return [(session.ports, (host, port)) for port in (session.transport.rtcp, session.transport.rtp)]
