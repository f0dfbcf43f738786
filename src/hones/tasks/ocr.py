PROMPT = "Transcribe the text inside the blue box.\nOutput text only."
