"""The errors that a caller may want to tell apart.

    XrayVqaError
    ├── ConfigError         the command, a configuration or the environment is wrong; nothing was started
    ├── DatasetError        scans, annotations or pairs on disk are missing, broken or contradict each other
    │   └── ImageUnreadable one image cannot be decoded within the limits
    ├── ProviderError       a pair writer (an LLM or a local server) failed for good
    ├── AnswerUnreadable    a model answer has no meaning that we may act on
    ├── ModelUnavailable    weights cannot be loaded, do not fit together, or the engine is not running
    ├── Overloaded          more is asked for than can be answered in time
    ├── Incomplete          stopped before the end; the same command goes on from here
    ├── GateFailed          a result, or a number on the way to it, is not as it has to be; nothing is made of it
    └── IntegrityError      a digest or the audit chain does not match what was recorded

Exit codes are given to them in `cli/main.py`, status codes in `serving/errors.py`.
"""


class XrayVqaError(Exception):
    """Base of all errors that this package raises on purpose."""


class ConfigError(XrayVqaError):
    """A command, configuration, key or extra is missing or wrong; nothing was started."""


class DatasetError(XrayVqaError):
    """Scans, annotations or pairs on disk are missing, broken or contradict each other."""


class ImageUnreadable(DatasetError):
    """One image cannot be decoded within the limits. `code` is one of the names in `core/images.py`."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class ProviderError(XrayVqaError):
    """A pair writer failed in a way that another try does not mend."""


class AnswerUnreadable(XrayVqaError):
    """A model answer has no meaning that we may act on. `text` holds it for the record."""

    def __init__(self, message: str, *, text: str) -> None:
        super().__init__(message)
        self.text = text


class ModelUnavailable(XrayVqaError):
    """Weights cannot be loaded, do not fit together, or the engine is not running."""


class Overloaded(XrayVqaError):
    """More was asked for than can be answered in time."""


class Incomplete(XrayVqaError):
    """Stopped before the end (budget, network, full disk); the same command goes on from here."""


class GateFailed(XrayVqaError):
    """A result, or a number on the way to it, is not as it has to be: what was there before stays in its place."""


class IntegrityError(XrayVqaError):
    """A digest does not match what was recorded."""
