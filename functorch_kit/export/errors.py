"""The exceptions of this room."""

from __future__ import annotations

from functorch_kit.errors import UserError


class ArtifactError(UserError, ValueError):
    """An artifact cannot be made, believed or used; the message is one line with the remedy.

    Example:
        >>> from functorch_kit import export
        >>> try:
        ...     export.load("no/such/folder")
        ... except ArtifactError as error:
        ...     print(error)
        artifact 'no/such/folder' does not exist: give the folder that export.py wrote
    """
