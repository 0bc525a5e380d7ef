"""Pictures composed from scrubbed artwork, described and questioned in English and Korean."""
