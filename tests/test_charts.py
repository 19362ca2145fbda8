"""Charts by their properties: nothing outside its box, more is never drawn as less, and nothing cannot be drawn."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmdorc_telemetry import charts
from cmdorc_telemetry.charts import Key, amount, share, ticks
from cmdorc_telemetry.markup import html

NUMBERS = st.none() | st.floats() | st.integers() | st.sampled_from([10**400, -(10**400), 0, 5e-324, 1.7e308])
VALUES = st.lists(NUMBERS, max_size=100)
GOOD = st.floats(min_value=0, max_value=1e290)


def tick(value: float) -> str:
    return f"{value:.3g}"


def parsed(markup: str) -> ElementTree.Element:
    return ElementTree.fromstring(markup)


def places(path: str) -> list[tuple[float, float]]:
    """Every point that a path of ours goes through."""
    found: list[tuple[float, float]] = []
    x = y = 0.0
    for command, rest in re.findall(r"([MLhvHVzZ])([^MLhvHVzZ]*)", path):
        numbers = [float(number) for number in rest.split()]
        if command in "ML":
            x, y = numbers
        elif command == "h":
            x += numbers[0]
        elif command == "V":
            y = numbers[0]
        found.append((x, y))
    return found


def bars(markup: str) -> list[ElementTree.Element]:
    return [each for each in parsed(markup).iter("path") if "fill" in each.get("class", "")]


@given(VALUES, st.data())
def test_a_band_stays_in_its_box(line: list[float | None], data: st.DataObject) -> None:
    above = data.draw(st.lists(NUMBERS, min_size=len(line), max_size=len(line)))
    made = charts.band(
        "k", "t", "d", slots=["x"] * len(line), line=line, above=above, notes=["n"] * len(line), tick=tick
    )
    image = parsed(made)
    for path in image.iter("path"):
        assert all(0 <= x <= 1000 and 0 <= y <= 1000 for x, y in places(path.get("d", ""))), path.get("d")
    for area in [each for each in image.iter("rect") if each.get("height") == "1000"]:
        assert 0 <= float(area.get("x", "0")) <= 1000
    assert "nan" not in made
    assert "inf" not in made


@given(VALUES)
def test_every_value_that_can_be_drawn_is_drawn(values: list[float | None]) -> None:
    known = [value for value in values if amount(value) is not None]
    image = parsed(charts.sparkline(values))
    points = [place for path in image.iter("path") for place in places(path.get("d", ""))]
    assert len({x for x, _ in points}) == len(known)


@given(st.lists(GOOD, min_size=2, max_size=50))
def test_more_is_never_drawn_as_less(values: list[float]) -> None:
    most = max(values)
    drawn = [(value, share(value, most)) for value in values]
    for one, here in drawn:
        for other, there in drawn:
            assert here is not None
            assert there is not None
            assert one > other or here <= there


@given(st.lists(st.tuples(GOOD, GOOD, GOOD), max_size=40))
def test_stacked_bars_lie_on_each_other(columns: list[tuple[float, float, float]]) -> None:
    series = [(f"s{number}", [column[number] for column in columns]) for number in range(3)]
    slots = [str(number) for number in range(len(columns))]
    made = charts.stacked("k", "t", "d", slots=slots, series=series, notes=slots, tick=tick)
    ends: dict[float, float] = {}
    for path in bars(made):
        for one in filter(None, (path.get("d") or "").split("z")):
            corners = places(one)
            assert all(0 <= x <= 1000.1 and 0 <= y <= 1000 for x, y in corners)
            left, low = corners[0]
            assert ends.get(left, 1000) == low, "it begins where the one below it ends"
            ends[left] = corners[2][1]


@given(st.lists(st.lists(NUMBERS, min_size=5, max_size=5), min_size=1, max_size=7))
def test_a_heatmap_has_a_cell_for_everything(cells: list[list[float | None]]) -> None:
    rows = [f"row {number}" for number in range(len(cells))]
    made = charts.heatmap(
        "k", "t", "d", rows=rows, slots=list("abcde"), cells=cells, note=lambda row, slot: f"{row} {slot}"
    )
    found = list(parsed(made).iter("rect"))
    assert len(found) == 5 * len(cells)
    shades = [(amount(value) or 0.0, int(each.get("class", "")[1:])) for each, value in
              zip(found, [value for row in cells for value in row], strict=True)]  # fmt: skip
    assert all(0 <= shade <= 5 and (shade > 0) == (value > 0) for value, shade in shades)
    assert [shade for _, shade in sorted(shades)] == sorted(shade for _, shade in shades)


@given(NUMBERS, st.booleans(), st.sampled_from([(), charts.DURATION_STEPS]))
def test_marks_begin_at_nothing_and_reach_everything(most: float | None, whole: bool, steps: tuple[float, ...]) -> None:
    marks = ticks(most, steps, whole=whole)  # type: ignore[arg-type]
    assert 2 <= len(marks) <= 5
    assert marks[0] == 0
    assert marks[-1] * 1.000001 >= min(amount(most) or 0, 1e300)
    assert list(marks) == sorted(set(marks))
    if whole:
        assert marks[1] >= 1


@pytest.mark.parametrize(
    ("most", "marks"),
    [(61_000, (0, 30_000, 60_000, 90_000)), (0, (0, 0.5, 1)), (7, (0, 2, 4, 6, 8)), (1e12, (0, 5e11, 1e12))],
)
def test_marks_are_what_a_person_would_choose(most: float, marks: tuple[float, ...]) -> None:
    assert ticks(most, charts.DURATION_STEPS if most > 1000 else ()) == marks


@given(st.lists(st.tuples(st.just("s1"), NUMBERS), max_size=6))
def test_every_part_of_a_whole_can_be_seen(parts: list[tuple[str, float | None]]) -> None:
    known = [value for _, value in parts if amount(value)]
    track, *found = parsed(charts.split(parts)).iter("rect")
    widths = [float(each.get("width", "0")) for each in found]
    assert track.get("class") == "track"
    assert len(widths) == len(known)
    assert all(width >= 6 for width in widths)
    assert sum(widths) <= 1000.5
    if known:
        assert sum(widths) >= 999.5


def test_what_is_no_amount_is_missing() -> None:
    values = [None, float("nan"), float("inf"), float("-inf"), -1, -0.5, 0, 3, 10**400]
    assert [amount(value) for value in values] == [None] * 6 + [0, 3, 1e300]


def test_a_bar_is_as_long_as_its_share() -> None:
    def width(value: float | None, most: float) -> str | None:
        return list(parsed(charts.bar(value, most)).iter("rect"))[1].get("width")

    assert [width(5, 10), width(10, 10), width(0, 10), width(None, 10), width(0.001, 10)] == [
        "500",
        "1000",
        "0",
        "0",
        "6",
    ]


def test_a_place_on_a_scale() -> None:
    assert 'd="M780 0V1000"' in charts.mark(78)
    assert 'd="M1000 0V1000"' in charts.mark(250)


def test_a_gap_is_a_gap_and_one_alone_is_a_dot() -> None:
    made = charts.band("k", "t", "d", slots=list("abcd"), line=[1, 1, None, 1], above=[2, 2, 2, None],
                       notes=["", "", "", "last"], tick=tick)  # fmt: skip
    area, _, line, dots = (path.get("d", "") for path in parsed(made).iter("path"))
    assert places(line) == [(125, 500), (375, 500)]
    assert dots == "M875 500h0"
    assert {x for x, _ in places(area)} == {125, 375}
    assert [title.text for title in parsed(made).iter("title")] == ["t", "d: last"]


def test_a_figure_has_its_figures_below() -> None:
    plot = charts.sparkline([1, 2])
    made = parsed(charts.figure("T<", "about", plot, ("Day", "Runs"), [["1 May", "3"]], [Key("s1", "runs")]))
    assert [each.text for each in made.iter("th")] == ["Day", "Runs", "1 May"]
    assert [each.text for each in made.iter("td")] == ["3"]
    assert "T<" in "".join(made.find("details/summary").itertext())  # type: ignore[union-attr]
    assert "runs" in "".join(made.find("figcaption").itertext())  # type: ignore[union-attr]


def test_a_table_that_stacks_says_its_roles_and_the_names_of_its_columns() -> None:
    head, rows = ("Name", "Bar", "Size"), [["a", html.i("b"), "c"]]
    plain = charts.table(head, rows, right={2}, hidden={1})
    stacks = parsed(charts.table(head, rows, right={2}, hidden={1}, class_="x", stacks=True))
    assert "role" not in plain
    assert stacks.get("class") == "stacks x"
    roles = [each.get("role") for each in stacks.iter() if each.tag not in ("span", "i")]
    assert roles == ["table", "rowgroup", "row", *["columnheader"] * 3, "rowgroup", "row", "rowheader", "cell", "cell"]
    assert [each.get("data-label") for each in stacks.iter("td")] == [None, "Size"]
    assert stacks.find("thead/tr/th/span") is not None


def test_names_below_a_chart_are_not_over_the_edge() -> None:
    for count in (0, 1, 2, 3, 4, 5, 90):
        made = parsed(
            charts.stacked(
                "k", "t", "d", slots=[f"{n}" for n in range(count)], series=[], notes=[""] * count, tick=tick
            )
        )
        below = [
            (each.get("x"), each.get("text-anchor"), each.text) for each in made.iter("text") if each.get("y") == "177"
        ]
        assert len(below) == min(count, 4)
        if count > 1:
            assert below[0] == ("0%", "start", "0")
            assert below[-1] == ("100%", "end", str(count - 1))


def test_the_style_brings_everything_that_it_names() -> None:
    used, known = (set(re.findall(pattern, charts.STYLE)) for pattern in (r"var\((--[\w]+)\)", r"(--[\w]+):"))
    assert used <= known
    assert "url(" not in charts.STYLE
    assert "@import" not in charts.STYLE
