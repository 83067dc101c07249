"""Event logs as pages: what ``cosmic report`` shows, by itself in one file."""
