"""What the found heads and neurons do, alone and across tasks (hones analyze, hones explain)."""
