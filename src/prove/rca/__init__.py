"""Root cause analysis: an incident's bundle in, ranked causes with their evidence out. Pure."""
