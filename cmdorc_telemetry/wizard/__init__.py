"""Asks for a spec: what is asked (``script``), what is made of the answers (``draft``), how it is asked (``asking``)."""
