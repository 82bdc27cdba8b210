"""What can go wrong for a user, and the exit code it gives.

TwinError
├── BadInput       2   a flag, a setting, a file or a URL is not what was expected
├── NotDelivered   3   the run ended and its records are on disk, but some sink has not taken all of them
├── Different      4   a peer that was asked lacks what it must have, or could not be asked
├── NotPromoted    5   a model did not pass the gate, so the champion stays
└── RunFailed      1   the run could not go on
"""


class TwinError(Exception):
    """One line for a person: what was expected, what came, what to do."""

    exit_code = 1


class BadInput(TwinError):
    """See the tree."""

    exit_code = 2


class NotDelivered(TwinError):
    """See the tree."""

    exit_code = 3


class Different(TwinError):
    """See the tree."""

    exit_code = 4


class NotPromoted(TwinError):
    """See the tree."""

    exit_code = 5


class RunFailed(TwinError):
    """See the tree."""
