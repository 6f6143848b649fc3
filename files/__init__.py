"""What people bring and take away: data sets, pictures, recordings, gap labels, models."""
