"""Who may come in: the keys in their three forms, and pages, of which those from elsewhere may change nothing."""

import base64
import hashlib
import hmac
from email.message import Message
from http import HTTPStatus
from typing import Final

from softcam.web.http.csrf import Origins
from softcam.web.http.messages import HttpError

_CHALLENGE: Final = {"WWW-Authenticate": 'Basic realm="camera", charset="UTF-8"'}


class Access:
    """Knows the keys as digests only; without any everyone may come in."""

    def __init__(self, api_key: str | None, view_key: str | None = None, origins: Origins | None = None) -> None:
        """`view_key` opens what only looks. With it alone nobody may change anything."""
        self._origins = origins or Origins()
        self._digest = None if api_key is None else _digest(api_key)
        self._view_digest = None if view_key is None else _digest(view_key)

    @property
    def is_closed(self) -> bool:
        """Whether a key is needed."""
        return self._digest is not None or self._view_digest is not None

    def check(self, headers: Message, *, is_change: bool = False) -> None:
        """Raises HttpError 401 unless one of `X-API-Key`, `Authorization: Bearer` or Basic (password) is a key.

        403 where it is one that only looks, and `is_change`. The challenge is Basic, so a browser asks by itself; any
        user name does.
        """
        if not self.is_closed:
            return
        # All are compared, whichever is right, and as digests: neither which one nor how much of it was right is told.
        texts = [headers.get("X-API-Key"), *_from_authorization(headers.get("Authorization"))]
        offered = [_digest(text) for text in texts if text is not None]
        may_change = _is_among(self._digest, offered)
        may_look = _is_among(self._view_digest, offered)
        if not may_change and not may_look:
            raise HttpError(
                HTTPStatus.UNAUTHORIZED,
                "an API key is needed: X-API-Key, Authorization: Bearer, or Basic with the key as the password",
                _CHALLENGE,
            )
        if is_change and not may_change:
            raise HttpError(HTTPStatus.FORBIDDEN, "this key may look and change nothing")

    def reject_cross_origin(self, headers: Message) -> None:
        """Raises HttpError 403 for a change that a page from elsewhere asks for; programs are none."""
        self._origins.reject_cross_origin(headers)
        if not self.is_closed:  # a browser keeps a key for one name, so under another one it has none to show
            self._origins.reject_dns_rebinding(headers)


def _is_among(digest: bytes | None, offered: list[bytes]) -> bool:
    matches = [digest is not None and hmac.compare_digest(digest, each) for each in offered]
    return any(matches)


def _from_authorization(value: str | None) -> list[str]:
    if value is None:
        return []
    scheme, _, credentials = value.strip().partition(" ")
    credentials = credentials.strip()
    if scheme.lower() == "bearer":
        return [credentials]
    if scheme.lower() == "basic":
        try:
            _, colon, password = base64.b64decode(credentials, validate=True).decode().partition(":")
        except ValueError:  # not Base64, not even ASCII, or not UTF-8 within
            return []
        return [password] if colon else []
    return []


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
