"""The page in a real Chromium: no request, no violation, nothing sideways, for every state, width and colour."""

from __future__ import annotations

import re
import socket

import pytest

from . import homes

STATES = ("off", "new", "full", "mismatch")


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("state", STATES)
def test_every_state_is_accessible_quiet_and_fits(show, state: str, scheme: str, width: int) -> None:
    shown = show(state, scheme, width)
    shown.unfold(":not(.pair figure) > details")
    shown.unfold(".pair:last-child details")  # of tables below charts some are enough
    assert shown.axe() == []
    shown.unfold()
    assert shown("document.documentElement.scrollWidth") <= width
    assert shown.said == []
    assert len(shown.asked) == 1, "the page itself, and nothing else"


def test_nothing_could_run_or_load_even_if_it_were_there(show, full, tmp_path) -> None:
    text = full.read_text(encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        image = f"<img src='http://127.0.0.1:{server.getsockname()[1]}/x'>"
        bad = f"<script>document.title = 'owned'</script>{image}<p style='color: red'>x</p>"
        (tmp_path / "worse.html").write_text(text.replace("</footer>", f"{bad}</footer>"), encoding="utf-8")
        shown = show(tmp_path / "worse.html")
        assert shown("document.title") == "Telemetry on this machine"
        assert len([said for said in shown.said if "Content Security Policy" in said]) == 3
        with pytest.raises(BlockingIOError):
            server.accept()


def test_names_of_others_are_only_shown(show, hostile) -> None:
    shown = show("hostile")
    shown.unfold()
    assert shown.said == []
    assert len(shown.asked) == 1
    assert shown("document.querySelectorAll('script, img, iframe, i, b[onclick]').length") == 0
    assert shown("document.querySelectorAll('h1').length") == 1
    assert (
        shown("""[...document.querySelectorAll('*')].filter(
        each => each.getAttributeNames().some(name => name.startsWith('on'))).length""")
        == 0
    )
    names = shown("[...document.querySelectorAll('.commands tbody th')].map(each => each.textContent)")
    assert sorted(names) == sorted(
        "".join(char if char.isprintable() else " " if char.isspace() else "�" for char in name)
        for name in homes.HOSTILE
    )  # fmt: skip
    assert shown("document.documentElement.scrollWidth") <= 1280
    assert shown("document.documentElement.dir") == ""


def test_hostile_names_fit_on_a_phone(show) -> None:
    shown = show("hostile", "dark", 390)
    shown.unfold()
    assert shown("document.documentElement.scrollWidth") <= 390


def test_the_keyboard_reaches_everything_in_the_order_of_the_page(show) -> None:
    shown = show("full")
    wanted = shown("[...document.querySelectorAll('a, summary, input')].filter(e => e.checkVisibility()).length")
    places = []
    for _ in range(int(wanted)):
        shown.press("Tab")
        places.append(shown("""(() => { const all = [...document.querySelectorAll('a, summary, input')];
                                        return all.indexOf(document.activeElement); })()"""))  # fmt: skip
    assert places[0] == 0, "the link past the navigation comes first"
    assert places == sorted(set(places))
    assert len(places) == wanted


def test_a_line_is_copied_with_the_keyboard_alone(show) -> None:
    shown = show("full")
    shown("[...document.querySelectorAll('summary')].at(-1).focus()")
    shown.press("Tab")
    chosen = shown("(e => e.value.slice(e.selectionStart, e.selectionEnd))(document.activeElement)")
    assert chosen == "telemetry opt-out"


@pytest.mark.parametrize("width", [1280, 1100, 760, 390])
def test_lines_are_whole(show, width) -> None:
    shown = show("full", width=width)
    lines = "[...document.querySelectorAll('.lines input')]"
    shown(f"{lines}.forEach(each => {{ each.value = 'cmdorc ' + each.value }})")  # the longest name of the command
    cut = f"{lines}.filter(each => each.scrollWidth > each.clientWidth).map(each => each.value)"
    assert shown(cut) == []


def test_tables_that_become_lists_are_still_tables(show) -> None:
    shown = show("full", width=390)
    shown.unfold()
    tables = shown("document.querySelectorAll('table').length")
    silent = "each => !each.hasAttribute('role')"
    assert shown(f"[...document.querySelectorAll('.stacks, .stacks :not(td *, th *)')].filter({silent}).length") == 0
    roles = [role for role, _ in shown.tree()]
    assert roles.count("table") == tables
    assert roles.count("rowheader") >= shown("document.querySelectorAll('tbody tr').length")
    assert roles.count("LayoutTable") == 0


def test_charts_have_a_name_a_description_and_a_table(show) -> None:
    shown = show("full")
    names = [name for role, name in shown.tree() if role in ("image", "img")]
    assert any("Lint: duration" in name and re.search(r"Median .* 90 days", name) for name in names)
    assert len(names) == shown("document.querySelectorAll('figure.chart').length") == 6
    assert shown("document.querySelectorAll('figure.chart table tbody tr').length") > 200


def test_text_in_charts_stays_inside_and_apart(show) -> None:
    for width in (1280, 760, 390):
        shown = show("full", width=width)
        wrong = shown("""(() => { const wrong = [];
            for (const image of document.querySelectorAll('.plot > svg')) {
                const box = image.getBoundingClientRect();
                const texts = [...image.querySelectorAll('text')].map(e => [e.textContent, e.getBoundingClientRect()]);
                texts.forEach(([said, t], n) => {
                    if (t.left < box.left - 1 || t.right > box.right + 1 || t.bottom > box.bottom + 1) wrong.push(said);
                    for (const [other, o] of texts.slice(n + 1))
                        if (t.left < o.right && o.left < t.right && t.top < o.bottom - 2 && o.top < t.bottom - 2)
                            wrong.push(said + ' on ' + other);
                });
            }
            return wrong; })()""")
        assert wrong == []


def test_shapes_in_charts_stay_inside(show) -> None:
    shown = show("full", width=390)
    assert shown("""[...document.querySelectorAll('.plot svg svg')].filter(inner => {
        const box = inner.getBoundingClientRect(), outer = inner.parentElement.getBoundingClientRect();
        return box.left < outer.left - 2 || box.right > outer.right + 2 || box.top < outer.top - 2;
    }).length""") == 0  # fmt: skip


def test_colours_of_ones_own_replace_ours(show) -> None:
    shown = show("full", forced_colors="active")
    drawn = shown("getComputedStyle(document.querySelector('.plot .ln')).stroke")
    text = shown("getComputedStyle(document.body).color")
    assert drawn == text


def test_printed_it_is_whole(show) -> None:
    shown = show("full", "dark")
    shown.print()
    assert shown("getComputedStyle(document.querySelector('.card')).backgroundColor") == "rgb(255, 255, 255)"
    assert shown("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert shown("document.querySelector('details:not([open]) table').getBoundingClientRect().height") > 0
