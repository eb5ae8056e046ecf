"""The exceptions of the RTSP client, raised on the publisher's thread.

RtspError           the stream cannot be published; another try may succeed
└── RtspRejected    the server answered and refused; frequent tries do not help
Cancelled           the connection is no longer needed
"""


class RtspError(Exception):
    """The stream cannot be published. The message states the reason and contains no secret."""


class RtspRejected(RtspError):
    """The server answered and refused the request."""


class Cancelled(Exception):
    """The connection is no longer needed; ends a wait."""
