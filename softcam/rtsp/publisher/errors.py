"""The exceptions of the RTSP client, raised on the publisher's thread.

RtspError           the stream cannot be published; another try may succeed
├── RtspEnded       the server ended the session, or closed the connection
└── RtspRejected    the server answered and refused; frequent tries do not help
Cancelled           the connection is no longer needed
"""


class RtspError(Exception):
    """The stream cannot be published. The message states the reason and contains no secret."""


class RtspEnded(RtspError):
    """The server ended the session, or closed the connection."""


class RtspRejected(RtspError):
    """The server answered and refused the request."""


class Cancelled(Exception):
    """The connection is no longer needed; ends a wait."""
