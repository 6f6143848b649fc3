"""Reading, writing and restoring files: data sets, pictures, sounds, gap labels, models."""
