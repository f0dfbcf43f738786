"""Scales for other people: exported in forms that other software loads, uploaded, and asked a question with."""
