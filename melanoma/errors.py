"""Expected failures. Each ends a command with one message, no traceback, and its exit code.

A message says what happened, what was expected and what to do, and ends in what was received.
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
    "TrainingError",
    "TrialsFailed",
]


FAILURE_FILE_VARIABLE = "MELANOMA_FAILURE_FILE"  # environment: where a command writes the message of its failure


class MelanomaError(Exception):
    """Base of all failures that are the user's to mend rather than a bug."""

    exit_code = 2


class ConfigError(MelanomaError):
    """One or more faults in the configuration, all of them listed."""

    def __init__(self, faults: list[str]):
        self.faults = faults
        if len(faults) == 1:
            super().__init__(faults[0])
        else:
            super().__init__(f"{len(faults)} faults in the configuration:\n" + "\n".join(f"  - {f}" for f in faults))


class AuditFailed(MelanomaError):
    """An audit found what it was told to fail on."""

    exit_code = 3


class DataError(MelanomaError):
    """The data set cannot be used as it is."""


class ModelError(MelanomaError):
    """A model or its weights cannot be found, loaded or used with this data."""


class TrainingError(MelanomaError):
    """Training went wrong in a way a change of configuration can mend, such as a NaN loss."""

    exit_code = 1


class TrialsFailed(MelanomaError):
    """Some trials of a sweep failed; the others are done."""

    exit_code = 4


class PromotionRefused(MelanomaError):
    """A model did not show what it must show before it is promoted; what was the champion still is."""

    exit_code = 5


class RunPruned(MelanomaError):
    """A trial of a sweep fell behind the others and was stopped, as the sweep was told to."""

    exit_code = 0


class RunKilled(BaseException):
    """SIGTERM arrived. Not an `Exception`, so that nothing on the way up swallows it."""

    exit_code = 143
