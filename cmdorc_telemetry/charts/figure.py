"""A chart with what belongs to it: a caption, a legend, and its figures as a table."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from ..markup import Child, Markup, html


class Key(NamedTuple):
    """One entry of a legend: what the marks of a class mean."""

    class_: str
    text: Child


def figure(
    title: Child, about: Child, plot: Markup, head: Sequence[str], rows: Sequence[Sequence[Child]],
    legend: Sequence[Key] = (),
) -> Markup:  # fmt: skip
    """A plot under its caption, and the table of what it shows, folded."""
    keys = [html.span(key.text, class_=f"key {key.class_}") for key in legend]
    caption = html.figcaption(
        html.span(title, class_="chart-title"), html.span(about, class_="chart-about"),
        html.span(keys, class_="legend") if keys else None,
    )  # fmt: skip
    figures = html.details(
        html.summary("Show as table", html.span(": ", title, class_="unseen")),
        table(head, rows, class_="figures"),
    )
    return html.figure(caption, plot, figures, class_="chart")


def table(
    head: Sequence[str], rows: Sequence[Sequence[Child]], *, right: Collection[int] = (), hidden: Collection[int] = (),
    class_: str = "", stacks: bool = False,
) -> Markup:  # fmt: skip
    """A table whose first column names the rows; columns in ``right`` hold numbers, those in ``hidden`` show no name.

    One that ``stacks`` is laid out as a list where there is no room for columns: its cells know the names of theirs,
    and its roles are said in so many words, for that layout would take them away.
    """

    def role(name: str) -> str | None:
        return name if stacks else None

    names = [
        html.th(html.span(name, class_="unseen") if number in hidden else name, scope="col", role=role("columnheader"),
                class_="number" if number in right else None)
        for number, name in enumerate(head)
    ]  # fmt: skip
    body = [
        html.tr(
            html.th(row[0], scope="row", role=role("rowheader")),
            [html.td(child, role=role("cell"), class_="number" if number in right else None,
                     data_label=name if stacks and number not in hidden else None)
             for number, (name, child) in enumerate(zip(head, row, strict=True)) if number],
            role=role("row"),
        )
        for row in rows
    ]  # fmt: skip
    classes = " ".join(filter(None, ("stacks" if stacks else "", class_)))
    return html.table(
        html.thead(html.tr(names, role=role("row")), role=role("rowgroup")),
        html.tbody(body, role=role("rowgroup")), role=role("table"), class_=classes or None,
    )  # fmt: skip
