"""Programs out: artifacts that run without the code that made them, and the way they are read."""

from functorch_kit.export.artifact import Artifact, load
from functorch_kit.export.errors import ArtifactError
from functorch_kit.export.manifest import Leaf, Manifest, read
from functorch_kit.export.predicting import header, predictions
from functorch_kit.export.records import Record, read_records, text_record
from functorch_kit.export.saving import save, save_params

__all__ = [
    "Artifact",
    "ArtifactError",
    "Leaf",
    "Manifest",
    "Record",
    "header",
    "load",
    "predictions",
    "read",
    "read_records",
    "save",
    "save_params",
    "text_record",
]
