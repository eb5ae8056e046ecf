"""Which of the offered transports a viewer gets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softcam.rtsp.server.transport import Datagrams, Interleaved, choose_transport

TCP = Interleaved(0, 1)
UDP = Datagrams(5000, 5001)


@pytest.mark.parametrize(
    ("values", "chosen"),
    [
        (["RTP/AVP/TCP;unicast;interleaved=0-1"], TCP),
        (["RTP/AVP/TCP;interleaved=0-1"], TCP),
        (["RTP/AVP;unicast;interleaved=4-5"], Interleaved(4, 5)),
        (["RTP/AVP/TCP;unicast;interleaved=4"], Interleaved(4, 5)),
        (["RTP/AVP/TCP;unicast;interleaved=1-2"], Interleaved(1, 2)),  # mediamtx#1762
        (["RTP/AVP/TCP;unicast;interleaved=254-255"], Interleaved(254, 255)),
        (["RTP/AVP/TCP;unicast"], TCP),  # mediamtx#1650, go2rtc#1510
        (["RTP/AVP/TCP"], TCP),
        (["RTP/AVP/TCP;unicast;interleaved="], TCP),
        (["RTP/AVP;unicast;client_port=5000-5001"], UDP),
        (["RTP/AVP/UDP;unicast;client_port=5000-5001"], UDP),
        (["rtp/avp/udp;UNICAST;Client_Port = 5000 - 5001 ;mode=play"], UDP),
        (["RTP/AVP;unicast;client_port=5000"], UDP),
        (["RTP/AVP;client_port=5001-5002"], Datagrams(5001, 5002)),
        (['RTP/AVP;unicast;client_port=5000-5001;mode="PLAY"'], UDP),
        (["RTP/AVP;unicast;destination=192.0.2.7;client_port=5000-5001"], UDP),
        (["\xff\xfe\xfdRTP/AVP/UDP;unicast;client_port=5000-5001"], UDP),  # mediamtx#423
        (["x\x7fzRTP/AVP/UDP;unicast;client_port=5000-5001"], UDP),
        (["RTP/AVP;multicast,RTP/AVP/TCP;unicast;interleaved=0-1"], TCP),
        (["RTP/AVP;multicast;client_port=5000-5001", "RTP/AVP/TCP"], TCP),
        (["RTP/AVP;unicast;client_port=5000-5001,RTP/AVP/TCP;unicast;interleaved=0-1"], UDP),
        (["RTP/AVP/TCP;unicast;interleaved=0-1", "RTP/AVP;unicast;client_port=5000-5001"], TCP),
        (["MP2T/RTP/TCP;unicast;interleaved=0-1,RTP/AVP/TCP;unicast;interleaved=0-1"], TCP),  # rtp2httpd#654
        (["RTP/SAVP;unicast;client_port=1-2,RTP/AVP;unicast;client_port=5000-5001"], UDP),
        (["RTP/AVP/TCP;unicast;interleaved=256-257,RTP/AVP;unicast;client_port=5000-5001"], UDP),
        ([], None),
        ([""], None),
        (["RTP/AVP"], None),
        (["RTP/AVP;unicast"], None),
        (["RTP/AVP;multicast"], None),
        (["RTP/SAVP;unicast;client_port=5000-5001"], None),
        (["RTP/AVPF;unicast;client_port=5000-5001"], None),
        (["RTP/AVP/DCCP;unicast;client_port=5000-5001"], None),
        (["RTP/AVP;unicast;client_port=0-0"], None),  # mediamtx#50
        (["RTP/AVP;unicast;client_port=5000-5000"], None),
        (["RTP/AVP;unicast;client_port=65535"], None),
        (["RTP/AVP;unicast;client_port=5000-70000"], None),
        (["RTP/AVP;unicast;client_port=x-y"], None),
        (["RTP/AVP/TCP;unicast;interleaved=256-257"], None),
        (["RTP/AVP/TCP;unicast;interleaved=255"], None),
        (["RTP/AVP/TCP;unicast;interleaved=0-0"], None),
        (["RTP/AVP/TCP;unicast;interleaved=0-1;mode=record"], None),
        (['RTP/AVP/TCP;unicast;interleaved=0-1;mode="RECORD"'], None),
    ],
)
def test_choose_transport(values: list[str], chosen: Interleaved | Datagrams | None) -> None:
    assert choose_transport(values) == chosen


@given(st.lists(st.text(alphabet='RTP/AVPUDC;,=-0123456789 interleavedclient_port"ü', max_size=60), max_size=3))
def test_any_header(values: list[str]) -> None:
    chosen = choose_transport(values)
    if isinstance(chosen, Interleaved):
        assert 0 <= chosen.rtp != chosen.rtcp <= 255
    elif chosen is not None:
        assert 0 < chosen.rtp != chosen.rtcp < 65536


def test_header() -> None:
    """With everything that clients insist on; see smolrtsp#31 for `server_port`."""
    assert TCP.header(0xAB) == "RTP/AVP/TCP;unicast;interleaved=0-1;ssrc=000000AB"
    header = "RTP/AVP;unicast;client_port=5000-5001;server_port=6000-6001;ssrc=000000AB"
    assert UDP.header(0xAB, (6000, 6001)) == header
