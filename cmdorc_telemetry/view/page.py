"""The document: its policy, its style, the questions in their order. Loads nothing, runs nothing."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from ..charts import STYLE
from ..markup import Child, Markup, html, joined
from ..wording import moment
from .change import change
from .collected import collected, withheld
from .counted import counted
from .facts import Facts
from .past import past
from .standing import alarms, heading, notes, places
from .traffic import queues, sent

_STYLE = Markup(STYLE + Path(__file__).with_name("view.css").read_text(encoding="utf-8"))


def page(facts: Facts) -> str:
    """The whole document."""
    parts = [
        section
        for section in (places(facts), collected(facts), queues(facts), sent(facts), withheld(facts),
                        past(facts) or counted(facts), change(facts))
        if section is not None
    ]  # fmt: skip
    links = [html.li(html.a(title, href=f"#{key}")) for key, title, _ in parts]
    body = html.body(
        html.a("Skip to the answers", href="#answers", class_="skip"),
        html.header(html.h1("Telemetry on this machine"), alarms(facts), heading(facts), notes(facts)),
        html.nav(html.ul(links), aria_label="On this page"),
        html.main([_section(*part) for part in parts], id="answers"),
        html.footer(_footer(facts)),
    )
    return f"<!doctype html>\n{html.html(_head(), body, lang='en')}\n"


def _head() -> Markup:
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return html.head(
        html.meta(charset="utf-8"),
        html.meta(http_equiv="Content-Security-Policy", content=policy),
        html.meta(name="viewport", content="width=device-width, initial-scale=1"),
        html.meta(name="referrer", content="no-referrer"),
        html.meta(name="robots", content="noindex"),
        html.title("Telemetry on this machine"),
        html.style(_STYLE),
    )


def _section(key: str, title: str, content: Child) -> Markup:
    return html.section(html.h2(title, id=f"{key}-title"), content, id=key, aria_labelledby=f"{key}-title")


def _footer(facts: Facts) -> Markup:
    made = f"Made {moment(facts.now)} by cmdorc-telemetry {facts.version}, on this machine."
    return joined(
        html.p(made),
        html.p("This page is one file. It loads nothing, sends nothing and runs no script: the policy in its first "
               "lines forbids it. It holds names of your own; mind whom you give it to."),
    )  # fmt: skip
