"""Responses to the challenges of servers, and a server's check of what clients send."""

import base64
import hashlib
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softcam.runtime.http_auth import authorization, challenges, has_old_nonce, has_password
from tests.support.timeouts import TIMEOUT_FACTOR

# The examples of RFC 7616, 3.9.1, for both algorithms; the client's nonce differs.
RFC_7616 = 'realm="http-auth@example.org", qop="auth, auth-int", nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v"'


def fields_of(value: str) -> dict[str, str]:
    return {name: quoted or plain for name, quoted, plain in re.findall(r'(\w+)=(?:"([^"]*)"|([^\s,]+))', value)}


@pytest.mark.parametrize("algorithm", ["MD5", "SHA-256"])
def test_digest_is_as_the_rfc_computes_it(algorithm: str) -> None:
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


def test_digest_without_qop() -> None:
    """Without qop, as RTSP servers send it."""
    answer = authorization(('Digest realm="r", nonce="n"',), "ANNOUNCE", "rtsp://pi/cam", ("me", "it"), 3)
    secret = hashlib.md5(b"me:r:it").hexdigest()
    request = hashlib.md5(b"ANNOUNCE:rtsp://pi/cam").hexdigest()
    assert fields_of(answer)["response"] == hashlib.md5(f"{secret}:n:{request}".encode()).hexdigest()
    assert "algorithm" not in answer


def test_strongest_challenge_is_chosen() -> None:
    both = ('Basic realm="r"', 'Digest realm="r", nonce="n"', 'Digest realm="r", nonce="n", algorithm=SHA-256')
    assert "SHA-256" in authorization(both, "GET", "u", ("me", "it"), 1)
    assert authorization(both[:1], "GET", "u", ("me", "it"), 1) == "Basic bWU6aXQ="


def test_unsupported_authentication_is_an_error() -> None:
    with pytest.raises(ValueError, match="unsupported authentication scheme"):
        authorization(("Negotiate",), "GET", "u", ("me", "it"), 1)


KEYS = ("full key", "view:key")
NONCE = "0123456789abcdef"
URL = "rtsp://pi:8554/cam0/"


def answer(
    password: str, *, user: str = "me", offered: list[str] | None = None, nonce: str = NONCE, method: str = "DESCRIBE"
) -> str:
    return authorization(offered or challenges("camera", nonce), method, URL, (user, password), 1)


def on_the_wire(value: str) -> str:
    """A header as the server reads it: bytes as Latin-1."""
    return value.encode().decode("latin-1")


@pytest.mark.parametrize("number", range(3), ids=["SHA-256", "MD5", "Basic"])
def test_ok_password(number: int) -> None:
    """Each challenge alone, each key, any user; not for another method, nonce or key."""
    offered = challenges("camera", NONCE)[number : number + 1]
    for key in KEYS:
        for user in ("", "admin", "jürgen 测试", 'a "quoted" one', "DOMAIN\\user", "comma, equals=1"):
            value = on_the_wire(answer(key, user=user, offered=offered))
            assert has_password(value, "DESCRIBE", NONCE, KEYS), user
            assert not has_password(value, "DESCRIBE", NONCE, ("another",))
            is_basic = number == 2
            assert has_password(value, "SETUP", NONCE, KEYS) == is_basic
            assert has_password(value, "DESCRIBE", "another", KEYS) == is_basic
            assert not has_old_nonce(value, "DESCRIBE", NONCE, KEYS)
    assert not has_password(on_the_wire(answer("wrong", offered=offered)), "DESCRIBE", NONCE, KEYS)
    assert not has_password(on_the_wire(answer("", offered=offered)), "DESCRIBE", NONCE, KEYS)


def test_ok_qop() -> None:
    for algorithm in ("MD5", "SHA-256"):
        value = answer(KEYS[0], offered=[f'Digest realm="r", nonce="{NONCE}", qop="auth", algorithm={algorithm}'])
        assert "nc=00000001" in value
        assert has_password(value, "DESCRIBE", NONCE, KEYS)
        assert not has_password(value.replace("nc=00000001", "nc=00000002"), "DESCRIBE", NONCE, KEYS)


def test_order_of_challenges() -> None:
    """What FFmpeg and live555 do: the last Digest challenge, whose algorithm is MD5, and Basic only without one."""
    values = challenges("camera", NONCE)
    assert [value.partition(" ")[0] for value in values] == ["Digest", "Digest", "Basic"]
    assert "algorithm=MD5" in [value for value in values if value.startswith("Digest")][-1]
    # The format of live555's sscanf, which ignores what follows.
    for value in challenges("camera", NONCE, is_stale=True)[:2]:
        assert re.match(r'Digest realm="([^"]*)", nonce="([^"]*)", stale=true\b', value)


