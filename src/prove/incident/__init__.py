"""Incidents: the catalogue of scenarios, their runs, and what a run leaves to be studied."""
