"""What every room may use: files, errors."""
