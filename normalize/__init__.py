"""Raw frames to records: mapping, continuity, coverage. Never touches network or local clock."""
