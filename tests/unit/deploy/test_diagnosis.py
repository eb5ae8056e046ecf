"""The diagnosis of the cameras of a host."""

import pytest

from deploy import diagnosis
from deploy.system import Failed
from tests.unit.deploy.fake_host import FakeHost, install

REPORT = "ok              versions   Python 3.13.5\n"


def test_report_of_each_enabled_camera(fake: FakeHost) -> None:
    install(fake, "1.0-aaaa")
    fake.answer("--diagnose", (0, REPORT, ""))
    fake.answer("show .*--property=Environment ", (0, "A=b\n", ""))
    fake.answer("show .*--property=ReadWritePaths ", (0, "/srv/recordings\n", ""))
    diagnosis.diagnose(fake.host())
    assert fake.said().count(REPORT.strip()) == 2
    properties = "SupplementaryGroups=video --property=Environment=A=b --property=ReadWritePaths=/srv/recordings"
    call = properties + r" .*releases/1\.0-aaaa/soft_stream\.py --camera {} "
    assert fake.has_called(call.format(0))
    assert fake.has_called(call.format(1))


def test_requested_camera_only(fake: FakeHost) -> None:
    install(fake, "1.0-aaaa")
    fake.answer("--diagnose", (0, REPORT, ""))
    diagnosis.diagnose(fake.host(cameras=(1,)))
    assert fake.said().count(REPORT.strip()) == 1
    assert fake.has_called("--camera 1 .*--diagnose")


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        ((1, "failed          still   no image\n", ""), "failed          still   no image"),
        ((78, "", "soft_stream.py: CAMERA_FPS: must be a number\n"), "CAMERA_FPS: must be a number"),
        ((124, "", ""), "the diagnosis did not end within 300 s"),
    ],
)
def test_failure(fake: FakeHost, answer: tuple[int, str, str], shown: str) -> None:
    install(fake, "1.0-aaaa")
    fake.answer("--camera 0 .*--diagnose", answer)
    fake.answer("--camera 1 .*--diagnose", (0, REPORT, ""))
    with pytest.raises(Failed, match=r"the diagnosis found failures, camera 0$"):
        diagnosis.diagnose(fake.host())
    said = fake.said()
    assert shown in said
    assert REPORT.strip() in said


def test_nothing_installed(fake: FakeHost) -> None:
    with pytest.raises(Failed, match="not installed here"):
        diagnosis.diagnose(fake.host())


def test_no_camera_enabled(fake: FakeHost) -> None:
    install(fake, "1.0-aaaa")
    for link in fake.root.glob("etc/systemd/system/*.wants/*"):
        link.unlink()
    with pytest.raises(Failed, match="no camera is enabled here"):
        diagnosis.diagnose(fake.host())
