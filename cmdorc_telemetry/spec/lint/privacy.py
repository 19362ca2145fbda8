"""What gives more away than is needed, or less than is meant."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date

from ..model import TelemetrySpec
from .rows import Found, Lint, properties

LEAST_RATE = 0.05
LONG_RETENTION_DAYS = 400
LONG_TEXT = 100
HIGH_VOLUME = "high-volume"
"""The tag of an event that there are so many of that a low sampling rate is right."""
HARMLESS = ("bool", "hash", "bucket", "json")
"""Types whose values say nothing personal, whatever they are called."""

_PERSONAL = re.compile(
    r"(^|[_.\-])(e?mail|phone|address|first_?name|last_?name|full_?name|user_?(id|name)|login|ip(_?address)?|birth\w*|"
    r"gender|latitude|longitude|ssn|iban|password|secret|token|cookie)([_.\-]|$)"
)
_SECRET = re.compile(r"(api_?key|token|secret|password|credential)", re.IGNORECASE)


_SOME_TEXT = "Jo <j@d.eu>\n/h/€"
"""No longer than that: a pattern may take twice the time for each character more."""


def looks_personal(name: str) -> bool:
    """Whether a property is called like something personal."""
    return _PERSONAL.search(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()) is not None


def looks_secret(key: str, value: object) -> bool:
    """Whether a setting is called like a secret, and has a value."""
    return isinstance(value, str) and value != "" and _SECRET.search(key) is not None


def _personal_name(spec: TelemetrySpec, today: date) -> Found:
    for at, _, name, prop in properties(spec):
        harmless = prop.type in HARMLESS or prop.audience == "private"
        if looks_personal(name) and not (prop.pii or prop.redact or harmless):
            yield at, "is called like something personal; expected pii = true and redact = true, or another name"


def _pii_unmasked(spec: TelemetrySpec, today: date) -> Found:
    for at, event, name, prop in properties(spec):
        if prop.pii and not event.masks(name):
            yield (
                at,
                "is personal and recorded in full, for destinations of the user's own; expected redact = true, too",
            )


def _provider_secret(spec: TelemetrySpec, today: date) -> Found:
    for number, provider in enumerate(spec.config.providers):
        for key, value in provider.config.items():
            if looks_secret(key, value):
                yield f"config.providers[{number}].{key}", "looks like a secret; a spec is public: use the environment"


def _free_text(spec: TelemetrySpec, today: date) -> Found:
    for at, event, name, prop in properties(spec):
        if prop.type == "string" and prop.audience == "shared" and not event.masks(name):
            assert prop.pattern is not None
            anything = re.fullmatch(prop.pattern, _SOME_TEXT) is not None
            if anything and (prop.max_length or 0) > LONG_TEXT:
                yield at, "takes any text; expected an enum, a pattern, or at most 100 characters"


def _low_hash(spec: TelemetrySpec, today: date) -> Found:
    for at, _, _, prop in properties(spec):
        if prop.type == "hash" and prop.level != "debug" and prop.audience == "shared":
            yield at, f"is a hash at level {prop.level!r}; expected 'debug': who knows the words can guess them"


def _json_withheld(spec: TelemetrySpec, today: date) -> Found:
    for at, event, name, prop in properties(spec):
        parts = any(other.startswith(f"{name}.") for other in event.properties)
        if prop.type == "json" and not parts and not event.masks(name):
            yield at, f"is of type json, and always withheld; expected its parts, such as '{name}.part', as properties"


def _many_required(spec: TelemetrySpec, today: date) -> Found:
    for at, event, name, prop in properties(spec):
        if prop.required and (prop.level == "debug" or prop.audience == "private") and not event.masks(name):
            yield at, "is required, and withheld from most; expected it optional"


def _privacy_of_pii(spec: TelemetrySpec, today: date) -> Found:
    for event in spec.events:
        personal = any(prop.pii for prop in event.properties.values())
        if personal and event.privacy == "public":
            yield f"events.{event.name}", "has personal properties, and privacy 'public'; expected 'internal' or 'pii'"
        elif not personal and event.privacy == "pii":
            yield f"events.{event.name}", "has privacy 'pii', and no personal property; expected 'internal'"


def _redact_without_pii(spec: TelemetrySpec, today: date) -> Found:
    for at, _, _, prop in properties(spec):
        if prop.redact and not prop.pii:
            yield at, "is redacted, and not marked as personal; expected pii = true, too"


def _long_retention(spec: TelemetrySpec, today: date) -> Found:
    for event in spec.events:
        if spec.retention_days(event) > LONG_RETENTION_DAYS:
            yield (f"events.{event.name}", f"is kept for {spec.retention_days(event)} days; "
                   f"expected {LONG_RETENTION_DAYS} at most")  # fmt: skip


def _low_sampling(spec: TelemetrySpec, today: date) -> Found:
    for event in spec.events:
        rate = spec.sampling_rate(event)
        if rate < LEAST_RATE and HIGH_VOLUME not in event.tags:
            yield (f"events.{event.name}", f"is sampled at {rate:g}; expected {LEAST_RATE} or more, "
                   f"or the tag {HIGH_VOLUME!r}")  # fmt: skip


LINTS: Mapping[str, Lint] = {
    "personal-name": Lint(_personal_name, "error", "A property that is called like something personal."),
    "unmasked-pii": Lint(_pii_unmasked, "error", "A personal property that is recorded in full."),
    "provider-secret": Lint(_provider_secret, "error", "A provider's secret in the spec."),
    "free-text": Lint(_free_text, "warning", "A shared property that takes any text."),
    "low-hash": Lint(_low_hash, "warning", "A hash below level debug."),
    "json-withheld": Lint(_json_withheld, "warning", "A value of unknown shape, which nobody ever gets."),
    "required-withheld": Lint(_many_required, "warning", "Required, and withheld from most."),
    "privacy-class": Lint(_privacy_of_pii, "warning", "A privacy class that does not fit the properties."),
    "redact-without-pii": Lint(_redact_without_pii, "warning", "Redacted, and not marked as personal."),
    "long-retention": Lint(_long_retention, "warning", "Kept for longer than most laws like."),
    "low-sampling": Lint(_low_sampling, "warning", "So few events that figures become guesses."),
}  # fmt: skip
