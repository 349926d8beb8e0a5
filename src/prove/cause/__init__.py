"""What stands around `prove.rca`: where its bundles come from, and how its answer is told."""
