"""What prove's Python services share: settings, telemetry, logs, problems, health, faults."""
