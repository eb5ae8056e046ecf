"""Answers the requests of RTSP clients (RFC 2326, 10). Runs on the event loop; no socket here.

    DESCRIBE (opens the camera) -> SETUP (session) -> PLAY (viewer) -> PAUSE, TEARDOWN

A response that has to wait, for the encoder's first frame or for the next keyframe, is sent later. What is accepted
beyond the RFC, and why: docs/decisions/0019.
"""

import hmac
import logging
import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

from softcam import __version__
from softcam.errors import CameraError
from softcam.net.event_loop import EventLoop
from softcam.net.key_brake import NO_KEY, CheckKey, Verdict, key_digest, usable_keys
from softcam.rtsp.rtp import describe
from softcam.rtsp.server.client import Client
from softcam.rtsp.server.requests import TRACK, Request, Target, format_response, read_target
from softcam.rtsp.server.sessions import Session, Sessions
from softcam.rtsp.server.stream import RtpStream
from softcam.rtsp.server.transport import choose_transport
from softcam.rtsp.server.viewers import AccessUnit, TcpViewer
from softcam.runtime.address import is_loopback, url_host
from softcam.runtime.http_auth import challenges, has_old_nonce, has_password
from softcam.runtime.log_limit import RateLimitedLogger
from softcam.runtime.shares import limit_reason

log = logging.getLogger(__name__)

METHODS: Final = ("OPTIONS", "DESCRIBE", "SETUP", "PLAY", "PAUSE", "GET_PARAMETER", "SET_PARAMETER", "TEARDOWN")
_OTHER_METHODS: Final = frozenset({"ANNOUNCE", "RECORD", "REDIRECT"})  # of RTSP, and not for viewers
_PUBLIC: Final = ", ".join(METHODS)
_REALM: Final = "camera"
_RETRY_SOON: Final = ("Retry-After", "5")
_NO_SESSION: Final = "Session: must be that of a SETUP, and not have ended"
_SESSION_LINES: Final = ("a=tool:Soft Stream", "a=type:broadcast", "a=control:*", "a=range:npt=0-")

Fields = list[tuple[str, str]]
_NO_FIELDS: Final[Fields] = []


@dataclass(frozen=True, slots=True)
class HandlerLimits:
    """Times in seconds."""

    max_viewers: int = 200
    max_per_address: int = 50  # viewers, and connections
    is_exempt: Callable[[str], bool] = is_loopback  # from the limit of each address
    describe_s: float = 5.0  # for the camera to open
    play_s: float = 2.0  # for a keyframe; then the response has no RTP-Info


