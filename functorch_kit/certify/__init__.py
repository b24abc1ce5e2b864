"""What can be proven of a run: that a step is what it was, and that a resume loses nothing."""

from functorch_kit.certify.evidence import Difference as Difference
from functorch_kit.certify.replaying import Replay as Replay
from functorch_kit.certify.replaying import replay as replay
from functorch_kit.certify.replaying import replay_step as replay_step
from functorch_kit.certify.resuming import Certificate as Certificate
from functorch_kit.certify.resuming import VerificationError as VerificationError
from functorch_kit.certify.resuming import verify_resume as verify_resume

__all__ = [
    "Certificate",
    "Difference",
    "Replay",
    "VerificationError",
    "replay",
    "replay_step",
    "verify_resume",
]
