"""The late import of PyAV."""

import builtins
from typing import Any

import pytest

from softcam.errors import NotSupported
from softcam.runtime.pyav import import_pyav


def test_missing_pyav_is_not_supported(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: Any, **more: Any) -> Any:
        if name == "av":
            raise ImportError("No module named 'av'")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(NotSupported, match=r"^H\.264 requires PyAV \(Debian package python3-av\): No module"):
        import_pyav("H.264")