class RequestHandler:
    """Answers one request after the other of each client."""

    def __init__(
        self,
        loop: EventLoop,
        streams: Mapping[str, RtpStream],
        sessions: Sessions,
        passwords: tuple[str, ...],
        state: Callable[[], str],
        limits: HandlerLimits,
        name: str,
        check_key: CheckKey,
    ) -> None:
        """`streams` by path; `state` returns that of the camera, for error messages; `name` is that of the session.

        `check_key` is that of the brake, which decides whether keys are compared.
        """
        self._loop = loop
        self._streams = streams
        self._sessions = sessions
        self._passwords = passwords
        self._state = state
        self._limits = limits
        self._name = name
        self._nonce_key = secrets.token_bytes(16)
        self._check_key = check_key
        self._no_picture_log = RateLimitedLogger(log)

    def handle(self, client: Client, request: Request) -> None:
        """Respond to a request, now or later."""
        if request.protocol == "HTTP":
            text = b"This is an RTSP server: open the address with rtsp:// in a player.\n"
            head = f"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: {len(text)}\r\n"
            client.connection.end("HTTP", f"{head}Connection: close\r\n\r\n".encode() + text)
        elif request.version[0] != 1:
            self._respond(client, request, 505)
        elif request.cseq is None:
            self._refuse(client, request, 400, "CSeq: must be a number")
        elif required := [
            each for name in ("require", "proxy-require") for each in request.fields.get(name, ()) if each
        ]:
            self._respond(client, request, 551, [("Unsupported", each) for each in required])
        elif request.method in _OTHER_METHODS:
            self._respond(client, request, 405, [("Allow", _PUBLIC)])
        elif request.method not in METHODS:
            self._respond(client, request, 501, [("Public", _PUBLIC)])
        elif request.method == "OPTIONS":
            self._respond(client, request, 200, [("Public", _PUBLIC)])
        elif self._is_authorized(client, request):
            self._handle_authorized(client, request)

    def on_stream_change(self, client: Client, stream: RtpStream, error: CameraError | None) -> None:
        """There is a format, or the encoder cannot be started."""
        if not client.is_awaiting_description(stream):
            return
        if error is None:
            self._send_description(client, stream)
        else:
            self.refuse_description(client, str(error))

    def refuse_description(self, client: Client, reason: str) -> None:
        """Respond to a DESCRIBE that waits, if there is one, and release the camera."""
        description = client.take_description()
        client.release_lease()
        if description is not None:
            self._refuse_unavailable(client, description[0], reason)

    def _is_authorized(self, client: Client, request: Request) -> bool:
        """Whether the client may go on; otherwise a response was sent."""
        offered = request.field("authorization")
        if not self._passwords or (client.is_authorized and not offered):
            return True
        # One nonce for all connections of an address: a player that tries UDP and then TCP, on another connection,
        # sends what it has computed for the first.
        nonce = hmac.new(self._nonce_key, client.address.encode(), "sha256").hexdigest()[:32]

        def compare(usable: Collection[bytes] | None) -> bytes | None:
            passwords = usable_keys(self._passwords, usable)
            for password in passwords:
                if has_password(offered, request.method, nonce, (password,)):
                    return key_digest(password)
            return NO_KEY if has_old_nonce(offered, request.method, nonce, passwords) else None

        verdict = self._check_key(client.address, compare) if offered else Verdict()
        if verdict.key:
            client.authorize()
            return True
        is_stale = verdict.key == NO_KEY
        fields = [("WWW-Authenticate", each) for each in challenges(_REALM, nonce, is_stale=is_stale)]
        if verdict.retry_s:
            last = [("Retry-After", str(verdict.retry_s)), ("Connection", "close")]
            self._refuse(client, request, 503, "too many wrong keys from this address", last)
            client.connection.end("too many wrong keys")
        elif delay_s := verdict.delay_s:
            client.defer_response(self._loop.call_later(delay_s, lambda: self._respond(client, request, 401, fields)))
        else:
            self._respond(client, request, 401, fields)
        return False

    def _handle_authorized(self, client: Client, request: Request) -> None:
        try:
            if request.method in ("DESCRIBE", "SETUP"):
                self._handle_stream(client, request)
            else:
                self._handle_session(client, request)
        except CameraError as error:
            self._refuse_unavailable(client, request, str(error))

    def _handle_stream(self, client: Client, request: Request) -> None:
        target = read_target(request.url)
        stream = None if target is None else self._streams.get(target.path)
        if target is None:
            self._refuse(client, request, 400, "URL: must be rtsp://HOST:PORT/PATH")
        elif stream is None:
            paths = ", ".join(f"/{path}" for path in self._streams)
            self._refuse(client, request, 404, f"path: must be one of {paths}")
        elif request.method == "SETUP":
            self._set_up(client, request, target, stream)
        elif not _accepts_description(request):
            self._refuse(client, request, 406, "Accept: must include application/sdp")
        else:
            self._describe(client, request, target, stream)

    def _handle_session(self, client: Client, request: Request) -> None:
        session = self._sessions.find(request.session, client.connection)
        match request.method:
            case "GET_PARAMETER" if session is not None or not request.session:
                self._respond(client, request, 200, session=session)  # a sign of life
            case "SET_PARAMETER" if session is not None or not request.session:
                self._respond(client, request, 451 if request.body.strip() else 200, session=session)
            case "TEARDOWN" if session is None and self._sessions.has_left(request.session, client.connection):
                self._respond(client, request, 200)
            case _ if session is None:
                self._refuse(client, request, 454, _NO_SESSION)
            case "PLAY":
                self._play(client, request, session)
            case "PAUSE":
                self._sessions.pause(session, "paused")
                self._respond(client, request, 200, session=session)
            case "TEARDOWN":
                self._sessions.end(session, "closed by the client")
                self._respond(client, request, 200)

    # --- responses --------------------------------------------------------------------------------------------

    def _respond(
        self,
        client: Client,
        request: Request,
        status: int,
        fields: Fields = _NO_FIELDS,
        body: bytes = b"",
        *,
        session: Session | None = None,
    ) -> None:
        head: Fields = [] if request.cseq is None else [("CSeq", request.cseq)]
        head.append(("Server", f"Soft Stream {__version__}"))
        if session is not None:
            head.append(("Session", f"{session.id};timeout={self._sessions.timeout_s:g}"))
        log.debug("RTSP client %s: %s %d", client.address, request.method, status)
        client.connection.respond(format_response(status, [*head, *fields], body))

    def _refuse(self, client: Client, request: Request, status: int, reason: str, fields: Fields = _NO_FIELDS) -> None:
        content = [*fields, ("Content-Type", "text/plain; charset=utf-8")]
        self._respond(client, request, status, content, f"{reason}\r\n".encode("utf-8", "replace"))

    def _refuse_unavailable(self, client: Client, request: Request, reason: str) -> None:
        self._no_picture_log.warning("RTSP client %s rejected: %s", client.address, reason)
        self._refuse(client, request, 503, reason, [_RETRY_SOON])

    # --- DESCRIBE ---------------------------------------------------------------------------------------------

    def _describe(self, client: Client, request: Request, target: Target, stream: RtpStream) -> None:
        lease = client.take_lease(stream)
        if lease is None:
            client.release_lease()
            lease = self._sessions.acquire_lease(stream, lambda error: self.refuse_description(client, str(error)))
        client.begin_description(lease, request, target, self._loop.clock())
        if stream.is_live:
            self._send_description(client, stream)
        else:
            client.defer_response(
                self._loop.call_later(self._limits.describe_s, lambda: self._on_describe_timeout(client))
            )

    def _on_describe_timeout(self, client: Client) -> None:
        seconds = f"{self._limits.describe_s:g} s"
        self.refuse_description(client, f"no frame from the camera within {seconds} (it is {self._state()})")

    def _send_description(self, client: Client, stream: RtpStream) -> None:
        description = client.take_description()
        if description is None or (fmt := stream.fmt) is None:
            return
        request, target = description
        host = client.server_address
        body = describe(
            fmt,
            client.number,
            host,
            TRACK,
            name=self._name,
            destination="::" if ":" in host else "0.0.0.0",
            session_lines=_SESSION_LINES,
            bitrate=stream.bitrate,
        )
        fields = [
            ("Content-Base", _base_of(client, target)),
            ("Content-Type", "application/sdp"),
            ("Cache-Control", "no-cache"),
        ]
        self._respond(client, request, 200, fields, body)

    # --- SETUP and PLAY ---------------------------------------------------------------------------------------

    def _set_up(self, client: Client, request: Request, target: Target, stream: RtpStream) -> None:
        before = self._sessions.find(request.session, client.connection)
        if request.session and before is None:
            self._refuse(client, request, 454, _NO_SESSION)
            return
        if before is not None and before.viewer is not None:
            self._refuse(client, request, 455, "SETUP: must be sent before PLAY, or after PAUSE")
            return
        transport = choose_transport(request.fields.get("transport", ()))
        if transport is None:
            self._refuse(client, request, 461, "Transport: must be RTP/AVP/TCP, or RTP/AVP;unicast;client_port=A-B")
            return
        if before is None and (reason := self._limit_reason(client)):
            self._refuse_unavailable(client, request, reason)
            return
        lease = client.take_lease(stream) or self._sessions.acquire_lease(stream, lambda _: None)
        if before is not None:
            self._sessions.end(before, "set up again")
        try:
            session = self._sessions.create(
                lease, client.address, _base_of(client, target), transport, client.connection
            )
        except OSError as error:
            self._refuse_unavailable(client, request, f"no UDP ports: {error.strerror or error}")
            return
        self._respond(client, request, 200, [("Transport", session.transport_header)], session=session)

    def _limit_reason(self, client: Client) -> str | None:
        """Why the client gets no session; None if it may have one."""
        limits, sessions = self._limits, self._sessions
        if len(sessions) >= limits.max_viewers:
            return f"viewer limit reached ({limits.max_viewers}); disconnect a viewer, or raise --max-clients"
        if not limits.is_exempt(client.address) and sessions.count_of(client.address) >= limits.max_per_address:
            return limit_reason("viewers", limits.max_per_address)
        return None

    def _play(self, client: Client, request: Request, session: Session) -> None:
        if session.viewer is not None:
            self._respond(client, request, 200, session=session)
            return

        def on_start(unit: AccessUnit) -> None:
            if timer.is_pending:  # otherwise the response has been sent, or the connection has ended
                timer.cancel()
                self._accept_play(client, request, session, unit)

        timer = self._loop.call_later(self._limits.play_s, lambda: self._accept_play(client, request, session, None))
        client.defer_response(timer)
        self._sessions.play(session, on_start)

    def _accept_play(self, client: Client, request: Request, session: Session, unit: AccessUnit | None) -> None:
        """With the first unit, or, where the keyframe takes too long, without one."""
        viewer = session.viewer
        if viewer is None:  # another connection has ended or paused it meanwhile
            self._refuse(client, request, 454, _NO_SESSION)
            return
        fields = [("Range", "npt=0.000-")]
        if unit is not None:
            fields.append(("RTP-Info", f"url={session.base}{TRACK};seq={unit.sequence};rtptime={unit.timestamp}"))
        if isinstance(viewer, TcpViewer):
            # From here on the connection sends media, after the response.
            client.connection.start_media(lambda: session.stream.next_part(viewer))
        self._respond(client, request, 200, fields, session=session)


def _base_of(client: Client, target: Target) -> str:
    """The URL of the stream, which ends with a slash; with the server's address where the request has none."""
    if target.base:
        return target.base
    host, port, *_ = client.connection.local
    return f"rtsp://{url_host(str(host))}:{port}/{f'{target.path}/' if target.path else ''}"


def _accepts_description(request: Request) -> bool:
    accepted = ",".join(request.fields.get("accept", ())).lower()
    return not accepted.strip() or "application/sdp" in accepted or "*" in accepted
