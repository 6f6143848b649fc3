"""What people bring and take away: pictures, sounds and trained models as files."""
