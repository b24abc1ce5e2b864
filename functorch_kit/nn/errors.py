"""What a layer says when it is given something that it cannot use."""

from __future__ import annotations

from functorch_kit.errors import UserError


class LayerError(UserError, ValueError):
    """An argument or an input that a layer or a model cannot use; the message says what to give."""
