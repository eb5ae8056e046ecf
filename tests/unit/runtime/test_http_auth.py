"""Responses to the challenges of servers."""

import hashlib
import re

import pytest

from softcam.runtime.http_auth import authorization

# The examples of RFC 7616, 3.9.1, for both algorithms; the client's nonce differs.
RFC_7616 = 'realm="http-auth@example.org", qop="auth, auth-int", nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v"'


def fields_of(value: str) -> dict[str, str]:
    return {name: quoted or plain for name, quoted, plain in re.findall(r'(\w+)=(?:"([^"]*)"|([^\s,]+))', value)}


@pytest.mark.parametrize("algorithm", ["MD5", "SHA-256"])
def test_ok_digest(algorithm: str) -> None:
    challenge = f'Digest {RFC_7616}, algorithm={algorithm}, opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
    answer = authorization((challenge,), "GET", "/dir/index.html", ("Mufasa", "Circle of Life"), 1)
    fields = fields_of(answer)

    def digest(text: str) -> str:
        return (hashlib.md5 if algorithm == "MD5" else hashlib.sha256)(text.encode()).hexdigest()

    secret = digest("Mufasa:http-auth@example.org:Circle of Life")
    expected = digest(f"{secret}:{fields['nonce']}:00000001:{fields['cnonce']}:auth:{digest('GET:/dir/index.html')}")
    assert fields["response"] == expected
    assert (fields["algorithm"], fields["nc"], fields["qop"]) == (algorithm, "00000001", "auth")
    assert fields["opaque"].startswith("FQhe")


def test_ok_digest_of_rfc_2069() -> None:
    """Without qop, as RTSP servers send it."""
    answer = authorization(('Digest realm="r", nonce="n"',), "ANNOUNCE", "rtsp://pi/cam", ("me", "it"), 3)
    secret = hashlib.md5(b"me:r:it").hexdigest()
    request = hashlib.md5(b"ANNOUNCE:rtsp://pi/cam").hexdigest()
    assert fields_of(answer)["response"] == hashlib.md5(f"{secret}:n:{request}".encode()).hexdigest()
    assert "algorithm" not in answer


def test_ok_strongest_challenge() -> None:
    both = ('Basic realm="r"', 'Digest realm="r", nonce="n"', 'Digest realm="r", nonce="n", algorithm=SHA-256')
    assert "SHA-256" in authorization(both, "GET", "u", ("me", "it"), 1)
    assert authorization(both[:1], "GET", "u", ("me", "it"), 1) == "Basic bWU6aXQ="


def test_fail_unsupported_authentication() -> None:
    with pytest.raises(ValueError, match="unsupported authentication scheme"):
        authorization(("Negotiate",), "GET", "u", ("me", "it"), 1)
