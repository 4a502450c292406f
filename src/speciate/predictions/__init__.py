"""The log of answers and feedback: kept, sealed, read, redacted, and which answers to label next."""
