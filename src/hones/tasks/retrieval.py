PROMPT = "Candidate: {candidate}\nDoes the candidate correctly describe the image?\nAnswer exactly Yes or No."
