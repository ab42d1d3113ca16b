"""The two encoders with representation tokens, and which model takes which."""
