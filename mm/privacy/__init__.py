"""Privacy: the one door for pixels, text rules, scrubbing, ledgers. Imports nothing else of mm."""

from mm.privacy.errors import DoorError, LedgerError, PrivacyError, ScrubError

__all__ = ["DoorError", "LedgerError", "PrivacyError", "ScrubError"]
