"""livi-index: find every version of a song by what is sung in it."""

__version__ = "0.1.0"
