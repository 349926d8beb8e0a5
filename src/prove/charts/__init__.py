"""The Helm chart `charts/prove`: what it takes from elsewhere, and what is made from it."""
