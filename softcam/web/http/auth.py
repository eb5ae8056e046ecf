"""Access control: API keys in their three forms, and the rejection of changes from other origins. Any thread."""

import base64
import hmac
from collections.abc import Collection
from contextlib import suppress
from email.message import Message
from http import HTTPStatus
from typing import Final

from softcam.net.key_brake import CheckKey, Verdict, check_without_brake, key_digest
from softcam.web.http.cors import AllowedOrigins
from softcam.web.http.csrf import CsrfGuard
from softcam.web.http.messages import HttpError

_CHALLENGE: Final = {"WWW-Authenticate": 'Basic realm="camera", charset="UTF-8"'}


class WrongKey(HttpError):
    """401 for a request with a wrong key; the response is sent after `delay_s`. After a delay, it is the last one."""

    def __init__(self, detail: str, delay_s: float) -> None:
        super().__init__(HTTPStatus.UNAUTHORIZED, detail, _CHALLENGE)
        self.delay_s = delay_s


class TooManyWrongKeys(HttpError):
    """429 for a request whose key was not compared; the connection is to be closed."""

    def __init__(self, retry_s: int) -> None:
        detail = "too many wrong keys from this address: the key was not compared; try again later"
        super().__init__(HTTPStatus.TOO_MANY_REQUESTS, detail, {"Retry-After": str(retry_s)})


class AccessControl:
    """Holds the keys as digests only. Without a key, access is unrestricted."""

    def __init__(
        self,
        api_key: str | None,
        view_key: str | None = None,
        csrf: CsrfGuard | None = None,
        check_key: CheckKey = check_without_brake,
    ) -> None:
        """`view_key` grants read-only access. With a view key alone, nobody can change anything.

        `check_key` is that of the brake, which decides whether keys are compared.
        """
        self._csrf = csrf or CsrfGuard()
        self._check_key = check_key
        self._digest = None if api_key is None else key_digest(api_key)
        self._view_digest = None if view_key is None else key_digest(view_key)

    @property
    def allowed_origins(self) -> AllowedOrigins:
        return self._csrf.allowed_origins

    @property
    def requires_key(self) -> bool:
        return self._digest is not None or self._view_digest is not None

    def authorize(
        self,
        headers: Message,
        client: str,
        *,
        is_change: bool = False,
        is_private: bool = False,
        query_key: str | None = None,
    ) -> None:
        """Raises HttpError 401 unless `X-API-Key`, `Authorization: Bearer` or Basic (as the password) has a valid key.

        WrongKey or TooManyWrongKeys, where the request has a key; browsers send their first request without one.
        `query_key` is one in the URL, which histories and logs may store: only the view key is accepted there. Raises
        HttpError 403 if the key is read-only and the request is a change, or for something private. The challenge is
        Basic, so a browser shows its password dialog; any user name is accepted.
        """
        if not self.requires_key:
            return
        # Every pair is compared, in constant time and as digests: the time reveals neither which key matched nor how
        # much of it.
        texts = [headers.get("X-API-Key"), *_from_authorization(headers.get("Authorization"))]
        offered = [key_digest(text) for text in texts if text]
        in_query = [key_digest(query_key)] if query_key else []
        verdict = self._check(client, offered, in_query)
        may_change = verdict is not None and verdict.key is not None and verdict.key == self._digest
        if verdict is None or verdict.key is None:
            forms = "X-API-Key, Authorization: Bearer, or Basic with the key as the password"
            detail = f"an API key is required: {forms}"
            if offered:
                detail = "the API key is wrong: must be the value of CAMERA_API_KEY or CAMERA_VIEW_KEY"
            elif in_query:
                detail = "key: must be the value of CAMERA_VIEW_KEY; that of CAMERA_API_KEY is not accepted in a URL"
            if verdict is not None:
                raise TooManyWrongKeys(verdict.retry_s) if verdict.retry_s else WrongKey(detail, verdict.delay_s)
            raise HttpError(HTTPStatus.UNAUTHORIZED, detail, _CHALLENGE)
        if (is_change or is_private) and not may_change:
            is_set = "the key of CAMERA_API_KEY" if self._digest else "CAMERA_API_KEY, which is not set"
            what = "changes require" if is_change else "this address requires"
            raise HttpError(HTTPStatus.FORBIDDEN, f"this key is read-only: {what} {is_set}")

    def _check(self, client: str, offered: list[bytes], in_query: list[bytes]) -> Verdict | None:
        """None where the request has no key."""

        def compare(usable: Collection[bytes] | None) -> bytes | None:
            known = self._digest, self._view_digest
            api, view = (key if usable is None or key in usable else None for key in known)
            may_change, may_read = _is_among(api, offered), _is_among(view, offered + in_query)
            return api if may_change else view if may_read else None

        return self._check_key(client, compare) if offered or in_query else None

    def reject_cross_origin(self, headers: Message) -> None:
        """Raises HttpError 403 for a change requested by a page of another origin; non-browser clients pass."""
        self._csrf.reject_cross_origin(headers)
        if not self.requires_key:  # a browser stores a key per host name, so a rebound name has no key to send
            self._csrf.reject_dns_rebinding(headers)


def _is_among(digest: bytes | None, offered: list[bytes]) -> bool:
    matches = [digest is not None and hmac.compare_digest(digest, each) for each in offered]
    return any(matches)


def _from_authorization(value: str | None) -> list[str]:
    scheme, _, credentials = (value or "").partition(" ")
    match scheme.lower():
        case "bearer":
            return [credentials.strip(" \t")]
        case "basic":
            with suppress(ValueError):  # not Base64, or not UTF-8 inside
                _, colon, password = base64.b64decode(credentials.strip(" \t"), validate=True).decode().partition(":")
                return [password] if colon else []
    return []
