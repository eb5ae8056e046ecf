"""Who may come in: the API key in its three forms."""

import base64
import hashlib
import hmac
from email.message import Message
from http import HTTPStatus
from typing import Final

from softcam.web.messages import HttpError

_CHALLENGE: Final = {"WWW-Authenticate": 'Basic realm="camera", charset="UTF-8"'}


class Access:
    """Knows the key as a digest only; without a key everyone may come in."""

    def __init__(self, api_key: str | None) -> None:
        self._digest = None if api_key is None else _digest(api_key)

    def check(self, headers: Message) -> None:
        """Raises HttpError 401 unless one of `X-API-Key`, `Authorization: Bearer` or Basic (password) is the key.

        The challenge is Basic, so a browser asks by itself; any user name does.
        """
        if self._digest is None:
            return
        # All are compared, whichever is right, and as digests: neither which one nor how much of it was right is told.
        offered = [headers.get("X-API-Key"), *_from_authorization(headers.get("Authorization"))]
        matches = [hmac.compare_digest(self._digest, _digest(key)) for key in offered if key is not None]
        if not any(matches):
            raise HttpError(
                HTTPStatus.UNAUTHORIZED,
                "an API key is needed: X-API-Key, Authorization: Bearer, or Basic with the key as the password",
                _CHALLENGE,
            )


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
