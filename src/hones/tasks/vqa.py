PROMPT = "Question: {question}\nAnswer the question with a short phrase."
