"""What a robot saw and did, step by step."""
