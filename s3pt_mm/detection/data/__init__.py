"""What PETR reads."""
