"""Digest and Basic authentication of HTTP and RTSP: a client's credentials, and a server's check of them.

Pure functions but for the client's nonce; any thread.
"""

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Final

_ALGORITHMS: Final = ("SHA-256", "MD5")  # the strongest first
_ALGORITHM_BY_LENGTH: Final = {64: "SHA-256", 32: "MD5"}  # of the response
# FFmpeg and GStreamer do not escape quotation marks: the last one is before a comma or the end.
# A name begins behind another character, so that the time is linear for any input.
_FIELD: Final = re.compile(r'(?<![\w-])([\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.|"(?!\s*(?:,|$)))*)"|([^\s,"]+))')
_ESCAPED: Final = re.compile(r"\\(.)")


def authorization(challenges: Sequence[str], method: str, url: str, credentials: tuple[str, str], count: int) -> str:
    """The value of `Authorization` for the strongest challenge (RFC 7616, 7617); `count` is the nonce count.

    Raises ValueError if no challenge is supported.
    """
    user, password = credentials
    for algorithm in _ALGORITHMS:
        for challenge in challenges:
            scheme, _, text = challenge.partition(" ")
            fields = _fields_of(text)
            if scheme.lower() != "digest" or fields.get("algorithm", "MD5").upper() != algorithm:
                continue
            realm, nonce = fields.get("realm", ""), fields.get("nonce", "")
            secret = _digest(algorithm, user, realm, password)
            request = _digest(algorithm, method, url)
            values = {"username": _escape(user), "realm": realm, "nonce": nonce, "uri": _escape(url)}
            tail = f", algorithm={algorithm}" if "algorithm" in fields else ""
            if "auth" in re.split(r"[\s,]+", fields.get("qop", "")):
                own, number = secrets.token_hex(8), f"{count:08x}"
                values["cnonce"] = own
                values["response"] = _digest(algorithm, secret, nonce, number, own, "auth", request)
                tail += f", qop=auth, nc={number}"
            else:
                values["response"] = _digest(algorithm, secret, nonce, request)
            if "opaque" in fields:
                values["opaque"] = fields["opaque"]
            return "Digest " + ", ".join(f'{name}="{value}"' for name, value in values.items()) + tail
    if any(challenge.partition(" ")[0].lower() == "basic" for challenge in challenges):
        return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    raise ValueError("unsupported authentication scheme (401)")


def challenges(realm: str, nonce: str, *, is_stale: bool = False) -> list[str]:
    """The values of `WWW-Authenticate`, each for a separate header line; `is_stale` after `has_old_nonce`.

    SHA-256, MD5, Basic: FFmpeg, GStreamer and live555 use the last Digest challenge, and FFmpeg and live555 know MD5
    only. A client that looks at the first one alone may compute either, since the nonce is the same. live555 finds
    `stale` only behind `nonce`.
    """
    fields = f'Digest realm="{realm}", nonce="{nonce}"{", stale=true" if is_stale else ""}, algorithm='
    return [f"{fields}SHA-256", f"{fields}MD5", f'Basic realm="{realm}"']


def has_password(value: str, method: str, nonce: str, passwords: Sequence[str]) -> bool:
    """Whether `Authorization` has one of the passwords, with any user name.

    Every password is compared, in constant time. The URI is that of the `uri` field: clients differ in what they put
    there.
    """
    scheme, text = _credentials_of(value)
    if scheme == "basic":
        try:
            # The user name may be in any encoding.
            decoded = base64.b64decode(text, validate=True).decode("utf-8", "surrogateescape")
        except ValueError:
            return False
        _, colon, offered = decoded.partition(":")
        return bool(colon) & _is_among(offered, passwords)
    fields = _fields_of(text)
    return scheme == "digest" and fields.get("nonce") == nonce and _has_response(fields, method, passwords)


def has_old_nonce(value: str, method: str, nonce: str, passwords: Sequence[str]) -> bool:
    """Whether the password is right, but the nonce is another one: from before a restart, for example."""
    scheme, text = _credentials_of(value)
    fields = _fields_of(text)
    is_other = scheme == "digest" and fields.get("nonce", nonce) != nonce
    return is_other and _has_response(fields, method, passwords)


def _has_response(fields: Mapping[str, str], method: str, passwords: Sequence[str]) -> bool:
    response = fields.get("response", "").lower()
    # Not by the field: there are clients that repeat the algorithm of a challenge, and always compute MD5.
    algorithm = _ALGORITHM_BY_LENGTH.get(len(response))
    if algorithm is None:
        return False
    user, realm = fields.get("username", ""), fields.get("realm", "")
    request = _digest(algorithm, method, fields.get("uri", ""))
    middle = [fields.get("nonce", "")]
    if "qop" in fields:
        middle += [fields.get("nc", ""), fields.get("cnonce", ""), fields["qop"]]
    # Clients hash the user name as they send it, or without the escapes.
    expected = [
        _digest(algorithm, _digest(algorithm, name, realm, password), *middle, request)
        for name in dict.fromkeys((user, _ESCAPED.sub(r"\1", user)))
        for password in passwords
    ]
    return _is_among(response, expected)


def _credentials_of(value: str) -> tuple[str, str]:
    """The scheme in lower case, and what follows."""
    # Header fields are read as Latin-1, and clients send UTF-8.
    text = value.encode("latin-1", "replace").decode("utf-8", "surrogateescape")
    scheme, _, rest = text.strip().partition(" ")
    return scheme.lower(), rest.strip()


def _fields_of(text: str) -> dict[str, str]:
    """The fields by their names in lower case; quoted values with their escapes."""
    return {name.lower(): quoted or plain for name, quoted, plain in _FIELD.findall(text)}


def _is_among(offered: str, accepted: Sequence[str]) -> bool:
    # As digests: the time reveals no length. In a list first: every pair is compared.
    offered = _hash("SHA-256", offered)
    matches = [hmac.compare_digest(offered, _hash("SHA-256", each)) for each in accepted]
    return any(matches)


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _digest(algorithm: str, *parts: str) -> str:
    return _hash(algorithm, ":".join(parts))


def _hash(algorithm: str, text: str) -> str:
    name = algorithm.replace("-", "")
    return hashlib.new(name, text.encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest()
