"""What transforms refuse."""

from functorch_kit.errors import UserError


class TransformError(UserError, ValueError):
    """A function, a batch or a limit that a transform cannot use; one line with the remedy."""
