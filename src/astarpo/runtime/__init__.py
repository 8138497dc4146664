"""Files, locks, stopping, seeds and progress: what every part of the package stands on."""