def test_ok_first_challenge_with_the_wrong_algorithm() -> None:
    """Clients that read the first challenge, compute MD5, and repeat the algorithm or not."""
    secret = hashlib.md5(f"me:camera:{KEYS[0]}".encode()).hexdigest()
    request = hashlib.md5(f"DESCRIBE:{URL}".encode()).hexdigest()
    response = hashlib.md5(f"{secret}:{NONCE}:{request}".encode()).hexdigest()
    value = f'digest username="me",realm="camera",nonce="{NONCE}",uri="{URL}",response="{response.upper()}"'
    for tail in ("", ",algorithm=SHA-256", ', algorithm="MD5"', ', opaque=""', " "):
        assert has_password(value + tail, "DESCRIBE", NONCE, KEYS)


@pytest.mark.parametrize("user", ["DOMAIN\\user", 'a "quoted" one', '"'])
def test_ok_user_without_escapes(user: str) -> None:
    """Windows clients send DOMAIN\\user as it is, and FFmpeg and GStreamer do so with every name."""
    secret = hashlib.md5(f"{user}:camera:{KEYS[0]}".encode()).hexdigest()
    request = hashlib.md5(f"DESCRIBE:{URL}".encode()).hexdigest()
    response = hashlib.md5(f"{secret}:{NONCE}:{request}".encode()).hexdigest()
    value = f'Digest username="{user}", realm="camera", nonce="{NONCE}", uri="{URL}", response="{response}"'
    assert has_password(value, "DESCRIBE", NONCE, KEYS)


def test_old_nonce() -> None:
    """A right password with another nonce is not a wrong key."""
    for offered in (challenges("camera", "old")[:1], challenges("camera", "old")[1:2]):
        value = answer(KEYS[1], offered=offered)
        assert not has_password(value, "DESCRIBE", NONCE, KEYS)
        assert has_old_nonce(value, "DESCRIBE", NONCE, KEYS)
        assert not has_old_nonce(value, "DESCRIBE", NONCE, KEYS[:1])


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Basic",
        "Basic !",
        "Basic " + base64.b64encode(b"full key").decode(),
        "Basic Og==",
        "Bearer full key",
        "Digest",
        f'Digest nonce="{NONCE}"',
        f'Digest username="me", realm="camera", nonce="{NONCE}", uri="/", response=""',
        f'Digest username="me", realm="camera", nonce="{NONCE}", uri="/", response="{"0" * 32}"',
        f'Digest username="me", realm="camera", nonce="{NONCE}", uri="/", response="{"0" * 64}", algorithm=SHA-256',
        f'Digest username="me", realm="camera", nonce="{NONCE}", uri="/", response="{"0" * 40}", algorithm=SHA-1',
        "\0\xff" * 50,
    ],
)
def test_fail_credentials(value: str) -> None:
    assert not has_password(value, "DESCRIBE", NONCE, KEYS)
    assert not has_old_nonce(value, "DESCRIBE", NONCE, KEYS)


def test_ok_basic_with_user_in_latin_1() -> None:
    value = "Basic " + base64.b64encode("jürgen:".encode("latin-1") + KEYS[1].encode()).decode()
    assert has_password(value, "DESCRIBE", NONCE, KEYS)


@given(st.text(st.characters(max_codepoint=255), max_size=120))
def test_any_credentials(text: str) -> None:
    for value in (text, f"Basic {text}", f'Digest nonce="{NONCE}", {text}'):
        assert not has_password(value, "DESCRIBE", NONCE, KEYS)
        has_old_nonce(value, "DESCRIBE", NONCE, KEYS)


@pytest.mark.parametrize(
    "text",
    [
        "a" * 16000,
        "a" + " " * 16000,
        'a="' * 5000,
        'a="' + "\\" * 16000,
        "a= " * 5000,
        'a="' + '" ' * 8000,
        "a=" * 8000,
    ],
    ids=["word", "spaces", "quotes", "escapes", "no values", "closed quotes", "equal signs"],
)
def test_time_for_hostile_credentials(text: str) -> None:
    """It is linear: the event loop of all viewers reads credentials that anybody sends."""
    began_s = time.perf_counter()
    assert not has_password(f"Digest {text}", "DESCRIBE", NONCE, KEYS)
    assert time.perf_counter() - began_s < 0.5 * TIMEOUT_FACTOR
