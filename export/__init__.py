"""The workshop: it makes model bundles, and is never imported by ``livi_index``."""
