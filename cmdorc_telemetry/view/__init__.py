"""The page of ``view``: what is known of this machine's telemetry → one HTML document. Pure; reads no file of a user.

``facts`` is what a page is made of; whoever makes the page gathers it. ``page`` is the document: its own policy, its
style, the questions in their order. The other modules answer a question or two each.
"""

from .facts import Facts
from .page import page

__all__ = ["Facts", "page"]
