PROMPT = "Describe the image in one sentence."
