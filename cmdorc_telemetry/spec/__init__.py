"""What may be collected: the model, its files, and what they are compiled to."""

from .documents import CORE, dump_json, dump_toml, load_spec, parse_json, parse_toml
from .model import Event, TelemetrySpec
from .outcomes import Operation, Outcome, Workflow
from .projection import project
from .property import BASE, LEVELS, MASK, Level, Property, bucket_labels
from .registry import SpecFile, TelemetryRegistry
from .sampling import Sampler, sampled
from .shapes import Body, Shapes, coerce, lower, masked_names, own_shape, shared_names, value_type, wire_shape
from .versions import Version
from .wishes import EVERYTHING, FIXED, Rule, Wishes, keep_policy, kept_policy, read_wishes

__all__ = [
    "BASE", "CORE", "EVERYTHING", "FIXED", "LEVELS", "MASK", "Body", "Event", "Level", "Operation", "Outcome",
    "Property", "Rule", "Sampler", "Shapes", "SpecFile", "TelemetryRegistry", "TelemetrySpec", "Version", "Wishes",
    "Workflow", "bucket_labels", "coerce", "dump_json", "dump_toml", "keep_policy", "kept_policy", "load_spec", "lower",
    "masked_names", "own_shape", "parse_json", "parse_toml", "project", "read_wishes", "sampled", "shared_names",
    "value_type", "wire_shape",
]  # fmt: skip
