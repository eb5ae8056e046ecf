"""The order in which recordings ended, whatever names and clocks say."""

from pathlib import Path

from softcam.recording.order import Order

EARLY, MIDDLE, LATE = (f"{year}-01-01_00-00-00.mp4" for year in (1970, 2026, 2038))


def test_order_of_ends(tmp_path: Path) -> None:
    order = Order(tmp_path)
    for name in (LATE, EARLY, MIDDLE):
        order.append([name])
    for each in (order, Order(tmp_path)):
        assert each.arrange({EARLY, MIDDLE, LATE}) == [LATE, EARLY, MIDDLE]
        assert each.arrange({EARLY, MIDDLE}) == [EARLY, MIDDLE]


def test_unknown_names_are_the_newest_when_they_are_found(tmp_path: Path) -> None:
    order = Order(tmp_path)
    order.append([MIDDLE])
    assert order.arrange({LATE, MIDDLE, EARLY}) == [MIDDLE, EARLY, LATE]
    name = "2026-06-01_00-00-00.jpg"
    order.append([name])
    assert Order(tmp_path).arrange({LATE, MIDDLE, EARLY, name}) == [MIDDLE, EARLY, LATE, name]


def test_part_of_the_file_is_removed(tmp_path: Path) -> None:
    """A crash while the file was shortened."""
    (tmp_path / "..order").write_text(EARLY[:5])
    Order(tmp_path).forget_others(set())
    assert list(tmp_path.iterdir()) == []


def test_name_that_ends_again_is_the_newest(tmp_path: Path) -> None:
    order = Order(tmp_path)
    order.append([EARLY, MIDDLE, EARLY])
    assert Order(tmp_path).arrange({EARLY, MIDDLE}) == [MIDDLE, EARLY]


def test_two_portals(tmp_path: Path) -> None:
    order, other = Order(tmp_path), Order(tmp_path)
    order.append([LATE])
    other.append([EARLY])
    order.append([MIDDLE])
    assert order.arrange({EARLY, MIDDLE, LATE}) == other.arrange({EARLY, MIDDLE, LATE}) == [LATE, EARLY, MIDDLE]


def test_file_that_a_power_cut_damaged(tmp_path: Path) -> None:
    Order(tmp_path).append([LATE])
    with (tmp_path / ".order").open("ab") as file:
        file.write(EARLY[:9].encode())
    Order(tmp_path).append([EARLY])
    with (tmp_path / ".order").open("ab") as file:
        file.write(b"\xff\0\n../../etc/passwd\n")
    assert Order(tmp_path).arrange({EARLY, LATE}) == [LATE, EARLY]


def test_full_disk(tmp_path: Path) -> None:
    """What could not be written follows with the next call, in its place."""
    order = Order(tmp_path)
    (tmp_path / ".order").mkdir()  # stands for the full disk: it cannot be opened for writing
    order.append([LATE])
    order.append([EARLY])
    assert order.arrange({EARLY, LATE}) == [LATE, EARLY]
    (tmp_path / ".order").rmdir()
    order.append([MIDDLE])
    for each in (order, Order(tmp_path)):
        assert each.arrange({EARLY, MIDDLE, LATE}) == [LATE, EARLY, MIDDLE]
    assert (tmp_path / ".order").read_text().split() == [LATE, EARLY, MIDDLE]


def test_lines_of_removed_recordings_are_removed(tmp_path: Path) -> None:
    order, other = Order(tmp_path), Order(tmp_path)
    order.append([LATE, MIDDLE, EARLY])
    assert other.arrange({EARLY, LATE}) == [LATE, EARLY]
    order.forget_others({EARLY, LATE})
    assert (tmp_path / ".order").read_text() == f"{LATE}\n{EARLY}\n"
    other.append([MIDDLE])
    assert order.arrange({EARLY, MIDDLE, LATE}) == [LATE, EARLY, MIDDLE]


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    order = Order(tmp_path / "missing")
    order.append([LATE, MIDDLE])
    order.append([EARLY])
    order.forget_others({EARLY, LATE})
    assert order.arrange({EARLY, LATE}) == [LATE, EARLY]
