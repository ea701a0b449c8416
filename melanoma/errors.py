"""Expected errors. Each ends a command with one message, without a traceback, and with its own exit code.

A message states what happened, what was expected and what to do. It ends with the received value.
"""

__all__ = [
    "FAILURE_FILE_VARIABLE",
    "AuditFailed",
    "ConfigError",
    "DataError",
    "MelanomaError",
    "ModelError",
    "PromotionRefused",
    "RunKilled",
    "RunPruned",
    "TrackingError",
    "TrainingError",
    "TrialsFailed",
]


FAILURE_FILE_VARIABLE = "MELANOMA_FAILURE_FILE"  # environment variable: file for the error message of a command


class MelanomaError(Exception):
    """Base class of errors that the user can fix, as opposed to bugs."""

    exit_code = 2


class ConfigError(MelanomaError):
    """The configuration has one or more faults; the message lists all of them."""

    def __init__(self, faults: list[str]):
        self.faults = faults
        if len(faults) == 1:
            super().__init__(faults[0])
        else:
            super().__init__(f"{len(faults)} faults in the configuration:\n" + "\n".join(f"  - {f}" for f in faults))


class AuditFailed(MelanomaError):
    """An audit found a problem that `audit.fail_on` lists."""

    exit_code = 3


class DataError(MelanomaError):
    """The data set is not usable in its present state."""


class ModelError(MelanomaError):
    """A model or its weights cannot be found, loaded or used with this data."""


class TrackingError(MelanomaError):
    """The tracking store, or the disk of its files, cannot be written any more."""


class TrainingError(MelanomaError):
    """Training failed in a way that a change of the configuration can fix, such as a NaN loss."""

    exit_code = 1


class TrialsFailed(MelanomaError):
    """Some trials of a sweep failed; the others finished."""

    exit_code = 4


class PromotionRefused(MelanomaError):
    """A model failed a gate and was not promoted; the champion has not changed."""

    exit_code = 5


class RunPruned(MelanomaError):
    """The pruner of a sweep stopped a trial early."""

    exit_code = 0


class RunKilled(BaseException):
    """The process received SIGTERM. Not an `Exception`, so that no `except Exception` catches it."""

    exit_code = 143
