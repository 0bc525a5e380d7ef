"""Errors of the privacy code. Messages are one line and never quote what a file holds."""


class PrivacyError(Exception):
    """Base of every error that `mm.privacy` raises on purpose."""


class DoorError(PrivacyError):
    """A picture did not get through the door.

    Args:
        reason: machine code: missing, unreadable, empty, not-an-image, unsupported, truncated,
            corrupt, too-large, too-many-frames, too-many-chunks, several-pages or too-slow.
        detail: one line for a person, free of file names and of file content.
        position: index of the picture among the caller's pictures, when it knows one.
    """

    def __init__(self, reason: str, detail: str, position: int | None = None) -> None:
        super().__init__(reason, detail, position)
        self.reason = reason
        self.detail = detail
        self.position = position

    def __str__(self) -> str:
        where = "" if self.position is None else f"picture {self.position}: "
        return f"{where}{self.reason}: {self.detail}"


class ScrubError(PrivacyError):
    """Scrubbing as a whole cannot start or go on; no shards were written."""


class OutputError(ScrubError):
    """The shards cannot be written for now; what is done is kept for the next run."""


class LedgerError(PrivacyError):
    """Shards that are missing, edited or not audited; the message names the command that helps."""
