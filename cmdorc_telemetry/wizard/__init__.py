"""Asks for a spec: what is asked (``script``), what is made of it (``draft``), how it is done (``asking``)."""
