"""The one exception family that a user is expected to read."""


class UserError(Exception):
    """Something the user gave cannot be used; the message is one line that names it and the remedy.

    Scripts print the message and exit with ``exit_code``: 2, or what a subclass says. Library code
    lets it through like any exception.
    Each room derives its own type, together with the built-in that fits (``ValueError``,
    ``TypeError`` …), so that ``except ValueError`` goes on working.

    Example:
        >>> from functorch_kit.errors import UserError
        >>> try:
        ...     raise UserError("train.batch_size is 0: give a number from 1 up")
        ... except UserError as error:
        ...     print(error)
        train.batch_size is 0: give a number from 1 up
    """

    exit_code = 2
