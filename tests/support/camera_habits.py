"""MJPEG as cameras and their firmware send it, by the public report that describes it; browsers show all of them."""

from tests.support.mjpeg_server import HABITS, SMALL, chunked, head, part

_PARTS = [part(SMALL) for _ in range(6)]
_MANY = b"".join(_PARTS)
_FIRST_BOUNDARY = b"--frame\r\n"


def _with(old: bytes, new: bytes) -> bytes:
    """A usual stream with another spelling in each part."""
    assert old in _PARTS[0]
    return head() + b"".join(one.replace(old, new) for one in _PARTS)


CAMERA_HABITS = {
    "no boundary before the first part (esp32cam#67)": head() + _MANY[len(_FIRST_BOUNDARY) :] + _FIRST_BOUNDARY,
    "boundary behind the part (Tasmota#12376, arduino-esp32#3720)": head()
    + b"".join(one[len(_FIRST_BOUNDARY) :] + _FIRST_BOUNDARY for one in _PARTS),
    "part type with a parameter (zoneminder#692)": _with(b"image/jpeg", b"image/jpeg;size=1234"),
    "part type image/jpg": _with(b"image/jpeg", b"image/jpg"),
    "part type missing": _with(b"Content-Type: image/jpeg\r\n", b""),
    "part headers missing": head() + b"".join(_FIRST_BOUNDARY + b"\r\n" + SMALL + b"\r\n" for _ in _PARTS),
    "part headers and empty line missing": head() + b"".join(_FIRST_BOUNDARY + SMALL + b"\r\n" for _ in _PARTS),
    "multipart/mixed (zoneminder#481)": head("multipart/mixed;boundary=frame") + _MANY,
    "blank before the equal sign (motion#1187)": head("multipart/x-mixed-replace; boundary =frame") + _MANY,
    "dashes are part of the boundary (py-mjpeg#2)": head("multipart/x-mixed-replace; boundary=--frame") + _MANY,
    "dashes behind each boundary (go2rtc#545)": _with(b"--frame", b"--frame--"),
    "boundary twice (go2rtc#1258)": _with(_FIRST_BOUNDARY, _FIRST_BOUNDARY * 2),
    "no line end behind the boundary (viseron#355)": _with(_FIRST_BOUNDARY, b"--frame"),
    "boundary with other quotes": head("multipart/x-mixed-replace; boundary='frame'") + _MANY,
    "length too small (webcam-capture#441)": _with(b"Content-Length: ", b"Content-Length: 0"[:-1] + b"1\r\nX: "),
    "length too large": _with(b"Content-Length: ", b"Content-Length: 9"),
    "length not a number": _with(b"Content-Length: ", b"Content-Length: unknown "),
    "length without a blank": _with(b"Content-Length: ", b"content-length:"),
    "more fields in a part (Paparazzo.js#11)": _with(b"\r\n\r\n", b"\r\nX-Status: 0\r\nX-Tags: \r\n\r\n"),
    "zeros behind the image": head() + b"".join(one + bytes(300) for one in _PARTS),
    "octet-stream of images (mjpeg-readable-stream#6)": head("application/octet-stream") + SMALL * 6,
    "no type at all (MissionPlanner#3604)": b"HTTP/1.1 200 OK\r\n\r\n" + _MANY,
    "several images as image/jpeg": head("image/jpeg") + SMALL * 6,
    "length of the whole stream": head(extra=["Content-Length: 100"]) + _MANY,
    "header line that is not a field (home-assistant#14960)": head(extra=["Tue, 12 Jun 2012 01:56:34 GMT"]) + _MANY,
    "blank before the colon": head().replace(b"Content-Type:", b"Content-Type :") + _MANY,
    "status without a reason": head().replace(b" OK", b"") + _MANY,
    "ICY": head().replace(b"HTTP/1.1", b"ICY") + _MANY,
    "empty lines before the status": b"\r\n\r\n" + head() + _MANY,
    "header of LF, parts of CRLF": head(end="\n") + _MANY,
    "chunked in HTTP/1.0": head(version="1.0", extra=["Transfer-Encoding: chunked"]) + chunked(_MANY),
    "audio between the images": head()
    + b"".join(one + b"--frame\r\nContent-Type: audio/basic\r\n\r\n" + bytes(range(256)) * 3 for one in _PARTS),
    "no end marker (mjpg-streamer#47)": head() + b"".join(part(SMALL[:-2]) for _ in range(6)),
    "no end marker, no header": head() + b"".join(_FIRST_BOUNDARY + SMALL[:-2] + b"\r\n" for _ in _PARTS),
    "no end marker, nothing between the images": head("video/x-motion-jpeg") + SMALL[:-2] * 6,
    "no end marker, zeros behind the image": head() + b"".join(part(SMALL[:-2] + bytes(300)) for _ in range(6)),
} | HABITS
